"""The thread that owns the engine. Everybody else is asynchronous and speaks to it through a queue.

A `Stream` is what a request's coroutine holds: events arrive in it, and leaving it (in whatever way) gives the request up.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from latentweaver.errors import LatentweaverError
from latentweaver.runtime.engine import Engine
from latentweaver.runtime.request import Event, Handle, Request

log = logging.getLogger("latentweaver.serve")


class Broken(LatentweaverError):
    """The engine failed while it worked on the request; the message is in the log."""


@dataclass
class Stream:
    """A request's events as they come. Use it as an async context manager; leaving it cancels what still runs."""

    worker: Worker
    handle: Handle
    events: asyncio.Queue[Event | None]

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *error: Any) -> None:
        if self.handle.reason is None:
            self.worker.tell(self.handle.cancel)
        self.worker.streams.pop(self.handle, None)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self.events.get()) is not None:
            yield event
            if event.reason is not None:
                return
        raise Broken("the engine failed; try again")


class Worker:
    """Runs an engine in a thread of its own.

    Args:
        make: builds the engine; called again if one breaks.
    """

    def __init__(self, make: Callable[[], Engine]) -> None:
        self.make = make
        self.engine = make()
        self.streams: dict[Handle, Stream] = {}
        self.inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin; call it in the event loop that the streams will live in."""
        self.loop = asyncio.get_running_loop()
        self.thread.start()

    async def stop(self) -> None:
        """Let the thread end, and with it everything that still runs."""
        self.inbox.put(None)
        await asyncio.to_thread(self.thread.join, 10)

    @property
    def alive(self) -> bool:
        return self.thread.is_alive()

    def tell(self, what: Callable[[], None]) -> None:
        """Have the engine's thread do something between two ticks."""
        self.inbox.put(what)

    async def submit(self, request: Request) -> Stream:
        """Queue a request.

        Raises:
            InputError: if it cannot be answered.
            Busy: if the queue is full.
        """
        loop = asyncio.get_running_loop()
        admitted: asyncio.Future[Stream] = loop.create_future()
        given_up = threading.Event()

        def admit() -> None:
            if given_up.is_set():
                return
            try:
                handle = self.engine.submit(request)
            except Exception as error:
                loop.call_soon_threadsafe(_settle, admitted, None, error)
                return
            stream = self.streams[handle] = Stream(self, handle, asyncio.Queue())
            loop.call_soon_threadsafe(_settle, admitted, stream, None)

        self.tell(admit)
        try:
            return await asyncio.shield(admitted)
        except asyncio.CancelledError:
            given_up.set()
            admitted.add_done_callback(_abandon)
            raise

    def _run(self) -> None:
        stopping = False
        while not stopping:
            try:
                work = self.inbox.get(block=self.engine.idle)
                if work is None:
                    stopping = True
                else:
                    work()
                continue  # everything that was said before the next tick
            except queue.Empty:
                pass
            try:
                events = self.engine.tick()
            except Exception:
                log.exception("the engine failed; its requests end, and it is built anew")
                broken, self.streams = self.streams, {}
                self.engine = self.make()
                self._deliver([(stream, None) for stream in broken.values()])
                continue
            self._deliver([(stream, event) for event in events if (stream := self.streams.get(event.handle)) is not None])

    def _deliver(self, news: list[tuple[Stream, Event | None]]) -> None:
        def put() -> None:
            for stream, event in news:
                stream.events.put_nowait(event)

        if news and self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(put)


def _settle(future: asyncio.Future[Stream], stream: Stream | None, error: Exception | None) -> None:
    if error is not None:
        if not future.cancelled():
            future.set_exception(error)
    elif stream is not None:
        future.set_result(stream)


def _abandon(future: asyncio.Future[Stream]) -> None:
    """The coroutine that asked has gone, but the request was admitted: give it up."""
    if not future.cancelled() and future.exception() is None:
        stream = future.result()
        stream.worker.tell(stream.handle.cancel)
        stream.worker.streams.pop(stream.handle, None)
