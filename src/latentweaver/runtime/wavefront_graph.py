"""Beats of a wavefront as one CUDA graph of compiled blocks: for an accelerator, where starting a kernel costs as much as a small one.

A pass through a block of a large model is a handful of matrix products, each bound by reading its weights, and some forty
small operations between them, which started one by one take longer than the products. So the blocks are compiled (which fuses
the small operations), and a whole beat, from the new token's embedding to what every token says, is recorded once and then
replayed. For that everything must lie at fixed places: row i of every tensor is the token at stage i, whether there is one or
not; tokens move on to the next row at each beat; and keys lie in the buffer of `Slots`, seen from stage i as those of its own step.

With draft_steps = num_steps there is one stage, and this is sequential decoding:

    beats = compiled(model, num_steps=32)
    model.generate(ids, beats=beats)

On a CPU nothing is recorded, and the beats run as they are (compiled, if asked for); that is how the tests reach this file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.kernels import native, one_row_on_gpu
from latentweaver.runtime.rows import table_of, thought_of
from latentweaver.runtime.slots import Attend, Pass
from latentweaver.runtime.wavefront import Beats, Flight

PRODUCTS: dict[str, dict[str, Any]] = {
    "own": {"triton.cudagraphs": False},
    "library": {"triton.cudagraphs": False},
    "compiled": {"triton.cudagraphs": False, "coordinate_descent_tuning": True},
}
"""Inductor's options for each kind of matrix products: ours for one row (`kernels.gpu`), those of the library that torch calls, and
Inductor's own, which it makes (for one row) only while it tunes them."""


def compiled(model: Any, num_steps: int, draft_steps: int | None = None, capacity: int = 1024, products: str = "own") -> GraphBeats:
    """What `generate(beats=...)` takes to decode a single text as fast as this device reads the weights.

    Args:
        model: a recurrent-depth language model, on the device and in the precision that it shall run in.
        num_steps: steps for every token.
        draft_steps: for depth-parallel decoding (see `wavefront`); None for one token after another.
        capacity: the longest text, prompt and answer together; all of it is attended to at every step, so keep it short.
        products: whose matrix products: "own", "library" or "compiled" (see `PRODUCTS`); on a CPU always the library's.

    Raises:
        InputError: if the steps do not fit together.
    """
    return GraphBeats(model, num_steps, draft_steps or num_steps, capacity, products)


