"""Keys and values of many requests at once: one preallocated buffer, a slot of it for each request.

A request owns a slot for as long as it runs; its keys lie there in *planes*, one for each block that runs once a token and
one for each (bank, core layer) that the cache policy keeps (see `cache.cache_policy`). What a single request would find in
a `LoopCache` it finds here, number for number: a token that halted early leaves its latest keys for tokens that think
deeper, and a step that a request reaches for the first time starts from the keys of the step before.

`Pass` is the cache that one call of the model sees. Its rows are single positions `[rows, 1, width]`, each of some
request, at some place and some step of its own; it writes every row's keys to where they belong and lets each row attend to
its own request's, and to nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.runtime.cache import Policy, cache_policy

Attend = Callable[[Tensor, Tensor, Tensor, Any], Tensor]
"""Attention of `[batch, heads, queries, head]` to keys and values, with an additive mask; `[batch, queries, heads, head]`."""


@dataclass(frozen=True)
class Span:
    """Consecutive positions of one request in a pass, all at the same step.

    Attributes:
        slot: whose.
        start: the first position.
        count: how many positions, a row of the pass each.
        step: steps they have had.
    """

    slot: int
    start: int
    count: int
    step: int

    def last(self) -> Span:
        """Its last position alone."""
        return Span(self.slot, self.start + self.count - 1, 1, self.step)


@dataclass
class _Contents:
    """What lies in a slot: `length` complete positions, in the first `banks` banks."""

    length: int = 0
    banks: int = 0


class Slots:
    """The buffer, and what lies where in it.

    Args:
        once_layers: blocks that run once a token (prelude and coda).
        core_layers: blocks that run at every step.
        heads: key/value heads.
        head: width of a head.
        slots: requests that may run at once.
        capacity: positions of each slot.
        max_steps: the deepest step that any request may take.
        policy: "full", "shared", "shared:K", "anchor:N", or a function from (step, layer) to (bank, layer).
        dtype: of keys and values.
        device: where they live.

    Raises:
        InputError: if the policy is unknown, or a size below 1.
    """

    def __init__(
        self,
        once_layers: int,
        core_layers: int,
        heads: int,
        head: int,
        *,
        slots: int,
        capacity: int,
        max_steps: int,
        policy: str | Policy = "full",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        for name, size in (("slots", slots), ("capacity", capacity), ("max_steps", max_steps)):
            if size < 1:
                raise InputError(f"{name} must be at least 1, got {size}")
        self.once_layers, self.core_layers = once_layers, core_layers
        self.slots, self.capacity, self.max_steps = slots, capacity, max_steps
        find = cache_policy(policy)
        self.places = [[find(step, layer) for layer in range(core_layers)] for step in range(max_steps)]
        banks = self._reached(max_steps)
        # zeros, not empty: on a CPU the system gives zeroed pages only as they are touched, and no NaN lies in wait
        self.keys: Float[Tensor, "planes slots heads capacity head"] = torch.zeros(
            (once_layers + core_layers * banks, slots, heads, capacity, head), dtype=dtype, device=device
        )
        self.values = torch.zeros_like(self.keys)
        self.contents = [_Contents() for _ in range(slots)]

    def plane(self, step: int, block: int) -> int:
        """Where a block's keys of a step lie. Blocks below `once_layers` run once a token, the others are core layers."""
        if block < self.once_layers:
            return block
        bank, layer = self.places[step][block - self.once_layers]
        return self.once_layers + bank * self.core_layers + layer

    def open(self, span: Span) -> None:
        """Make a slot ready for a span's next step: a bank it reaches for the first time begins with the one before it."""
        contents = self.contents[span.slot]
        bank = max(bank for bank, _ in self.places[span.step])
        while contents.banks <= bank:
            if contents.banks and contents.length:
                self._copy(span.slot, contents.banks - 1, contents.banks, 0, contents.length)
            contents.banks += 1

    def close(self, slot: int, end: int, steps: int) -> None:
        """Positions up to `end` are complete, the last ones after `steps` steps; deeper banks get their latest keys."""
        contents, reached = self.contents[slot], self._reached(steps)
        for bank in range(reached, contents.banks):
            self._copy(slot, reached - 1, bank, contents.length, end)
        contents.length = end

    def clear(self, slot: int) -> None:
        """Forget what lies in a slot."""
        self.contents[slot] = _Contents()

    def share(self, source: int, target: int, length: int, steps: int) -> None:
        """Start `target` with the first `length` positions of `source`, in the banks that `steps` steps reach."""
        banks = self._reached(steps)
        planes = self.once_layers + banks * self.core_layers
        if source != target:
            for store in (self.keys, self.values):
                store[:planes, target, :, :length] = store[:planes, source, :, :length]
        self.contents[target] = _Contents(length, banks)

    def apart(self, steps: int) -> bool:
        """Whether each of the first `steps` steps has planes of its own, so that no step overwrites another."""
        planes = [place for step in self.places[:steps] for place in step]
        return len(set(planes)) == len(planes)

    def memory(self) -> int:
        """Bytes allocated."""
        return self.keys.nbytes + self.values.nbytes

    def _reached(self, steps: int) -> int:
        """How many banks the first `steps` steps write to."""
        return 1 + max(bank for step in self.places[:steps] for bank, _ in step)

    def _copy(self, slot: int, source: int, target: int, start: int, end: int) -> None:
        layers = torch.arange(self.core_layers, device=self.keys.device) + self.once_layers
        for store in (self.keys, self.values):
            found = store[layers + source * self.core_layers, slot, :, start:end]
            store[layers + target * self.core_layers, slot, :, start:end] = found


