"""Problems as rows of token ids, and an endless list of training batches.

What a model should say is aligned with the token after which it should say it: `labels[i]` answers `input_ids[: i + 1]`. For
the answer that is the next token; for a hint it is a value that the text itself never shows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.tasks.characters import Characters
from latentweaver.tasks.problem import Hint, Problem, Split, Task, draw

IGNORED = -100
"""The label of a token after which nothing in particular should be said."""


@dataclass(frozen=True)
class Batch:
    """Problems as tensors, padded on the right.

    Attributes:
        input_ids: prompt and answer, `[batch, sequence]`.
        labels: what should be said after each token, or `IGNORED`.
        depth: steps in a row that each label needs; 0 where it needs none or where there is no label.
        is_answer: whether a label belongs to the answer (its end included), rather than to a hint.
    """

    input_ids: Int[Tensor, "batch sequence"]
    labels: Int[Tensor, "batch sequence"]
    depth: Int[Tensor, "batch sequence"]
    is_answer: Int[Tensor, "batch sequence"]

    def to(self, device: str | torch.device) -> Batch:
        """The same on another device."""
        moved = (tensor.to(device, non_blocking=True) for tensor in (self.input_ids, self.labels, self.depth, self.is_answer))
        return Batch(*moved)

    def pin_memory(self) -> Batch:
        """The same in page-locked memory (what a torch DataLoader calls)."""
        return Batch(*(tensor.pin_memory() for tensor in (self.input_ids, self.labels, self.depth, self.is_answer)))


def collate(problems: list[Problem], characters: Characters, hints: bool = True, multiple: int = 1) -> Batch:
    """Problems as one batch; the length is rounded up to a multiple. Without `hints` only answers are labelled."""
    texts = [problem.prompt if problem.marks else problem.prompt + problem.answer for problem in problems]
    shape = (len(problems), -(-max(map(len, texts)) // multiple) * multiple)
    input_ids = torch.full(shape, characters.pad)
    labels = torch.full(shape, IGNORED)
    depth = torch.zeros(shape, dtype=torch.long)
    is_answer = torch.zeros(shape, dtype=torch.bool)

    def put(row: int, said: tuple[Hint, ...]) -> None:
        places, values, depths = zip(*said, strict=True)
        labels[row, list(places)] = torch.tensor([characters.ids[value] for value in values])
        depth[row, list(places)] = torch.tensor(depths)

    for row, (problem, text) in enumerate(zip(problems, texts, strict=True)):
        ids = characters.encode(text)
        input_ids[row, : len(ids)] = torch.tensor(ids)
        if hints and problem.hints:
            put(row, problem.hints)
        if problem.marks:
            put(row, problem.marks)
            is_answer[row, [mark.place for mark in problem.marks]] = True
            continue
        start = len(problem.prompt) - 1
        labels[row, start : len(ids)] = torch.tensor([*ids[start + 1 :], characters.end])
        depth[row, start : len(ids) - 1] = problem.difficulty + 1  # the answer looks the value up once more
        is_answer[row, start : len(ids)] = True
    return Batch(input_ids, labels, depth, is_answer)


@dataclass(frozen=True)
class Stream:
    """An endless list of training batches: batch i depends on (seed, i) alone, so any worker can make any of them.

    The problems of one batch have a common `size`, which keeps their lengths near each other and padding small.

    Attributes:
        task: where problems come from.
        difficulties: the lowest and highest difficulty; each problem's is drawn uniformly.
        batch_size: problems in a batch.
        seed: another seed, other problems.
        hints: whether hints are labelled too.
        split: the side of the split.
        multiple: lengths are rounded up to a multiple of this, so that a compiled model sees few shapes.
        grow: batches over which size and difficulty rise from the smallest to their full range; 0 for the full range at once.
    """

    task: Task
    difficulties: tuple[int, int]
    batch_size: int
    seed: int = 0
    hints: bool = True
    split: Split = "train"
    multiple: int = 32
    grow: int = 0

    def __getitem__(self, index: int) -> Batch:
        rng = random.Random(f"{self.seed} {index}")
        grown = min(1.0, (index + 1) / self.grow) if self.grow else 1.0
        low, high = self.difficulties
        high = max(low, round(grown * high))
        size = grown * rng.random()
        problems = [draw(self.task, self.split, rng.randint(low, high), rng, size) for _ in range(self.batch_size)]
        return collate(problems, Characters(self.task.characters), self.hints, self.multiple)


@dataclass(frozen=True)
class Epochs:
    """Batches of a list of problems, over and over, every problem once in each pass: batch i depends on (seed, i) alone.

    Problems of like length share a batch, so that little is padding: each pass is shuffled, sorted by length within windows of
    `window` batches, cut, and the batches are shuffled again. What is left over at the end of a pass is left out of it.

    Attributes:
        problems: the problems.
        characters: the vocabulary.
        batch_size: problems in a batch.
        seed: another seed, another order.
        hints: whether hints are labelled too.
        multiple: lengths are rounded up to a multiple of this.
        window: batches that are sorted together; 1 sorts nothing across batches.
    """

    problems: Sequence[Problem]
    characters: Characters
    batch_size: int
    seed: int = 0
    hints: bool = True
    multiple: int = 32
    window: int = 50
    _passes: dict[int, list[list[int]]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.problems) < self.batch_size:
            raise InputError(f"{len(self.problems)} problems do not fill a batch of {self.batch_size}")

    def __getitem__(self, index: int) -> Batch:
        number, place = divmod(index, len(self.problems) // self.batch_size)
        if number not in self._passes:
            self._passes.clear()
            self._passes[number] = self._order(number)
        chosen = [self.problems[problem] for problem in self._passes[number][place]]
        return collate(chosen, self.characters, self.hints, self.multiple)

    def _order(self, number: int) -> list[list[int]]:
        rng, size = random.Random(f"{self.seed} {number}"), self.batch_size
        order = list(range(len(self.problems)))
        rng.shuffle(order)
        batches = []
        for start in range(0, len(order), self.window * size):
            near = sorted(order[start : start + self.window * size], key=self._length)
            batches += [near[place : place + size] for place in range(0, len(near) - size + 1, size)]
        rng.shuffle(batches)
        return batches

    def _length(self, problem: int) -> int:
        return len(self.problems[problem].prompt) + len(self.problems[problem].answer)
