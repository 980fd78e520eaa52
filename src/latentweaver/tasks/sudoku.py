"""9x9 Sudoku with one solution: 81 characters, a point for an empty cell, answered by all 81 digits.

The difficulty is the number of empty cells.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from dataclasses import dataclass

from latentweaver.errors import InputError
from latentweaver.tasks.problem import Problem, Task

_UNITS = [
    (row, 9 + column, 18 + 3 * (row // 3) + column // 3) for row in range(9) for column in range(9)
]  # row, column and box of every cell
_ALL = 0b111111111


@dataclass(frozen=True)
class Sudoku(Task):
    """Sudokus with `difficulty` empty cells and exactly one solution."""

    name = "sudoku"
    characters = string.digits[1:] + ".="
    difficulties = (1, 52)

    def draw(self, rng: random.Random, difficulty: int, size: float) -> Problem:
        while True:
            solution = next(solutions([0] * 81, rng))
            cells, empty = list(solution), 0
            for cell in rng.sample(range(81), 81):
                digit, cells[cell] = cells[cell], 0
                if _unique(cells):
                    empty += 1
                    if empty == difficulty:
                        puzzle = "".join(str(value or ".") for value in cells)
                        return Problem(f"{puzzle}=", "".join(map(str, solution)), difficulty)
                else:
                    cells[cell] = digit

    def judge(self, problem: Problem, answer: str) -> bool:
        """Whether the digits keep what was given and every row, column and box has all nine."""
        answer = answer.strip()
        if len(answer) != 81 or not set(answer) <= set(string.digits[1:]):
            return False
        if any(given not in (".", said) for given, said in zip(problem.prompt, answer, strict=False)):
            return False
        seen = {(unit, said) for units, said in zip(_UNITS, answer, strict=True) for unit in units}
        return len(seen) == 27 * 9

    def essence(self, problem: Problem) -> str:
        """The puzzle with its digits renamed in order of appearance."""
        order = dict.fromkeys(character for character in problem.prompt[:81] if character != ".")
        return problem.prompt.translate({ord(digit): str(place) for place, digit in enumerate(order)})


def solutions(cells: list[int], rng: random.Random | None = None) -> Iterator[list[int]]:
    """Every solution of a grid (0 for empty), by search at the cell with fewest choices; digits in random order with `rng`."""
    free = [_ALL] * 27
    for cell, digit in enumerate(cells):
        if digit:
            bit = 1 << (digit - 1)
            for unit in _UNITS[cell]:
                if not free[unit] & bit:
                    return  # the givens contradict each other
                free[unit] &= ~bit
    yield from _search(list(cells), free, [cell for cell in range(81) if not cells[cell]], rng)


def _search(cells: list[int], free: list[int], empty: list[int], rng: random.Random | None) -> Iterator[list[int]]:
    if not empty:
        yield list(cells)
        return
    best, choices, fewest = 0, 0, 10
    for place, cell in enumerate(empty):
        row, column, box = _UNITS[cell]
        possible = free[row] & free[column] & free[box]
        count = possible.bit_count()
        if count < fewest:
            best, choices, fewest = place, possible, count
            if count < 2:
                break
    cell = empty[best]
    rest = empty[:best] + empty[best + 1 :]
    digits = [digit for digit in range(1, 10) if choices >> (digit - 1) & 1]
    if rng is not None:
        rng.shuffle(digits)
    for digit in digits:
        bit = 1 << (digit - 1)
        cells[cell] = digit
        for unit in _UNITS[cell]:
            free[unit] ^= bit
        yield from _search(cells, free, rest, rng)
        for unit in _UNITS[cell]:
            free[unit] ^= bit
    cells[cell] = 0


def _unique(cells: list[int]) -> bool:
    found = solutions(cells)
    return next(found, None) is not None and next(found, None) is None


def solve(puzzle: str) -> str:
    """The solution of a puzzle of 81 digits and points.

    Raises:
        InputError: if it is not of that form, or has no solution or several.
    """
    if len(puzzle) != 81 or not set(puzzle) <= set(string.digits[1:] + "."):
        raise InputError(f"a sudoku is 81 digits and points, got {len(puzzle)} characters")
    found = list(zip(range(2), solutions([int(character) if character != "." else 0 for character in puzzle]), strict=False))
    if len(found) != 1:
        raise InputError(f"the sudoku has {'no solution' if not found else 'more than one solution'}")
    return "".join(map(str, found[0][1]))
