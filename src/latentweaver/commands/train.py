"""`lw train`: a recipe, its fields as flags."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentweaver.commands.common import quiet
from latentweaver.commands.recipe_flags import read
from latentweaver.errors import InputError


@dataclass(frozen=True)
class Train:
    """Run a recipe: `lw train RECIPE`, its fields as flags (`lw train chains --help` lists them)."""


@dataclass(frozen=True)
class Place:
    """Where a run is.

    Attributes:
        folder: where the run is kept and the model is saved; runs/RECIPE if not given.
        resume: go on with the run in that folder.
    """

    folder: Path | None = None
    resume: bool = False


def train(arguments: list[str]) -> None:
    """`lw train RECIPE [--folder F] [--resume] [--FIELD VALUE ...]`."""
    from latentweaver import recipes

    if not arguments or arguments[0].startswith("-"):
        about = ", ".join(recipes.RECIPES)
        print(f"usage: lw train RECIPE [--folder FOLDER] [--resume] [--FIELD VALUE ...]\n\nrecipes: {about}")
        sys.exit(0 if "-h" in arguments or "--help" in arguments else 2)
    name, *rest = arguments
    if name not in recipes.RECIPES:
        raise InputError(f"unknown recipe {name!r}; there are {', '.join(recipes.RECIPES)}")
    place, recipe = read(Place, recipes.RECIPES[name], f"lw train {name}", rest)
    _train(recipe, place.folder or Path("runs") / name, place.resume)


def _train(recipe: Any, folder: Path, resume: bool) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from latentweaver.console import make_console
    from latentweaver.tasks import Task

    quiet()
    console = make_console()
    first = int(os.environ.get("RANK", 0)) == 0  # of several processes one reports
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not first) as progress:
        bar = progress.add_task("starting", total=recipe.updates)

        def report(line: dict[str, Any]) -> None:
            shown = "  ".join(f"{name} {value:.3g}" for name, value in line.items() if name in ("loss", "accuracy"))
            progress.update(bar, completed=line["update"], description=shown or "training")
            measured = {name: value for name, value in line.items() if name.startswith(("depth_", "distance_")) or "_at_" in name}
            if measured:
                console.print(f"update {line['update']}: " + "  ".join(f"{name} {value:.3f}" for name, value in measured.items()))
            if "warning" in line:
                console.print(f"update {line['update']}: {line['warning']}", style="yellow", markup=False)

        model = recipe.run(folder, resume, report)
    if first:
        task = getattr(recipe, "task", None)
        console.print(f"the model is in {model}" + (f"; try: lw eval {model} --task {task.name}" if isinstance(task, Task) else ""))
