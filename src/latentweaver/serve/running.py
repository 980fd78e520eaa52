"""Starting a server, and ending it so that nobody's answer is lost."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from latentweaver.errors import InputError
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
    """Load a model and serve it; says where once it does. SIGTERM and SIGINT stop listening, let running requests finish, and end.

    Args:
        model_name: as in `load`.
        host: address to listen on. With one that is not loopback, requests under any host name are answered.
        port: port to listen on.
        settings: limits.

    Raises:
        InputError: if the address cannot be listened on; as `load` and `Engine`.
        CheckpointError: as `load`.
    """
    import torch
    import uvicorn

    from latentweaver.checkpoints.loading import load, load_tokenizer
    from latentweaver.checkpoints.names import NAMES
    from latentweaver.serve.closing import DrainingServer
    from latentweaver.serve.patience import ImpatientProtocol

    listening = _bound(host, port)  # before the model is loaded, which takes longer than to find out that the port is taken
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    model = load(model_name, dtype=settings.dtype, device=settings.device)
    name = Path(model_name).name if Path(model_name).exists() else model_name  # a path is nobody's business
    example = NAMES[model_name].example if model_name in NAMES else ""
    app = build(name, model, load_tokenizer(model_name), settings, _loopback(host), example)
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        limit_concurrency=settings.connections,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=settings.drain_seconds + 5,  # what is ended by then has its last events to write
        h11_max_incomplete_event_size=64 << 10,
        http=ImpatientProtocol.of(settings.header_seconds),
    )
    shown = f"[{host}]" if ":" in host else host
    print(f"{name} is served at http://{shown}:{listening.getsockname()[1]} (end it with Ctrl+C)", flush=True)
    DrainingServer(config, app.state.deadlines, settings.drain_seconds).run(sockets=[listening])


def _bound(host: str, port: int) -> socket.socket:
    """A socket that will listen there.

    Raises:
        InputError: if none can.
    """
    if not 0 <= port < 1 << 16:
        raise InputError(f"port must lie in 0 to 65535, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was given up a moment ago is free
        listening.bind(address)
    except OSError as error:
        raise InputError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
    return listening


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
