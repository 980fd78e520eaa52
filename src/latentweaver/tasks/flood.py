"""The way out of a maze, asked of every place at once: a flood from the goal.

    ╶┐╶─┬╴        A character is a place with its ways out. The goal is drawn heavy. Asked, at every other place, is the way that
    ┌┴┐╷├╴        leads to it: one of ↑↓←→. (`UNKNOWN`, ?, is for saying that it cannot be known yet.) A place as far from the goal as `d` moves can know it after `d` steps, once the
    └╴└┻┘╷        place before it does; nothing tells it sooner.
    ╶──┴─┘

Mazes are those of `maze`: a random spanning tree, so one way joins any two places. All are squares of `side` places, and the
difficulty is the length of the way from one place, the start, to the goal; the picture does not show the start. It is
solved if every place on that way is answered right. Train and test are different pictures, whatever the start.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from latentweaver.tasks.maze import MOVES, Cell, ways_from, wilson_tree
from latentweaver.tasks.problem import Hint, Problem, Task

LIGHT, HEAVY = "╵╷│╴┘┐┤╶└┌├─┴┬┼", "╹╻┃╸┛┓┫╺┗┏┣━┻┳╋"
"""The places by their ways out, numbered from 1: up 1, down 2, left 4, right 8."""

UNKNOWN = "?"
ARROWS = dict(zip("UDLR", "↑↓←→", strict=True))
BACK = {"U": "D", "D": "U", "L": "R", "R": "L"}


@dataclass(frozen=True)
class Flood(Task):
    """Mazes of `side` x `side` places, answered in place.

    Attributes:
        side: places in a row, and rows.
    """

    side: int = 6

    name = "flood"
    characters = LIGHT + HEAVY + "\n" + "".join(ARROWS.values()) + UNKNOWN
    in_place = True

    @property
    def difficulties(self) -> tuple[int, int]:  # type: ignore[override]
        return 1, 4 * self.side

    def draw(self, rng: random.Random, difficulty: int, size: float) -> Problem:
        """A maze with a place that is `difficulty` moves from its goal. `size` changes nothing: all are of one size."""
        while True:
            tree = wilson_tree(rng, self.side)
            goal = (rng.randrange(self.side), rng.randrange(self.side))
            routes = ways_from(tree, goal)
            starts = [cell for cell, route in routes.items() if len(route) == difficulty]
            if starts:
                break
        start = rng.choice(starts)
        hints = [self._hint(cell, route) for cell, route in routes.items() if route]
        marks, cell = [], start
        while cell != goal:
            marks.append(self._hint(cell, routes[cell]))
            down, right = MOVES[BACK[routes[cell][-1]]]
            cell = cell[0] + down, cell[1] + right
        rows = [
            "".join((HEAVY if (row, column) == goal else LIGHT)[_number(tree[row, column])] for column in range(self.side))
            for row in range(self.side)
        ]
        return Problem("\n".join(rows), "".join(mark.value for mark in marks), difficulty, tuple(hints), marks=tuple(marks))

    def _hint(self, cell: Cell, route: str) -> Hint:
        """What is said at a place: the way by which the route from the goal came, back."""
        return Hint(cell[0] * (self.side + 1) + cell[1], ARROWS[BACK[route[-1]]], len(route))


def _number(ways: set[str]) -> int:
    return sum(1 << "UDLR".index(way) for way in ways) - 1
