"""`lw compare`: every method and control on the same problems, trained or read, in one table."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentweaver.commands.common import can_write, in_columns, per_cent, quiet, write_json
from latentweaver.commands.recipe_flags import read
from latentweaver.errors import InputError


@dataclass(frozen=True)
class Compare:
    """Train or read every method on one task and print the table: `lw compare TASK` (`lw compare prosqa --help` lists its flags)."""


@dataclass(frozen=True)
class Choices:
    """What to compare.

    Attributes:
        folder: where the runs are, or will be: FOLDER/METHOD-SEED.
        methods: which, separated by commas; all of them, soft thinking among them, if not given.
        seeds: how many models of each method.
        timed: problems that are asked one at a time for the wall time.
        json: also write rows and results to this file, again after each model that has answered.
    """

    folder: Path = Path("runs/compare")
    methods: str = ""
    seeds: int = 3
    timed: int = 20
    json: Path | None = None


def compare(arguments: list[str]) -> None:
    """`lw compare TASK [--folder F] [--methods A,B] [--seeds N] [--json FILE] [--FIELD VALUE ...]`; fields are the recipe's."""
    from latentweaver.recipes import STEPWISE as kinds

    if not arguments or arguments[0].startswith("-"):
        print(f"usage: lw compare TASK [--FLAG VALUE ...]\n\ntasks: {', '.join(kinds)}")
        sys.exit(0 if "-h" in arguments or "--help" in arguments else 2)
    name, *rest = arguments
    if name not in kinds:
        raise InputError(f"unknown task {name!r}; methods can be compared on {', '.join(kinds)}")
    choices, recipe = read(Choices, kinds[name], f"lw compare {name}", rest)
    _compare(choices, recipe)


def _compare(choices: Choices, recipe: Any) -> None:
    from latentweaver.console import make_console
    from latentweaver.recipes.comparing import SOFT, compare
    from latentweaver.recipes.methods import METHODS

    quiet()
    can_write(choices.json)
    console = make_console()
    methods = [method.strip() for method in choices.methods.split(",") if method.strip()] or [*METHODS, SOFT]
    shown: set[str] = set()

    def report(name: str, line: dict[str, Any]) -> None:
        if name not in shown:
            shown.add(name)
            console.print(f"training {name}", style="dim", markup=False)
        if "accuracy" in line:
            console.print(f"{name} at update {line['update']}: accuracy {line['accuracy']:.3f}", style="dim", markup=False)

    def measured(so_far: Any) -> None:
        console.print(said(so_far.results[-1]), markup=False, highlight=False)
        if choices.json is not None:
            write_json(choices.json, so_far.as_dict())

    comparison = compare(recipe, choices.folder, methods, choices.seeds, choices.timed, report, measured)
    problems, seeds = len(comparison.results[0].right), choices.seeds
    console.print(
        f"accuracy in per cent on {problems} problems, {seeds} seed{'s' * (seeds > 1)}, 95 % intervals; against {comparison.against}:"
    )
    console.print(in_columns(table_of(comparison)), markup=False, highlight=False, soft_wrap=True)
    for rule, accuracy in comparison.floors.items():
        console.print(f"without searching, by {rule}: {100 * accuracy:.1f}", markup=False)


def said(result: Any) -> str:
    """What one model did, in a line."""
    from latentweaver.evaluate.intervals import wilson

    low, high = wilson(sum(result.right), len(result.right))
    seconds = "" if result.seconds is None else f", {result.seconds:.3g} s/answer"
    return f"{result.method}-{result.seed}: accuracy {per_cent(result.accuracy, low, high)}, {result.tokens:.1f} tokens{seconds}"


def table_of(comparison: Any) -> list[list[str]]:
    """The rows of a comparison, a line of headings first."""
    lines = [["method", "accuracy", "of each seed", "difference", "McNemar's p", "tokens", "s/answer"]]
    for row in comparison.rows():
        lines.append(
            [
                row.method if row.complete else f"{row.method} (not trained to the end)",
                per_cent(row.mean, row.low, row.high),
                " ".join(f"{100 * accuracy:.1f}" for accuracy in row.accuracies),
                "" if row.gain is None else per_cent(row.gain, row.gain_low, row.gain_high, "+"),
                " ".join(f"{p:.2g}" for p in row.p_values),
                f"{row.tokens:.1f}",
                "" if row.seconds is None else f"{row.seconds:.3g}",
            ]
        )
    return lines
