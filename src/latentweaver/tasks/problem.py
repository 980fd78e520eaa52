"""What a task is: it draws problems of a wanted difficulty, and judges answers.

Train and test never overlap: every problem belongs to one side for good, by a hash of its *essence*, the problem with
everything renamed away that does not matter to it. So no test problem was ever seen in training, nor a renaming of one.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal, NamedTuple

from latentweaver.errors import InputError

Split = Literal["train", "test"]

TEST_SHARE = 16
"""One problem in this many belongs to the test side."""


class Hint(NamedTuple):
    """Something that can be known before the end of the prompt: after character `place`, `value`, by `depth` steps in a row."""

    place: int
    value: str
    depth: int


@dataclass(frozen=True)
class Problem:
    """A question with one right answer, or with several that the task's judge accepts.

    Attributes:
        prompt: the question; the answer follows it directly.
        answer: a right answer.
        difficulty: how many steps in a row the answer needs.
        hints: what can be known along the way, for dense supervision. Never shown to the model.
        marks: what must be said at places of the prompt, by a task that is answered `in_place`; its answer is those values in a row.
    """

    prompt: str
    answer: str
    difficulty: int
    hints: tuple[Hint, ...] = ()
    marks: tuple[Hint, ...] = field(default=(), kw_only=True)  # by name, so that a problem's own fields keep their places


class Task(ABC):
    """A source of problems.

    Attributes:
        name: what the command line calls it.
        characters: every character that prompts and answers are made of, each a token of its own.
        difficulties: the lowest and the highest difficulty it can draw.
        in_place: whether it is a picture, seen as a whole and answered at its own places, rather than a text with an answer after it.
    """

    name: str
    characters: str
    difficulties: tuple[int, int]
    in_place: bool = False

    @abstractmethod
    def draw(self, rng: random.Random, difficulty: int, size: float) -> Problem:
        """A problem of that difficulty; `size` in [0, 1] says how much there is in it beyond what the answer needs."""

    def judge(self, problem: Problem, answer: str) -> bool:
        """Whether `answer` is right."""
        return answer.strip() == problem.answer

    def essence(self, problem: Problem) -> str:
        """The problem without what does not matter to it (the names of its variables, say): equal for equal problems."""
        return problem.prompt

    def split(self, problem: Problem) -> Split:
        """The side a problem belongs to, now and for ever."""
        digest = blake2b(self.essence(problem).encode(), digest_size=4, person=b"latentweaver").digest()
        return "test" if int.from_bytes(digest, "little") % TEST_SHARE == 0 else "train"


def split_of(task: Task, problem: Problem) -> Split:
    """The side a problem belongs to, now and for ever."""
    return task.split(problem)


def draw(task: Task, split: Split, difficulty: int, seed: int | random.Random, size: float | None = None, tries: int = 10_000) -> Problem:
    """A problem of one side of the split.

    Args:
        task: where from.
        split: "train" or "test".
        difficulty: steps in a row that the answer needs.
        seed: a seed, or a generator to go on drawing from.
        size: how much there is beyond what the answer needs, in [0, 1]; drawn uniformly if None.
        tries: give up after this many problems of the other side (a task with very few problems may have none on one).

    Raises:
        InputError: a difficulty outside the task's, an unknown split, or none found.
    """
    low, high = task.difficulties
    if not low <= difficulty <= high:
        raise InputError(f"{task.name} has difficulties {low} to {high}, got {difficulty}")
    if split not in ("train", "test"):
        raise InputError(f"split must be 'train' or 'test', got {split!r}")
    rng = seed if isinstance(seed, random.Random) else random.Random(seed)
    for _ in range(tries):
        problem = task.draw(rng, difficulty, rng.random() if size is None else size)
        if split_of(task, problem) == split:
            return problem
    raise InputError(f"found no {split} problem of difficulty {difficulty} in {tries} tries; this task has too few problems")
