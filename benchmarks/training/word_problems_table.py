"""The tables of `word_problems.py`'s results: `python benchmarks/training/word_problems_table.py FOLDER` prints them, `--write PAGE` puts them
into a Markdown file and `--brief PAGE` the first of them, between the marks of "word problems", and `--check` beside these only compares.
"One step at most" and "two" are what shortcuts reach (`latentweaver.tasks.worded.shortcuts`).

Arms may have different seeds, so no mean over seeds stands in a table: every seed has its own number, and two arms are compared over the
seeds that both have. A run that time cut short is shown as such and compared with nothing. Wall times are shown where every run had the
machine to itself, which is where no result has the field "beside".
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from comparison_table import lines
from word_problems import ARMS

from latentweaver.evaluate.intervals import wilson
from latentweaver.evaluate.paired import difference, mcnemar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from marks import update

PAIRS = [
    ("coconut", "pause"),
    ("coconut", "no-thoughts"),
    ("coconut", "icot"),
    ("pause", "no-thoughts"),
    ("recurrent-coconut", "recurrent-no-thoughts"),
    ("codi", "coconut"),
    ("pccot", "coconut"),
    ("no-thoughts", "no-cot"),
    ("icot", "no-cot"),
    ("recurrent-no-thoughts", "recurrent"),
    ("recurrent-coconut", "recurrent"),
    ("coconut", "no-curriculum"),
    ("pause", "no-curriculum"),
    ("coconut", "no-cot"),
    ("pause", "no-cot"),
    ("no-curriculum", "no-cot"),
    ("recurrent", "no-cot"),
    ("recurrent-no-thoughts", "no-thoughts"),
    ("recurrent-coconut", "coconut"),
    ("cot", "no-cot"),
    ("cot", "no-thoughts"),
    ("cot", "coconut"),
]
"""Whose answers are compared problem by problem: what thoughts gain, then the curriculum, then recurrent depth, then steps in words."""
DEPTHS = {"unseen": [(1, 1), (2, 2), (3, 6)], "deeper": [(7, 10)]}
"""Steps to the answer that stand together where kinds are told apart, in each set."""

Run = dict[str, Any]
Described = list[dict[str, Any]]
Column = tuple[str, str, Callable[[dict[str, Any]], bool]]
"""Its name, the set of problems, and which of them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", type=Path, nargs="+", default=[], metavar="PAGE")
    parser.add_argument("--brief", type=Path, nargs="+", default=[], metavar="PAGE")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = tables(options.folder)
    print(text)
    pages = {page: {"word problems": text} for page in options.write}
    pages |= {page: {"word problems": text.partition("\n\n")[0]} for page in options.brief}
    update(pages, check=options.check)


def tables(folder: Path) -> str:
    """All tables of a folder of results."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*-[0-9].json"))]
    if not found:
        return f"no run in {folder} is finished"
    runs = sorted(found, key=lambda run: (list(ARMS).index(run["arm"]), run["seed"]))
    problems = json.loads((folder / "problems.json").read_text())
    return "\n\n".join([accuracies(runs, problems), by_kind(runs, problems), by_steps(runs, problems), pairs(runs), losses(runs)])


def _right(run: Run, label: str) -> list[int]:
    return [int(letter) for letter in run["sets"][label]["right"]]


def _share(right: list[int]) -> str:
    """A share in percent with Wilson's 95 % interval over problems."""
    low, high = wilson(sum(right), len(right))
    return f"{100 * sum(right) / len(right):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _name(run: Run) -> str:
    return f"{run['arm']}, seed {run['seed']}{'' if run['complete'] else ' (cut)'}"


def _cut(run: Run) -> str:
    return "" if run["complete"] else f", cut at update {run['updates']} of {run['planned']}"


def _floors(described: Described) -> dict[str, float]:
    """What is reached by guessing, and by taking few steps."""
    mean: Callable[[list[float]], float] = lambda chances: sum(chances) / len(chances)  # noqa: E731
    floors = {"a guess": mean([1 / item["choices"] for item in described])}
    names = ("one step at most", "two steps at most")
    return floors | {name: mean([item["shortcuts"][at] for item in described]) for at, name in enumerate(names)}


def accuracies(runs: list[Run], problems: dict[str, Described]) -> str:
    """What every arm reaches, seed by seed, and what its training and its answers cost."""
    seeds = sorted({run["seed"] for run in runs})
    timed = not any("beside" in run for run in runs)
    others = ("seen", "deeper")
    head = ["arm", *(f"unseen templates, seed {seed}" for seed in seeds), "seen templates", "deeper", "updates", "columns", "GFLOP"]
    rows = []
    for arm in dict.fromkeys(run["arm"] for run in runs):
        of = {run["seed"]: run for run in runs if run["arm"] == arm}
        each = list(of.values())
        asked = [run["sets"]["unseen"] for run in each if run["complete"]] or [run["sets"]["unseen"] for run in each]
        mean: Callable[[str], float] = lambda field, asked=asked: sum(found[field] for found in asked) / len(asked)  # noqa: E731
        row = [arm, *(f"{_share(_right(of[seed], 'unseen'))}{_cut(of[seed])}" if seed in of else "" for seed in seeds)]
        for label in others:
            row.append(", ".join(f"{100 * run['sets'][label]['accuracy']:.1f}{'' if run['complete'] else ' (cut)'}" for run in each))
        row += [str(each[0]["planned"]), f"{mean('columns'):.1f}", f"{mean('flops_of_an_answer') / 1e9:.1f}"]
        if timed:
            row += [", ".join(f"{run['seconds']:.0f}" for run in each), f"{mean('seconds_of_an_answer'):.2f}"]
        rows.append(row)
    by_label = {label: _floors(problems[label]) for label in ("unseen", *others)}
    for name in by_label["unseen"]:
        shown = {label: f"{100 * floors[name]:.1f}" for label, floors in by_label.items()}
        rows.append([name, *[shown["unseen"]] * len(seeds), *(shown[label] for label in others), *[""] * (5 if timed else 3)])
    return lines([*head, *(["train s", "s an answer"] if timed else [])], rows)


