"""`lw serve`: the OpenAI-compatible server."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Serve:
    """Serve a model to OpenAI clients; `reasoning_effort`, `num_steps` or `halting` sets the dial of each request."""

    model: Annotated[str, tyro.conf.Positional]
    """A name, a checkpoint folder, a GGUF file, or owner/repository on the hub."""

    host: str = "127.0.0.1"
    """The address to listen on."""

    port: int = 8000
    """The port to listen on."""

    slots: int = 16
    """Requests that are answered at once."""

    queue: int = 64
    """Requests that may wait; more are refused."""

    capacity: int = 2048
    """Most tokens of a request, prompt and answer together."""

    max_steps: int = 64
    """Deepest dial that a request may ask for."""

    cache: str = "shared"
    """Which steps' keys and values are kept: "full", "shared", "shared:K" or "anchor:N"."""

    api_key: str | None = None
    """What clients must send as bearer token; $LATENTWEAVER_API_KEY says it without showing it in the list of processes."""

    dtype: str = "auto"
    """Precision: "auto", "float32", "bfloat16", "float16"."""

    device: str = "auto"
    """Where to run: "auto", "cpu", "cuda", ..."""

    def __call__(self) -> None:
        from latentweaver.errors import InputError

        try:
            import fastapi  # noqa: F401
            import prometheus_client  # noqa: F401
            import uvicorn  # noqa: F401
        except ImportError as error:
            raise InputError(f"the server needs more packages: pip install 'latentweaver[serve]' ({error})") from error
        from latentweaver.serve import Settings, run

        options = asdict(self)
        model, host, port = (options.pop(name) for name in ("model", "host", "port"))
        options["api_key"] = self.api_key or os.environ.get("LATENTWEAVER_API_KEY")
        run(model, host, port, Settings(**options))
