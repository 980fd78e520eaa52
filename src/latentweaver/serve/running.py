"""Starting a server, and ending it so that nobody's answer is lost."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from latentweaver.runtime.engine import Engine
from latentweaver.serve.app import make_app
from latentweaver.serve.settings import Settings
from latentweaver.serve.worker import Worker


def build(name: str, model: Any, tokenizer: Any, settings: Settings, local: bool = True, example: str = "") -> FastAPI:
    """The application for a loaded model; for those who run it in a server of their own. Arguments as in `make_app`."""

    def engine() -> Engine:
        return Engine(
            model,
            slots=settings.slots,
            capacity=settings.capacity,
            max_steps=settings.max_steps,
            policy=settings.cache,
            queue=settings.queue,
            patience=settings.patience,
        )

    return make_app(name, tokenizer, Worker(engine), settings, local, example)


def run(model_name: str, host: str, port: int, settings: Settings) -> None:
    """Load a model and serve it. SIGTERM and SIGINT stop listening, let running requests finish, and end.

    Args:
        model_name: as in `load`.
        host: address to listen on. With one that is not loopback, requests under any host name are answered.
        port: port to listen on.
        settings: limits.

    Raises:
        CheckpointError, InputError: as `load` and `Engine`.
    """
    import torch
    import uvicorn

    from latentweaver.checkpoints.loading import load, load_tokenizer
    from latentweaver.checkpoints.names import NAMES
    from latentweaver.serve.patience import ImpatientProtocol

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    model = load(model_name, dtype=settings.dtype, device=settings.device)
    name = Path(model_name).name if Path(model_name).exists() else model_name  # a path is nobody's business
    example = NAMES[model_name].example if model_name in NAMES else ""
    app = build(name, model, load_tokenizer(model_name), settings, _loopback(host), example)
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        server_header=False,
        limit_concurrency=settings.connections,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=settings.drain_seconds,
        h11_max_incomplete_event_size=64 << 10,
        http=ImpatientProtocol.of(settings.header_seconds),
    )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
