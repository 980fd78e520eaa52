"""ProntoQA: is a statement true, six steps of deduction away (arXiv 2210.01240), in COCONUT's own split, from files.

A decoder from nothing, or a pretrained one with `own_words`, reads a fact as three tokens ("lorpus", "is", "wumpus"; "is not" is one), whether
it is told of each, of every one, or of all of them: a pretrained one knows that much grammar. A kind begins as a common noun then.

One look answers every problem of the split, without a deduction. `decoys` takes that away, in training and test (see `tasks.prontoqa_rewritten`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentweaver.errors import InputError
from latentweaver.recipes import wording
from latentweaver.recipes.stepwise import MARKERS, Stepwise
from latentweaver.recipes.wording import word_tokenizer, words_of
from latentweaver.tasks import prontoqa, stepwise
from latentweaver.tasks.prontoqa_rewritten import KINDS, PEOPLE, PROPERTIES, decoyed, renamed
from latentweaver.training.epochs import Epochs

GRAMMAR = {"(?<=pus)es": "", r"\bare\b": "is", r"\b(each|every|a|an)\b|\.": ""}
"""What a decoder from nothing need not tell apart: patterns, and what they become."""


@dataclass(frozen=True)
class ProntoQA(Stepwise):
    """The recipe; fields that all problems in words share are in `Stepwise`.

    Attributes:
        train, test: files of {question, steps, answer}: rows 0 to 8,999 and 9,200 to 9,999 of what the original's generator draws.
        problems: how many training problems are used, the first of the file.
        renamed: draw other names and another order of facts each time a problem is shown; the published recipe does not.
        decoys: kinds that lead to the wrong kind as well; 0 for the problems as they are, with 4 only deduction answers.
    """

    train: Path | None = None
    test: Path | None = None
    problems: int = 9000
    renamed: bool = False
    decoys: int = 0

    name = "prontoqa"

    def training_items(self) -> list[stepwise.SteppedProblem]:
        """The training problems."""
        return self._decoyed(stepwise.load(_given("train", self.train))[: self.problems])

    def test_items(self) -> list[stepwise.SteppedProblem]:
        """The test problems."""
        return self._decoyed(stepwise.load(_given("test", self.test)))

    def _decoyed(self, problems: list[stepwise.SteppedProblem]) -> list[stepwise.SteppedProblem]:
        rng = random.Random(f"prontoqa {self.decoys}")
        return [decoyed(problem, rng, self.decoys) for problem in problems] if self.decoys else problems

    def likeness(self) -> dict[str, Any]:
        """Which problems it learned from."""
        return {"decoys": self.decoys}

    def own_tokenizer(self) -> Any:
        """Of the words of both files and all that stand for them, so that no name is unknown."""
        words = {*words_of([*self.items, *self.test_items()]), *KINDS, *PEOPLE, *PROPERTIES}
        return word_tokenizer(words, MARKERS, phrases=["is not"], grammar=GRAMMAR)

    def stand_ins(self) -> dict[str, str]:
        """The word that a pretrained decoder takes each name for at first."""
        return {**dict(zip(KINDS, wording.NOUNS, strict=False)), **{name: name.capitalize() for name in PEOPLE}}

    def stream(self) -> Epochs:
        """Batches of problems; of `renamed` ones, drawn when they are shown."""
        if not self.renamed:
            return super().stream()
        return Epochs(self.items, self.batch_size, self.batch, self.seed, self.window, lambda item: item.question.count("."))

    def batch(self, examples: list[Any], epoch: int, rng: random.Random) -> Any:
        """A training batch of an epoch."""
        if self.renamed:
            examples = wording.examples([renamed(item, rng) for item in examples], self.tokenizer)
        return super().batch(examples, epoch, rng)

    def floors(self, items: list[Any]) -> dict[str, float]:
        """How far shortcuts get on these problems."""
        return prontoqa.shortcut_floors([(item.question, item.answer) for item in items])


def _given(field: str, path: Path | None) -> Path:
    if path is None:
        raise InputError(f"--{field} is needed: a file of ProntoQA in COCONUT's form (docs/continuous-thought.md says how to make it)")
    return path
