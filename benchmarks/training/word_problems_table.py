"""The tables of `word_problems.py`'s results: `python benchmarks/training/word_problems_table.py FOLDER` prints them, `--write PAGE` puts them
into a Markdown file and `--brief PAGE` the first of them, between the marks of "word problems", and `--check` beside these only compares.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from comparison_table import lines
from word_problems import ARMS

from latentweaver.evaluate.intervals import wilson
from latentweaver.evaluate.paired import bootstrap, difference, mcnemar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from marks import update

PAIRS = [
    ("coconut", "no-cot"),
    ("coconut", "pause"),
    ("coconut", "no-thoughts"),
    ("coconut", "no-curriculum"),
    ("coconut", "cot"),
    ("pause", "no-curriculum"),
    ("pause", "no-thoughts"),
    ("no-thoughts", "no-cot"),
    ("cot", "no-cot"),
    ("recurrent", "no-cot"),
    ("recurrent-no-thoughts", "no-thoughts"),
    ("recurrent-coconut", "coconut"),
    ("recurrent-coconut", "recurrent-no-thoughts"),
    ("pccot", "coconut"),
    ("codi", "coconut"),
    ("icot", "no-thoughts"),
]
"""Whose answers are compared problem by problem."""

Run = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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
    runs = {arm: [run for run in found if run["arm"] == arm] for arm in ARMS if any(run["arm"] == arm for run in found)}
    problems = json.loads((folder / "problems.json").read_text())
    return "\n\n".join([accuracies(runs, problems), by_steps(runs, problems), by_kind(runs, problems), pairs(runs)])


def _percent(right: list[list[int]]) -> str:
    """A share with its 95 % interval: Wilson's for one seed, over problems and seeds for several."""
    if len(right) == 1:
        low, high = wilson(sum(right[0]), len(right[0]))
        mean = sum(right[0]) / len(right[0])
    else:
        whole = bootstrap(right)
        mean, low, high = whole.mean, whole.low, whole.high
    return f"{100 * mean:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _right(runs: list[Run], label: str, which: list[bool] | None = None) -> list[list[int]]:
    each = [[int(letter) for letter in run["sets"][label]["right"]] for run in runs]
    return each if which is None else [[answer for answer, wanted in zip(row, which, strict=True) if wanted] for row in each]


def _name(arm: str, runs: list[Run]) -> str:
    cut = [f"{run['updates']} of {run['planned']}" for run in runs if not run["complete"]]
    return f"{arm} (stopped at update {', '.join(cut)})" if cut else arm


def accuracies(runs: dict[str, list[Run]], problems: dict[str, list[dict[str, Any]]]) -> str:
    """What every arm reaches, and what its training and its answers cost."""
    head = [
        "arm",
        "each seed",
        "unseen templates",
        "seen templates",
        "deeper",
        "batches",
        "updates",
        "train s",
        "columns",
        "GFLOP",
        "s an answer",
    ]
    rows = []
    for arm, of in runs.items():
        unseen = [run["sets"]["unseen"] for run in of]
        mean: Callable[[str], float] = lambda field, of=unseen: sum(found[field] for found in of) / len(of)  # noqa: E731
        rows.append(
            [
                _name(arm, of),
                ", ".join(f"{100 * found['accuracy']:.1f}" for found in unseen),
                *(_percent(_right(of, label)) for label in ("unseen", "seen", "deeper")),
                of[0]["batches"],
                str(of[0]["updates"]),
                ", ".join(f"{run['seconds']:.0f}" for run in of),
                f"{mean('columns'):.1f}",
                f"{mean('flops_of_an_answer') / 1e9:.1f}",
                f"{mean('seconds_of_an_answer'):.2f}",
            ]
        )
    guesses = [_guess(problems[label]) for label in ("unseen", "seen", "deeper")]
    rows.append(["a guess among the answers of its kind", "", *(f"{100 * guess:.1f}" for guess in guesses), *[""] * 6])
    return lines(head, rows)


def _guess(described: list[dict[str, Any]]) -> float:
    return sum(1 / item["choices"] for item in described) / len(described)


def by_steps(runs: dict[str, list[Run]], problems: dict[str, list[dict[str, Any]]]) -> str:
    """Accuracy on templates that were not trained on, by how many steps the answer is away."""
    cells = [(label, hops) for label in ("unseen", "deeper") for hops in sorted({item["hops"] for item in problems[label]})]
    return _split(
        runs, problems, "steps to the answer", [(str(hops), label, lambda item, hops=hops: item["hops"] == hops) for label, hops in cells]
    )


def by_kind(runs: dict[str, list[Run]], problems: dict[str, list[dict[str, Any]]]) -> str:
    """The same, by kind of problem."""
    kinds = sorted({item["kind"] for item in problems["unseen"]})
    return _split(runs, problems, "kind", [(kind, "unseen", lambda item, kind=kind: item["kind"] == kind) for kind in kinds])


def _split(
    runs: dict[str, list[Run]],
    problems: dict[str, list[dict[str, Any]]],
    by: str,
    columns: list[tuple[str, str, Callable[[dict[str, Any]], bool]]],
) -> str:
    which = [[wanted(item) for item in problems[label]] for _, label, wanted in columns]
    rows = []
    for arm, of in runs.items():
        cells = []
        for (_, label, _), chosen in zip(columns, which, strict=True):
            right = list(chain(*_right(of, label, chosen)))
            cells.append(f"{100 * sum(right) / len(right):.0f}")
        rows.append([arm, *cells])
    guesses = [_guess([item for item in problems[label] if wanted(item)]) for _, label, wanted in columns]
    rows.append(["a guess", *(f"{100 * guess:.0f}" for guess in guesses)])
    rows.append(["problems", *(str(sum(chosen)) for chosen in which)])
    return lines([by, *(name for name, _, _ in columns)], rows)


def pairs(runs: dict[str, list[Run]]) -> str:
    """Differences on the same problems, with their intervals, and McNemar's p of each seed."""
    rows = []
    for one, other in PAIRS:
        both = [(a, b) for a in runs.get(one, []) for b in runs.get(other, []) if a["seed"] == b["seed"]]
        if not both:
            continue
        for label in ("unseen", "deeper"):
            a, b = _right([x for x, _ in both], label), _right([y for _, y in both], label)
            gain = difference(a, b)
            p = ", ".join(f"{mcnemar([bool(x) for x in p], [bool(y) for y in q]):.2g}" for p, q in zip(a, b, strict=True))
            unlike = "" if both[0][0]["batches"] == both[0][1]["batches"] else " (unlike batches)"
            rows.append([f"{one} - {other}{unlike}", label, f"{100 * gain.mean:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})", p])
    return lines(["pair", "templates", "difference in points", "p (McNemar)"], rows)


if __name__ == "__main__":
    main()
