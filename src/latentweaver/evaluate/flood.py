"""A maze being flooded: what a model says at every place after every step, as text and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from latentweaver.errors import InputError
from latentweaver.tasks.characters import Characters
from latentweaver.tasks.flood import ARROWS, HEAVY, LIGHT, Flood
from latentweaver.tasks.problem import Problem

SURE = 0.9
"""A place counts as known from this probability on."""

STEPS = {arrow: {"U": (0, 1), "D": (0, -1), "L": (-1, 0), "R": (1, 0)}[way] for way, arrow in ARROWS.items()}


@dataclass(frozen=True)
class Told:
    """What is said after a number of steps.

    Attributes:
        steps: how many.
        arrows: for each place of the picture that is known its arrow.
        right: how many of them are right.
        places: how many places are asked in all.
    """

    steps: int
    arrows: dict[int, str]
    right: int
    places: int

    def lines(self, picture: str) -> list[str]:
        """The picture, an arrow in place of every place that is known."""
        return "".join(self.arrows.get(at, glyph) for at, glyph in enumerate(picture)).split("\n")


@torch.no_grad()
def told(model: Any, problem: Problem, steps: Sequence[int], sure: float = SURE) -> list[Told]:
    """What `model` says about a maze after each of these numbers of steps.

    Args:
        model: a reasoner whose tokens are the characters of `Flood`.
        problem: the maze.
        steps: numbers of steps.
        sure: the probability from which on a place counts as known.

    Raises:
        InputError: no steps, or one below 1.
    """
    characters, wanted = Characters(Flood.characters), sorted(set(steps))
    if not wanted or wanted[0] < 1:
        raise InputError(f"need steps of at least 1, got {list(steps)}")
    truth = {hint.place: hint.value for hint in (*problem.hints, *problem.marks)}
    device = next(model.parameters()).device
    thought, found = model.begin(torch.tensor([characters.encode(problem.prompt)], device=device)), []
    for step in range(1, wanted[-1] + 1):
        thought = model.think(thought)
        if step in wanted:
            best, token = model.read(thought).logits[0].softmax(-1).max(-1)
            arrows = {at: said for at in truth if (said := characters.tokens[int(token[at])]) in STEPS and float(best[at]) >= sure}
            found.append(Told(step, arrows, sum(arrows[at] == truth[at] for at in arrows), len(truth)))
    return found


def plot_flood(found: Sequence[Told], problem: Problem, path: str | Path) -> Path:
    """Draw the maze once for each number of steps, arrows coloured by how far from the goal they stand; wrong ones are red.

    Raises:
        InputError: if `path` is neither .png nor .svg, or matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise InputError(f"cannot write {path.name}: a picture of a maze is .png or .svg")
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("pictures need matplotlib: pip install matplotlib") from error
    hints = {hint.place: hint for hint in (*problem.hints, *problem.marks)}
    deepest = max(hint.depth for hint in hints.values())
    rows = problem.prompt.split("\n")
    columns = min(len(found), 3)
    figure = Figure(figsize=(3.2 * columns, 3.5 * -(-len(found) // columns)))
    axes = figure.subplots(-(-len(found) // columns), columns, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    for axis, said in zip(axes, found, strict=False):
        axis.set_aspect("equal")
        axis.set_title(f"{said.steps} step{'s' * (said.steps > 1)}: {said.right} of {said.places} places", fontsize=9)
        for row, text in enumerate(rows):
            for column, glyph in enumerate(text):
                number = (LIGHT if glyph in LIGHT else HEAVY).index(glyph) + 1
                for bit, (right, up) in ((2, (0, -1)), (8, (1, 0))):  # the ways up and left are the others' ways down and right
                    if number & bit:
                        axis.plot(
                            [column, column + right], [-row, -row + up], color="#dddddd", linewidth=7, solid_capstyle="round", zorder=1
                        )
                if glyph in HEAVY:
                    axis.plot(column, -row, "o", color="black", markersize=7, zorder=3)
        for at, arrow in said.arrows.items():
            row, column = divmod(at, len(rows[0]) + 1)
            right, up = STEPS[arrow]
            true = hints[at].value == arrow
            colour = colormaps["viridis"](0.9 * hints[at].depth / deepest) if true else "red"
            style = {"arrowstyle": "->", "color": colour, "linewidth": 1.2}
            axis.annotate(
                "", (column + 0.35 * right, -row + 0.35 * up), (column - 0.35 * right, -row - 0.35 * up), arrowprops=style, zorder=2
            )
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    return path
