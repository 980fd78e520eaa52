"""Where the thoughts of a batch are: rows are shifted so that their first thoughts stand in one column.

    xxxxxTTTxx            --xxxxxTTTxx
    xxxxxxxTxx--    ->    xxxxxxxTxx--        x a token, T a thought, - padding
    --xxxxTTTTxx          ---xxxxTTTTxx

So one pass computes everything before the first thoughts, and one pass of a column each further thought, whatever the rows' lengths,
numbers of thoughts and padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latentweaver.errors import InputError


@dataclass(frozen=True)
class Layout:
    """Where the thoughts of a batch are, and how its rows are shifted so that the first ones stand in one column.

    Attributes:
        latent: which positions hold a thought, `[batch, sequence]`.
        edge: the column of the first thoughts after shifting.
        thoughts: the most thoughts that a row has.
        index: for every shifted column the original one, `[batch, shifted]`; outside the row where there is none.
        shift: how far each row was moved to the right, `[batch]`.
    """

    latent: Bool[Tensor, "batch sequence"]
    edge: int
    thoughts: int
    index: Int[Tensor, "batch shifted"] | None
    shift: Int[Tensor, "batch"]

    @classmethod
    def of(cls, input_ids: Tensor, mask: Tensor, latent_token_id: int | None) -> Layout | None:
        """The layout of a batch, or None if no row has a thought."""
        if latent_token_id is None:
            return None
        latent = (input_ids == latent_token_id) & mask
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        count, first = latent.sum(-1), latent.int().argmax(-1)
        thoughts = int(count.max())
        if thoughts == 0:
            return None
        has = count > 0
        if bool((has & ((latent * place).amax(-1) - first + 1 != count)).any()):
            raise InputError("the latent tokens of a row must stand next to each other")
        before = mask.gather(1, (first - 1).clamp(min=0)[:, None]).squeeze(1)
        if bool((has & ((first == 0) | ~before)).any()):
            raise InputError("a thought needs a real token before it; a row begins with a latent token")
        edge = int(first.max())
        shift = torch.where(has, edge - first, 0)
        if not bool(shift.any()):
            return cls(latent, edge, thoughts, None, shift)
        longest = int((torch.where(mask, place, -1).amax(-1) + 1 + shift).max())
        return cls(latent, edge, thoughts, torch.arange(longest, device=place.device) - shift[:, None], shift)

    @classmethod
    def at(cls, input_ids: Tensor, mask: Tensor, latent_token_id: int | None, edge: int, thoughts: int) -> Layout:
        """The layout of a batch whose first thoughts are known to stand in column `edge`, `thoughts` of them at the most."""
        latent = (input_ids == latent_token_id) & mask
        return cls(latent, edge, thoughts, None, torch.zeros_like(latent[:, 0], dtype=torch.long))

    def aligned(self, x: Tensor) -> Tensor:
        """A batch in shifted columns; zeros where a row has none."""
        if self.index is None:
            return x
        inside = (self.index >= 0) & (self.index < x.shape[1])
        index = self.index.clamp(0, x.shape[1] - 1)
        extra = (1,) * (x.dim() - 2)
        return x.gather(1, index.view(*index.shape, *extra).expand(-1, -1, *x.shape[2:])) * inside.view(*inside.shape, *extra)

    def restored(self, x: Float[Tensor, "batch shifted width"]) -> Float[Tensor, "batch sequence width"]:
        """The original columns of what was computed in shifted ones."""
        if self.index is None:
            return x
        index = torch.arange(self.latent.shape[1], device=x.device) + self.shift[:, None]
        inside = index < x.shape[1]
        return x.gather(1, index.clamp(max=x.shape[1] - 1)[..., None].expand(-1, -1, x.shape[2])) * inside[..., None]
