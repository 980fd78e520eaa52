"""Rows of tokens and labels as one batch, with thoughts in line.

    xxxxxxxxxx<latent><latent>xxxxx--
    -----xxxxx<latent>xxxxxxxx-------
    ---xxxxxxx<latent><latent>xxxxxxx      x a token, - padding

With first thoughts in one column, everything before them is computed in one pass (COCONUT, arXiv 2412.06769). A row without
thoughts begins at the left.

Where thoughts are and what is asked is known when a batch is made, so it is kept beside the tokens: a model that had to look for it in
tensors would wait for its device at every batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from jaxtyping import Int
from torch import Tensor

IGNORED = -100

Row = tuple[list[int], list[int]]
"""Tokens, and for each of them itself where a model should say it, else `IGNORED`."""


@dataclass(frozen=True)
class TokenBatch:
    """Rows of tokens. A label is the token itself, not the next one (transformers' convention), or `IGNORED`.

    Attributes:
        input_ids: `[batch, sequence]`.
        attention_mask: 1 for real tokens, 0 for padding.
        labels: `[batch, sequence]`.
        asked: for each row the columns at which something should be said, 0 where a row has fewer, `[batch, most]`; None if
            nobody has looked.
        wanted: what should be said there, `IGNORED` where a row has fewer, `[batch, most]`.
        place: the column of the first thoughts and the most thoughts of a row, (0, 0) without any; None if nobody has looked.
    """

    input_ids: Int[Tensor, "batch sequence"]
    attention_mask: Int[Tensor, "batch sequence"]
    labels: Int[Tensor, "batch sequence"]
    asked: Int[Tensor, "batch most"] | None = None
    wanted: Int[Tensor, "batch most"] | None = None
    place: tuple[int, int] | None = None

    @classmethod
    def of(cls, rows: list[Row], latent: int | None = None, pad: int = 0, grid: int = 1) -> Self:
        """Rows as a batch: padded on the left so that first `latent` tokens align, then on the right.

        Args:
            rows: tokens and labels.
            latent: the token that stands for a thought.
            pad: the padding token.
            grid: first thoughts, rows and what is asked of them end at multiples of this, so that batches come in few shapes.
        """
        first = [ids.index(latent) if latent in ids else None for ids, _ in rows]
        edge = _up(max((place for place in first if place is not None), default=0), grid)
        before = [0 if place is None else edge - place for place in first]
        longest = _up(max(shift + len(ids) for shift, (ids, _) in zip(before, rows, strict=True)), grid)
        said = [[column for column, label in enumerate(asked) if label != IGNORED and column] for _, asked in rows]
        shape, most = (len(rows), longest), _up(max(map(len, said)), grid)
        input_ids, mask, labels = torch.full(shape, pad), torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORED)
        places, wanted = torch.zeros(len(rows), most, dtype=torch.long), torch.full((len(rows), most), IGNORED)
        for row, (shift, (ids, asked)) in enumerate(zip(before, rows, strict=True)):
            place = slice(shift, shift + len(ids))
            input_ids[row, place], mask[row, place], labels[row, place] = torch.tensor(ids), 1, torch.tensor(asked)
            columns = torch.tensor(said[row], dtype=torch.long)
            places[row, : len(columns)], wanted[row, : len(columns)] = columns + shift - 1, torch.tensor(asked)[columns]
        thoughts = max(ids.count(latent) for ids, _ in rows) if latent is not None else 0
        return cls(input_ids, mask, labels, places, wanted, (edge, thoughts))

    def to(self, device: str | torch.device) -> Self:
        """The same on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The same in page-locked memory (what a torch DataLoader calls)."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, way: Any) -> Self:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: way(value) for name, value in tensors.items() if isinstance(value, Tensor)})


def _up(length: int, grid: int) -> int:
    return -(-length // grid) * grid
