"""Rows of tokens and labels as one batch, with thoughts in line.

    xxxxxxxxxx<latent><latent>xxxxx--
    -----xxxxx<latent>xxxxxxxx-------
    ---xxxxxxx<latent><latent>xxxxxxx      x a token, - padding

With first thoughts in one column, everything before them is computed in one pass (COCONUT, arXiv 2412.06769). A row without
thoughts begins at the left.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    input_ids: Int[Tensor, "batch sequence"]
    attention_mask: Int[Tensor, "batch sequence"]
    labels: Int[Tensor, "batch sequence"]

    @classmethod
    def of(cls, rows: list[Row], latent: int | None = None, pad: int = 0) -> TokenBatch:
        """Rows as a batch: padded on the left so that first `latent` tokens align, then on the right."""
        first = [ids.index(latent) if latent in ids else None for ids, _ in rows]
        edge = max((place for place in first if place is not None), default=0)
        before = [0 if place is None else edge - place for place in first]
        longest = max(shift + len(ids) for shift, (ids, _) in zip(before, rows, strict=True))
        shape = (len(rows), longest)
        input_ids, mask, labels = torch.full(shape, pad), torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORED)
        for row, (shift, (ids, asked)) in enumerate(zip(before, rows, strict=True)):
            place = slice(shift, shift + len(ids))
            input_ids[row, place], mask[row, place], labels[row, place] = torch.tensor(ids), 1, torch.tensor(asked)
        return cls(input_ids, mask, labels)

    def to(self, device: str | torch.device) -> TokenBatch:
        """The same on another device."""
        return TokenBatch(*(tensor.to(device, non_blocking=True) for tensor in (self.input_ids, self.attention_mask, self.labels)))

    def pin_memory(self) -> TokenBatch:
        """The same in page-locked memory (what a torch DataLoader calls)."""
        return TokenBatch(*(tensor.pin_memory() for tensor in (self.input_ids, self.attention_mask, self.labels)))
