"""From a checked request to pieces of text, and to OpenAI's objects."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from latentweaver.runtime.request import Event
from latentweaver.serve.closing import Closing, Deadlines
from latentweaver.serve.metrics import Metrics
from latentweaver.serve.text import TextStream
from latentweaver.serve.worker import Stream


@dataclass
class Piece:
    """Some text of one choice, the tokens that brought it, and why it ended if it did."""

    choice: int
    text: str
    events: list[Event] = field(default_factory=list)
    reason: str | None = None


async def pieces(
    streams: Sequence[Stream], tokenizer: Any, stops: Sequence[str], seconds: float, deadlines: Deadlines, metrics: Metrics
) -> AsyncIterator[Piece]:
    """The texts of several choices as they come, mixed.

    Raises:
        Broken: if the engine failed.
        Closing: if the server ends before anything was written.
    """
    said: asyncio.Queue[Piece | BaseException] = asyncio.Queue()

    async def follow(choice: int, stream: Stream) -> None:
        try:
            async for piece in _write(choice, stream, TextStream(tokenizer, stops), seconds, deadlines, metrics):
                said.put_nowait(piece)
        except Exception as error:
            said.put_nowait(error)

    async with AsyncExitStack() as stack:
        for stream in streams:
            await stack.enter_async_context(stream)
        tasks = [asyncio.create_task(follow(choice, stream)) for choice, stream in enumerate(streams)]
        stack.callback(lambda: [task.cancel() for task in tasks])
        running = len(streams)
        while running:
            piece = await said.get()
            if isinstance(piece, BaseException):
                raise piece
            running -= piece.reason is not None
            yield piece


async def _write(
    choice: int, stream: Stream, text: TextStream, seconds: float, deadlines: Deadlines, metrics: Metrics
) -> AsyncIterator[Piece]:
    began = time.monotonic()
    held: list[Event] = []
    reason = "length"  # what running out of time counts as
    try:
        async with deadlines.within(seconds):
            async for event in stream:
                if event.token is not None:
                    if not text.tokens:
                        metrics.first.observe(time.monotonic() - began)
                    metrics.tokens.inc()
                    metrics.steps.observe(event.steps)
                    held.append(event)
                    said = text.push(event.token)
                    if text.stopped:
                        reason = "stop"
                        yield Piece(choice, said, held)
                        held = []
                        break
                    if said:
                        yield Piece(choice, said, held)
                        held = []
                if event.reason is not None:
                    reason = event.reason
    except TimeoutError:
        if deadlines.closing and not text.tokens:
            metrics.ended.labels("cancelled").inc()
            raise Closing("the server ends; nothing was written yet") from None
    except (asyncio.CancelledError, GeneratorExit):  # whoever asked has gone
        metrics.ended.labels("cancelled").inc()
        raise
    metrics.whole.observe(time.monotonic() - began)
    metrics.ended.labels(reason).inc()
    if reason == "error":
        raise ValueError(stream.handle.error or "the request failed")
    yield Piece(choice, text.flush(), held, "stop" if text.stopped else reason)


class Shape:
    """OpenAI's objects for one HTTP request, chat or plain.

    Beside OpenAI's fields, a choice has `steps` (how many steps each of its tokens took) and the usage has `thinking_steps`
    (their sum over the answer).
    """

    def __init__(self, chat: bool, model: str, tokenizer: Any, logprobs: bool, streams: Sequence[Stream]) -> None:
        self.chat, self.tokenizer, self.logprobs, self.streams = chat, tokenizer, logprobs, streams
        kind = "chat.completion" if chat else "text_completion"
        self.kind, self.chunk_kind = kind, "chat.completion.chunk" if chat else kind
        self.head = {"id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def chunk(self, piece: Piece, first: bool) -> dict[str, Any]:
        """One event of a stream."""
        choice: dict[str, Any] = {"index": piece.choice, "finish_reason": piece.reason, "logprobs": self._logprobs(piece.events)}
        choice["steps"] = [event.steps for event in piece.events]
        if self.chat:
            choice["delta"] = {**({"role": "assistant"} if first else {}), **({"content": piece.text} if piece.text or first else {})}
        else:
            choice["text"] = piece.text
        return {**self.head, "object": self.chunk_kind, "choices": [choice]}

    def usage_chunk(self) -> dict[str, Any]:
        return {**self.head, "object": self.chunk_kind, "choices": [], "usage": self.usage()}

    def whole(self, said: Sequence[Piece]) -> dict[str, Any]:
        """The answer in one."""
        choices = []
        for index in range(len(self.streams)):
            mine = [piece for piece in said if piece.choice == index]
            text, events = "".join(piece.text for piece in mine), [event for piece in mine for event in piece.events]
            choice: dict[str, Any] = {"index": index, "finish_reason": mine[-1].reason, "logprobs": self._logprobs(events)}
            choice["steps"] = [event.steps for event in events]
            choice |= {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
            choices.append(choice)
        return {**self.head, "object": self.kind, "choices": choices, "usage": self.usage()}

    def usage(self) -> dict[str, Any]:
        handles = [stream.handle for stream in self.streams]
        prompt = sum(len(handle.request.prompt) for handle in handles)
        written = sum(len(handle.tokens) for handle in handles)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": sum(handle.reused for handle in handles)},
            "thinking_steps": sum(sum(handle.steps) for handle in handles),
        }

    def _logprobs(self, events: Sequence[Event]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        if self.chat:
            content = [
                {**self._named(event.token, event.logprob), "top_logprobs": [self._named(*pair) for pair in event.likely]}
                for event in events
            ]
            return {"content": content, "refusal": None}
        return {
            "tokens": [self._text(event.token) for event in events],
            "token_logprobs": [event.logprob for event in events],
            "top_logprobs": [{self._text(token): value for token, value in event.likely} for event in events],
            "text_offset": [],
        }

    def _named(self, token: int | None, logprob: float | None) -> dict[str, Any]:
        text = self._text(token)
        return {"token": text, "logprob": max(logprob or 0.0, -9999.0), "bytes": list(text.encode())}

    def _text(self, token: int | None) -> str:
        return self.tokenizer.decode([token])
