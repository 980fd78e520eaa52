"""Early exit that pays: `weaver-chains` with a halting rule against fixed depth, at equal accuracy, one request at a time.

    python benchmarks/early_exit.py [--problems 200] [--out benchmarks/results]

The model adds chains of digits (`tasks.chains`) and knows the answer to a chain of depth d after d + 1 steps, not before. Who must
choose one number of steps for all and does not know d needs 49, the fewest that answer the deepest chain asked here (48). With
`Confidence` the model stops when its likeliest token has had 90 % for two steps in a row; the ceiling is the same 49.

Two mixes of depth: "even" (1 to 48, each as likely) and "mostly easy" (log-uniform: 1 to 2 as likely as 24 to 48). Both systems
answer the same problems, one after the other, in an order that alternates. Reported: accuracy of both with McNemar's exact test and
a bootstrap interval of the difference; steps; seconds (wall and CPU, one thread, the first token, which is the answer). Intervals
are over problems. "StateChange" stands beside them as what does not work here: the states of this model settle before its answer.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from latentweaver import halting
from latentweaver.checkpoints.loading import load, load_tokenizer
from latentweaver.evaluate.paired import difference, mcnemar
from latentweaver.runtime.bench import processor
from latentweaver.tasks.chains import Chains
from latentweaver.tasks.problem import Problem

DEEPEST = 48
STEPS = DEEPEST + 1
MIXES: dict[str, Callable[[random.Random], int]] = {
    "even": lambda rng: rng.randint(1, DEEPEST),
    "mostly easy": lambda rng: int((DEEPEST + 1) ** rng.random()),
}
SYSTEMS: dict[str, tuple[int, halting.HaltingRule | None]] = {
    f"fixed {STEPS}": (STEPS, None),
    "Confidence": (STEPS, halting.Confidence()),
    "Confidence, patience 1": (STEPS, halting.Confidence(patience=1)),
    "fixed 33": (33, None),
    "StateChange(0.03)": (STEPS, halting.StateChange(0.03)),
}
BASE = f"fixed {STEPS}"


def problems(mix: str, count: int, seed: int) -> list[Problem]:
    """Chains of a mix's depths, of any length."""
    rng, task = random.Random(seed), Chains()
    return [task.draw(rng, MIXES[mix](rng), rng.random()) for _ in range(count)]


def answer(model: Any, ids: torch.Tensor, steps: int, rule: halting.HaltingRule | None) -> tuple[int, int, float, float]:
    """Token, steps, seconds and CPU seconds of the first token after a prompt `[1, length]`."""
    began, worked = time.perf_counter(), time.process_time()
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=1,
        do_sample=False,
        num_steps=steps,
        halting=rule,
        cache_policy="shared",
        return_dict_in_generate=True,
    )
    seconds, work = time.perf_counter() - began, time.process_time() - worked
    return int(out.sequences[0, -1]), int(out.steps[0, 0]), seconds, work


def measure(model: Any, tokenizer: Any, mix: str, count: int, seed: int) -> dict[str, Any]:
    """Every system on the same problems."""
    rows: dict[str, list[tuple[bool, int, float, float]]] = {name: [] for name in SYSTEMS}
    asked = problems(mix, count, seed)
    for number, problem in enumerate(asked):
        ids = tokenizer(problem.prompt, return_tensors="pt").input_ids
        names = list(SYSTEMS)[number % len(SYSTEMS) :] + list(SYSTEMS)[: number % len(SYSTEMS)]
        for name in names:
            token, *rest = answer(model, ids, *SYSTEMS[name])
            rows[name].append((tokenizer.decode([token]) == problem.answer, *rest))
    return {
        "problems": count,
        "mean_depth": statistics.mean(problem.difficulty for problem in asked),
        "mean_prompt": statistics.mean(len(problem.prompt) for problem in asked),
        "systems": {name: _summary(rows[name], rows[BASE]) for name in SYSTEMS},
    }


def _summary(rows: list[tuple[bool, int, float, float]], base: list[tuple[bool, int, float, float]]) -> dict[str, Any]:
    right, base_right = [row[0] for row in rows], [row[0] for row in base]
    apart = difference([right], [base_right])
    return {
        "accuracy": statistics.mean(right),
        "accuracy_difference": [apart.mean, apart.low, apart.high],
        "mcnemar_p": mcnemar(right, base_right),
        "steps": statistics.mean(row[1] for row in rows),
        "seconds": statistics.mean(row[2] for row in rows),
        "cpu_seconds": statistics.mean(row[3] for row in rows),
        "fewer_steps": _ratio(base, rows, 1),
        "faster": _ratio(base, rows, 2),
        "faster_cpu": _ratio(base, rows, 3),
    }


def _ratio(base: list[Any], rows: list[Any], field: int, resamples: int = 2000) -> list[float]:
    """Sum of one over the sum of the other, with a 95 % interval from resampled problems."""
    rng, pairs = random.Random(0), [(one[field], other[field]) for one, other in zip(base, rows, strict=True)]

    def ratio(chosen: list[tuple[float, float]]) -> float:
        return sum(one for one, _ in chosen) / sum(other for _, other in chosen)

    drawn = sorted(ratio(rng.choices(pairs, k=len(pairs))) for _ in range(resamples))
    return [ratio(pairs), drawn[int(0.025 * resamples)], drawn[int(0.975 * resamples)]]


def table(mixes: dict[str, Any]) -> str:
    """The record as Markdown."""
    lines = [
        "| mix | system | accuracy | against fixed (McNemar p) | steps | fewer steps | ms | faster (CPU time) | faster (wall) |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for mix, result in mixes.items():
        for name, row in result["systems"].items():
            apart = "{:+.1%} ({:+.1%} to {:+.1%})".format(*row["accuracy_difference"])
            ratios = ["{:.2f} ({:.2f}-{:.2f})".format(*row[key]) for key in ("fewer_steps", "faster_cpu", "faster")]
            lines.append(
                f"| {mix} | {name} | {row['accuracy']:.1%} | {apart}, p={row['mcnemar_p']:.2g} | {row['steps']:.1f} | {ratios[0]} | "
                f"{1000 * row['cpu_seconds']:.0f} | {ratios[1]} | {ratios[2]} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for the record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load("weaver-chains", device="cpu").eval(), load_tokenizer("weaver-chains")
    answer(model, tokenizer("a=1 ?a=", return_tensors="pt").input_ids, 4, halting.Confidence())  # whatever happens only once
    mixes = {mix: measure(model, tokenizer, mix, options.problems, options.seed) for mix in MIXES}
    print(table(mixes))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        record = {
            "benchmark": "early_exit",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": f"python benchmarks/early_exit.py --problems {options.problems} --seed {options.seed}",
            "machine": {"processor": processor(), "threads": 1},
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__},
            "mixes": mixes,
        }
        (options.out / "early_exit.json").write_text(json.dumps(record, indent=1) + "\n")
        head = f"Early exit of weaver-chains on {record['machine']['processor']}, one thread, torch {torch.__version__}, {record['date']}."
        (options.out / "early_exit.md").write_text(f"{head}\n\n    {record['command']}\n\n{table(mixes)}\n")


if __name__ == "__main__":
    main()
