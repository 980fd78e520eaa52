"""ProntoQA: is a statement true, six steps of deduction away (arXiv 2210.01240), in COCONUT's own split, from files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latentweaver.errors import InputError
from latentweaver.recipes.stepwise import Stepwise
from latentweaver.tasks import stepwise


@dataclass(frozen=True)
class ProntoQA(Stepwise):
    """The recipe; fields that all problems in words share are in `Stepwise`.

    Attributes:
        train, test: files of {question, steps, answer}: rows 0 to 8,999 and 9,200 to 9,999 of what the original's generator draws.
        problems: how many training problems are used, the first of the file.
    """

    train: Path | None = None
    test: Path | None = None
    problems: int = 9000

    name = "prontoqa"

    def training_items(self) -> list[stepwise.SteppedProblem]:
        """The training problems."""
        return stepwise.load(_given("train", self.train))[: self.problems]

    def test_items(self) -> list[stepwise.SteppedProblem]:
        """The test problems."""
        return stepwise.load(_given("test", self.test))


def _given(field: str, path: Path | None) -> Path:
    if path is None:
        raise InputError(f"--{field} is needed: a file of ProntoQA in COCONUT's form (docs/continuous-thought.md says how to make it)")
    return path
