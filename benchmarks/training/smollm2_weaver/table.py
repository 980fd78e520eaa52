"""The tables of docs/smollm2-weaver.md, made from the JSON that the runs left beside this file.

python benchmarks/training/smollm2_weaver/table.py            print them
python benchmarks/training/smollm2_weaver/table.py --write    put them into the page, between its marks
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from latentweaver.evaluate.intervals import wilson

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "smollm2-weaver.md"
SHOWN = (1, 2, 4, 8, 16, 32)
CONTROLS = {"equal-tokens": "no loop, equal tokens", "equal-flops": "no loop, equal FLOPs"}

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


def by_difficulty(looped: Cells, controls: dict[str, Cells]) -> str:
    """All tasks together: difficulty against steps, and the controls."""
    levels, steps = sorted({level for _, level, _ in looped}), [step for step in SHOWN if any(step == s for _, _, s in looped)]
    lines = [
        "| serial depth | tasks | "
        + " | ".join(f"{s} step{'s' * (s > 1)}" for s in steps)
        + "".join(f" | {CONTROLS[c]}" for c in controls)
        + " |"
    ]
    lines.append("|" + "---|" * (2 + len(steps) + len(controls)))
    for level in levels:
        names = sorted({task for task, one, _ in looped if one == level})
        total = lambda table, step: [sum(part) for part in zip(*(table[task, level, step] for task in names), strict=True)]  # noqa: B023, E731
        row = [share(*total(looped, step)) for step in steps] + [share(*total(table, 1)) for table in controls.values()]
        lines.append(f"| {level} | {len(names)} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def by_task(looped: Cells, controls: dict[str, Cells], levels: tuple[int, ...] = (4, 8, 16)) -> str:
    """Each task at some difficulties: 1 step, the best of the steps shown, and the controls."""
    steps = [step for step in SHOWN if any(step == s for _, _, s in looped)]
    lines = ["| task | serial depth | " + " | ".join(map(str, steps)) + "".join(f" | {CONTROLS[c]}" for c in controls) + " |"]
    lines.append("|" + "---|" * (2 + len(steps) + len(controls)))
    for task in dict.fromkeys(task for task, _, _ in looped):
        for level in levels:
            if (task, level, 1) in looped:
                row = [f"{100 * looped[task, level, step][0] / looped[task, level, step][1]:.0f}" for step in steps]
                row += [share(*table[task, level, 1]) for table in controls.values()]
                lines.append(f"| {task} | {level} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def in_writing(looped: Cells) -> str:
    """The way written down first: each task and difficulty against the steps that every token takes."""
    steps = sorted({step for _, _, step in looped})
    lines = ["| task | serial depth | " + " | ".join(f"{step} step{'s' * (step > 1)} a token" for step in steps) + " |"]
    lines.append("|" + "---|" * (2 + len(steps)))
    for task, level in dict.fromkeys((task, level) for task, level, _ in looped):
        lines.append(f"| {task} | {level} | " + " | ".join(share(*looped[task, level, step]) for step in steps) + " |")
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
    """All tables by the name of their mark. The controls appear once there are results of them."""
    controls = {name: cells(HERE / name / "direct.json") for name in CONTROLS if (HERE / name / "direct.json").is_file()}
    looped = cells(HERE / "looped" / "direct.json")
    every = sorted(path.parent.name for path in HERE.glob("*/run.json"))
    found = {"difficulty": by_difficulty(looped, controls), "task": by_task(looped, controls), "runs": runs(every)}
    written = HERE / "looped" / "written.json"
    return found | ({"written": in_writing(cells(written))} if written.is_file() else {})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    page = PAGE.read_text() if write else ""
    for mark, table in tables().items():
        print(f"{mark}\n\n{table}\n")
        page = re.sub(
            rf"(<!-- {mark} -->\n).*?(<!-- end -->)", lambda found, table=table: f"{found[1]}{table}\n{found[2]}", page, flags=re.S
        )
    if write:
        PAGE.write_text(page)
