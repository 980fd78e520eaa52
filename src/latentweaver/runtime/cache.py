"""The key/value memory of a looped model: contiguous, preallocated, and with a say in how many steps it keeps.

A block that runs once a token (prelude, coda) has one slot. A core block runs at every step, so it has a slot for each step
that the policy keeps:

    "full"       a slot for every step
    "shared"     one slot for all steps: each step overwrites the one before it ("shared:4" keeps the last four)
    "anchor:8"   a slot for each of the first 8 steps, then one for all the rest

Keeping one recurrence costs no measurable quality (Huginn's MT-Bench, arXiv 2502.05171; Ouro's GSM8K 78.92 against 78.85) and
1/r of the memory. A policy is a function from (step, layer) to (bank, layer); any such function will do that numbers its banks
0, 1, 2, ... in the order in which the steps come to them.

A token that halted early has no keys at the deeper steps. Tokens that think deeper find its latest ones there, as Huginn's
"latest" lookup does; the copies are made once, when the next token begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache

from latentweaver.errors import InputError

Policy = Callable[[int, int], tuple[int, int]]


def cache_policy(name: str | Policy) -> Policy:
    """The policy of that name ("full", "shared", "shared:K", "anchor:N"), or the function itself.

    Raises:
        InputError: if there is no such policy.
    """
    if callable(name):
        return name
    kind, _, number = name.partition(":")
    if number and not (number.isdecimal() and int(number) > 0):
        raise InputError(f"the number in cache policy {name!r} must be a whole number above 0")
    if kind == "full" and not number:
        return lambda step, layer: (step, layer)
    if kind == "shared":
        kept = int(number or 1)
        return lambda step, layer: (step % kept, layer)
    if kind == "anchor" and number:
        return lambda step, layer: (min(step, int(number)), layer)
    raise InputError(f"unknown cache policy {name!r}; known are 'full', 'shared', 'shared:K' and 'anchor:N'")


class LoopCache(Cache):
    """Keys and values of every slot, in banks of contiguous memory.

    Bank 0 holds the blocks that run once, bank 1 + b the core blocks of the steps that the policy sends to b. A bank is one
    tensor `[layers, 2, batch, heads, capacity, head]`. A call to `extend` opens room for the next positions; every `update`
    until the next one writes there, so thinking twice about the same positions overwrites rather than appends.

    Args:
        once_layers: blocks that run once a token (prelude and coda).
        core_layers: blocks that run at every step.
        policy: "full", "shared", "shared:K", "anchor:N", or a function from (step, layer) to (bank, layer).
        capacity: positions to allocate at first; more are allocated, by doubling, when needed.
    """

    def __init__(self, once_layers: int, core_layers: int, policy: str | Policy = "full", capacity: int = 64) -> None:
        super().__init__(layers=[])
        self.once_layers = once_layers
        self.core_layers = core_layers
        self.policy = cache_policy(policy)
        self.capacity = capacity
        self.banks: list[Tensor | None] = [None]
        self.length = 0
        self.opened = 0  # where the positions that `update` writes begin
        self.depth: list[int] = []  # the highest bank that each row has written at the open positions
        self.copies: Tensor | None = None  # which of several equal prompts each row began as, for whoever draws noise

    def extend(self, positions: int, batch: int) -> None:
        """Open room for the next `positions` of `batch` rows; what the rows wrote before is complete from now on."""
        self._settle()
        self.opened = self.length
        self.length += positions
        self.depth = [0] * batch
        if self.length > self.capacity:
            self.capacity = max(self.length, 2 * self.capacity)
            self.banks = [None if bank is None else self._grown(bank) for bank in self.banks]

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write keys and values `[batch, heads, open positions, head]` of a slot; return those of all positions so far.

        Raises:
            InputError: if they carry gradients, which memory that is overwritten cannot.
        """
        _without_gradients(key)
        [(bank, layer)] = self.places([layer_idx], key)
        keys, values = bank[layer, ..., : self.length, :].unbind()
        keys[:, :, self.opened :] = key
        values[:, :, self.opened :] = value
        return keys, values

    def places(self, slots: Sequence[int], like: Tensor) -> list[tuple[Tensor, int]]:
        """For each slot its bank and its layer there, for one who writes the open positions himself; `like` is a key."""
        found = [self._place(slot, like) for slot in slots]
        deepest = max(index for _, _, index in found)
        self.depth = [max(depth, deepest) for depth in self.depth]
        return [(bank, layer) for bank, layer, _ in found]

    def rows(self, index: Int[Tensor, "rows"]) -> RowsOfCache:
        """A view through which only some rows of the batch are read and written."""
        return RowsOfCache(self, index.tolist())

    def copy(self) -> LoopCache:
        """An independent copy, for two branches that go on to different tokens."""
        other = LoopCache(self.once_layers, self.core_layers, self.policy, self.capacity)
        other.banks = [None if bank is None else bank.clone() for bank in self.banks]
        other.length, other.opened, other.depth, other.copies = self.length, self.opened, list(self.depth), self.copies
        return other

    def _place(self, slot: int, like: Tensor) -> tuple[Tensor, int, int]:
        """Bank and layer of a slot, and which bank that is."""
        if slot < self.once_layers:
            index, layer = 0, slot
        else:
            bank_of_core, layer = self.policy(*divmod(slot - self.once_layers, self.core_layers))
            index = bank_of_core + 1
            if index > len(self.banks):
                raise InputError(
                    f"the cache policy comes to bank {index - 1} before bank {len(self.banks) - 1}; number them in the order of use"
                )
        if index == len(self.banks):
            self.banks.append(None)
        bank = self.banks[index]
        if bank is None:
            bank = self.banks[index] = self._opened(index, like)
        return bank, layer, index

    def _opened(self, index: int, like: Tensor) -> Tensor:
        """A new bank. A step that no token reached before finds there the latest keys of every earlier token."""
        _, heads, _, head = like.shape
        layers = self.core_layers if index else self.once_layers
        shape = (layers, 2, len(self.depth), heads, self.capacity, head)
        bank = torch.empty(shape, dtype=like.dtype, device=like.device)
        if index > 1 and self.opened:
            latest = self.banks[index - 1]
            assert latest is not None  # banks are come to one by one
            bank[..., : self.opened, :] = latest[..., : self.opened, :]
        return bank

    def _settle(self) -> None:
        """Give tokens that halted early their latest keys in the banks of the deeper steps."""
        for row, depth in enumerate(self.depth):
            for index in range(depth + 1, len(self.banks)):
                latest, bank = self.banks[depth], self.banks[index]
                if depth and latest is not None and bank is not None:
                    bank[:, :, row, :, self.opened : self.length] = latest[:, :, row, :, self.opened : self.length]

    def _grown(self, bank: Tensor) -> Tensor:
        larger = bank.new_empty((*bank.shape[:4], self.capacity, bank.shape[5]))
        larger[..., : self.opened, :] = bank[..., : self.opened, :]
        return larger

    def memory(self) -> int:
        """Bytes allocated."""
        return sum(bank.nbytes for bank in self.banks if bank is not None)

    # What transformers asks of a cache -------------------------------------------------------------------------------

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.length

    def reorder_cache(self, beam_idx: Int[Tensor, "batch"]) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Int[Tensor, "rows"]) -> None:
        self.banks = [None if bank is None else bank[:, :, indices.to(bank.device)] for bank in self.banks]
        self.depth = [self.depth[row] for row in indices.tolist()]
        self.copies = None if self.copies is None else self.copies[indices.to(self.copies.device)]

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.batch_select_indices(torch.arange(len(self.depth)).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last positions (transformers 5: the number of tokens to remove; a negative one means the same)."""
        self._settle()
        self.length -= abs(tokens_to_remove)
        self.opened, self.depth = self.length, [0] * len(self.depth)

    def reset(self) -> None:
        self.length = self.opened = 0
        self.banks, self.depth, self.copies = [None], [], None

    @property
    def batch_size(self) -> int:
        return len(self.depth) or -1

    @property
    def is_compileable(self) -> bool:
        return False

    @property
    def is_initialized(self) -> bool:
        return self.length > 0

    @property
    def is_croppable(self) -> bool:
        return True

    @property
    def is_sliding(self) -> list[bool]:
        return [False]

    def __len__(self) -> int:
        return self.once_layers + self.core_layers * (len(self.banks) - 1)

    def __repr__(self) -> str:
        return f"LoopCache(length={self.length}, banks={len(self.banks)}, bytes={self.memory()})"


class RowsOfCache(LoopCache):
    """Some rows of a `LoopCache`, as if they were the whole batch.

    `update` copies the rows' keys together, which an accelerator does in passing. On a CPU that costs more than the halted
    rows would have; there `update_rows` gives each row's keys where they lie.
    """

    def __init__(self, whole: LoopCache, chosen: Sequence[int]) -> None:
        self.whole = whole
        self.chosen = list(chosen)
        self.index: Tensor | None = None

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        both = self._write(key, value, layer_idx)
        if self.index is None:
            self.index = torch.tensor(self.chosen, device=key.device)
        taken = both[:, self.index]
        return taken[0], taken[1]

    def update_rows(self, key: Tensor, value: Tensor, slot: int) -> list[tuple[Tensor, Tensor]]:
        """As `update`, but the keys and values of each row by itself, `[1, heads, positions, head]`, as views."""
        both = self._write(key, value, slot)
        return [(both[0, row : row + 1], both[1, row : row + 1]) for row in self.chosen]

    def _write(self, key: Tensor, value: Tensor, slot: int) -> Float[Tensor, "2 batch heads positions head"]:
        """Write the rows' keys and values; the whole batch's at all positions so far."""
        _without_gradients(key)
        whole = self.whole
        bank, layer, index = whole._place(slot, key)
        for place, row in enumerate(self.chosen):
            bank[layer, 0, row, :, whole.opened : whole.length] = key[place]
            bank[layer, 1, row, :, whole.opened : whole.length] = value[place]
            whole.depth[row] = max(whole.depth[row], index)
        return bank[layer, :, :, :, : whole.length]

    def rows(self, index: Int[Tensor, "rows"]) -> RowsOfCache:
        return RowsOfCache(self.whole, [self.chosen[row] for row in index.tolist()])

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.whole.length


def _without_gradients(key: Tensor) -> None:
    if key.requires_grad:
        raise InputError(
            "a LoopCache cannot carry gradients; use torch.no_grad(), no cache (use_cache=False), or transformers' DynamicCache()"
        )
