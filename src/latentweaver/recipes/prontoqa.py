"""ProntoQA: is a statement true, six steps of deduction away (arXiv 2210.01240), in COCONUT's own split, from files.

A decoder from nothing reads a fact as three tokens ("lorpus", "is", "wumpus"; "is not" is one), whether it is told of each, of every one, or
of all of them: a pretrained one knows that much grammar.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentweaver.errors import InputError
from latentweaver.recipes.stepwise import MARKERS, Stepwise
from latentweaver.recipes.wording import word_tokenizer, words_of
from latentweaver.tasks import prontoqa, stepwise

GRAMMAR = {"(?<=pus)es": "", r"\bare\b": "is", r"\b(each|every|a|an)\b|\.": ""}
"""What a decoder from nothing need not tell apart: patterns, and what they become."""


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

    def own_tokenizer(self) -> Any:
        """Of the words of both files, so that no name of a test problem is unknown."""
        return word_tokenizer(words_of([*self.items, *self.test_items()]), MARKERS, phrases=["is not"], grammar=GRAMMAR)

    def floors(self, items: list[Any]) -> dict[str, float]:
        """How far shortcuts get on these problems."""
        return prontoqa.shortcut_floors([(item.question, item.answer) for item in items])


def _given(field: str, path: Path | None) -> Path:
    if path is None:
        raise InputError(f"--{field} is needed: a file of ProntoQA in COCONUT's form (docs/continuous-thought.md says how to make it)")
    return path
