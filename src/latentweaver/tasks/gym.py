"""A task of `reasoning-gym` (arXiv 2505.24760), more than a hundred generators with judges of their own.

    Gym("chain_sum")        needs `pip install latentweaver[gym]`

The difficulty is the level of the generator's curriculum, from 1; a generator without one has level 1 alone. Which side a problem is
on is decided by its question, as for our own tasks.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass, field
from typing import Any

from latentweaver.errors import InputError
from latentweaver.tasks.problem import Problem, Task


@dataclass(frozen=True)
class Entry(Problem):
    """A problem that remembers the row it is from, which the generator's judge wants to see."""

    row: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


class Gym(Task):
    """The generator of that name. Level n sets everything that its curriculum can vary to its n-th value, or to its last.

    Raises:
        InputError: if reasoning-gym is not installed or has no such generator.
    """

    characters = string.printable.rstrip(string.whitespace) + " \n" + "°¬×’→↔↑∧∨∫⊕─│┌┐└┘├█✅❌❔"  # noqa: RUF001

    def __init__(self, name: str) -> None:
        try:
            from reasoning_gym.factory import DATASETS, has_curriculum
        except ImportError as error:
            raise InputError("these tasks need reasoning-gym: pip install latentweaver[gym]") from error
        if name not in DATASETS:
            near = [known for known in sorted(DATASETS) if known[:3] == name[:3]] or sorted(DATASETS)[:8]
            raise InputError(f"reasoning-gym has no {name!r}; of its {len(DATASETS)} there are {', '.join(near)}")
        self.name = f"reasoning-gym:{name}"
        self.generator = name
        self.levels = has_curriculum(name)
        attributes = self._curriculum().attributes if self.levels else {}
        self.difficulties = (1, max((len(attribute.levels) for attribute in attributes.values()), default=1))

    def _curriculum(self, level: int = 0) -> Any:
        from reasoning_gym.factory import create_curriculum

        curriculum = create_curriculum(self.generator)
        curriculum.set_global_level(level)
        return curriculum

    def _dataset(self, level: int, seed: int) -> Any:
        from reasoning_gym.factory import create_dataset

        if not self.levels:
            return create_dataset(self.generator, seed=seed, size=1)
        config = self._curriculum(level).generate_configuration({"seed": seed, "size": 1})
        return create_dataset(self.generator, **vars(config))

    def draw(self, rng: random.Random, difficulty: int, size: float) -> Problem:
        """A problem of that level; its `answer` is empty where the generator keeps none and only judges.

        Raises:
            InputError: if the generator does not work at that level.
        """
        try:
            row = self._dataset(difficulty - 1, rng.getrandbits(31))[0]
        except (AssertionError, ValueError) as error:
            raise InputError(f"{self.name} makes no problem of difficulty {difficulty}: {error}") from error
        answer = "" if row["answer"] is None else str(row["answer"])
        return Entry(f"{row['question'].rstrip()}\n", answer, difficulty, row=row)

    def judge(self, problem: Problem, answer: str) -> bool:
        """Whether the generator's own judge gives the answer full marks."""
        if not isinstance(problem, Entry):
            raise InputError("this problem was not drawn from reasoning-gym, so its judge does not know it")
        return self._dataset(0, 0).score_answer(answer=answer.strip(), entry=problem.row) >= 1
