"""The server from outside: the official client, a real process, and clients that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from latentweaver.checkpoints.loading import load, load_tokenizer, save
from latentweaver.errors import InputError

from .conftest import tiny

openai = pytest.importorskip("openai")
httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
from fastapi.testclient import TestClient  # noqa: E402

from latentweaver.serve import Settings, run  # noqa: E402
from latentweaver.serve.running import build  # noqa: E402

KEY = "a-key-for-tests"
PROGRAM = """
import sys
from latentweaver.serve import Settings, run
run(sys.argv[1], "127.0.0.1", int(sys.argv[2]), Settings(
    slots=4, queue=12, capacity=200, max_steps=16, body_bytes=1 << 16, body_seconds=1.5, header_seconds=1.5, threads=1, cache="full", drain_seconds=int(sys.argv[4]),
    api_key=sys.argv[3] or None, request_seconds=60))
"""
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that speaks bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={**{letter: n for n, letter in enumerate(alphabet)}, "<end>": 256}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", chat_template=TEMPLATE)
    path = tmp_path_factory.mktemp("models") / "tiny"
    save(tiny(vocab_size=257, max_position_embeddings=512), path, wrapped)
    return path


class Running:
    """A server in a process of its own."""

    def __init__(self, folder: Path, key: str = "", drain: int = 20) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), str(self.port), key, str(drain)], env=environment)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(self.url + "/health", timeout=1).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        self.process.kill()
        raise RuntimeError("the server did not start")

    def client(self, key: str = "x") -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url + "/v1", api_key=key, max_retries=0, timeout=60)

    def metric(self, name: str) -> float:
        for line in httpx.get(self.url + "/metrics").text.splitlines():
            if line.split(" ")[0] == f"latentweaver_{name}":
                return float(line.split(" ")[1])
        raise KeyError(name)

    def wait_until_empty(self) -> None:
        deadline = time.monotonic() + 20
        while self.metric("running") or self.metric("waiting"):
            assert time.monotonic() < deadline, "requests are still held"
            time.sleep(0.05)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:
    running = Running(folder)
    yield running
    running.close()


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return server.client()


def question(text: str = "hello", **fields) -> dict:
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 12, **fields}


class TestTheOfficialClientWorksUnchanged:
    def test_a_chat(self, client) -> None:
        answer = client.chat.completions.create(**question())
        assert answer.object == "chat.completion"
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].finish_reason in ("stop", "length")
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        assert answer.usage.thinking_steps == 4 * answer.usage.completion_tokens  # the model's own dial

    def test_a_stream_says_the_same(self, client) -> None:
        whole = client.chat.completions.create(**question())
        chunks = list(client.chat.completions.create(**question(stream=True, stream_options={"include_usage": True})))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole.choices[0].message.content
        assert chunks[-1].usage.thinking_steps == whole.usage.thinking_steps
        assert [step for chunk in chunks if chunk.choices for step in chunk.choices[0].steps] == whole.choices[0].steps

    def test_plain_completions(self, client) -> None:
        both = client.completions.create(model="tiny", prompt=["one", "two"], temperature=0, max_tokens=6)
        single = [client.completions.create(model="tiny", prompt=p, temperature=0, max_tokens=6) for p in ("one", "two")]
        assert [choice.text for choice in both.choices] == [answer.choices[0].text for answer in single]
        tokens = client.completions.create(model="tiny", prompt=[5, 6, 7], temperature=0, max_tokens=3, logprobs=2)
        assert len(tokens.choices[0].logprobs.token_logprobs) == 3

    @pytest.mark.parametrize(("effort", "most"), [("none", 1), ("low", 4), ("medium", 16), ("high", 16)])
    def test_effort_is_the_dial(self, client, effort: str, most: int) -> None:
        answer = client.chat.completions.create(**question(reasoning_effort=effort))
        assert max(answer.choices[0].steps) <= most
        assert effort not in ("none", "low") or set(answer.choices[0].steps) == {most}

    def test_steps_and_rules_by_name(self, client) -> None:
        fixed = client.chat.completions.create(**question(extra_body={"num_steps": "first:8,2"}))
        assert fixed.choices[0].steps == [8] + [2] * (len(fixed.choices[0].steps) - 1)
        rule = {"rule": "state_change", "threshold": 5.0}
        ruled = client.chat.completions.create(**question(extra_body={"num_steps": 16, "halting": rule}))
        assert max(ruled.choices[0].steps) < 16

    def test_a_seed_repeats(self, client) -> None:
        one, two, other = (client.chat.completions.create(**question(temperature=1, seed=seed)) for seed in (7, 7, 8))
        assert one.choices[0].message.content == two.choices[0].message.content != other.choices[0].message.content

    def test_several_choices_logprobs_and_penalties(self, client) -> None:
        answer = client.chat.completions.create(
            **question(n=3, temperature=1, seed=1, logprobs=True, top_logprobs=2, frequency_penalty=1, logit_bias={"40": -100})
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        assert all(len(entry.top_logprobs) == 2 for entry in answer.choices[0].logprobs.content)

    def test_a_stop_string_ends_the_answer_before_it(self, client) -> None:
        whole = client.chat.completions.create(**question(max_tokens=20, seed=3)).choices[0].message.content
        stop = next(letter for letter in whole[2:] if letter.isascii())
        answer = client.chat.completions.create(**question(max_tokens=20, seed=3, stop=stop))
        assert answer.choices[0].message.content == whole[: whole.index(stop)]
        assert answer.choices[0].finish_reason == "stop"

    def test_models_health_and_metrics(self, server, client) -> None:
        assert [model.id for model in client.models.list()] == ["tiny"]
        assert client.models.retrieve("tiny").max_steps == 16
        assert httpx.get(server.url + "/health").json() == {"status": "ok"}
        assert server.metric("tokens_total") > 0

    def test_a_crowd_is_answered_as_each_alone(self, server) -> None:
        """Many at once, with different dials: every answer is the one given before, alone."""
        asked = [question(f"number {n}", extra_body={"num_steps": 1 + n % 7}) for n in range(12)]
        alone = [server.client().chat.completions.create(**one).choices[0].message.content for one in asked]

        async def crowd() -> list[str]:
            async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="x", max_retries=0) as client:
                answers = await asyncio.gather(*(client.chat.completions.create(**one) for one in asked))
            return [answer.choices[0].message.content for answer in answers]

        assert asyncio.run(crowd()) == alone


class TestWhatIsWrongIsSaidInOpenAIsWords:
    @pytest.mark.parametrize(
        ("fields", "about"),
        [
            ({"messages": []}, "messages"),
            ({"messages": "hi"}, "messages"),
            ({"messages": [{"role": "wizard", "content": "hi"}]}, "messages"),
            ({"messages": [{"role": "user", "content": 5}]}, "messages"),
            ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages.0.content: half of a character"),
            ({"messages": [{"role": "user", "content": None}]}, "messages.0.content: Input should be a valid string; or"),
            ({"stop": ["\ud800"]}, "stop.0: half of a character"),
            ({"temperature": "hot"}, "temperature"),
            ({"temperature": -1}, "temperature"),
            ({"temperature": float("nan")}, ""),
            ({"max_tokens": 0}, "max_tokens"),
            ({"max_tokens": 10**9}, ""),
            ({"max_tokens": True}, "max_tokens"),
            ({"num_steps": 0}, ""),
            ({"num_steps": -5}, ""),
            ({"num_steps": 10**30}, ""),
            ({"num_steps": 2.5}, "num_steps"),
            ({"num_steps": "many"}, ""),
            ({"num_steps": "9" * 5000}, "at most 100 characters"),
            ({"num_steps": "9" * 99}, "at most 16"),
            ({"reasoning_effort": "heroic"}, "reasoning_effort"),
            ({"reasoning_effort": "low", "num_steps": 3}, "give reasoning_effort, or num_steps and halting, not both"),
            ({"halting": {"rule": "hunch"}}, "unknown rule 'hunch'"),
            ({"halting": {"rule": "kl", "threshold": -1}}, "halting"),
            ({"halting": {"rule": "kl", "patience": 3}}, ""),
            ({"num_step": 3}, "num_step"),
            ({"stop": ["a"] * 9}, "stop"),
            ({"stop": ""}, "stop"),
            ({"n": 99}, "n"),
            ({"logit_bias": {"x": 1}}, "logit_bias"),
            ({"logit_bias": {"999": 1}}, "logit_bias"),
            ({"tools": [{"type": "function"}]}, "tools"),
        ],
    )
    def test_fields(self, server, fields: dict, about: str) -> None:
        body = json.dumps({**question(), **fields}).encode()
        reply = httpx.post(server.url + "/v1/chat/completions", content=body, headers={"content-type": "application/json"})
        assert reply.status_code == 400, reply.text
        error = reply.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert about in (error["param"] or "") + error["message"]

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"5", b"\xff\xfe", b"[" * 60000, b'{"model": ' + b"9" * 5000 + b"}"])
    def test_bodies_that_are_no_json_object(self, server, body: bytes) -> None:
        reply = httpx.post(server.url + "/v1/completions", content=body, headers={"content-type": "application/json"})
        assert reply.status_code == 400, reply.text
        assert reply.json()["error"]["message"]

    def test_unknown_models_and_paths(self, server, client) -> None:
        with pytest.raises(openai.NotFoundError, match="no model"):
            client.chat.completions.create(**question(model="gpt-17"))
        assert httpx.get(server.url + "/v2/anything").json()["error"]
        assert httpx.get(server.url + "/v1/completions").status_code == 405

    def test_half_of_a_character_as_a_prompt(self, server) -> None:
        body = b'{"model": "tiny", "prompt": "\\ud800"}'
        reply = httpx.post(server.url + "/v1/completions", content=body, headers={"content-type": "application/json"})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "prompt")

    def test_too_large_too_slow_not_json_wrong_host(self, server) -> None:
        url, json_type = server.url + "/v1/completions", {"content-type": "application/json"}
        assert httpx.post(url, content=b" " * (1 << 17), headers=json_type).status_code == 413
        assert httpx.post(url, content=(b" " * 4096 for _ in range(32)), headers=json_type).status_code == 413
        assert httpx.post(url, content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
        assert httpx.get(server.url + "/health", headers={"host": "evil.example"}).status_code == 421
        assert httpx.get(server.url + "/health", headers={"host": "LocalHost:1"}).status_code == 200
        with socket.create_connection(("127.0.0.1", server.port)) as slow:
            slow.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
            )
            slow.settimeout(20)
            assert b"408" in slow.recv(4096)

    @pytest.mark.parametrize("reused", [False, True], ids=["new", "reused"])
    @pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHost: local"], ids=["silence", "half"])
    def test_headers_that_do_not_come_are_not_waited_for(self, server, sent: bytes, reused: bool) -> None:
        """On a new connection or on one that has had an answer; one more byte now and then does not help."""
        whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as slow:
            slow.settimeout(20)
            if reused:
                slow.sendall(whole)
                first = b""
                while b'"ok"}' not in first:
                    first += slow.recv(65536)
                sent = sent or b"G"
            slow.sendall(sent)
            began, answer = time.monotonic(), b""
            slow.setblocking(False)
            while time.monotonic() - began < 10:
                time.sleep(0.1)
                try:
                    if not (part := slow.recv(65536)):
                        break
                    answer += part
                except BlockingIOError:
                    if sent:
                        slow.send(b"x")
                except OSError:
                    break
            assert 1 < time.monotonic() - began < 5
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"too_slow" in answer

    def test_a_connection_may_be_used_for_longer_than_headers_may_take(self, server) -> None:
        """The limit is for headers, not for answers or for the connection."""
        with httpx.Client(base_url=server.url, timeout=60) as one:
            began = time.monotonic()
            while time.monotonic() - began < 2.5:
                body = question(max_tokens=20, num_steps=16, logit_bias={"256": -100})
                assert one.post("/v1/chat/completions", json=body).status_code == 200
                time.sleep(0.4)

    def test_a_context_too_long(self, client) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**question("x" * 500))
        assert caught.value.code == "context_length_exceeded"


def test_a_model_without_a_chat_template_goes_on_with_what_was_said(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = None
    app = build("tiny", load(folder, device="cpu"), tokenizer, Settings(slots=1, capacity=64))
    with TestClient(app, base_url="http://localhost") as client:
        options = {"model": "tiny", "temperature": 0, "max_tokens": 8, "num_steps": 2}
        messages = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "2+2?"}]
        chat = client.post("/v1/chat/completions", json={**options, "messages": messages}).json()["choices"][0]
        plain = client.post("/v1/completions", json={**options, "prompt": "1+1?\n2\n2+2?"}).json()["choices"][0]
    assert (chat["message"]["content"], chat["steps"]) == (plain["text"], plain["steps"])
    assert len(chat["steps"]) == 8


class TestItDoesNotBreak:
    def test_a_client_that_vanishes_gives_its_slot_back(self, server, client) -> None:
        before = server.metric("tokens_total")
        for stream in (True, False):
            body = json.dumps(question(max_tokens=150, stream=stream, num_steps=16, logit_bias={"256": -100})).encode()
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", server.port)) as gone:
                    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                    gone.sendall(head.encode() + body)
                    if stream:
                        gone.recv(512)
                    else:
                        time.sleep(0.1)
        server.wait_until_empty()
        assert server.metric("tokens_total") - before < 6 * 150
        assert client.chat.completions.create(**question()).choices

    def test_a_client_that_vanishes_while_it_queues_is_forgotten(self, server) -> None:
        """Reset before a single event was read, also before there was one: nobody is followed, and little was written."""
        before = server.metric("tokens_total")
        body = json.dumps(question(max_tokens=150, stream=True, num_steps=16, logit_bias={"256": -100})).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        for number in range(12):
            with socket.create_connection(("127.0.0.1", server.port)) as gone:
                gone.sendall(head.encode() + body)
                time.sleep(0.004 * number)
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.wait_until_empty()
        assert server.metric("followed") == 0
        assert server.metric("tokens_total") - before < 12 * 75

    def test_a_flood_is_refused_beyond_the_queue_and_the_rest_answered(self, server) -> None:
        async def flood() -> list[int]:
            async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=60)) as client:
                body = question("flood", max_tokens=30)
                replies = await asyncio.gather(*(client.post(server.url + "/v1/chat/completions", json=body) for _ in range(60)))
            texts = {reply.json()["choices"][0]["message"]["content"] for reply in replies if reply.status_code == 200}
            assert len(texts) == 1
            return [reply.status_code for reply in replies]

        codes = asyncio.run(flood())
        assert set(codes) <= {200, 429}
        assert codes.count(200) >= 16
        server.wait_until_empty()

    def test_sigterm_lets_running_answers_finish(self, folder: Path) -> None:
        server = Running(folder)
        body = question(max_tokens=120, stream=True, num_steps=16, logit_bias={"256": -100})
        with httpx.stream("POST", server.url + "/v1/chat/completions", json=body, timeout=60) as reply:
            lines = reply.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert '"finish_reason": "length"' in rest[-2]
        assert server.process.wait(30) in (0, -signal.SIGTERM)  # uvicorn ends with the signal once it has drained
        with pytest.raises(httpx.TransportError):
            httpx.get(server.url + "/health", timeout=2)

    def test_answers_that_outlast_the_drain_end_with_what_they_have(self, folder: Path) -> None:
        server = Running(folder, drain=1)
        body = question(max_tokens=150, num_steps=16, logit_bias={"256": -100})

        async def whole(client: httpx.AsyncClient) -> tuple[int, dict]:
            reply = await client.post(server.url + "/v1/chat/completions", json=body)
            return reply.status_code, reply.json()

        async def crowd() -> tuple[list[str], list[tuple[int, dict]], float]:
            async with httpx.AsyncClient(timeout=60) as client:
                async with client.stream("POST", server.url + "/v1/chat/completions", json={**body, "stream": True}) as reply:
                    lines = reply.aiter_lines()
                    await anext(lines)
                    others = [asyncio.create_task(whole(client)) for _ in range(14)]  # three run, the others wait
                    await anext(lines)
                    await asyncio.sleep(0.5)
                    server.process.send_signal(signal.SIGTERM)
                    told = time.monotonic()
                    rest = [line async for line in lines if line]
                return rest, await asyncio.gather(*others), time.monotonic() - told

        rest, others, seconds = asyncio.run(crowd())
        assert rest[-1] == "data: [DONE]"
        assert '"finish_reason": "length"' in rest[-2]
        assert seconds < 5
        for status, said in others:
            if status == 200:
                assert said["choices"][0]["finish_reason"] == "length" and said["usage"]["completion_tokens"] > 0
            else:
                assert status == 503 and said["error"]["code"] == "closing"
        assert {status for status, _ in others} == {200, 503}
        assert server.process.wait(10) in (0, -signal.SIGTERM)

    def test_a_key_is_asked_for(self, folder: Path) -> None:
        server = Running(folder, KEY)
        try:
            assert server.client(KEY).chat.completions.create(**question()).choices
            for wrong in ("none", "b" * len(KEY), KEY + "x"):
                with pytest.raises(openai.AuthenticationError):
                    server.client(wrong).chat.completions.create(**question())
            assert httpx.get(server.url + "/health").status_code == 200
            assert httpx.get(server.url + "/metrics").status_code == 401
        finally:
            server.close()


class TestWhatCannotBeServedIsSaidAtOnce:
    def test_addresses(self, folder: Path, server) -> None:
        for host, port, said in (
            ("127.0.0.1", server.port, "in use"),
            ("127.0.0.1", 1 << 16, "0 to 65535"),
            ("no.such.host.invalid", 1234, "no.such.host.invalid"),
        ):
            with pytest.raises(InputError, match=said):
                run(str(folder), host, port)

    def test_models_that_think_only_once(self) -> None:
        with pytest.raises(InputError, match="different steps"):
            run("weaver-graphs", "127.0.0.1", 0)


def test_the_page_carries_a_strict_policy_and_asks_nobody_else(server) -> None:
    page = httpx.get(server.url + "/")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "//" not in page.text.replace("<!doctype html>", "")
    assert httpx.get(server.url + "/page.js").status_code == httpx.get(server.url + "/page.css").status_code == 200
    assert "innerHTML" not in httpx.get(server.url + "/page.js").text
