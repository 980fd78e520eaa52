"""The routes of the server, and its errors in OpenAI's shape."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from latentweaver.errors import InputError, LatentweaverError
from latentweaver.runtime import request as engine_request
from latentweaver.runtime.request import Busy
from latentweaver.serve.answers import Piece, Shape, pieces
from latentweaver.serve.closing import Closing, Deadlines
from latentweaver.serve.guard import Guard, problem
from latentweaver.serve.metrics import Metrics
from latentweaver.serve.settings import Settings
from latentweaver.serve.text import Penalties
from latentweaver.serve.wire import EFFORTS, ChatRequest, Common, CompletionRequest
from latentweaver.serve.worker import Broken, Stream, Worker

PAGE = Path(__file__).parent / "page"
T = TypeVar("T")


class Refused(LatentweaverError):
    """A request that is refused, with its HTTP status and what OpenAI's error object says."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


class Server:
    """A model behind HTTP: turns checked requests into the engine's, and the engine's events into answers."""

    def __init__(self, name: str, tokenizer: Any, worker: Worker, settings: Settings) -> None:
        self.name, self.tokenizer, self.worker, self.settings = name, tokenizer, worker, settings
        self.metrics = Metrics(worker)
        self.deadlines = Deadlines()
        self.born = int(time.time())

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        self._known(body)
        prompt = await asyncio.to_thread(self._chat_prompt, body)
        wanted = None if not body.logprobs else body.top_logprobs or 0
        return await self._answer(body, [prompt], body.max_completion_tokens or body.max_tokens, wanted, True, request)

    async def complete(self, body: CompletionRequest, request: Request) -> Response:
        self._known(body)
        prompts = body.prompts()
        if len(prompts) * (body.n or 1) > self.settings.max_choices:
            raise Refused(400, f"one request may ask for {self.settings.max_choices} texts", "prompt")
        tokens = [prompt if isinstance(prompt, list) else await asyncio.to_thread(self._encode, prompt) for prompt in prompts]
        return await self._answer(body, tokens, body.max_tokens or 16, body.logprobs, False, request)

    def _known(self, body: Common) -> None:
        if body.model != self.name:
            raise Refused(404, f"there is no model {body.model[:100]!r} here; there is {self.name!r}", "model", "model_not_found")
        if (body.n or 1) > self.settings.max_choices:
            raise Refused(400, f"n may be at most {self.settings.max_choices}", "n")

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text).input_ids

    def _chat_prompt(self, body: ChatRequest) -> list[int]:
        messages = [message.plain() for message in body.messages]
        if not getattr(self.tokenizer, "chat_template", None):  # a model of plain text goes on with what was said so far
            return self._encode("\n".join(message["content"] for message in messages))
        try:
            return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        except Exception as error:  # templates raise what they like, for roles in an order they do not know
            raise Refused(400, f"the chat template does not take these messages: {error}", "messages") from error

    async def _answer(
        self, body: Common, prompts: list[list[int]], most: int | None, logprobs: int | None, chat: bool, request: Request
    ) -> Response:
        streams: list[Stream] = []
        try:
            for number in range(len(prompts) * (body.n or 1)):
                prompt = prompts[number // (body.n or 1)]
                streams.append(await self.worker.submit(self._request(body, prompt, most, logprobs, number)))
        except BaseException:
            for stream in streams:
                await stream.__aexit__()
            raise
        self.metrics.prompt_tokens.inc(sum(map(len, prompts)))
        shape = Shape(chat, self.name, self.tokenizer, logprobs is not None, streams)
        said = pieces(streams, self.tokenizer, body.stops(), self.settings.request_seconds, self.deadlines, self.metrics)
        if body.stream:
            usage = body.stream_options is not None and body.stream_options.include_usage
            headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
            return _Streaming(streams, _events(shape, said, usage), headers)
        whole = await _unless_gone(request, _all(said))
        return JSONResponse(shape.whole(whole))

    def _request(self, body: Common, prompt: list[int], most: int | None, logprobs: int | None, number: int) -> engine_request.Request:
        room = self.worker.engine.capacity - len(prompt)
        if room < 1 or (most or 1) > room:
            raise Refused(
                400,
                f"the prompt has {len(prompt)} tokens and the answer may have {most or 1}; together at most {self.worker.engine.capacity}",
                code="context_length_exceeded",
            )
        vocabulary = self.worker.engine.model.config.vocab_size
        bias = {int(token): value for token, value in (body.logit_bias or {}).items()}
        if any(token >= vocabulary for token in bias):
            raise Refused(400, f"the vocabulary has {vocabulary} tokens", "logit_bias")
        penal = bool(body.presence_penalty or body.frequency_penalty or bias)
        penalties = [Penalties(len(prompt), body.presence_penalty or 0, body.frequency_penalty or 0, bias)] if penal else []
        return engine_request.Request(
            prompt,
            max_new_tokens=most or room,
            seed=None if body.seed is None else body.seed + number if body.seed < 2**62 else body.seed - number,
            sampling=body.sampling(),
            processors=penalties,
            logprobs=logprobs,
            **body.dial(self.settings.max_steps),
        )


class _Streaming(StreamingResponse):
    """Server-sent events of some streams, which are given up when it ends, also where it never began.

    A client that goes away while its request is being queued is noticed before the first event is asked for: a generator that has
    not been started has no `finally`.
    """

    def __init__(self, streams: list[Stream], events: AsyncIterator[str], headers: dict[str, str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self.streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            for stream in self.streams:
                await stream.__aexit__()


async def _all(said: AsyncIterator[Piece]) -> list[Piece]:
    return [piece async for piece in said]


async def _events(shape: Shape, said: AsyncIterator[Piece], usage: bool) -> AsyncIterator[str]:
    """Server-sent events: the pieces, the usage if asked for, the end; an error where one happens."""
    begun: set[int] = set()
    try:
        async for piece in said:
            yield _event(shape.chunk(piece, piece.choice not in begun))
            begun.add(piece.choice)
        if usage:
            yield _event(shape.usage_chunk())
        yield "data: [DONE]\n\n"
    except ValueError as error:
        yield _event(problem(str(error), "server_error", code="closing" if isinstance(error, Closing) else None))
    finally:
        await said.aclose()  # type: ignore[attr-defined]


def _event(what: dict[str, Any]) -> str:
    return f"data: {json.dumps(what)}\n\n"


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The work's result, unless the client goes away first: then the work is given up."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # the body has been read: what comes next is the client's leaving
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Refused(499, "the client went away")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def make_app(name: str, tokenizer: Any, worker: Worker, settings: Settings, local: bool = True, example: str = "") -> FastAPI:
    """The application.

    Args:
        name: what the model is called.
        tokenizer: its tokenizer.
        worker: the engine's thread, not yet started.
        settings: limits.
        local: whether only loopback names are answered to.
        example: a question that the model understands, for the page.
    """
    server = Server(name, tokenizer, worker, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await worker.stop()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.deadlines = server.deadlines
    app.add_middleware(Guard, settings=settings, local=local)
    app.post("/v1/chat/completions", response_model=None)(server.chat)
    app.post("/v1/completions", response_model=None)(server.complete)

    model = {
        "id": name,
        "object": "model",
        "created": server.born,
        "owned_by": "latentweaver",
        "max_steps": settings.max_steps,
        "capacity": worker.engine.capacity,
        "example": example,
        "efforts": {effort: min(steps, settings.max_steps) for effort, (steps, _) in EFFORTS.items()},
    }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{wanted:path}")
    async def one_model(wanted: str) -> dict[str, Any]:
        if wanted != name:
            raise Refused(404, f"there is no model {wanted[:100]!r} here; there is {name!r}", "model", "model_not_found")
        return model

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok" if worker.alive else "the engine has stopped"}, 200 if worker.alive else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    for path, file in (("/", "page.html"), ("/page.js", "page.js"), ("/page.css", "page.css")):
        app.get(path, include_in_schema=False)(lambda file=file: FileResponse(PAGE / file))

    @app.middleware("http")
    async def count(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await go_on(request)
        route = request.scope.get("route")
        server.metrics.requests.labels(getattr(route, "path", "other"), str(response.status_code)).inc()
        return response

    _add_errors(app)
    return app


def _wrong(errors: Sequence[Any]) -> tuple[str, str, str | None]:
    """Message, type and field of what pydantic found first; where a field may be of several kinds, what each of them would want."""
    first = errors[0]
    field = next((str(part) for part in first["loc"] if part != "body"), None) if first["type"] != "json_invalid" else None
    message = first["msg"].removeprefix("Value error, ")
    if field is None:
        return message if first["type"] == "value_error" else f"the body is no JSON object: {message}", "invalid_request_error", None
    of_field = [error for error in errors if field in error["loc"][:2]]
    own = next((error for error in of_field if error["type"] == "value_error"), None)  # said by us
    said = [own] if own else of_field
    message = "; or ".join(dict.fromkeys(error["msg"].removeprefix("Value error, ") for error in said))
    # between the names, pydantic says which kind of a union it tried
    where = ".".join(
        str(p) for p in said[0]["loc"] if isinstance(p, int) or (p.isidentifier() and p not in ("body", "str", "int", "Halting"))
    )
    return f"{where[:200]}: {message}"[:500], "invalid_request_error", field[:200]


def _add_errors(app: FastAPI) -> None:
    """Every error in OpenAI's shape."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return JSONResponse(problem(*_wrong(error.errors())), 400)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return JSONResponse(problem(error.message, param=error.param, code=error.code), error.status)

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> Response:
        return JSONResponse(problem(str(error), "rate_limit_error", code="queue_full"), 429, {"retry-after": "1"})

    @app.exception_handler(InputError)
    async def unusable(request: Request, error: InputError) -> Response:
        return JSONResponse(problem(str(error)), 400)

    @app.exception_handler(Broken)
    async def broken(request: Request, error: Broken) -> Response:
        return JSONResponse(problem(str(error), "server_error"), 500)

    @app.exception_handler(Closing)
    async def closing(request: Request, error: Closing) -> Response:
        return JSONResponse(problem(str(error), "server_error", code="closing"), 503, {"retry-after": "1", "connection": "close"})

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        return JSONResponse(problem(str(error.detail)), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return JSONResponse(problem("something failed here; the log says what", "server_error"), 500)
