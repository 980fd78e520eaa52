"""A client that opens a connection and does not get to the point: uvicorn's HTTP protocol with a limit on how long headers may take.

uvicorn limits how long an idle connection is kept between two requests, but not how slowly a request's first lines may trickle in
(the attack is called Slowloris). Here every request has `seconds` from the connection's opening, or from the first byte after an
earlier answer, to the end of its headers. What comes after them is `guard`'s business.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class ImpatientProtocol(H11Protocol):
    """Closes a connection whose request headers are not complete after `seconds`; `of(seconds)` makes such a class."""

    seconds: float = 10.0
    _deadline: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, seconds: float) -> type[asyncio.Protocol]:
        """The class with this limit."""
        return cast(type[asyncio.Protocol], type(cls.__name__, (cls,), {"seconds": seconds}))

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        """Let the clock run as long as the client's next request is not here; leave it alone if it runs already."""
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.seconds, self._give_up)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE or (self.cycle and not self.cycle.response_complete):
            return
        message = f"the headers did not arrive within {self.seconds:g} seconds"
        body = json.dumps({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": "too_slow"}}).encode()
        self.transport.write(
            b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
            + f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        self.transport.close()
