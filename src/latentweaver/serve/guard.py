"""What stands before the routes: whose request it is, how large, how slow, and for which host."""

from __future__ import annotations

import asyncio
import hmac
import json
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latentweaver.serve.settings import Settings

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
OPEN = ("/", "/health", "/page.js", "/page.css")
"""Paths that need no key."""


def problem(message: str, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class Guard:
    """ASGI middleware: reads the body, within limits, before any route sees the request, and adds headers to every answer.

    A loopback server answers to loopback names only, so that a page elsewhere cannot reach it under a name of its own (DNS
    rebinding); and bodies must be JSON, which pages elsewhere cannot send without being asked first.
    """

    def __init__(self, app: ASGIApp, settings: Settings, local: bool) -> None:
        self.app, self.settings, self.local = app, settings, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            async with asyncio.timeout(self.settings.write_seconds):  # a client that does not read holds nothing for long
                await send(message)

        try:
            headers = {name.lower(): value for name, value in scope["headers"]}
            self._check(scope, headers)
            body = await self._body(scope, headers, receive)
        except _Refused as refused:
            await _answer(send_with_headers, refused)
            return
        given = False

        async def receive_body() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, receive_body, send_with_headers)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if self.local:
            host = headers.get(b"host", b"").decode("latin-1")
            name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
            if name.lower() not in _LOCAL:
                raise _Refused(421, "this server answers to loopback names only", "wrong_host")
        key = self.settings.api_key
        if key is not None and scope["path"] not in OPEN:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if not (hmac.compare_digest(given.strip(), key.encode()) and scheme.lower() == b"bearer"):
                raise _Refused(401, "the API key is missing or wrong; send it as 'Authorization: Bearer KEY'", "invalid_api_key")

    async def _body(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return b""
        most = self.settings.body_bytes
        if headers.get(b"content-length", b"").isdigit() and int(headers[b"content-length"]) > most:
            raise _Refused(413, f"the body may have {most} bytes", "body_too_large")
        if headers.get(b"content-type", b"").split(b";")[0].strip().lower() != b"application/json":
            raise _Refused(415, "the body must be JSON (content-type: application/json)", "not_json")
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Refused(400, "the client went away", "disconnected")
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise _Refused(413, f"the body may have {most} bytes", "body_too_large")
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            raise _Refused(408, f"the body did not arrive within {self.settings.body_seconds:g} seconds", "too_slow") from None


async def _answer(send: Send, refused: _Refused) -> None:
    kind = "authentication_error" if refused.status == 401 else "invalid_request_error"
    body = json.dumps(problem(refused.message, kind, code=refused.code)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
