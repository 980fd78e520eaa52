"""A block of thoughts refined together: continuous thought in parallel, and recurrent depth around a whole decoder.

    begin   the prompt is read once; the block's inputs are the latent token's embeddings E, as many as thoughts
    think   h = f(inputs | prompt), all columns of the block in one pass; then new inputs for the same columns:
              "jacobi"   inputs[j] = feed(h[j-1]), h[-1] the prompt's last        PCCoT (arXiv 2506.18582)
              "loop"     inputs[j] = E[j] + h[j]                                  LOTUS (arXiv 2606.31779)
    read    one more pass over the block, then <end> or the last column, then the head

The state of a Thought is the block's inputs, so its shape is [batch, thoughts, width] from the first step on, and the prompt's
keys and values are never copied. "jacobi" solves for the chain of thoughts that COCONUT computes one by one: column j is exact
after j + 1 iterations, so with as many iterations as thoughts the two are equal, and with none it is pause tokens. "loop" injects
the input into every iteration, as recurrent depth does, with the whole decoder as the core.

`num_steps` is the number of iterations, `num_thoughts` the size of a block that `begin` opens. In a training batch the latent
tokens are the block, and rows may have blocks of different sizes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from latentweaver.errors import InputError
from latentweaver.models.continuous_thought import ContinuousThoughtForCausalLM, wrap
from latentweaver.models.continuous_thought_config import ContinuousThoughtConfig
from latentweaver.models.decoder import Memory, read_on
from latentweaver.thought import Thought


class LatentBlockConfig(ContinuousThoughtConfig):
    """Configuration of `LatentBlockForCausalLM`.

    Args:
        refine: how a block is refined: "jacobi" (PCCoT) or "loop" (LOTUS).
        num_thoughts: size of the block that `begin` opens.
        fields: as in `ContinuousThoughtConfig`; `latent_token_id` must be given, and `num_steps` counts iterations.
    """

    model_type = "latent_block"

    def __init__(self, text_config: Any = None, refine: str = "jacobi", num_thoughts: int = 6, **fields: Any) -> None:
        if refine not in ("jacobi", "loop"):
            raise InputError(f"refine must be 'jacobi' or 'loop', got {refine!r}")
        if num_thoughts < 1:
            raise InputError(f"num_thoughts must be at least 1, got {num_thoughts}")
        self.refine = refine
        self.num_thoughts = num_thoughts
        super().__init__(text_config, **fields)

    def _check(self) -> None:
        super()._check()
        if self.feedback not in ("hidden", "projected"):
            raise InputError(f"a block feeds back 'hidden' or 'projected' states, got {self.feedback!r}")


class LatentBlockForCausalLM(ContinuousThoughtForCausalLM):
    """A decoder of transformers that refines a block of thoughts. Make one with `latent_block`."""

    config_class = LatentBlockConfig
    config: LatentBlockConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def begin(
        self,
        input_ids: Int[Tensor, "batch sequence"],
        attention_mask: Tensor | None = None,
        initial_state: Float[Tensor, "batch thoughts width"] | None = None,
        generator: torch.Generator | int | None = None,
        *,
        after: Thought | None = None,
    ) -> Thought:
        """Read the prompt and open a block behind it; `initial_state` replaces the block's first inputs.

        A prompt with latent tokens has its block already, and is read through to its end. For the rest see
        `ContinuousThoughtForCausalLM.begin`.
        """
        read = super().begin(input_ids, attention_mask, None, generator, after=after)
        if after is not None or self.has_thoughts(input_ids):
            return read
        length = self._room(read.anchor["length"] + self.config.num_thoughts)
        block = self.get_input_embeddings().weight[self._latent].expand(len(input_ids), self.config.num_thoughts, -1)
        state = block if initial_state is None else initial_state.to(block)
        if state.shape != block.shape:
            raise InputError(f"initial_state must be {list(block.shape)} [batch, thoughts, width], got {list(state.shape)}")
        return Thought.start(state, anchor={**read.anchor, "before": read.state, "length": length})

    def think(self, thought: Thought) -> Thought:
        """One iteration over the whole block.

        Raises:
            InputError: if the prompt brought its own block.
        """
        if "before" not in thought.anchor:
            raise InputError("there is no block to refine: the prompt brought its own thoughts, or an answer has begun")
        hidden, _ = self._pass(thought)
        slots = self.get_input_embeddings().weight[self._latent].expand_as(thought.state)
        return thought.advance(self._refined(slots, thought.anchor["before"], hidden, thought.anchor["key"]))

    def thoughts(self, thought: Thought, count: int) -> Float[Tensor, "batch thoughts width"]:
        """The block after `count` iterations."""
        for _ in range(count):
            thought = self.think(thought)
        return thought.state

    def feed(self, thought: Thought, thoughts: Float[Tensor, "batch thoughts width"]) -> Thought:
        """The Thought with that block in place of its own, of any size."""
        return replace(thought, state=thoughts.to(thought.state), step=thought.step[:, :1].expand(-1, thoughts.shape[1]))

    def block(self, thought: Thought) -> Float[Tensor, "batch thoughts width"]:
        """Hidden states of the block's columns: what the head reads out of each thought (LOTUS supervises these)."""
        return self._pass(thought)[0]

    def close(self, thought: Thought) -> Thought:
        """The Thought after the block and its end marker were read, ready to go on with an answer."""
        if "before" not in thought.anchor:
            return super().close(thought)
        hidden, memory = self._pass(thought)
        anchor = {name: value for name, value in thought.anchor.items() if name != "before"}
        read = replace(thought, state=hidden[:, -1:], step=thought.step[:, -1:], anchor={**anchor, **memory})
        return super().close(read)

    def _pass(self, thought: Thought) -> tuple[Tensor, Memory]:
        mask = thought.anchor["mask"].new_ones(thought.state.shape[:2])
        return read_on(self.base, thought.state, mask, thought.anchor)

    def _refined(self, slots: Tensor, before: Tensor, hidden: Tensor, key: Tensor) -> Tensor:
        """The block's next inputs, from its columns' hidden states and the hidden state before it."""
        if self.config.refine == "loop":
            return slots + hidden
        shifted = torch.cat([before, hidden[:, :-1]], 1)
        return self.feedback(self, shifted, torch.zeros_like(shifted[..., 0], dtype=torch.long), key)

    def _thoughts(
        self, embeds: Tensor, mask: Tensor, latent: Tensor, edge: int, thoughts: int, key: Tensor, layers: list[tuple[Tensor, ...]] | None
    ) -> tuple[Tensor, Tensor, Memory]:
        place = slice(edge, edge + thoughts)
        hidden, memory = read_on(self.base, embeds[:, :edge], mask[:, :edge], layers=layers)
        inputs = slots = embeds[:, place]
        for _ in range(self.config.num_steps if self.iterations is None else self.iterations):
            columns, _ = read_on(self.base, inputs, mask[:, place], memory)
            inputs = torch.where(latent[:, place, None], self._refined(slots, hidden[:, -1:], columns, key), slots)
        rest = torch.cat([inputs, embeds[:, edge + thoughts :]], 1)
        last, memory = read_on(self.base, rest, mask[:, edge:], memory, layers)
        return torch.cat([hidden, last], 1), torch.cat([embeds[:, :edge], rest], 1), memory

    iterations: int | None = None
    """Iterations in training batches, if not `num_steps`: set by a curriculum that raises them."""

    @property
    def _latent(self) -> int:
        if self.config.latent_token_id is None:
            raise InputError("a block begins as the latent token's embedding, so latent_token_id must be given")
        return self.config.latent_token_id


def latent_block(base: PreTrainedModel, tokenizer: Any = None, **fields: Any) -> LatentBlockForCausalLM:
    """Make a decoder refine a block of thoughts: `continuous_thought` with fields of `LatentBlockConfig`.

    Raises:
        InputError: as `continuous_thought`.
    """
    return wrap(LatentBlockForCausalLM, base, tokenizer, **fields)


AutoConfig.register(LatentBlockConfig.model_type, LatentBlockConfig, exist_ok=True)
AutoModelForCausalLM.register(LatentBlockConfig, LatentBlockForCausalLM, exist_ok=True)
