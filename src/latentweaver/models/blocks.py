"""Transformer blocks: what prelude, core and coda are stacked from.

A block is attention and a gated MLP (SwiGLU), with RMSNorms in one of three places:

    "pre"       x + f(norm(x))             Llama and its family
    "peri"      x + norm(f(norm(x)))       Ouro
    "sandwich"  norm(x + f(norm(x)))       Huginn: the norm sits after the residual sum, so a state cannot grow in a loop

Shapes: B batch, S sequence, H heads, K key/value heads, D head width, W model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from latentweaver import kernels
from latentweaver.models.config import RecurrentDepthConfig
from latentweaver.runtime.cache import LoopCache, RowsOfCache
from latentweaver.runtime.slots import Pass

Take = Callable[[Tensor], Tensor]
"""Picks some positions of a tensor `[batch, sequence, ...]`."""


class Linear(nn.Linear):
    """x W^T + b; fast for few rows (see `kernels`)."""

    working: Tensor | None = None  # what an update of training uses in place of the weight (`training.working`)

    def matrix(self) -> Float[Tensor, "out width"]:
        """W."""
        return self.weight

    def forward(self, input: Float[Tensor, "... width"]) -> Float[Tensor, "... out"]:
        return kernels.linear(input, self.weight if self.working is None else self.working, self.bias)


class RMSNorm(nn.Module):
    """x / rms(x) * weight, normalised in float32 and cast back before the product (arXiv 1910.07467; Llama's order).

    A `residual` is added to x first.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "... width"], residual: Float[Tensor, "... width"] | None = None) -> Float[Tensor, "... width"]:
        return kernels.rms_norm(x, self.weight, self.eps, residual)


class RotaryTable(nn.Module):
    """Cosines and sines of the rotary position embedding, arranged for `kernels.rotate`.

    The two layouts differ in which channels form a pair: "half" pairs channel i with i + D/2 (Llama, Ouro), "interleaved"
    pairs 2i with 2i + 1 (Huginn). The sine carries the sign, so
    both need one permutation, two products and a sum.
    """

    def __init__(self, config: RecurrentDepthConfig) -> None:
        super().__init__()
        self.layout = config.rope_layout
        self.inverse_frequency: Tensor
        frequencies, self.scale = self.inverse_frequencies(config)
        self.register_buffer("inverse_frequency", frequencies, persistent=False)

    @staticmethod
    def inverse_frequencies(config: RecurrentDepthConfig) -> tuple[Float[Tensor, "half"], float]:
        """base^(-2i/D) for i < D/2, or transformers' own formula for a scaled kind (llama3, yarn, ...)."""
        parameters = config.rope_parameters
        with torch.device("cpu"):  # also where the model is only being sketched on the meta device
            if parameters["rope_type"] != "default":
                return ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, "cpu")
            even = torch.arange(0, config.head_dim, 2, dtype=torch.float32)
            return 1.0 / parameters["rope_theta"] ** (even / config.head_dim), 1.0

    def forward(
        self, positions: Float[Tensor, "batch sequence"], dtype: torch.dtype
    ) -> tuple[Float[Tensor, "batch sequence 1 head"], Float[Tensor, "batch sequence 1 head"]]:
        angle = positions[..., None].float() * self.inverse_frequency.float()
        cos, sin = angle.cos() * self.scale, angle.sin() * self.scale
        if self.layout == "half":
            cos, sin = torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)
        else:
            cos, sin = cos.repeat_interleave(2, -1), torch.stack([-sin, sin], -1).flatten(-2)
        return cos.unsqueeze(2).to(dtype), sin.unsqueeze(2).to(dtype)


class Attention(nn.Module):
    """Grouped-query attention (arXiv 2305.13245), causal unless the config says otherwise, with rotary positions and an optional cache.

    The cache is addressed by *slot*: a block that runs once a token has one slot, a core block has one for each step.
    """

    joins = ("q_proj", "k_proj", "v_proj")
    joined: tuple[Tensor, Tensor | None] | None = None  # their matrices side by side, in an update of training (`training.working`)

    def __init__(self, config: RecurrentDepthConfig) -> None:
        super().__init__()
        self.config = config
        self.is_causal = config.causal  # where there is no mask, as transformers' attention functions understand it
        self.head_dim = config.head_dim
        self.rope_layout = config.rope_layout
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = config.head_dim**-0.5
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        bias = config.attention_bias
        self.q_proj = Linear(config.hidden_size, queries, bias=bias != "none")
        self.k_proj = Linear(config.hidden_size, keys, bias=bias != "none")
        self.v_proj = Linear(config.hidden_size, keys, bias=bias in ("qkv", "all"))
        self.o_proj = Linear(queries, config.hidden_size, bias=bias == "all")
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else None

    def forward(
        self,
        x: Float[Tensor, "batch sequence width"],
        rotary: tuple[Tensor, Tensor],
        mask: Any,
        cache: Cache | None,
        slot: int,
        /,  # transformers' paged attention has a `cache` of its own among the kwargs
        take: Take | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "batch sequence width"]:
        batch, sequence, _ = x.shape
        asking, tables = (x, rotary) if take is None else (take(x), (take(rotary[0]), take(rotary[1])))
        if self.joined is not None and take is None:
            q, k, v = kernels.linear(x, *self.joined).split([layer.out_features for layer in (self.q_proj, self.k_proj, self.v_proj)], -1)
        else:
            q, k, v = self.q_proj(asking), self.k_proj(x), self.v_proj(x)
        q = q.view(*asking.shape[:2], -1, self.head_dim)
        k = k.view(batch, sequence, -1, self.head_dim)
        v = v.view(batch, sequence, -1, self.head_dim).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q = kernels.rotate(q, *tables, self.rope_layout).transpose(1, 2)
        k = kernels.rotate(k, *rotary, self.rope_layout).transpose(1, 2)
        if isinstance(cache, Pass):
            mixed = cache.attend(self.attend, q, k, v, slot)
        elif isinstance(cache, RowsOfCache) and x.device.type == "cpu":
            masks = [None] * batch if mask is None else mask.expand(batch, -1, -1, -1).split(1)
            rows = cache.update_rows(k, v, slot)
            mixed = torch.cat([self.attend(q[i : i + 1], *rows[i], masks[i], **kwargs) for i in range(batch)])
        else:
            self.layer_idx = slot  # transformers' paged attention asks the module which slot it is
            if cache is not None:
                k, v = cache.update(k, v, slot)
            mixed = self.attend(q, k, v, mask, **kwargs)
        return self.o_proj(mixed.reshape(*asking.shape[:2], -1))

    def attend(
        self,
        q: Float[Tensor, "batch heads sequence head"],
        k: Float[Tensor, "batch groups length head"],
        v: Float[Tensor, "batch groups length head"],
        mask: Any,
        **kwargs: Any,
    ) -> Float[Tensor, "batch sequence heads head"]:
        """softmax(q k^T / sqrt(D)) v by the attention function that the config names."""
        implementation = self.config._attn_implementation or "sdpa"
        if implementation == "sdpa" and not kwargs:
            mixed = kernels.attend_one(q, k, v, mask, self.scaling)
            if mixed is not None:
                return mixed
        function = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)
        return function(self, q, k, v, mask, scaling=self.scaling, dropout=0.0, **kwargs)[0]


