"""Problems in words as training batches, through a model's tokenizer."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from latentweaver.errors import InputError
from latentweaver.tasks.batches import IGNORED, Batch
from latentweaver.tasks.problem import Split, draw
from latentweaver.tasks.worded.writing import Worded, WordedProblem, step_by_step

_WORD = re.compile(r" ?[A-Za-z]+| ?[^\sA-Za-z]|\s")

Row = tuple[list[int], list[int], list[int], list[bool]]
"""Token ids, and for each the label, its depth, and whether it belongs to the reply."""


@dataclass
class Words:
    """A tokenizer, word by word: a byte-level BPE splits a text at its words first, so this is the same and far faster."""

    tokenizer: Any
    known: dict[str, list[int]] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """The token that ends an answer."""
        return int(self.tokenizer.eos_token_id)

    def encode(self, text: str) -> list[list[int]]:
        """The ids of each word of a text."""
        return [self.known.get(word) or self._new(word) for word in _WORD.findall(text)]

    def _new(self, word: str) -> list[int]:
        self.known[word] = self.tokenizer.encode(word, add_special_tokens=False)
        return self.known[word]

    def one(self, word: str) -> int:
        """The id of a word that is one token, with the space before it.

        Raises:
            InputError: if it is several.
        """
        (ids,) = self.encode(f" {word}")
        if len(ids) != 1:
            raise InputError(f"{word!r} is {len(ids)} tokens of this tokenizer; answers must be one")
        return ids[0]


def row_of(problem: WordedProblem, words: Words, written: bool = False, hints: bool = True) -> Row:
    """A problem as tokens and labels: prompt and reply; `written` for the way step by step before the answer.

    What is written down needs one step at a time: the text has the one before.
    """
    prompt, reply = step_by_step(problem) if written else (problem.prompt, f" {problem.answer}")
    ids: list[int] = []
    ends: dict[int, int] = {}  # of the word that ends with this character, its last token
    place = -1
    for text, word in zip(_WORD.findall(prompt), words.encode(prompt), strict=True):
        ids += word
        place += len(text)
        ends[place] = len(ids) - 1
    said = [token for word in words.encode(reply) for token in word]
    labels = [IGNORED] * (len(ids) - 1) + said + [words.end]
    depths = [0] * (len(ids) - 1) + [1 if written else problem.difficulty + 1] * len(said) + [0]
    answer = [False] * (len(ids) - 1) + [True] * (len(said) + 1)
    for hint in problem.hints if hints else ():
        at = ends[hint.place]
        labels[at], depths[at] = words.one(hint.value), hint.depth
    return ids + said, labels, depths, answer


@dataclass(frozen=True)
class WordedStream:
    """An endless list of batches: batch i depends on (seed, i) alone. All of one batch's rows are of one length.

    Attributes:
        tasks: what to draw from, alike often.
        tokenizer: of the model.
        difficulty: the highest to draw.
        lengths: how long rows may be; each batch takes one of them, and problems are made to fill it.
        tokens: tokens of a batch.
        written: share of the problems whose way is to be written down, step by step.
        seed, split, hints: as in `tasks.batches.Stream`.
    """

    tasks: Sequence[Worded]
    tokenizer: Any
    difficulty: int = 16
    lengths: tuple[int, ...] = (128, 256)
    tokens: int = 32768
    written: float = 0.2
    seed: int = 0
    split: Split = "train"
    hints: bool = True
    words: list[Words] = field(default_factory=list, compare=False, repr=False)

    def __getitem__(self, index: int) -> Batch:
        if not self.words:
            self.words.append(Words(self.tokenizer))
        rng = random.Random(f"{self.seed} {index}")
        length = self.lengths[int(rng.random() * len(self.lengths))]
        return as_batch([self._row(rng, length) for _ in range(self.tokens // length)], length, self.words[0].end)

    def _row(self, rng: random.Random, length: int) -> Row:
        """A problem that fits; what it has too much is first taken from its size, then from its difficulty."""
        task, written = rng.choice(self.tasks), rng.random() < self.written
        low, high = task.difficulties
        difficulty = rng.randint(low, min(high, self.difficulty))
        size = rng.random() ** 0.5
        while True:
            problem = cast(WordedProblem, draw(task, self.split, difficulty, rng, size))
            row = row_of(problem, self.words[0], written, self.hints)
            if len(row[0]) <= length:
                return row
            size *= min(0.9, length / len(row[0]))
            if size < 0.1:
                difficulty, size = max(low, difficulty * 3 // 4), rng.random()


def as_batch(rows: Sequence[Row], length: int, pad: int) -> Batch:
    """Rows as one batch, padded on the right."""
    shape = (len(rows), length)
    input_ids, labels = torch.full(shape, pad), torch.full(shape, IGNORED)
    depth, answer = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
    for at, row in enumerate(rows):
        for tensor, values in zip((input_ids, labels, depth, answer), row, strict=True):
            tensor[at, : len(values)] = torch.tensor(values)
    return Batch(input_ids, labels, depth, answer)
