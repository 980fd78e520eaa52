"""The one idea of the library: a `Thought`, and the three verbs of a `Reasoner` that make, advance and read it.

    thought = model.begin(inputs)     # read the input; the latent state before any thinking
    thought = model.think(thought)    # one latent step; a new Thought, the old one is untouched
    readout = model.read(thought)     # what the model would say if it stopped now

Every tool of the library (halting, generation, training, recording, search) speaks only these verbs, so a model that
offers them gets every tool, and a tool that uses them works on every model.

Two conventions hold for every tensor in a Thought: the first dimension is the batch, and a first dimension of 1 is
shared by all rows. That is all `rows` needs to take halted rows out of a batch.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latentweaver.errors import InputError


def _new_identity() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, eq=False)
class Thought:
    """A latent state on its way from an input to an answer. Immutable: `think` returns a new one.

    Attributes:
        state: the latent state, `[batch, sequence, width]`, before any final norm.
        step: how many steps each position's state has had, `[batch, sequence]`. It is bookkeeping and always lives on
            the CPU, so that reading it never waits for an accelerator.
        anchor: what `begin` computed once, by name (the embedded input, rotary tables, masks). Tensors are batch-first.
        cache: the reasoner's memory of earlier positions, or None. Thoughts that descend from one `begin` share it.
        generator: where a stochastic reasoner draws its noise from; None for a deterministic one.
        identity: the name of this very Thought; unique.
        parent: the identity of the Thought this one was made from; None after `begin`.
    """

    state: Float[Tensor, "batch sequence width"]
    step: Int[Tensor, "batch sequence"]
    anchor: Mapping[str, Any] = field(default_factory=dict)
    cache: Any = None
    generator: torch.Generator | None = None
    identity: str = field(default_factory=_new_identity)
    parent: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "anchor", MappingProxyType(dict(self.anchor)))

    @classmethod
    def start(cls, state: Float[Tensor, "batch sequence width"], **fields: Any) -> Thought:
        """The Thought that `begin` returns: `state`, at step 0. `fields` are further attributes of the class."""
        return cls(state=state, step=torch.zeros(state.shape[:2], dtype=torch.long), **fields)

    def advance(self, state: Float[Tensor, "batch sequence width"]) -> Thought:
        """The Thought that `think` returns: the same, one step later, with `state`."""
        return replace(self, state=state, step=self.step + 1, identity=_new_identity(), parent=self.identity)

    def branch(self, state: Float[Tensor, "batch sequence width"] | None = None) -> Thought:
        """A sibling to think on from here, with another `state` at the same step if given.

        Branches share the cache. That is safe while they think about the same positions (each step is written before it
        is read); copy the cache before two branches go on to different next tokens.
        """
        state = self.state if state is None else state
        if state.shape != self.state.shape:
            raise InputError(f"a branch keeps the shape of the state: expected {list(self.state.shape)}, got {list(state.shape)}")
        return replace(self, state=state, identity=_new_identity(), parent=self.identity)

    def rows(self, index: Int[Tensor, "rows"]) -> Thought:
        """The Thought of some rows of the batch only, in the order of `index`.

        Raises:
            InputError: if the cache cannot be taken apart by rows (the library's own can, transformers' cannot).
        """
        if self.cache is not None and not hasattr(self.cache, "rows"):
            raise InputError(f"rows of a {type(self.cache).__name__} cannot be taken apart; use the library's LoopCache, or no cache")
        anchor = {name: _rows_of(value, index) for name, value in self.anchor.items()}
        cache = None if self.cache is None else self.cache.rows(index)
        return replace(self, state=_rows_of(self.state, index), step=self.step[index.cpu()], anchor=anchor, cache=cache)

    def same_as(self, other: Thought) -> bool:
        """Whether state, step and anchor agree bit for bit. Identity, cache and generator are not compared."""
        mine, theirs = self._tensors(), other._tensors()
        return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)

    def save(self, path: str | Path) -> None:
        """Write state, step, anchor, generator and identity to a safetensors file, to be restored bit for bit.

        Raises:
            InputError: if the Thought holds a cache (its owner saves that) or something in the anchor is neither a
                tensor nor plain data.
        """
        from safetensors.torch import save_file

        if self.cache is not None:
            raise InputError(
                "a Thought with a cache cannot be saved: begin it without one, or use dataclasses.replace(thought, cache=None)"
            )
        plain = {name: value for name, value in self.anchor.items() if not isinstance(value, Tensor)}
        try:
            notes = json.dumps({"identity": self.identity, "parent": self.parent, "anchor": plain})
        except TypeError as error:
            raise InputError(f"the anchor holds something that is neither a tensor nor plain data: {error}") from error
        tensors = {name: tensor.detach().contiguous().clone() for name, tensor in self._tensors().items()}
        if self.generator is not None:
            tensors["generator"] = self.generator.get_state()
        save_file(tensors, str(path), metadata={"thought": notes})

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Thought:
        """Read back what `save` wrote, its tensors on `device` (the step stays on the CPU)."""
        from safetensors import safe_open

        with safe_open(str(path), framework="pt") as file:
            notes = json.loads((file.metadata() or {}).get("thought", "null"))
            if notes is None:
                raise InputError(f"{path} holds no Thought; files written by Thought.save do")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        generator = None
        if "generator" in tensors:
            generator = torch.Generator(device)
            generator.set_state(tensors.pop("generator"))
        anchor = {name.removeprefix("anchor."): tensor.to(device) for name, tensor in tensors.items() if name.startswith("anchor.")}
        return cls(
            state=tensors["state"].to(device),
            step=tensors["step"],
            anchor={**notes["anchor"], **anchor},
            generator=generator,
            identity=notes["identity"],
            parent=notes["parent"],
        )

    def _tensors(self) -> dict[str, Tensor]:
        anchor = {f"anchor.{name}": value for name, value in self.anchor.items() if isinstance(value, Tensor)}
        return {"state": self.state, "step": self.step, **anchor}


def _rows_of(value: Any, index: Tensor) -> Any:
    if not isinstance(value, Tensor) or value.shape[0] == 1:
        return value
    return value[index.to(value.device)]


@dataclass(frozen=True, eq=False)
class Readout:
    """What a reasoner would say if it stopped now.

    Attributes:
        logits: unnormalised log-probabilities of the next token, `[batch, sequence, vocabulary]`, float32.
        hidden: the vector that the head turned into logits, `[batch, sequence, width]`, where there is one.
    """

    logits: Float[Tensor, "batch sequence vocabulary"]
    hidden: Float[Tensor, "batch sequence width"] | None = None


@runtime_checkable
class Reasoner(Protocol):
    """A model that thinks in latent space. Three methods; anything that has them gets every tool of the library."""

    def begin(
        self,
        input_ids: Int[Tensor, "batch sequence"],
        attention_mask: Bool[Tensor, "batch sequence"] | Int[Tensor, "batch sequence"] | None = None,
        initial_state: Any = None,
        generator: torch.Generator | None = None,
    ) -> Thought: ...

    def think(self, thought: Thought) -> Thought: ...

    def read(self, thought: Thought) -> Readout: ...


@runtime_checkable
class Gated(Protocol):
    """A reasoner that has learned when to stop (Ouro's exit gate)."""

    def exit_logit(self, thought: Thought) -> Float[Tensor, "batch sequence"]: ...
