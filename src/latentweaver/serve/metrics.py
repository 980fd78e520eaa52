"""What Prometheus reads: what came, what was said, and the steps that it took."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from latentweaver.serve.worker import Worker

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_STEPS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self, worker: Worker) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("latentweaver_requests", "HTTP requests answered.", ("path", "status"), registry=self.registry)
        self.ended = Counter("latentweaver_texts", "Texts ended, by why.", ("reason",), registry=self.registry)
        self.prompt_tokens = Counter("latentweaver_prompt_tokens", "Tokens of prompts.", registry=self.registry)
        self.tokens = Counter("latentweaver_tokens", "Tokens written.", registry=self.registry)
        self.steps = Histogram("latentweaver_steps_per_token", "Steps a token took.", buckets=_STEPS, registry=self.registry)
        self.first = Histogram("latentweaver_first_token_seconds", "Time to the first token.", buckets=_SECONDS, registry=self.registry)
        self.whole = Histogram("latentweaver_text_seconds", "Time to the end of a text.", buckets=_SECONDS, registry=self.registry)
        for name, about, value in (
            ("running", "Requests that have a slot.", lambda: len(worker.engine.running)),
            ("waiting", "Requests that wait for a slot.", lambda: len(worker.engine.waiting)),
            ("followed", "Requests whose client is waiting for more.", lambda: len(worker.streams)),
            ("ticks", "Passes of the engine.", lambda: worker.engine.counts.ticks),
            ("core_rows", "Positions times steps through the core.", lambda: worker.engine.counts.thought),
            ("reused_tokens", "Tokens of prompts whose keys were taken over.", lambda: worker.engine.counts.reused),
        ):
            Gauge(f"latentweaver_{name}", about, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
