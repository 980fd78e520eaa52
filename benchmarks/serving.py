"""Throughput of the depth-batched engine against batches of fixed depth, at equal answers.

    python benchmarks/serving.py [--mix chains settling] [--rounds 3] [--out benchmarks/results]

Two mixes, 48 requests each (`--requests`):

    chains     `weaver-chains`, the shipped reasoner: chains of digits whose depth is log-uniform in 1 to 48 (shallow ones are
               common, deep ones happen) in prompts of 9 to 330 tokens, answers of two tokens (the digit and the end), 16 at once.
               Fixed depth needs 49 steps, the fewest that answer the deepest; exits are by `Confidence`, at most 49.
    settling   Huginn's form at width 512 (prelude 2, core 4, coda 2; 8192 tokens) with random weights, prompts of 8 to 32 tokens and
               answers of 4 to 20 (both uniform), 24 at once, depth at most 32, exits when a step moves the state by less than
               0.3 %: tokens settle after about half of the steps, so that twice as fast is the most there could be.

Keys of the last step are kept ("shared"). Systems, in turn on the same requests, several times over:

    generate       `model.generate`, a batch at a time in order of arrival, all steps for every token: what the reference does
    fixed depth    the engine with all steps for every token: continuous batching over tokens, as engines for fixed depth do
    exits, synchronous   the engine with exits, but the next tokens enter only when every token has left: early exit without
                   continuous depth
    engine         the engine with exits
    engine, patience 2   the same, where a token that is done may wait two passes to be read with others

Time is CPU time of one thread, so that neighbours on the machine disturb it little. Answers are compared token for token with
those of "fixed depth", and on chains with the right answers.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from latentweaver.checkpoints.loading import load, load_tokenizer
from latentweaver.halting import Confidence, HaltingRule, StateChange
from latentweaver.models.config import RecurrentDepthConfig
from latentweaver.models.recurrent_depth import RecurrentDepthForCausalLM
from latentweaver.runtime.bench import processor
from latentweaver.runtime.engine import Engine
from latentweaver.runtime.request import Request
from latentweaver.runtime.running import Running
from latentweaver.tasks.chains import Chains

Answers = list[list[int]]


@dataclass
class Mix:
    """A model, what it is asked, and how.

    Attributes:
        model: who answers.
        steps: what fixed depth takes, and the ceiling of exits.
        slots: requests at once.
        rule: when exits leave.
        draw: requests from a seed, and the right answers where there are any.
    """

    model: Any
    steps: int
    slots: int
    rule: HaltingRule
    draw: Callable[[int], tuple[list[Request], list[list[int]] | None]]


class SynchronousEngine(Engine):
    """Tokens begin together: those that are new wait until nobody is in the middle of a thought."""

    def _choose(self) -> list[Running]:
        chosen = super()._choose()
        busy = [running for running in chosen if running.front is not None and (running.front.halted or running.front.step)]
        return busy or chosen


def settling(count: int) -> Mix:
    """Random weights, whose states settle after a number of steps of their own."""
    torch.manual_seed(0)
    model = RecurrentDepthForCausalLM(RecurrentDepthConfig(vocab_size=8192, num_steps=32)).eval()

    def draw(seed: int) -> tuple[list[Request], None]:
        drawn = torch.Generator().manual_seed(seed)
        requests = []
        for _ in range(count):
            length, answer = int(torch.randint(8, 33, (), generator=drawn)), int(torch.randint(4, 21, (), generator=drawn))
            requests.append(Request(torch.randint(8192, (length,), generator=drawn).tolist(), answer))
        return requests, None

    return Mix(model, 32, 24, StateChange(0.003), draw)


def chains(count: int, deepest: int = 48) -> Mix:
    """The shipped reasoner, which needs one step more than a chain is deep."""
    model, tokenizer, task = load("weaver-chains", device="cpu").eval(), load_tokenizer("weaver-chains"), Chains()

    def draw(seed: int) -> tuple[list[Request], list[list[int]]]:
        rng = random.Random(seed)
        problems = [task.draw(rng, int((deepest + 1) ** rng.random()), rng.random()) for _ in range(count)]
        right = [[*tokenizer(problem.answer).input_ids, tokenizer.eos_token_id] for problem in problems]
        return [Request(tokenizer(problem.prompt).input_ids, 2) for problem in problems], right

    return Mix(model, deepest + 1, 16, Confidence(), draw)


MIXES: dict[str, Callable[[int], Mix]] = {"chains": chains, "settling": settling}


def by_generate(mix: Mix, requests: list[Request]) -> tuple[Answers, int]:
    answers: Answers = []
    for at in range(0, len(requests), mix.slots):
        batch = requests[at : at + mix.slots]
        width = max(len(request.prompt) for request in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, request in enumerate(batch):
            ids[row, width - len(request.prompt) :] = torch.tensor(request.prompt)
            mask[row, width - len(request.prompt) :] = 1
        longest = max(request.max_new_tokens for request in batch)
        out = mix.model.generate(
            ids,
            attention_mask=mask,
            num_steps=mix.steps,
            max_new_tokens=longest,
            do_sample=False,
            cache_policy="shared",
            pad_token_id=0,
        )
        answers += [out[row, width : width + request.max_new_tokens].tolist() for row, request in enumerate(batch)]
    return answers, mix.steps * sum(map(len, answers))


def by_engine(
    mix: Mix, requests: list[Request], rule: HaltingRule | None, kind: type[Engine] = Engine, patience: int = 0
) -> tuple[Answers, int]:
    engine = kind(mix.model, slots=mix.slots, capacity=400, max_steps=mix.steps, policy="shared", patience=patience)
    handles = [engine.submit(replace(request, num_steps=mix.steps, halting=rule)) for request in requests]
    while not engine.idle:
        engine.tick()
    return [handle.tokens for handle in handles], engine.counts.steps


SYSTEMS: dict[str, Callable[[Mix, list[Request]], tuple[Answers, int]]] = {
    "generate": by_generate,
    "fixed depth": lambda mix, requests: by_engine(mix, requests, None),
    "exits, synchronous": lambda mix, requests: by_engine(mix, requests, mix.rule, SynchronousEngine),
    "engine": lambda mix, requests: by_engine(mix, requests, mix.rule),
    "engine, patience 2": lambda mix, requests: by_engine(mix, requests, mix.rule, patience=2),
}


def measure(mix: Mix, count: int, rounds: int) -> dict[str, Any]:
    """Every system on the same requests, `rounds` times over; the record of it."""
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in SYSTEMS}
    for number in range(rounds):
        requests, right = mix.draw(number)
        answers: dict[str, Answers] = {}
        order = list(SYSTEMS)[number % len(SYSTEMS) :] + list(SYSTEMS)[: number % len(SYSTEMS)]  # nobody is always first
        for name in order:
            began = time.process_time()
            answers[name], steps = SYSTEMS[name](mix, requests)
            seconds = time.process_time() - began
            rows[name].append({"seconds": seconds, "tokens": sum(map(len, answers[name])), "steps": steps})
        for name in SYSTEMS:
            row = rows[name][-1]
            row["equal_answers"] = _share(answers[name], answers["fixed depth"])
            if right is not None:
                row["right_answers"] = _share(answers[name], right)
            print(
                f"round {number}  {name:20} {len(requests) / row['seconds']:7.2f} requests, {row['tokens'] / row['seconds']:7.1f} tokens per CPU "
                f"second, {row['steps'] / row['tokens']:5.1f} steps a token, {row['equal_answers']:.0%} of answers equal"
                + (f", {row['right_answers']:.0%} right" if right is not None else ""),
                flush=True,
            )
    ratios = {
        f"{name} / {other}": statistics.median(b["seconds"] / a["seconds"] for a, b in zip(rows[name], rows[other], strict=True))
        for name in ("engine", "engine, patience 2")
        for other in ("generate", "fixed depth", "exits, synchronous")
    }
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    return {"steps": mix.steps, "slots": mix.slots, "requests": count, "rule": repr(mix.rule), "rounds": rows, "median_ratios": ratios}


def _share(some: Answers, others: Answers) -> float:
    return statistics.mean(one == other for one, other in zip(some, others, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mix", nargs="+", choices=list(MIXES), default=list(MIXES))
    parser.add_argument("--out", type=Path, help="folder for the JSON record")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=48)
    options = parser.parse_args()
    torch.set_num_threads(1)
    mixes = {}
    for name in options.mix:
        print(name)
        mixes[name] = measure(MIXES[name](options.requests), options.requests, options.rounds)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC)
        record = {
            "benchmark": "serving",
            "date": now.isoformat(timespec="seconds"),
            "machine": {"processor": processor(), "threads": torch.get_num_threads()},
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__},
            "mixes": mixes,
        }
        (options.out / f"serving-{now:%Y-%m-%d}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
