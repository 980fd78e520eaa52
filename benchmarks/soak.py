"""A soak of the server from outside: does anything get lost, mixed or leaked when clients are many, rude and slow?

    python benchmarks/soak.py [--seconds 200] [--model weaver-chains] [--out benchmarks/results]

Starts `lw serve` in a process of its own with few slots and a short queue, asks it a number of questions one by one, and then lets
loose on it for some minutes, all at once and at random:

    polite       the same questions, with different dials and halting rules, plain and streamed: text, steps and log-probabilities
                 must be those of the question asked alone (log-probabilities tell apart what a common digit would not)
    leaving      streams that are abandoned after a token or two
    killed       sockets that are reset while their answer is being worked on, or in the middle of a body
    slow         headers or bodies that trickle in, and connections that say nothing
    wrong        malformed bodies, absurd dials, unknown models

More ask at once than slots and queue hold, so that some are refused with 429. At the end nothing may run or wait, every polite
request must have been answered or refused, every engine slot must be free, the server's memory and open files must be what they
were after the first quarter, the questions must still have their answers, and at SIGTERM every answer under way must end as one:
finished, cut with a finish reason when the time to drain is over, or refused because nothing of it was written yet.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

SLOTS, QUEUE, CAPACITY = 4, 6, 256
DIALS: list[dict[str, Any]] = [
    {"num_steps": 4},
    {"num_steps": 20},
    {"num_steps": "first:16,2"},
    {"num_steps": 30, "halting": {"rule": "confidence"}},
    {"num_steps": 30, "halting": {"rule": "state_change", "threshold": 0.03}},
    {"num_steps": 8, "warm_start": True},
    {"reasoning_effort": "low"},
]
WRONG: list[tuple[int, bytes]] = [
    (400, b"{"),
    (400, b'{"model": "MODEL", "prompt": "a=1 ?a=", "num_steps": 1000000}'),
    (400, b'{"model": "MODEL", "prompt": "a=1 ?a=", "num_step": 3}'),
    (400, b'{"model": "MODEL", "prompt": 5}'),
    (400, b'{"model": "MODEL", "prompt": "a=1 ?a=", "max_tokens": 99999999}'),
    (404, b'{"model": "gpt-17", "prompt": "a=1 ?a="}'),
]


class Server:
    """`lw serve` in a process of its own."""

    def __init__(self, model: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.model = Path(model).name
        options = ["--port", self.port, "--slots", SLOTS, "--queue", QUEUE, "--capacity", CAPACITY, "--cache", "full", "--device", "cpu"]
        command = [sys.executable, "-c", "from latentweaver.cli import main; main()", "serve", model, *map(str, options)]
        self.process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
        self.watched = psutil.Process(self.process.pid)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(self.url + "/health", timeout=1).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
        self.process.kill()
        raise RuntimeError("the server did not start")

    def metrics(self) -> dict[str, float]:
        """What /metrics says, by name."""
        lines = httpx.get(self.url + "/metrics", timeout=30).text.splitlines()
        return {line.rsplit(" ", 1)[0].removeprefix("latentweaver_"): float(line.rsplit(" ", 1)[1]) for line in lines if line[0] != "#"}

    def held(self) -> tuple[float, int]:
        """Megabytes, and open files and sockets, of the process."""
        return self.watched.memory_info().rss / 2**20, self.watched.num_fds()

    def wait_until_empty(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while (now := self.metrics())["running"] or now["waiting"]:
            if time.monotonic() > deadline:
                raise AssertionError(f"requests are still held: {now['running']:g} running, {now['waiting']:g} waiting")
            time.sleep(0.1)


def questions(model: str, count: int = 24) -> list[dict[str, Any]]:
    """Bodies of different prompts, lengths and dials; what a sum of one has to do with another shows at once."""
    rng = random.Random(0)
    bodies = []
    for number in range(count):
        values = [rng.randrange(10) for _ in range(rng.randint(1, 6))]
        names = rng.sample("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", len(values))
        text = " ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        body = {
            "model": model,
            "prompt": f"{text} Z={names[0]}+{names[-1]} ?Z=",
            "temperature": 0,
            "max_tokens": rng.randint(2, 12),
            "logprobs": 1,
        }
        bodies.append({**body, **DIALS[number % len(DIALS)], "logit_bias": {"1": -100}})  # without it weaver-chains ends at once
    return bodies


def gist(answer: dict[str, Any]) -> tuple[str, list[int], list[float]]:
    """Text, steps and log-probabilities of an answer."""
    choice = answer["choices"][0]
    return choice["text"], choice["steps"], choice["logprobs"]["token_logprobs"]


def same(one: tuple[str, list[int], list[float]], other: tuple[str, list[int], list[float]]) -> bool:
    """Equal but for the rounding of sums in another order."""
    return one[:2] == other[:2] and all(abs(a - b) < 0.02 for a, b in zip(one[2], other[2], strict=True))


class Soak:
    """Everybody who bothers the server, and what came of it."""

    def __init__(self, server: Server, seconds: float) -> None:
        self.server = server
        self.bodies = questions(server.model)
        asyncio.run(self.fill())
        self.expected = [gist(self.ask_alone(body)) for body in self.bodies]
        self.end = time.monotonic() + seconds
        self.seen: Counter[str] = Counter()
        self.faults: list[str] = []
        self.samples: list[tuple[float, float, int]] = []

    async def fill(self) -> None:
        """Deep and long requests in every slot: the system gives the cache's memory page by page, as it is first written to."""
        tokens = [[2 + (place * (slot + 3)) % 50 for place in range(CAPACITY - 2)] for slot in range(SLOTS)]
        async with httpx.AsyncClient(base_url=self.server.url, timeout=300) as client:
            bodies = [{"model": self.server.model, "prompt": prompt, "num_steps": 64, "max_tokens": 2} for prompt in tokens]
            replies = await asyncio.gather(*(client.post("/v1/completions", json=body) for body in bodies))
        if any(reply.status_code != 200 for reply in replies):
            raise AssertionError(f"long requests were answered with {[reply.text[:200] for reply in replies]}")

    def ask_alone(self, body: dict[str, Any]) -> dict[str, Any]:
        reply = httpx.post(self.server.url + "/v1/completions", json=body, timeout=60)
        if reply.status_code != 200:
            raise AssertionError(f"{reply.status_code} for a question alone: {reply.text}")
        return reply.json()

    async def run(self) -> None:
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=10)
        async with httpx.AsyncClient(base_url=self.server.url, timeout=120, limits=limits) as client:
            crowd = [self.polite(client, seed) for seed in range(14)]
            crowd += [self.leaving(client, seed) for seed in range(3)] + [self.killed(seed) for seed in range(3)]
            crowd += [self.slow(seed) for seed in range(2)] + [self.wrong(client, 0), self.watch()]
            await asyncio.gather(*crowd)

    async def polite(self, client: httpx.AsyncClient, seed: int) -> None:
        rng = random.Random(seed)
        while time.monotonic() < self.end:
            number = rng.randrange(len(self.bodies))
            stream = rng.random() < 0.5
            kind = "streamed" if stream else "plain"
            self.seen[f"asked {kind}"] += 1
            if stream:
                status, found = await self.read_stream(client, self.bodies[number])
            else:
                reply = await client.post("/v1/completions", json=self.bodies[number])
                status, found = reply.status_code, gist(reply.json()) if reply.status_code == 200 else None
            if status == 429:
                self.seen[f"refused {kind}"] += 1
                await asyncio.sleep(rng.random() / 2)
            elif found is None:
                self.faults.append(f"{status} for question {number}")
            elif not same(found, self.expected[number]):
                self.faults.append(f"question {number} {kind}: {found} instead of {self.expected[number]}")
            else:
                self.seen[f"answered {kind}"] += 1
            if rng.random() < 0.1:
                await asyncio.sleep(rng.random())

    async def read_stream(self, client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[int, Any]:
        async with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as reply:
            if reply.status_code != 200:
                return reply.status_code, None
            text, steps, logprobs, done = "", [], [], False
            async for line in reply.aiter_lines():
                if line == "data: [DONE]":
                    done = True
                elif line.startswith("data: "):
                    choice = json.loads(line[6:])["choices"][0]
                    text, steps = text + choice["text"], steps + choice["steps"]
                    logprobs += choice["logprobs"]["token_logprobs"]
            return reply.status_code, (text, steps, logprobs) if done else None

    async def leaving(self, client: httpx.AsyncClient, seed: int) -> None:
        rng = random.Random(100 + seed)
        while time.monotonic() < self.end:
            body = {
                **rng.choice(self.bodies),
                "stream": True,
                "max_tokens": 100,
                "num_steps": 30,
                "halting": None,
                "reasoning_effort": None,
            }
            async with client.stream("POST", "/v1/completions", json=body) as reply:
                wanted = rng.randint(0, 3)
                async for line in reply.aiter_lines():
                    wanted -= line.startswith("data: ")
                    if wanted < 0:
                        break
                self.seen["left" if reply.status_code == 200 else "refused while leaving"] += 1
            await asyncio.sleep(rng.random())

    async def killed(self, seed: int) -> None:
        rng = random.Random(200 + seed)
        while time.monotonic() < self.end:
            body = json.dumps({**rng.choice(self.bodies), "max_tokens": 100, "stream": rng.random() < 0.5}).encode()
            sent = body[: len(body) // 2] if rng.random() < 0.3 else body
            _, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
            writer.write(_head(len(body)) + sent)
            await writer.drain()
            await asyncio.sleep(rng.random() / 2)
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )  # a reset, not a goodbye
            writer.transport.abort()
            self.seen["killed"] += 1
            await asyncio.sleep(rng.random())

    async def slow(self, seed: int) -> None:
        rng = random.Random(300 + seed)
        while time.monotonic() < self.end:
            kind = rng.choice(["headers", "body", "silence"])
            reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
            if kind == "body":
                writer.write(_head(50))
            began = time.monotonic()
            reading = asyncio.create_task(reader.read())
            while not reading.done() and time.monotonic() - began < 25:
                if kind != "silence":
                    writer.write(b"x")
                await asyncio.wait([reading], timeout=0.5)
            if not reading.done():
                self.faults.append(f"a client slow with its {kind} was held for {time.monotonic() - began:.0f} s")
                reading.cancel()
            elif isinstance(reading.exception(), ConnectionError):  # what we sent after the end has swept its answer away
                self.seen[f"slow {kind}: closed"] += 1
            elif b" 408 " not in reading.result()[:40]:
                self.faults.append(f"a client slow with its {kind} was told {reading.result()[:40]!r}")
            else:
                self.seen[f"slow {kind}: 408"] += 1
            writer.close()

    async def wrong(self, client: httpx.AsyncClient, seed: int) -> None:
        rng = random.Random(400 + seed)
        while time.monotonic() < self.end:
            status, body = rng.choice(WRONG)
            body = body.replace(b"MODEL", self.server.model.encode())
            reply = await client.post("/v1/completions", content=body, headers={"content-type": "application/json"})
            if reply.status_code != status or not reply.json()["error"]["message"]:
                self.faults.append(f"{reply.status_code} for {body!r}: {reply.text[:200]}")
            self.seen[f"wrong: {reply.status_code}"] += 1
            await asyncio.sleep(rng.random() / 2)

    async def watch(self) -> None:
        began = time.monotonic()
        while time.monotonic() < self.end:
            self.samples.append((time.monotonic() - began, *self.server.held()))
            await asyncio.sleep(0.5)

    def conclude(self, growth: float) -> dict[str, Any]:
        """What must hold afterwards; faults are added to those that were seen on the way."""
        self.server.wait_until_empty()
        time.sleep(1)
        for kind in ("plain", "streamed"):
            if self.seen[f"asked {kind}"] != self.seen[f"answered {kind}"] + self.seen[f"refused {kind}"] and not self.faults:
                self.faults.append(f"{kind} requests were lost: {dict(self.seen)}")
        again = [gist(self.ask_alone(body)) for body in self.bodies]
        self.faults += [
            f"question {n} has another answer now" for n, pair in enumerate(zip(again, self.expected, strict=True)) if not same(*pair)
        ]
        quarter = len(self.samples) // 4
        parts = [self.samples[n * quarter : (n + 1) * quarter] for n in range(4)]
        megabytes = [round(statistics.median(sample[1] for sample in part), 1) for part in parts]
        if megabytes[3] > megabytes[1] + growth:
            self.faults.append(f"memory grew from {megabytes[1]} to {megabytes[3]} MB")
        files = self.server.held()[1]
        metrics = self.server.metrics()
        if metrics["followed"]:
            self.faults.append(f"{metrics['followed']:g} requests are remembered that nobody waits for")
        ended = {name: count for name, count in metrics.items() if name.startswith("texts_total")}
        return {
            "seen": dict(sorted(self.seen.items())),
            "megabytes_by_quarter": megabytes,
            "open_files_at_the_end": files,
            "most_open_files": max(sample[2] for sample in self.samples),
            "texts_ended": ended,
            "tokens": metrics["tokens_total"],
            "running_at_the_end": metrics["running"],
            "waiting_at_the_end": metrics["waiting"],
        }


def drain(server: Server, bodies: list[dict[str, Any]]) -> tuple[list[str], Counter[str]]:
    """SIGTERM while slots and queue are full: faults (none if every answer ended as one, and then the server), and how they ended."""
    ended: Counter[str] = Counter()
    faults: list[str] = []

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        longer = {"max_tokens": 100, "num_steps": 30, "halting": None, "reasoning_effort": None, "stream": number % 2 == 0}
        body = {**bodies[number], **longer}
        if not body["stream"]:
            reply = await client.post("/v1/completions", json=body)
            said = reply.json()
            ended[f"plain: {said['choices'][0]['finish_reason'] if reply.status_code == 200 else reply.status_code}"] += 1
            if reply.status_code not in (200, 503):
                faults.append(f"{reply.status_code} at SIGTERM: {reply.text[:200]}")
            return
        async with client.stream("POST", "/v1/completions", json=body) as reply:
            lines = [line async for line in reply.aiter_lines() if line]
        last = json.loads(lines[-2 if lines[-1] == "data: [DONE]" else -1][6:])
        how = last["choices"][0]["finish_reason"] if "choices" in last else last["error"]["code"]
        ended[f"streamed: {how}"] += 1
        if how not in ("stop", "length", "closing") or (how != "closing" and lines[-1] != "data: [DONE]"):
            faults.append(f"a stream ended with {lines[-1][:200]}")

    async def crowd() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
            asked = [asyncio.create_task(ask(client, number)) for number in range(SLOTS + QUEUE)]
            while (now := await asyncio.to_thread(server.metrics))["running"] + now["waiting"] < SLOTS + QUEUE:
                await asyncio.sleep(0.02)
            server.process.send_signal(signal.SIGTERM)
            for outcome in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    faults.append(f"an answer broke off at SIGTERM: {outcome!r}")

    asyncio.run(crowd())
    try:
        server.process.wait(60)
    except subprocess.TimeoutExpired:
        faults.append("the server did not end after SIGTERM")
    return faults, ended


def _head(length: int) -> bytes:
    lines = ("POST /v1/completions HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {length}")
    return "\r\n".join((*lines, "", "")).encode()


def soak(model: str, seconds: float, growth: float = 16) -> dict[str, Any]:
    """The whole of it; the record, whose `faults` should be empty. Memory may grow by `growth` megabytes between quarters."""
    server = Server(model)
    try:
        crowd = Soak(server, seconds)
        asyncio.run(crowd.run())
        result = crowd.conclude(growth)
        broken, ended = drain(server, crowd.bodies)
        faults = crowd.faults + broken
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(10)
    return {"seconds": seconds, "faults": faults[:20], "faults_in_all": len(faults), **result, "at_sigterm": dict(sorted(ended.items()))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="weaver-chains")
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--out", type=Path, help="folder for the record")
    options = parser.parse_args()
    record = soak(options.model, options.seconds)
    print(json.dumps(record, indent=1))
    if options.out:
        record = {
            "benchmark": "soak",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": Path(options.model).name,
            "server": {"slots": SLOTS, "queue": QUEUE, "capacity": CAPACITY},
            "python": platform.python_version(),
            **record,
        }
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "soak.json").write_text(json.dumps(record, indent=1) + "\n")
    return 1 if record["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
