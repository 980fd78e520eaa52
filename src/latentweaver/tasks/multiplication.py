"""Multiplication in the digit grammar: every number is written lowest digit first, so that carries run with the text.

    12*34=8041<        (21 * 43 = 903 would be written 12*34=309)

The difficulty is the number of digits of both factors. Hints: none inside the question; the answer itself is the only label.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass

from latentweaver.tasks.problem import Problem, Task


@dataclass(frozen=True)
class Multiplication(Task):
    """Products of two numbers of `difficulty` digits each, digits lowest first."""

    name = "multiplication"
    characters = string.digits + "*="
    difficulties = (1, 20)

    def draw(self, rng: random.Random, difficulty: int, size: float) -> Problem:
        low, high = (0, 9) if difficulty == 1 else (10 ** (difficulty - 1), 10**difficulty - 1)
        left, right = rng.randint(low, high), rng.randint(low, high)
        return Problem(f"{written(left)}*{written(right)}=", written(left * right), difficulty)

    def essence(self, problem: Problem) -> str:
        """The two factors, in either order: a product does not care."""
        return "*".join(sorted(problem.prompt[:-1].split("*")))


def written(number: int) -> str:
    """A number as the task writes it, lowest digit first."""
    return str(number)[::-1]


def read(text: str) -> int:
    """The number that `written` wrote."""
    return int(text[::-1])