class Pass:
    """The cache of one call of the model on rows of many requests.

    Attributes:
        copies: zero for every row: whoever draws noise for equal rows must not tell them apart, each is a request alone.
        asked: the rows that are still there when a block is given fewer queries than keys, each a span of one.
    """

    def __init__(self, slots: Slots, spans: Sequence[Span], asked: Sequence[Span] = ()) -> None:
        self.slots = slots
        self.spans = spans
        self.asked = asked
        device = slots.keys.device
        self.steps = torch.tensor([span.step for span in spans for _ in range(span.count)])
        self.slot = torch.tensor([span.slot for span in spans for _ in range(span.count)], device=device)
        self.position = torch.tensor([p for span in spans for p in range(span.start, span.start + span.count)], device=device)
        self.copies = torch.zeros_like(self.slot)
        # an accelerator prefers one padded call to many small ones; a CPU attends to keys where they lie
        self.padded = device.type != "cpu" and all(span.count == 1 for span in spans)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """0: a row's place is in its position, not in what the cache holds."""
        return 0

    def attend(
        self,
        attend: Attend,
        q: Float[Tensor, "asking heads 1 head"],
        k: Float[Tensor, "rows kv 1 head"],
        v: Float[Tensor, "rows kv 1 head"],
        block: int,
    ) -> Float[Tensor, "asking 1 heads head"]:
        """Write the rows' keys and values of a block, and let each row attend to its request's up to its own position."""
        planes = self._planes(block)
        self._write(planes, k[:, :, 0], v[:, :, 0])
        if len(q) == len(k):
            spans = list(zip(self.spans, planes, strict=True))
        else:
            plane_of = dict(zip((span.slot for span in self.spans), planes, strict=True))
            spans = [(span, plane_of[span.slot]) for span in self.asked]
        if self.padded:
            return self._attend_padded(attend, q, spans)
        out, row = [], 0
        for span, plane in spans:
            end = span.start + span.count
            keys, values = self.slots.keys[plane, span.slot, None, :, :end], self.slots.values[plane, span.slot, None, :, :end]
            if span.count == 1:
                out.append(attend(q[row : row + 1], keys, values, None))
            else:
                mask = _causal(span, q) if span.start else None
                out.append(attend(q[row : row + span.count].transpose(0, 2), keys, values, mask).transpose(0, 1))
            row += span.count
        return torch.cat(out) if len(out) > 1 else out[0]

    def _planes(self, block: int) -> list[int]:
        """Where each span's keys of a block lie."""
        return [self.slots.plane(span.step, block) for span in self.spans]

    def _write(self, planes: list[int], k: Float[Tensor, "rows kv head"], v: Float[Tensor, "rows kv head"]) -> None:
        """Keys and values to where they belong: stretches of prompts one by one, single tokens in one scattering write."""
        keys, values = self.slots.keys, self.slots.values
        if len(k) > 4 * len(planes):
            row = 0
            for span, plane in zip(self.spans, planes, strict=True):
                end = span.start + span.count
                keys[plane, span.slot, :, span.start : end] = k[row : row + span.count].transpose(0, 1)
                values[plane, span.slot, :, span.start : end] = v[row : row + span.count].transpose(0, 1)
                row += span.count
            return
        plane_of_row = torch.tensor([p for p, span in zip(planes, self.spans, strict=True) for _ in range(span.count)], device=k.device)
        keys[plane_of_row, self.slot, :, self.position] = k
        values[plane_of_row, self.slot, :, self.position] = v

    def _attend_padded(self, attend: Attend, q: Tensor, spans: Sequence[tuple[Span, int]]) -> Tensor:
        """All rows in one call, keys padded to the longest."""
        device = q.device
        plane = torch.tensor([plane for _, plane in spans], device=device)
        slot, position = torch.tensor([(span.slot, span.start) for span, _ in spans], device=device).unbind(-1)
        end = max(span.start for span, _ in spans) + 1
        keys, values = self.slots.keys[plane, slot, :, :end], self.slots.values[plane, slot, :, :end]
        seen = torch.arange(end, device=device) <= position[:, None]
        mask = torch.zeros(seen.shape, dtype=q.dtype, device=device).masked_fill_(~seen, torch.finfo(q.dtype).min)
        return attend(q, keys, values, mask[:, None, None])


def _causal(span: Span, like: Tensor) -> Float[Tensor, "1 1 queries keys"]:
    """An additive mask for queries that begin at `span.start` > 0."""
    end = span.start + span.count
    mask = torch.full((span.count, end), torch.finfo(like.dtype).min, dtype=like.dtype, device=like.device)
    return mask.triu_(span.start + 1)[None, None]
