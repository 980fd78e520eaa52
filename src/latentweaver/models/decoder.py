"""A pretrained decoder of transformers, and its memory as a value.

transformers keeps keys and values in a cache that grows in place. Thoughts are immutable, so here the memory of what was read
is a plain dictionary of batch-first tensors, and reading on returns a new one. Nothing is copied for that: a dynamic cache
grows by concatenation, so the tensors of the earlier memory stay what they were.

    mask         which positions are real (the others are padding), [batch, positions]
    keys.3       keys of layer 3, [batch, heads, positions, head]; likewise values.3

Padding may stand anywhere: positions are counted over the real ones.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from latentweaver.errors import InputError

Memory = dict[str, Tensor]


def read_on(
    base: Any,
    inputs: Float[Tensor, "batch new width"],
    mask: Bool[Tensor, "batch new"],
    memory: Mapping[str, Any] | None = None,
    layers: list[tuple[Tensor, ...]] | None = None,
) -> tuple[Float[Tensor, "batch new width"], Memory]:
    """Run a causal language model without its head over the next positions.

    Args:
        base: a causal language model of transformers.
        inputs: embeddings of the next positions.
        mask: which of them are real.
        memory: what was read before; None at the beginning. Other entries than a memory's are ignored.
        layers: a list that gets the hidden states after the embedding and after every layer, if wanted.

    Returns:
        Hidden states after the final norm, and the memory of everything read so far.
    """
    whole = mask if memory is None else torch.cat([memory["mask"], mask], 1)
    positions = (whole.long().cumsum(-1) - 1).clamp(min=0)[:, -inputs.shape[1] :]
    cache = _opened(memory)
    output = base.base_model(
        inputs_embeds=inputs,
        attention_mask=_visible(whole, inputs.shape[1]) if _ready(base, inputs) else whole.long(),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        output_hidden_states=layers is not None,
    )
    if layers is not None:
        layers.append(output.hidden_states)
    grown: Memory = {"mask": whole}
    layer: Any
    for number, layer in enumerate(cache.layers):
        grown[f"keys.{number}"], grown[f"values.{number}"] = layer.keys, layer.values
    return output.last_hidden_state, grown


def _ready(base: Any, inputs: Tensor) -> bool:
    """Whether to say which keys each position sees, rather than let transformers find out whether it can do without that: to find out,
    it waits for the device at every pass, and a recorded update (`training.recorded`) can wait for nothing."""
    return base.training and inputs.device.type != "cpu" and base.config._attn_implementation == "sdpa"


def _visible(mask: Bool[Tensor, "batch positions"], new: int) -> Bool[Tensor, "batch 1 new positions"]:
    """Every position sees itself and the real ones before it."""
    places = torch.arange(mask.shape[1], device=mask.device)
    own = places[-new:, None]
    return (mask[:, None, None, :] & (places <= own)) | (places == own)


class _Growing(DynamicCache):
    """A cache that compiled blocks hand their keys to without looking into it: one piece of code then serves every layer."""

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return _append(self, key_states, value_states, layer_idx, *args, **kwargs)


_append: Any = torch.compiler.disable(DynamicCache.update)


def _opened(memory: Mapping[str, Any] | None) -> DynamicCache:
    """A cache to append to, over the tensors of a memory."""
    cache = _Growing()
    number = 0
    while memory is not None and f"keys.{number}" in memory:
        layer = DynamicLayer()
        layer.lazy_initialization(memory[f"keys.{number}"], memory[f"values.{number}"])
        layer.keys, layer.values = memory[f"keys.{number}"], memory[f"values.{number}"]
        cache.layers.append(layer)
        number += 1
    return cache


def context_of(config: Any) -> int:
    """The longest input of a decoder with that config, in positions."""
    return int(getattr(config, "max_position_embeddings", None) or 2**31)


@torch.no_grad()
def check_decoder(base: Any) -> None:
    """Make sure that a model can be read on from embeddings, and that its head alone makes its logits.

    Raises:
        InputError: naming what is missing.
    """
    name = type(base).__name__
    for need in ("get_input_embeddings", "get_output_embeddings", "base_model", "config"):
        if not hasattr(base, need):
            raise InputError(f"{name} is no causal language model of transformers: it has no {need}")
    if base.get_output_embeddings() is None or base.base_model is base:
        raise InputError(f"{name} has no language-model head; give the causal language model (AutoModelForCausalLM), not its body")
    takes = inspect.signature(base.base_model.forward).parameters
    for need in ("inputs_embeds", "past_key_values", "position_ids"):
        if need not in takes:
            raise InputError(f"{name} cannot be fed its own states: its forward takes no {need}")
    if any(parameter.is_meta for parameter in base.parameters()):
        return
    was_training = base.training
    base.eval()
    ids = torch.arange(3, device=base.get_input_embeddings().weight.device)[None]
    embeds, real = base.get_input_embeddings()(ids), torch.ones_like(ids, dtype=torch.bool)
    _, memory = read_on(base, embeds[:, :2], real[:, :2])
    if len(memory) < 3:
        raise InputError(f"{name} keeps no keys and values that could be read on from")
    hidden, _ = read_on(base, embeds[:, 2:], real[:, 2:], memory)
    logits, expected = base.get_output_embeddings()(hidden), base(input_ids=ids).logits[:, -1:]
    base.train(was_training)
    if not torch.allclose(logits, expected.to(logits), rtol=1e-2, atol=1e-2 * float(expected.abs().max())):
        raise InputError(f"{name} does more than a norm and a head after its last layer (or scales its embeddings); this is not supported")
