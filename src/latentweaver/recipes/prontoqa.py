"""ProntoQA: is a statement true, six steps of deduction away (arXiv 2210.01240), in COCONUT's own split, from files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latentweaver.errors import InputError
from latentweaver.recipes.worded import Worded
from latentweaver.tasks import worded


@dataclass(frozen=True)
class ProntoQA(Worded):
    """The recipe; fields that all problems in words share are in `Worded`.

    Attributes:
        train, test: files of {question, steps, answer}: rows 0 to 8,999 and 9,200 to 9,999 of what the original's generator draws.
    """

    train: Path | None = None
    test: Path | None = None

    name = "prontoqa"

    def training_items(self) -> list[worded.WordedProblem]:
        """The training problems."""
        return worded.load(_given("train", self.train))

    def test_items(self) -> list[worded.WordedProblem]:
        """The test problems."""
        return worded.load(_given("test", self.test))


def _given(field: str, path: Path | None) -> Path:
    if path is None:
        raise InputError(f"--{field} is needed: a file of ProntoQA in COCONUT's form (docs/continuous-thought.md says how to make it)")
    return path
