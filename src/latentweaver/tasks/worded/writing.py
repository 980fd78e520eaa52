"""What problems in words have in common: names, how a text and its hints are put together, what makes two problems equal."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from latentweaver.tasks.problem import Hint, Problem, Task

NAMES = [
    "Ann",
    "Bob",
    "Tom",
    "Sam",
    "Max",
    "Ben",
    "Dan",
    "Eve",
    "Amy",
    "Kim",
    "Leo",
    "Ian",
    "Roy",
    "Jim",
    "Joe",
    "Ray",
    "Ted",
    "Lee",
    "Sue",
    "Mia",
    "Eva",
    "Ada",
    "Guy",
    "Jay",
    "Kay",
    "Pat",
    "Ron",
    "Tim",
    "Don",
    "Ken",
    "Jack",
    "John",
    "Mary",
    "Jane",
    "Paul",
    "Luke",
    "Anna",
    "Emma",
    "Ruth",
    "Alan",
    "Adam",
    "Eric",
    "Karl",
    "Carl",
    "Fred",
    "Hugo",
    "Ivan",
    "Jean",
    "Kate",
    "Lisa",
    "Lucy",
    "Nick",
    "Noah",
    "Owen",
    "Pete",
    "Phil",
    "Rick",
    "Ross",
    "Ryan",
    "Sara",
    "Sean",
    "Tony",
    "Vera",
    "Walt",
    "Alice",
    "Peter",
    "James",
    "Susan",
    "Linda",
    "Laura",
    "Maria",
    "David",
    "Frank",
    "Henry",
    "Oscar",
    "Simon",
    "Steve",
    "Brian",
]
"""Names that are one token of SmolLM2 each, with the space before them."""

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

DIRECT, STEP_BY_STEP = " Answer:", " Step by step:"
"""How a prompt ends that wants the answer at once, and one that wants the way to it written down first."""


@dataclass(frozen=True)
class WordedProblem(Problem):
    """A problem in words.

    Attributes:
        steps: every value on the way, in words and in order, in parts: each ends with one that the answer needs, behind those it does not
            need. So there are as many as the answer needs, however much is said beside them; what is given first is a part of its own.
    """

    steps: tuple[str, ...] = field(kw_only=True)

    @property
    def thoughts(self) -> str:
        """Every value on the way, in words; between it and the answer stands `DIRECT`."""
        return "".join(self.steps)


class Worded(Task):
    """A task in words. Its prompts are read by a model's own tokenizer, so it has no `characters`.

    Attributes:
        statements: the most statements in a problem.
        answers: the words an answer can be, or () for the names.
    """

    statements: int
    answers: tuple[str, ...]

    @property
    def difficulties(self) -> tuple[int, int]:  # type: ignore[override]
        return 1, self.statements - 1

    def essence(self, problem: Problem) -> str:
        """The prompt with its names numbered in order of appearance."""
        numbers: dict[str, str] = {}
        return _NAME.sub(lambda found: numbers.setdefault(found[0], f"#{len(numbers)}"), problem.prompt)

    def count(self, difficulty: int, size: float, least: int) -> int:
        """How many statements a problem of that size has."""
        return least + int(size * max(self.statements - least, 0) + 0.5)


_NAME = re.compile(r"\b(?:" + "|".join(NAMES) + r")\b")


@dataclass
class Text:
    """A problem being written: words, and what is known after each of them."""

    text: str
    hints: list[Hint] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    beside: str = ""

    def say(self, words: str, value: str | None = None, depth: int = 0) -> None:
        """Add words; `value` is known after the last of them, by `depth` steps in a row."""
        self.text += words
        if value is not None:
            self.hints.append(Hint(len(self.text) - 1, value, depth))

    def think(self, values: str, needed: bool = True) -> None:
        """Add values to the way; `needed` if the answer needs them."""
        self.beside += values
        if needed:
            self.steps.append(self.beside)
            self.beside = ""

    def problem(self, question: str, answer: str, difficulty: int) -> WordedProblem:
        """The finished problem, its question asked and its answer wanted at once."""
        self.say(question)
        self.say(DIRECT)
        *before, last = self.steps
        return WordedProblem(self.text, answer, difficulty, tuple(self.hints), steps=(*before, last + self.beside))


def step_by_step(problem: WordedProblem) -> tuple[str, str]:
    """Prompt and full reply of a problem whose way is to be written down."""
    return problem.prompt.removesuffix(DIRECT) + STEP_BY_STEP, f"{problem.thoughts}{DIRECT} {problem.answer}"
