"""What `stepwise_arms.py` left in a folder, as Markdown: `python benchmarks/training/stepwise_table.py OUT` prints it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from latentweaver.evaluate.intervals import wilson
from latentweaver.evaluate.paired import mcnemar

ARMS = {"coconut": 1.0, "pause": 0.55, "no-cot": 0.5, "cot": 0.55, "no-thoughts": 0.5, "icot": 0.55, "no-curriculum": 1.05, "lotus": 1.6}
ARMS |= {"pccot": 2.2, "codi": 2.4, "pause-multipass": 1.0}
"""In this order, with about how long each takes beside COCONUT."""


def cut_at(run: dict) -> str:
    return "" if run["updates"] == run.get("planned", run["updates"]) else f", cut at update {run['updates']} of {run['planned']}"


def table(folder: Path) -> str:
    """Each arm: the published problems with intervals, a paired test against COCONUT, other sets, and what an answer costs."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*-[0-9].json"))]
    if not runs:
        return "no run is finished"
    known = {(run["arm"], run["seed"]): run for run in runs}
    labels = list(runs[0]["sets"])[1:]
    heads = ["arm", "seed", "test (95 %)", "against coconut, p", *labels, "thoughts and tokens", "ms of an answer", "s to train"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for run in sorted(runs, key=lambda run: (list(ARMS).index(run["arm"]), run["seed"])):
        right = [letter == "1" for letter in run["sets"]["test"]["right"]]
        low, high = wilson(sum(right), len(right))
        beside, paired = known.get(("coconut", run["seed"])), ""
        if beside is not None and run["arm"] != "coconut":
            theirs = [letter == "1" for letter in beside["sets"]["test"]["right"]]
            paired = f"{100 * (sum(right) - sum(theirs)) / len(right):+.1f}, {mcnemar(right, theirs):.2g}"
        others = " | ".join(f"{100 * run['sets'][label]['accuracy']:.1f}" if label in run["sets"] else "" for label in labels)
        test = run["sets"]["test"]
        lines.append(
            f"| {run['arm']}{cut_at(run)} | {run['seed']} | {100 * sum(right) / len(right):.1f} ({100 * low:.1f} to {100 * high:.1f}) | {paired} | {others} "
            f"| {test['tokens']:.1f} | {1000 * test['seconds']:.0f} | {run['seconds']:.0f} |"
        )
    lines.append("")
    for label, floors in runs[0]["floors"].items():
        lines.append(f"Floors, {label}: " + ", ".join(f"{name} {100 * value:.1f}" for name, value in floors.items()))
    for run in runs:
        for key in ("ablations", "ablations unlike"):
            if key in run:
                lines.append(
                    f"{run['name']}, {key}: " + ", ".join(f"{effect['name']} {100 * effect['accuracy']:.1f}" for effect in run[key])
                )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
