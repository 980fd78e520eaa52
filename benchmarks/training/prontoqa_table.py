"""What `stepwise_arms.py --task prontoqa` left in folders, as Markdown between the marks of a page:

    python benchmarks/training/prontoqa_table.py benchmarks/training/prontoqa/smollm2 [MORE FOLDERS] --write benchmarks/training/prontoqa/README.md

Each arm on the published problems, on the same with decoys and on severed chains, beside the floors; paired tests; what becomes of answers when thoughts
are ablated. A part is named by its folder; `--check` beside `--write` only compares.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from latentweaver.evaluate.intervals import wilson
from latentweaver.evaluate.paired import mcnemar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from marks import update
from training.comparison_table import lines

SETS = {
    "test": "published, 800",
    "decoys 1": "1 decoy, 400",
    "decoys 2": "2 decoys, 400",
    "decoys 3": "3 decoys, 400",
    "decoyed": "4 decoys, 800",
    "severed": "severed, 400",
}
INTERVALS = ("test", "decoyed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    parts = {folder.name: part(folder) for folder in options.folders}
    print("\n\n".join(parts.values()))
    if options.write is not None:
        update({options.write: parts}, check=options.check)


def part(folder: Path) -> str:
    """The tables of a folder's arms, in the order in which they were trained."""
    runs = [json.loads(path.read_text()) for path in folder.glob("*-[0-9].json")]
    order = ["cot", "no-cot", "coconut", "pause", "no-thoughts", "no-curriculum", "icot", "pause-multipass", "codi", "pccot", "lotus"]
    runs.sort(key=lambda run: (order.index(run["arm"]), run["seed"]))
    beside = {run["seed"]: run for run in runs if run["arm"] == "coconut"}
    head = ["arm", *SETS.values(), "published, beyond COCONUT (p)", "4 decoys, beyond COCONUT (p)", "updates", "columns", "ms an answer"]
    rows = [
        [
            run["name"],
            *(accuracy(run["sets"][label], label in INTERVALS) for label in SETS),
            *(beyond(run, beside.get(run["seed"]), label) for label in INTERVALS),
            f"{run['updates']}" if run["updates"] == run["planned"] else f"{run['updates']} of {run['planned']}",
            f"{run['sets']['test']['tokens']:.1f}",
            f"{1000 * run['sets']['test']['seconds']:.0f}",
        ]
        for run in runs
    ]
    floors = runs[0]["floors"]
    rows += [[f"no step: {name}", *(f"{100 * floors[label][name]:.1f}" for label in SETS), *[""] * 5] for name in floors["test"]]
    tables = [lines(head, rows)]
    effects = [
        (run, key, SETS[label]) for run in runs for key, label in (("ablations", "test"), ("ablations unlike", "decoyed")) if key in run
    ]
    if effects:
        names = list(dict.fromkeys(effect["name"] for run, key, _ in effects for effect in run[key]))
        found = [{effect["name"]: f"{100 * effect['accuracy']:.1f}" for effect in run[key]} for run, key, _ in effects]
        labels = [f"{run['name']}, first 400 of {label.split(',')[0]}" for run, _, label in effects]
        tables.append(
            lines(["thoughts", *names], [[label, *(row.get(name, "") for name in names)] for label, row in zip(labels, found, strict=True)])
        )
    return "\n\n".join(tables)


def right(measured: dict[str, Any]) -> list[bool]:
    return [letter == "1" for letter in measured["right"]]


def accuracy(measured: dict[str, Any], interval: bool) -> str:
    marks = right(measured)
    low, high = wilson(sum(marks), len(marks))
    return f"{100 * sum(marks) / len(marks):.1f}" + (f" ({100 * low:.1f} to {100 * high:.1f})" if interval else "")


def beyond(run: dict[str, Any], other: dict[str, Any] | None, label: str) -> str:
    """The difference to COCONUT of the same seed on the same problems, and McNemar's exact p."""
    if other is None or run is other:
        return ""
    mine, theirs = right(run["sets"][label]), right(other["sets"][label])
    return f"{100 * (sum(mine) - sum(theirs)) / len(mine):+.1f} ({mcnemar(mine, theirs):.2g})"


if __name__ == "__main__":
    main()