def eager_attention(
    module: Attention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float, dropout: float, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(D)) v, spelled out; what "eager" means to transformers (additive mask, softmax in float32)."""
    k, v = repeat_kv(k, module.num_key_value_groups), repeat_kv(v, module.num_key_value_groups)
    scores = q @ k.transpose(2, 3) * scaling
    if mask is None and module.is_causal and q.shape[2] > 1:  # as the other attention functions understand it
        mask = torch.full(scores.shape[2:], torch.finfo(scores.dtype).min, dtype=scores.dtype, device=scores.device).triu(1)
    if mask is not None:
        scores = scores + mask
    weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
    return (weights @ v).transpose(1, 2).contiguous(), weights


class GatedMLP(nn.Module):
    """down(act(gate(x)) * up(x)): SwiGLU (arXiv 2002.05202) when the activation is SiLU.

    Gate and up are one matrix, the gate's rows first: one product instead of two, and Huginn's own order of summation, which
    a loop of many steps would otherwise amplify beyond rounding.
    """

    def __init__(self, config: RecurrentDepthConfig) -> None:
        super().__init__()
        bias = config.mlp_bias
        self.gate_up_proj = Linear(config.hidden_size, 2 * config.intermediate_size, bias=bias)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=bias)
        self.activation = ACT2FN[config.hidden_act]
        self.swiglu = config.hidden_act == "silu"

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        gate_up = self.gate_up_proj(x)
        if self.swiglu:
            return self.down_proj(kernels.swiglu(gate_up))
        gate, up = gate_up.chunk(2, -1)
        return self.down_proj(self.activation(gate) * up)


class Block(GradientCheckpointingLayer):
    """Attention, then MLP; `config.block` says where the norms sit (see the top of this file).

    Where only some positions are read on (the last block before the head), `take` picks them from any tensor of all: the others
    leave their keys and values and are not computed further. The mask must be that of those positions.
    """

    def __init__(self, config: RecurrentDepthConfig) -> None:
        super().__init__()
        self.placement = config.block
        self.attention = Attention(config)
        self.mlp = GatedMLP(config)
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if self.placement != "pre":
            self.attention_post_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
            self.mlp_post_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        x: Float[Tensor, "batch sequence width"],
        rotary: tuple[Tensor, Tensor],
        mask: Any = None,
        cache: Cache | None = None,
        slot: int = 0,
        /,
        take: Take | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "batch sequence width"]:
        mixed = self.attention(self.attention_norm(x), rotary, mask, cache, slot, take=take, **kwargs)
        x = x if take is None else take(x)
        if self.placement == "pre":
            x = x + mixed
            return x + self.mlp(self.mlp_norm(x))
        if self.placement == "peri":
            x = x + self.attention_post_norm(mixed)
            return x + self.mlp_post_norm(self.mlp(self.mlp_norm(x)))
        x = self.attention_post_norm(mixed, x)
        return self.mlp_post_norm(self.mlp(self.mlp_norm(x)), x)


def run(
    blocks: nn.ModuleList,
    x: Float[Tensor, "batch sequence width"],
    rotary: tuple[Tensor, Tensor],
    mask: Any,
    cache: Cache | None,
    slots: Sequence[int],
    /,  # as in `Attention.forward`
    **kwargs: Any,
) -> Float[Tensor, "batch sequence width"]:
    """x through one block after another, each with its slot of the cache; at few rows on a CPU as one call (see `kernels`)."""
    if type(cache) is LoopCache and not kwargs:
        fast = kernels.run_blocks(blocks, x, rotary, mask, cache, slots)  # pyright: ignore[reportArgumentType]
        if fast is not None:
            return fast
    for block, slot in zip(blocks, slots, strict=True):
        x = block(x, rotary, mask, cache, slot, **kwargs)
    return x