def by_kind(runs: list[Run], problems: dict[str, Described]) -> str:
    """Every run's accuracy by kind of problem and by how many steps the answer is away, on templates that were not trained on.

    Swaps that all move the thing asked for are told apart by something else: whether a look at the first two of them says the answer.
    """
    columns: list[Column] = []
    for kind in sorted({item["kind"] for item in problems["unseen"]}):
        for label, depths in DEPTHS.items():
            for low, high in depths:
                wanted = lambda item, kind=kind, at=range(low, high + 1): item["kind"] == kind and item["hops"] in at and "look" not in item  # noqa: E731
                columns.append((f"{kind} {low}" if low == high else f"{kind} {low} to {high}", label, wanted))
    for label, [*_, (_, high)] in DEPTHS.items():
        for name, told in {"told at a look": True, "not": False}.items():
            wanted = lambda item, told=told: "look" in item and (item["look"] == 1) == told  # noqa: E731
            columns.append((f"swaps {DEPTHS[label][0][0]} to {high}, {name}", label, wanted))
    columns = [column for column in columns if any(map(column[2], problems[column[1]]))]
    return _split(runs, problems, "kind, steps to the answer", columns)


def by_steps(runs: list[Run], problems: dict[str, Described]) -> str:
    """The same for all kinds together, step by step."""
    cells = [(label, hops) for label in ("unseen", "deeper") for hops in sorted({item["hops"] for item in problems[label]})]
    return _split(runs, problems, "steps", [(str(hops), label, lambda item, hops=hops: item["hops"] == hops) for label, hops in cells])


def _split(runs: list[Run], problems: dict[str, Described], by: str, columns: list[Column]) -> str:
    which = [[wanted(item) for item in problems[label]] for _, label, wanted in columns]
    rows = []
    for run in runs:
        cells = []
        for (_, label, _), chosen in zip(columns, which, strict=True):
            right = [answer for answer, wanted in zip(_right(run, label), chosen, strict=True) if wanted]
            cells.append(f"{100 * sum(right) / len(right):.0f}")
        rows.append([_name(run), *cells])
    floors = [_floors([item for item in problems[label] if wanted(item)]) for _, label, wanted in columns]
    rows += [[name, *(f"{100 * floor[name]:.0f}" for floor in floors)] for name in floors[0]]
    rows.append(["problems", *(str(sum(chosen)) for chosen in which)])
    return lines([by, *(name for name, _, _ in columns)], rows)


def pairs(runs: list[Run]) -> str:
    """Differences on the same problems over the seeds that both arms have to the end: of each seed, with McNemar's p, and of all with an interval."""
    known = {(run["arm"], run["seed"]): run for run in runs if run["complete"]}
    rows = []
    for one, other in PAIRS:
        seeds = sorted(seed for arm, seed in known if arm == one and (other, seed) in known)
        if not seeds:
            continue
        row = [f"{one} - {other}", ", ".join(map(str, seeds))]
        for label in ("unseen", "deeper"):
            a, b = ([_right(known[arm, seed], label) for seed in seeds] for arm in (one, other))
            gain = difference(a, b)
            each = [100 * (sum(x) - sum(y)) / len(x) for x, y in zip(a, b, strict=True)]
            p = [mcnemar([bool(x) for x in p], [bool(y) for y in q]) for p, q in zip(a, b, strict=True)]
            row.append(", ".join(f"{gap:+.1f} (p {chance:.2g})" for gap, chance in zip(each, p, strict=True)))
            row.append(f"{100 * gain.mean:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})")
        rows.append(row)
    return lines(["pair", "seeds", "unseen, each seed", "unseen (95 %)", "deeper, each seed", "deeper (95 %)"], rows)


def losses(runs: list[Run]) -> str:
    """The mean of the logged losses in each tenth of the updates, nats a token that is asked: while there are steps, of these too."""
    rows = []
    for run in runs:
        cells = []
        for tenth in range(10):
            seen = [line["loss"] for line in run["log"] if tenth < 10 * line["update"] / run["planned"] <= tenth + 1]
            cells.append(f"{sum(seen) / len(seen):.2f}" if seen else "")
        rows.append([_name(run), *cells])
    return lines(["loss in each tenth of the updates", *map(str, range(1, 11))], rows)


if __name__ == "__main__":
    main()
