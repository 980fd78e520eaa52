"""Word problems from templates, split by template, by every method and control: exact answers, steps that can be written down.

Problems are those of `tasks.worded`. A problem's side of the split is that of its template: the problem without its names. The
steps are the values on the way, those beside it among them: a step ends with one that the answer needs, so that there are as many steps as
it needs, and one for what is given. Where these meet recurrent depth: `lw train smollm2-weaver` learns the same
problems with the same base, in thoughts about every token instead of thoughts before the answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from latentweaver.errors import InputError
from latentweaver.recipes.stepwise import MARKERS, Stepwise
from latentweaver.recipes.wording import word_tokenizer, words_of
from latentweaver.tasks.problem import Split, draw
from latentweaver.tasks.stepwise import SteppedProblem
from latentweaver.tasks.worded import WORDED
from latentweaver.tasks.worded.shortcuts import Asked, shortcut_floors
from latentweaver.tasks.worded.writing import DIRECT


@dataclass(frozen=True)
class WordsWithSteps(SteppedProblem):
    """A problem, the name of its task, and how many steps in a row its answer needs."""

    task: str
    difficulty: int

    @property
    def asked(self) -> Asked:
        """What shortcuts look at."""
        return Asked(self.task, self.question, self.answer, self.difficulty)


@dataclass(frozen=True)
class WordProblems(Stepwise):
    """The recipe; fields that all problems with steps share are in `Stepwise`.

    Attributes:
        tasks: which templates.
        difficulty: the most steps a problem needs.
        size: how much there is in a problem beyond what its answer needs, in [0, 1]. With 0 every swap moves the thing that is asked for, so that
            the first two tell it, and arrows come round in four.
        problems, test_problems: how many of each side.
    """

    tasks: tuple[str, ...] = ("sums", "homes", "counters", "swaps")
    difficulty: int = 5
    size: float = 0.2
    problems: int = 20_000
    test_problems: int = 500

    name = "words"

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := sorted(set(self.tasks) - set(WORDED)):
            raise InputError(f"unknown tasks {', '.join(unknown)}; there are {', '.join(WORDED)}")

    def training_items(self) -> list[WordsWithSteps]:
        """Problems of the training side's templates."""
        return self.drawn("train", self.problems)

    def test_items(self) -> list[WordsWithSteps]:
        """Problems of templates that are never trained on."""
        return self.drawn("test", self.test_problems)

    def own_tokenizer(self) -> Any:
        """Of every word of both sides: the names of a test problem are not new, only its template is."""
        return word_tokenizer(words_of([*self.items, *self.test_items()]), MARKERS)

    def likeness(self) -> dict[str, Any]:
        """Templates, difficulty and size."""
        return {"tasks": list(self.tasks), "difficulty": self.difficulty, "size": self.size}

    def floors(self, items: list[WordsWithSteps]) -> dict[str, float]:
        """How far a guess, few steps, and a look at the first two swaps get on these problems."""
        return shortcut_floors([item.asked for item in items])

    def drawn(self, side: Split, count: int, part: int = 0) -> list[WordsWithSteps]:
        """So many problems of one side; another `part`, others."""
        rng, kinds = random.Random(f"words {side} {part}" if part else f"words {side}"), [WORDED[name]() for name in self.tasks]
        found = []
        for number in range(count):
            task = kinds[number % len(kinds)]
            low, high = task.difficulties
            problem = draw(task, side, rng.randint(low, min(self.difficulty, high)), rng, self.size)
            steps = tuple(step.strip() for step in problem.steps)  # type: ignore[attr-defined]
            question = problem.prompt.removesuffix(DIRECT).strip()
            found.append(WordsWithSteps(question, steps, problem.answer, task.name, problem.difficulty))
        return found
