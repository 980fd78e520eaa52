"""How long answers may take: each its own time, and all of them what is left once the server has been told to end.

uvicorn breaks off what still runs when its patience with a SIGTERM is over: a stream without an end, a connection reset. Here every
answer learns of the time first, and ends as one that has run out of its own: with what it has so far, a finish reason, and the last event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn

from latentweaver.errors import LatentweaverError


class Closing(LatentweaverError):
    """The server ends, and nothing of the answer had been written yet: ask again elsewhere, or later."""


class Deadlines:
    """The times by which the answers under way must have ended."""

    def __init__(self) -> None:
        self.running: set[asyncio.Timeout] = set()
        self.last: float | None = None  # for all, by the event loop's clock

    @property
    def closing(self) -> bool:
        """Whether the server has been told to end."""
        return self.last is not None

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """Raise TimeoutError around what takes longer than `seconds`, or than the server has."""
        async with asyncio.timeout(seconds) as limit:
            self.running.add(limit)
            try:
                self._shorten(limit)
                yield
            finally:
                self.running.discard(limit)

    def close_in(self, seconds: float) -> None:
        """Everything that runs, and whatever comes yet, must have ended by then; call it in the event loop."""
        self.last = asyncio.get_running_loop().time() + seconds
        for limit in self.running:
            self._shorten(limit)

    def _shorten(self, limit: asyncio.Timeout) -> None:
        if self.last is not None and not limit.expired():
            limit.reschedule(min(limit.when() or self.last, self.last))


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which tells the answers under way how long they have once it is told to end."""

    def __init__(self, config: uvicorn.Config, deadlines: Deadlines, seconds: float) -> None:
        super().__init__(config)
        self.deadlines, self.seconds = deadlines, seconds

    async def shutdown(self, sockets: list | None = None) -> None:
        self.deadlines.close_in(self.seconds)
        await super().shutdown(sockets)