class GraphBeats(Beats):
    """As `Beats`, with every tensor at a fixed place; recorded as a CUDA graph on a GPU.

    The recording is of the weights where they lie: make another one after moving or replacing them.

    Args:
        products: compile the blocks with torch.compile, with these matrix products (see `PRODUCTS`); None to leave them as they are.
    """

    def __init__(self, model: Any, num_steps: int, draft_steps: int, capacity: int, products: str | None = None) -> None:
        super().__init__(model, num_steps, draft_steps, capacity)
        if products is not None and products not in PRODUCTS:
            raise InputError(f"products must be one of {', '.join(PRODUCTS)}, got {products!r}")
        self.products = products
        device = model.device
        self.token = torch.zeros(1, 1, dtype=torch.long, device=device)
        self.positions = torch.full((self.stages,), self.slots.capacity - 1, dtype=torch.long, device=device)
        self.noise_seed = torch.zeros(1, dtype=torch.long, device=device)
        self.rows: dict[str, Tensor] = {}
        self.logits: Tensor | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.recorded: Any = None  # the kind of first state that the graph begins tokens with

    def _places(self) -> int:
        return (self.longest // 16 + 1) * 16  # rows without a token write to the last; masks are read in pieces of 16 bytes

    @torch.no_grad()
    def read(self, ids: Tensor, initial_state: Any, seed: Any) -> Float[Tensor, "vocabulary"]:
        logits = super().read(ids, initial_state, seed)
        self.noise_seed.fill_(seed or 0)
        if self.initial_state != self.recorded:
            self.graph = self.logits = None
        return logits

    @torch.no_grad()
    def beat(self, flights: list[Flight]) -> Float[Tensor, "flights vocabulary"]:
        positions = [self.slots.capacity - 1] * self.stages
        for flight in flights:
            positions[flight.stage] = flight.position
        self.positions.copy_(torch.tensor(positions))
        if flights[-1].stage == 0:
            self.token.fill_(flights[-1].token)
        if self.graph is not None:
            self.graph.replay()
        elif self.positions.is_cuda and self.logits is not None:
            self._record()
        else:
            self._run()  # the first time, which compiles; on a CPU always
            self.recorded = self.initial_state
        assert self.logits is not None
        return self.logits[[flight.stage for flight in flights]]

    def _record(self) -> None:
        """Run a beat as all later ones will be."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        graph.replay()
        self.graph = graph

    def _run(self) -> None:
        with _compiled_blocks(self.model, self.products) if self.products else contextlib.nullcontext():
            seen = torch.arange(self.slots.capacity, device=self.positions.device) <= self.positions[:, None]
            new, rest = table_of(
                self.model.begin(
                    self.token,
                    position_ids=self.positions[None, :1],
                    initial_state=self.initial_state,
                    generator=self.noise_seed,
                    cache=StagesPass(self, self.positions[:1], seen[:1]),
                )
            )
            if not self.rows:
                self.rows = {name: tensor.new_zeros(self.stages, *tensor.shape[1:]) for name, tensor in new.items()}
            for name, tensor in self.rows.items():  # everyone moves on a stage
                tensor.copy_(torch.cat([new[name], tensor[:-1]]))
            thought = thought_of(self.rows, rest, torch.zeros(self.stages, dtype=torch.long))
            for step in range(self.draft_steps):
                thought = self.model.think(replace(thought, cache=StagesPass(self, self.positions, seen, step)))
            self.rows["state"].copy_(thought.state)
            logits = self.model.read(thought).logits[:, 0]
            self.logits = logits.clone() if self.logits is None else self.logits.copy_(logits)


class StagesPass(Pass):
    """The cache that one pass sees: row i is the token at stage i, its keys those of its own step, all of the buffer masked by `seen`."""

    def __init__(self, beats: GraphBeats, positions: Int[Tensor, "rows"], seen: Bool[Tensor, "rows capacity"], step: int = 0) -> None:
        self.positions, self.seen, self.step = positions, seen[:, None, None], step
        self.slots, self.stages = beats.slots, beats.stages

    def attend(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, block: int) -> Float[Tensor, "rows 1 heads head"]:
        return write_and_attend(attend, q, k, v, *self.window(block), self.positions, self.seen)

    def window(self, block: int) -> tuple[Tensor, Tensor]:
        """Where a block's keys and values lie: `[heads, capacity, head]`, or that for each row, as views."""
        both = (self.slots.keys[:, 0], self.slots.values[:, 0])
        once, layers = self.slots.once_layers, self.slots.core_layers
        if block < once:
            return both[0][block], both[1][block]
        keys, values = (store[once:].unflatten(0, (self.stages, -1, layers))[:, self.step, block - once] for store in both)
        return keys, values


class _Here(Pass):
    """The same inside a compiled block, which gets its window as tensors."""

    def __init__(self, keys: Tensor, values: Tensor, positions: Tensor, seen: Tensor) -> None:
        self.window = (keys, values, positions, seen)

    def attend(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
        return write_and_attend(attend, q, k, v, *self.window)


def write_and_attend(
    attend: Attend,
    q: Float[Tensor, "rows heads 1 head"],
    k: Float[Tensor, "rows kv 1 head"],
    v: Float[Tensor, "rows kv 1 head"],
    keys: Tensor,
    values: Tensor,
    positions: Int[Tensor, "rows"],
    seen: Bool[Tensor, "rows 1 1 capacity"],
) -> Float[Tensor, "rows 1 heads head"]:
    """Put every row's key and value at its position, then let each attend to what it may see.

    `keys` and `values` are one buffer for all rows, `[kv, capacity, head]`, or one for each, `[rows, kv, capacity, head]`.
    """
    if keys.dim() == 3:
        keys[:, positions] = k[:, :, 0].transpose(0, 1)
        values[:, positions] = v[:, :, 0].transpose(0, 1)
        keys, values = (store.expand(len(positions), *store.shape) for store in (keys, values))
    else:
        rows = torch.arange(len(positions), device=positions.device)
        keys[rows, :, positions] = k[:, :, 0]
        values[rows, :, positions] = v[:, :, 0]
    return attend(q, keys, values, seen)


@contextlib.contextmanager
def _compiled_blocks(model: Any, products: str) -> Iterator[None]:
    """Within, the blocks of the model run compiled: each by the same code, with its own weights."""
    run = torch.compile(_run_block, fullgraph=True, dynamic=False, options=PRODUCTS[products])
    parts = model.parts()
    blocks = [block for role in ("prelude", "core", "coda") for block in parts[role]]
    for block in blocks:
        block.forward = partial(_with_window, run, block)
    try:
        own = products == "own" and model.device.type == "cuda"
        with (
            native("meta"),  # the plain expressions, also on a CPU
            one_row_on_gpu() if own else contextlib.nullcontext(),
            torch._dynamo.config.patch(recompile_limit=256),  # every shape of block is code of its own, on purpose
        ):
            yield
    finally:
        for block in blocks:
            del block.forward


def _with_window(run: Any, block: Any, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Any, cache: StagesPass, slot: int) -> Tensor:
    return run(block, x, *rotary, *cache.window(slot), cache.positions, cache.seen)


def _run_block(block: Any, x: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
    return type(block).forward(block, x, (cos, sin), None, _Here(keys, values, positions, seen), 0)
