"""A client that asks and then does not read what it is sent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("starlette")
from latentweaver.serve.guard import Guard
from latentweaver.serve.settings import Settings


def test_a_client_that_does_not_read_is_dropped() -> None:
    closed = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        finally:
            closed.append(True)

    async def never(message: Any) -> None:
        await asyncio.sleep(60)

    async def nothing() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/health", "headers": [(b"host", b"localhost:80")]}
    with pytest.raises(TimeoutError):
        asyncio.run(Guard(app, Settings(write_seconds=0.05), True)(scope, nothing, never))
    assert closed == [True]
