"""Multiplication in the digit grammar of implicit chain of thought (arXiv 2311.01460): digits lowest first, spaced.

    5 6 3 2 * 7 4 3 4 #### 5 5 6 0 8 2 0 1        (2365 * 4347 = 10280655)

Both factors have as many digits as the difficulty; the answer has twice as many, padded with zeros at its (highest) end.
`steps_of` writes the intermediate sums of the published files, and `read_row` reads a line of one.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass

from latentweaver.errors import InputError
from latentweaver.tasks.problem import Problem, Task

MARK = " #### "


@dataclass(frozen=True)
class Multiplication(Task):
    """Products of two numbers of `difficulty` digits each."""

    name = "multiplication"
    characters = string.digits + " *#"
    difficulties = (1, 20)

    def draw(self, rng: random.Random, difficulty: int, size: float) -> Problem:
        low = 0 if difficulty == 1 else 10 ** (difficulty - 1)
        return problem_of(rng.randrange(low, 10**difficulty), rng.randrange(low, 10**difficulty), difficulty)

    def essence(self, problem: Problem) -> str:
        """The two factors, in either order: a product does not care."""
        return "*".join(sorted(problem.prompt.removesuffix(MARK).split(" * ")))


def written(number: int, digits: int) -> str:
    """A number in the grammar: lowest digit first, zeros up to `digits`, spaced."""
    return " ".join(str(number)[::-1].ljust(digits, "0"))


def problem_of(left: int, right: int, digits: int) -> Problem:
    """The problem of multiplying two numbers of that many digits."""
    return Problem(f"{written(left, digits)} * {written(right, digits)}{MARK}", written(left * right, 2 * digits), digits)


def steps_of(left: int, right: int, digits: int) -> str:
    """The published chain of thought: the product with each digit, and in brackets the sum so far, but for the first and last."""
    parts, total = [], 0
    for place, digit in enumerate(str(right)[::-1].ljust(digits, "0")):
        product = left * int(digit) * 10**place
        total += product
        parts.append(written(product, digits + 1 + place))
        if 0 < place < digits - 1:
            parts[-1] += f" ( {written(total, digits + 1 + place)} )"
    return " + ".join(parts)


def read_row(line: str) -> Problem:
    """The problem of a line `question||steps #### answer` of the published files.

    Raises:
        InputError: if the line is not of that form, or its answer is wrong.
    """
    question, bar, rest = line.strip().partition("||")
    left, star, right = question.partition(" * ")
    answer = rest.rpartition(MARK.strip())[2].strip()
    factors = [text.replace(" ", "")[::-1] for text in (left, right)]
    if not (bar and star and all(factor.isdecimal() for factor in factors)):
        raise InputError(f"not a line of multiplication (expected 'digits * digits||steps #### digits'): {line[:80]!r}")
    problem = problem_of(int(factors[0]), int(factors[1]), len(factors[0]))
    if problem.answer != answer:
        raise InputError(f"the answer of {question!r} is {problem.answer!r}, the line says {answer!r}")
    return problem
