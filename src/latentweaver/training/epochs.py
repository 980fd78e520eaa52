"""Examples, epoch after epoch, as a curriculum shows them; those of a batch of like length, if wanted.

Batch i is a function of (seed, i) alone, so that a resumed run goes on with the same batches: epoch i // (examples // batch_size)
in an order of its own, without what is left over at its end.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from latentweaver.errors import InputError


@dataclass
class Epochs:
    """Batches of examples; `make` turns examples, the epoch and a generator into a batch.

    Attributes:
        examples: the training examples.
        batch_size: how many to a batch.
        make: what a batch is made of.
        seed: another seed, other orders.
        window: how many batches' examples are sorted by length, cut into batches, and the batches shuffled again; 1 for no sorting. Examples
            of several kinds differ in length by kind, and a batch is then mostly of one.
        length: what is sorted by.
    """

    examples: list[Any]
    batch_size: int
    make: Callable[[list[Any], int, random.Random], Any]
    seed: int = 0
    window: int = 1
    length: Callable[[Any], Any] = len
    _order: tuple[int, list[int]] = field(default=(-1, []), repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= len(self.examples):
            raise InputError(f"batch_size must lie in [1, {len(self.examples)}], the number of training examples; got {self.batch_size}")

    @property
    def per_epoch(self) -> int:
        """Batches of an epoch."""
        return len(self.examples) // self.batch_size

    def __getitem__(self, index: int) -> Any:
        epoch, place = divmod(index, self.per_epoch)
        if self._order[0] != epoch:
            order = list(range(len(self.examples)))
            rng = random.Random(f"order {self.seed} {epoch}")
            rng.shuffle(order)
            self._order = epoch, order if self.window == 1 else self._alike(order, rng)
        chosen = self._order[1][place * self.batch_size : (place + 1) * self.batch_size]
        return self.make([self.examples[i] for i in chosen], epoch, random.Random(f"batch {self.seed} {index}"))

    def _alike(self, order: list[int], rng: random.Random) -> list[int]:
        """The same order with examples of like length in one batch."""
        size, found = self.batch_size, []
        for start in range(0, self.per_epoch * size, self.window * size):
            chosen = sorted(
                order[start : start + self.window * size][: self.per_epoch * size - start], key=lambda i: self.length(self.examples[i])
            )
            batches = [chosen[place : place + size] for place in range(0, len(chosen), size)]
            rng.shuffle(batches)
            found += [i for batch in batches for i in batch]
        return found
