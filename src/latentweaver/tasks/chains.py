"""Chains of dependent sums: the values of a graph of variables, each the last digit of a sum.

    r=3 k=r+4 q=k+r ?q=0        (3 + 4 = 7, 7 + 3 = 10, last digit 0)

A statement gives a variable a digit, or adds to an earlier variable a digit or another variable. The difficulty is the depth
of the variable asked for: the longest chain of statements below it, each of which must be known before the next. Among the
statements that matter stand others that do not, so that length says little about depth, and no statement is deeper than the
difficulty. After every statement its own value is already determined: these are the hints.

Statements stand in an order in which they can be evaluated, because a causal model sees only what came before. The
positions can all be worked on at once, but a value of depth d must wait for one of depth d - 1: serial depth is what the
task measures, and a model of fixed depth cannot answer beyond its own.

There is a hint wherever something is determined: after a statement its value, and after a variable that is added or asked
for the value looked up. The second kind separates the two skills of a step, to find a value by its name and to add.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass

from latentweaver.errors import InputError
from latentweaver.tasks.problem import Hint, Problem, Task

NAMES = string.ascii_letters


@dataclass(frozen=True)
class Chains(Task):
    """Chains of dependent sums modulo 10.

    Attributes:
        statements: the most statements in a problem; at most 52, the number of names.
        two_variables: share of the sums that add two variables rather than a variable and a digit.
        fresh: share of the statements that do not matter and only give a digit.
    """

    statements: int = 52
    two_variables: float = 0.5
    fresh: float = 0.15

    name = "chains"
    characters = string.digits + "=+? " + NAMES

    def __post_init__(self) -> None:
        if not 2 <= self.statements <= len(NAMES):
            raise InputError(f"statements must be 2 to {len(NAMES)}, got {self.statements}")

    @property
    def difficulties(self) -> tuple[int, int]:  # type: ignore[override]
        return 1, self.statements - 1

    def draw(self, rng: random.Random, difficulty: int, size: float) -> Problem:
        chance = rng.random
        count = difficulty + 1 + int(size * (self.statements - difficulty - 1) + 0.5)
        on_chain = set(rng.sample(range(count), difficulty + 1))
        names = rng.sample(NAMES, count)
        values: list[int] = []
        depths: list[int] = []
        parts: list[str] = []
        hints: list[Hint] = []
        place, last = -1, -1
        for index in range(count):
            chained = index in on_chain
            if chained:
                first = last
            elif index == 0 or chance() < self.fresh:
                first = -1
            elif chance() < 0.5:
                first = index - 1
            else:
                first = int(chance() * index)
            limit = depths[first] if chained and first >= 0 else difficulty - 1
            if first < 0 or depths[first] > limit:
                value, depth = int(chance() * 10), 0
                text = f"{names[index]}={value} "
            else:
                second = self._another(chance, depths, first, limit) if chance() < self.two_variables else -1
                if second < 0:
                    digit = int(chance() * 10)
                    added, summand, depth = digit, str(digit), depths[first] + 1
                else:
                    added, summand, depth = values[second], names[second], max(depths[first], depths[second]) + 1
                value = (values[first] + added) % 10
                here = 3  # of the first variable; the other summand is on the other side of the plus
                if chance() < 0.5:
                    text = f"{names[index]}={names[first]}+{summand} "
                else:
                    text, here = f"{names[index]}={summand}+{names[first]} ", 5
                hints.append(Hint(place + here, str(values[first]), depths[first] + 1))
                if second >= 0:
                    hints.append(Hint(place + 8 - here, str(added), depths[second] + 1))
            if chained:
                last = index
            values.append(value)
            depths.append(depth)
            parts.append(text)
            place += len(text)
            hints.append(Hint(place, str(value), depth))
        hints.append(Hint(place + 2, str(values[last]), difficulty + 1))
        return Problem(f"{''.join(parts)}?{names[last]}=", str(values[last]), difficulty, tuple(hints))

    @staticmethod
    def _another(chance, depths: list[int], first: int, limit: int) -> int:  # type: ignore[no-untyped-def]
        """An earlier variable other than `first` and no deeper than `limit`, or -1 if a few tries find none."""
        for _ in range(6):
            second = int(chance() * len(depths))
            if second != first and depths[second] <= limit:
                return second
        return -1

    def essence(self, problem: Problem) -> str:
        """The prompt with its variables renamed in order of appearance."""
        defined = [statement[0] for statement in problem.prompt.split(" ")[:-1]]
        return problem.prompt.translate({ord(name): chr(0x100 + place) for place, name in enumerate(defined)})


def evaluate(prompt: str) -> tuple[str, int]:
    """Answer and depth of a chains prompt, worked out from its text alone: what the tests check the generator against.

    Raises:
        InputError: if the prompt is not well formed.
    """
    known: dict[str, tuple[int, int]] = {}

    def term(text: str) -> tuple[int, int]:
        if len(text) == 1 and text in string.digits:
            return int(text), -1
        if text not in known:
            raise InputError(f"{text!r} is neither a digit nor a variable defined before")
        return known[text]

    *statements, question = prompt.split(" ")
    for statement in statements:
        name, _, right = statement.partition("=")
        terms = [term(part) for part in right.split("+")]
        known[name] = sum(value for value, _ in terms) % 10, max(depth for _, depth in terms) + 1
    if not (question.startswith("?") and question.endswith("=")):
        raise InputError(f"a chains prompt ends with a question such as '?a=', got {question!r}")
    value, depth = term(question[1:-1])
    return str(value), depth
