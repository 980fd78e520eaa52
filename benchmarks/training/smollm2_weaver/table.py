"""The tables of docs/smollm2-weaver.md, made from the JSON that the runs left beside this file.

python benchmarks/training/smollm2_weaver/table.py            print them
python benchmarks/training/smollm2_weaver/table.py --write    put them into the page, between its marks
python benchmarks/training/smollm2_weaver/table.py --check    end with an error if the page does not show them
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from latentweaver.evaluate.intervals import wilson

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from marks import update

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "smollm2-weaver.md"
BINS = ((1, 2), (3, 4), (5, 8), (9, 12), (13, 16))
"""Depths that are shown together."""

TWINS = {"equal tokens": "equal-tokens", "equal FLOPs": "equal-flops"}
"""The controls without a loop, by what they have in common with the model."""

Cells = dict[tuple[str, int, int], tuple[int, int]]
"""For each (task, difficulty, steps): right answers, and how many were asked."""


def cells(path: Path) -> Cells:
    """The cells of a direct.json or written.json."""
    return {
        (table["task"], cell["difficulty"], cell["steps"]): (cell["right"], cell["count"])
        for table in json.loads(path.read_text())
        for cell in table["cells"]
    }


def share(right: int, count: int) -> str:
    """A percentage with its 95 % Wilson interval."""
    low, high = wilson(right, count)
    return f"{100 * right / count:.1f} ({100 * low:.0f} to {100 * high:.0f})"


def known(looped: dict[str, Any], twins: dict[str, dict[str, Any]]) -> str:
    """Per cent of the values known, by depth, after each number of steps; and by the twins, which have one."""
    steps = list(map(int, next(iter(looped.values()))))
    names = [*map(str, steps[:-1]), f"{steps[-1]} steps, with its interval", *(f"no loop, {name}" for name in twins)]
    lines = ["| task | depth of the value | " + " | ".join(names) + " |", "|" + "---|" * (2 + len(names))]

    def inside(counts: dict[str, list[int]], low: int, high: int) -> tuple[int, int]:
        within = [pair for depth, pair in counts.items() if low <= int(depth) <= high]
        return sum(right for right, _ in within), sum(count for _, count in within)

    for task, by_steps in looped.items():
        for low, high in BINS:
            row = [f"{100 * right / count:.0f}" for step in steps[:-1] for right, count in [inside(by_steps[str(step)], low, high)]]
            row.append(share(*inside(by_steps[str(steps[-1])], low, high)))
            row += [share(*inside(twin[task]["1"], low, high)) for twin in twins.values()]
            lines.append(f"| {task} | {low} to {high} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def answers(asked: dict[str, tuple[Cells, int]], levels: tuple[int, ...] = (1, 2, 4, 8, 16, 24)) -> str:
    """Answers at once, by the depth of the question, of models after a number of steps."""
    lines = ["| task | model | " + " | ".join(map(str, levels)) + " |", "|" + "---|" * (2 + len(levels))]
    for task in dict.fromkeys(task for found, _ in asked.values() for task, _, _ in found):
        for name, (found, step) in asked.items():
            lines.append(f"| {task} | {name} | " + " | ".join(whole(found, task, level, step) for level in levels) + " |")
    return "\n".join(lines)


def longer(models: dict[str, Cells], tasks: tuple[str, ...], level: int, steps: tuple[int, ...]) -> str:
    """Answers at once to questions of one depth, after more and more steps."""
    lines = ["| task | model | " + " | ".join(map(str, steps)) + " |", "|" + "---|" * (2 + len(steps))]
    for task in tasks:
        for name, found in models.items():
            lines.append(f"| {task} | {name} | " + " | ".join(whole(found, task, level, step) for step in steps) + " |")
    return "\n".join(lines)


def whole(found: Cells, task: str, level: int, step: int) -> str:
    """A whole percentage, or a dash where nothing was asked."""
    right, count = found.get((task, level, step), (0, 0))
    return f"{100 * right / count:.0f}" if count else "-"


def tokens(path: Path) -> dict[tuple[str, int, int], float]:
    """For each (task, difficulty, steps) of a written.json: the tokens of a reply, on average."""
    return {
        (table["task"], cell["difficulty"], cell["steps"]): cell["tokens"]
        for table in json.loads(path.read_text())
        for cell in table["cells"]
    }


def written(models: dict[str, tuple[Path, tuple[int, ...]]], levels: tuple[int, ...], counted: Path | None = None) -> str:
    """The same problems answered at once and after writing the way down, by models at several numbers of steps a token.

    `counted` is the folder of the one whose written tokens are shown, at its fewest steps.
    """
    columns: list[tuple[str, Cells, int]] = []
    for name, (folder, steps) in models.items():
        for way, file in (("at once", "unwritten.json"), ("written", "written.json")):
            found = cells(folder / file)
            columns += [(", ".join(filter(None, (name, way, f"{step} step{'s' * (step > 1)}"))), found, step) for step in steps]
    length = tokens(counted / "written.json") if counted else {}
    names = [name for name, _, _ in columns] + (["tokens written"] if length else [])
    lines = ["| task | depth | " + " | ".join(names) + " |", "|" + "---|" * (2 + len(names))]
    for task in dict.fromkeys(task for _, found, _ in columns for task, _, _ in found):
        for level in levels:
            row = [whole(found, task, level, step) for _, found, step in columns]
            row += [f"{length[task, level, 1]:.0f}"] if length else []
            lines.append(f"| {task} | {level} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def runs(names: list[str]) -> str:
    """What each run was."""
    lines = [
        "| run | updates | tokens | FLOPs | seconds | tokens/s | mean steps | seed | machine |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        about: dict[str, Any] = json.loads((HERE / name / "run.json").read_text())
        lines.append(
            f"| {name} | {about['updates_made']} | {about['tokens'] / 1e6:.1f} M | {about['flops']:.2e} | {about['seconds']:.0f} | "
            f"{about['tokens_per_second']:,.0f} | {about['mean_steps']:.1f} | {about['recipe']['seed']} | {about['device']}, torch {about['versions']['torch']} |"
        )
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """All tables by the name of their mark."""
    counts = {name: json.loads((HERE / name / "hops.json").read_text())["known"] for name in ("looped", *TWINS.values())}
    direct = {name: cells(HERE / name / "direct.json") for name in ("looped", "seed1", "seed2", *TWINS.values())}
    seeds = {"seed 0": direct["looped"], "seed 1": direct["seed1"], "seed 2": direct["seed2"]}
    asked = {"loop, 1 step": (direct["looped"], 1), "loop, 20 steps": (direct["looped"], 20)}
    asked |= {f"loop, {seed}, 20 steps": (found, 20) for seed, found in seeds.items() if seed != "seed 0"}
    asked |= {f"no loop, {name}": (direct[folder], 1) for name, folder in TWINS.items()}
    ways = {"": (HERE / "looped", (1, 4, 16))} | {f"no loop, {name}": (HERE / folder, (1,)) for name, folder in TWINS.items()}
    others = {"seed 2": (HERE / "seed2", (1, 4, 16)), "seed 1": (HERE / "seed1", (1, 8))}
    return {
        "known": known(counts["looped"], {name: counts[folder] for name, folder in TWINS.items()}),
        "answers": answers(asked),
        "longer": longer(seeds, ("logic", "swaps", "homes"), 24, (1, 8, 16, 20, 32, 64)),
        "written": written(ways, (4, 8, 16), HERE / "looped"),
        "others written": written(others, (4, 8, 16)),
        "runs": runs(["looped", "seed1", "seed2", *TWINS.values(), "first-recipe", "first-recipe-muon"]),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    found = tables()
    print("\n\n".join(f"{name}\n\n{table}" for name, table in found.items()))
    if options.write or options.check:
        update({PAGE: found}, check=options.check)
