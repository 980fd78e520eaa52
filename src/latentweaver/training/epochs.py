"""Examples, epoch after epoch, as a curriculum shows them.

Batch i is a function of (seed, i) alone, so that a resumed run goes on with the same batches: epoch i // (examples // batch_size)
in an order of its own, without what is left over at its end.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from latentweaver.errors import InputError
from latentweaver.training.curriculum import Example


@dataclass
class Epochs:
    """Batches of examples; `make` turns examples, the epoch and a generator into a batch.

    Attributes:
        examples: the training examples.
        batch_size: how many to a batch.
        make: what a batch is made of.
        seed: another seed, other orders.
    """

    examples: list[Example]
    batch_size: int
    make: Callable[[list[Example], int, random.Random], Any]
    seed: int = 0
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
            random.Random(f"order {self.seed} {epoch}").shuffle(order)
            self._order = epoch, order
        chosen = self._order[1][place * self.batch_size : (place + 1) * self.batch_size]
        return self.make([self.examples[i] for i in chosen], epoch, random.Random(f"batch {self.seed} {index}"))
