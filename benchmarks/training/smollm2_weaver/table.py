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


def known(looped: dict[str, Any], twin: dict[str, Any]) -> str:
    """Per cent of the values known, by depth, after each number of steps; and by the twin, which has one."""
    steps = list(map(int, next(iter(looped.values()))))
    last = f"{steps[-1]} steps, with its interval"
    lines = [
        "| task | depth of the value | " + " | ".join(map(str, steps[:-1])) + f" | {last} | no loop |",
        "|" + "---|" * (len(steps) + 3),
    ]

    def inside(counts: dict[str, list[int]], low: int, high: int) -> tuple[int, int]:
        within = [pair for depth, pair in counts.items() if low <= int(depth) <= high]
        return sum(right for right, _ in within), sum(count for _, count in within)

    for task, by_steps in looped.items():
        for low, high in BINS:
            row = [f"{100 * right / count:.0f}" for step in steps[:-1] for right, count in [inside(by_steps[str(step)], low, high)]]
            row += [share(*inside(by_steps[str(steps[-1])], low, high)), share(*inside(twin[task]["1"], low, high))]
            lines.append(f"| {task} | {low} to {high} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def answers(
    looped: Cells, twins: dict[str, Cells], levels: tuple[int, ...] = (1, 2, 4, 8, 16, 24), steps: tuple[int, ...] = (1, 20)
) -> str:
    """Answers at once, by the depth of the question: of the model with a loop, and of its twins."""
    asked = [(f"loop, {step} step{'s' * (step > 1)}", looped, step) for step in steps]
    asked += [(f"no loop, {name}", twin, 1) for name, twin in twins.items()]
    lines = ["| task | model | " + " | ".join(map(str, levels)) + " |", "|" + "---|" * (2 + len(levels))]
    for task in dict.fromkeys(task for task, _, _ in looped):
        for name, found, step in asked:
            lines.append(f"| {task} | {name} | " + " | ".join(whole(found, task, level, step) for level in levels) + " |")
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


def written(looped: Path, twin: Path | None, levels: tuple[int, ...], steps: tuple[int, ...]) -> str:
    """The same problems answered at once and after writing the way down, at several numbers of steps a token; and by a twin."""
    at_once, in_writing, length = cells(looped / "unwritten.json"), cells(looped / "written.json"), tokens(looped / "written.json")
    both = (cells(twin / "unwritten.json"), cells(twin / "written.json")) if twin else ()
    names = [f"{way}, {step} step{'s' * (step > 1)}" for way in ("at once", "written") for step in steps]
    names += ["tokens written", *(["no loop, at once", "no loop, written"] if twin else [])]
    lines = ["| task | depth | " + " | ".join(names) + " |", "|" + "---|" * (2 + len(names))]
    for task in dict.fromkeys(task for task, _, _ in in_writing):
        for level in levels:
            row = [whole(found, task, level, step) for found in (at_once, in_writing) for step in steps]
            row += [f"{length[task, level, steps[0]]:.0f}", *(whole(found, task, level, 1) for found in both)]
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
    counts = [json.loads((HERE / name / "hops.json").read_text())["known"] for name in ("looped", "equal-flops")]
    twins = {"equal FLOPs": "equal-flops", "equal tokens, empty ways": "empty-ways-twin"}
    return {
        "known": known(*counts),
        "answers": answers(
            cells(HERE / "looped" / "direct.json"), {name: cells(HERE / place / "direct.json") for name, place in twins.items()}
        ),
        "written": written(HERE / "looped", None, (4, 8, 16), (1, 4, 16)),
        "others written": written(HERE / "seed1", HERE / "equal-flops", (8, 16), (1, 8)),
        "runs": runs(["looped", "seed1", "equal-flops", "empty-ways", "empty-ways-twin", "first-recipe", "first-recipe-muon"]),
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
