"""Throughput of the depth-batched engine against batches of fixed depth, at equal answers.

    python benchmarks/serving.py [--out benchmarks/results]

The model is Huginn's form at width 512 (prelude 2, core 4, coda 2; 8192 tokens) with random weights: what is compared is
scheduling, and a state that settles at a different step for every token is all it needs. The mix: 48 requests, prompts of 8 to 32
tokens and answers of 4 to 20 (both uniform), 24 at once, keys of the last step kept ("shared"). Depth at most 32; a token stops
when a step moves its state by less than 0.3 %. Systems, in turn on the same requests, several times over:

    generate       `model.generate`, a batch of 24 in order of arrival, 32 steps for every token: what the reference does
    fixed depth    the engine with 32 steps for every token: continuous batching over tokens, as engines for fixed depth do
    exits, synchronous   the engine with exits, but the next tokens enter only when every token has left: early exit without
                   continuous depth
    engine         the engine with exits

Time is CPU time of one thread, so that neighbours on the machine disturb it little. Answers are compared token for token with
those of "fixed depth".
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers

from latentweaver.halting import StateChange
from latentweaver.models.config import RecurrentDepthConfig
from latentweaver.models.recurrent_depth import RecurrentDepthForCausalLM
from latentweaver.runtime.engine import Engine
from latentweaver.runtime.request import Request
from latentweaver.runtime.running import Running

STEPS, SLOTS, REQUESTS, THRESHOLD = 32, 24, 48, 0.003
Answers = list[list[int]]


class SynchronousEngine(Engine):
    """Tokens begin together: those that are new wait until nobody is in the middle of a thought."""

    def _choose(self) -> list[Running]:
        chosen = super()._choose()
        busy = [running for running in chosen if running.front is not None and (running.front.halted or running.front.step)]
        return busy or chosen


def make_requests(seed: int) -> list[Request]:
    drawn = torch.Generator().manual_seed(seed)
    requests = []
    for _ in range(REQUESTS):
        length, answer = int(torch.randint(8, 33, (), generator=drawn)), int(torch.randint(4, 21, (), generator=drawn))
        requests.append(Request(torch.randint(8192, (length,), generator=drawn).tolist(), answer, num_steps=STEPS))
    return requests


def by_generate(model: RecurrentDepthForCausalLM, requests: list[Request]) -> tuple[Answers, int]:
    answers: Answers = []
    for at in range(0, len(requests), SLOTS):
        batch = requests[at : at + SLOTS]
        width = max(len(request.prompt) for request in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, request in enumerate(batch):
            ids[row, width - len(request.prompt) :] = torch.tensor(request.prompt)
            mask[row, width - len(request.prompt) :] = 1
        longest = max(request.max_new_tokens for request in batch)
        out = model.generate(ids, attention_mask=mask, num_steps=STEPS, max_new_tokens=longest, cache_policy="shared", pad_token_id=0)
        answers += [out[row, width : width + request.max_new_tokens].tolist() for row, request in enumerate(batch)]
    return answers, STEPS * sum(map(len, answers))


def by_engine(
    model: RecurrentDepthForCausalLM, requests: list[Request], rule: StateChange | None, kind: type[Engine] = Engine, patience: int = 0
) -> tuple[Answers, int]:
    engine = kind(model, slots=SLOTS, capacity=128, max_steps=STEPS, policy="shared", patience=patience)
    handles = [engine.submit(Request(r.prompt, r.max_new_tokens, STEPS, rule)) for r in requests]
    while not engine.idle:
        engine.tick()
    return [handle.tokens for handle in handles], engine.counts.steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the JSON record")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = RecurrentDepthForCausalLM(RecurrentDepthConfig(vocab_size=8192, num_steps=STEPS)).eval()
    rule = StateChange(THRESHOLD)
    systems: dict[str, Callable[[list[Request]], tuple[Answers, int]]] = {
        "generate": lambda requests: by_generate(model, requests),
        "fixed depth": lambda requests: by_engine(model, requests, None),
        "exits, synchronous": lambda requests: by_engine(model, requests, rule, SynchronousEngine),
        "engine": lambda requests: by_engine(model, requests, rule),
        "engine, patience 2": lambda requests: by_engine(model, requests, rule, patience=2),
    }
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in systems}
    for number in range(options.rounds):
        requests = make_requests(number)
        answers: dict[str, Answers] = {}
        order = list(systems)[number % len(systems) :] + list(systems)[: number % len(systems)]  # nobody is always first
        for name in order:
            began = time.process_time()
            answers[name], steps = systems[name](requests)
            seconds = time.process_time() - began
            tokens = sum(map(len, answers[name]))
            rows[name].append({"seconds": seconds, "tokens": tokens, "steps": steps})
        for name in systems:
            pairs = list(zip(answers[name], answers["fixed depth"], strict=True))
            rows[name][-1]["equal_answers"] = sum(one == other for one, other in pairs) / len(pairs)
            result = rows[name][-1]
            print(
                f"round {number}  {name:20} {result['tokens'] / result['seconds']:7.1f} tokens per CPU second, "
                f"{result['steps'] / result['tokens']:5.1f} steps a token, {result['equal_answers']:.0%} of answers equal",
                flush=True,
            )
    speed = {name: [row["tokens"] / row["seconds"] for row in runs] for name, runs in rows.items()}
    ratios = {
        f"{name} / {other}": statistics.median(a / b for a, b in zip(speed[name], speed[other], strict=True))
        for name, other in (
            ("engine", "generate"),
            ("engine", "fixed depth"),
            ("engine", "exits, synchronous"),
            ("engine, patience 2", "fixed depth"),
        )
    }
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC)
        record = {
            "benchmark": "serving",
            "date": now.isoformat(timespec="seconds"),
            "machine": {"processor": _processor(), "threads": torch.get_num_threads()},
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__},
            "mix": {"steps": STEPS, "slots": SLOTS, "requests": REQUESTS, "threshold": THRESHOLD},
            "rounds": rows,
            "median_ratios": ratios,
        }
        (options.out / f"serving-{now:%Y-%m-%d}.json").write_text(json.dumps(record, indent=1) + "\n")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
