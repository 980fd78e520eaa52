"""Shortest paths in mazes: a grid of walls with a start and a goal, answered by moves.

    #######
    #S..#G#
    ###.#.#        answer: RDRU, one letter for each move from cell to cell (two characters of the picture)
    ...

A maze is a random spanning tree of a grid of cells (Wilson's algorithm, so that all trees are equally likely), hence one path
joins any two cells. The difficulty is its length in moves: a flood from either end must spread that far.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from latentweaver.errors import InputError
from latentweaver.tasks.problem import Problem, Task

MOVES = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}
Cell = tuple[int, int]


@dataclass(frozen=True)
class Maze(Task):
    """Mazes whose shortest path has `difficulty` moves; larger `size` adds up to four rows and columns of cells."""

    name = "maze"
    characters = "#.SG\n=UDLR"
    difficulties = (1, 60)

    def draw(self, rng: random.Random, difficulty: int, size: float) -> Problem:
        side = max(4, math.ceil(math.sqrt(2 * (difficulty + 1)))) + round(4 * size)
        while True:
            tree = wilson_tree(rng, side)
            start = (rng.randrange(side), rng.randrange(side))
            routes = ways_from(tree, start)
            goals = [cell for cell, route in routes.items() if len(route) == difficulty]
            if goals:
                goal = rng.choice(goals)
                return Problem(f"{_picture(tree, side, start, goal)}=", routes[goal], difficulty)

    def judge(self, problem: Problem, answer: str) -> bool:
        """Whether the moves lead from start to goal through no wall, and are as few as can be."""
        rows = problem.prompt.removesuffix("=").split("\n")
        place = _find(rows, "S")
        for move in answer.strip():
            if move not in MOVES:
                return False
            down, right = MOVES[move]
            if rows[place[0] + down][place[1] + right] == "#":
                return False
            place = (place[0] + 2 * down, place[1] + 2 * right)
        return place == _find(rows, "G") and len(answer.strip()) == problem.difficulty


def _find(rows: list[str], mark: str) -> Cell:
    for number, row in enumerate(rows):
        if mark in row:
            return number, row.index(mark)
    raise InputError(f"the maze has no {mark!r}")


def wilson_tree(rng: random.Random, side: int) -> dict[Cell, set[str]]:
    """The open directions of every cell: a uniform spanning tree, by loop-erased random walks (Wilson 1996)."""
    cells = [(row, column) for row in range(side) for column in range(side)]
    open_: dict[Cell, set[str]] = {cell: set() for cell in cells}
    inside = {rng.choice(cells)}
    for first in rng.sample(cells, len(cells)):
        leaving: dict[Cell, str] = {}  # the last way out of each cell: loops erase themselves
        cell = first
        while cell not in inside:
            ways = [(way, step) for way in MOVES if (step := _step(cell, way)) in open_]
            way, after = rng.choice(ways)
            leaving[cell], cell = way, after
        cell = first
        while cell not in inside:
            inside.add(cell)
            after = _step(cell, leaving[cell])
            open_[cell].add(leaving[cell])
            open_[after].add({"U": "D", "D": "U", "L": "R", "R": "L"}[leaving[cell]])
            cell = after
    return open_


def _step(cell: Cell, way: str) -> Cell:
    return cell[0] + MOVES[way][0], cell[1] + MOVES[way][1]


def ways_from(open_: dict[Cell, set[str]], start: Cell) -> dict[Cell, str]:
    """The moves from `start` to every cell."""
    routes, waiting = {start: ""}, [start]
    for cell in waiting:
        for way in sorted(open_[cell]):
            after = _step(cell, way)
            if after not in routes:
                routes[after] = routes[cell] + way
                waiting.append(after)
    return routes


def _picture(open_: dict[Cell, set[str]], side: int, start: Cell, goal: Cell) -> str:
    rows = [["#"] * (2 * side + 1) for _ in range(2 * side + 1)]
    for (row, column), ways in open_.items():
        rows[2 * row + 1][2 * column + 1] = "S" if (row, column) == start else "G" if (row, column) == goal else "."
        for way in ways:
            down, right = MOVES[way]
            rows[2 * row + 1 + down][2 * column + 1 + right] = "."
    return "\n".join("".join(row) for row in rows)
