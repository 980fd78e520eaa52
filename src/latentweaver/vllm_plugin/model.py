# pyright: reportMissingImports=false
"""`RecurrentDepthForCausalLM` written with vLLM's layers: the same weights and the same sums, with a fixed number of steps.

A core block keeps keys and values of its own for every step, the cache policy "full", so it has one vLLM `Attention` for each step
(all share the block's weights), and vLLM's pager sees prelude + coda + core x steps layers. Projections are vLLM's parallel
ones and split over devices as they do; the injection is small beside a block and stays whole on each device. Noise, if a model
starts from it, is `cores.noise_like` with seed 0: what `generate` draws without a generator.

Tensors here are flat, as everywhere in vLLM: `[tokens, width]`, with the tokens of all requests one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import MergedColumnParallelLinear, QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.rotary_embedding import get_rope
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.weight_utils import default_weight_loader

from latentweaver.errors import InputError
from latentweaver.models.config import RecurrentDepthConfig
from latentweaver.models.cores import INJECTIONS, noise_like

_SHARDS = {".q_proj.": "q", ".k_proj.": "k", ".v_proj.": "v"}
"""Matrices of a checkpoint that are one here, by their place in it."""


class FixedDepthBlock(nn.Module):
    """A block of `models.blocks`, with an attention instance for each of its `slots`."""

    def __init__(self, config: RecurrentDepthConfig, slots: list[int], vllm_config: VllmConfig, prefix: str) -> None:
        super().__init__()
        width, parallel = config.hidden_size, get_tensor_model_parallel_world_size()
        quantization, name = vllm_config.quant_config, f"{prefix}.layers.{slots[0]}"
        bias = config.attention_bias
        self.placement = config.block
        self.qkv_proj = QKVParallelLinear(
            width,
            config.head_dim,
            config.num_attention_heads,
            config.num_key_value_heads,
            bias=bias != "none",
            quant_config=quantization,
            prefix=f"{name}.qkv_proj",
        )
        if bias == "qk":  # a checkpoint has none for the values
            self.qkv_proj.bias.data.zero_()
        self.o_proj = RowParallelLinear(
            config.num_attention_heads * config.head_dim,
            width,
            bias=bias == "all",
            quant_config=quantization,
            prefix=f"{name}.o_proj",
        )
        self.gate_up_proj = MergedColumnParallelLinear(
            width, [config.intermediate_size] * 2, bias=config.mlp_bias, quant_config=quantization, prefix=f"{name}.gate_up_proj"
        )
        self.down_proj = RowParallelLinear(
            config.intermediate_size, width, bias=config.mlp_bias, quant_config=quantization, prefix=f"{name}.down_proj"
        )
        self.activation = SiluAndMul()
        self.attention_norm = RMSNorm(width, config.rms_norm_eps)
        self.mlp_norm = RMSNorm(width, config.rms_norm_eps)
        if self.placement != "pre":
            self.attention_post_norm = RMSNorm(width, config.rms_norm_eps)
            self.mlp_post_norm = RMSNorm(width, config.rms_norm_eps)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.head = config.head_dim
        heads, groups = config.num_attention_heads // parallel, max(1, config.num_key_value_heads // parallel)
        self.sizes = [heads * self.head, groups * self.head, groups * self.head]
        self.rotary = get_rope(
            self.head,
            max_position=config.max_position_embeddings,
            is_neox_style=config.rope_layout == "half",
            rope_parameters=config.rope_parameters,
        )
        self.attend = nn.ModuleList(
            Attention(
                heads,
                self.head,
                self.head**-0.5,
                num_kv_heads=groups,
                cache_config=vllm_config.cache_config,
                quant_config=quantization,
                prefix=f"{prefix}.layers.{slot}.attn",  # vLLM finds a layer's pages by the one number in its name
            )
            for slot in slots
        )

    def forward(self, x: Float[Tensor, "tokens width"], positions: Int[Tensor, "tokens"], step: int = 0) -> Float[Tensor, "tokens width"]:
        mixed = self._mix(self.attention_norm(x), positions, step)
        if self.placement == "pre":
            x = x + mixed
            return x + self._transform(self.mlp_norm(x))
        if self.placement == "peri":
            x = x + self.attention_post_norm(mixed)
            return x + self.mlp_post_norm(self._transform(self.mlp_norm(x)))
        x = self.attention_post_norm(mixed + x)
        return self.mlp_post_norm(self._transform(self.mlp_norm(x)) + x)

    def _mix(self, x: Tensor, positions: Tensor, step: int) -> Tensor:
        q, k, v = self.qkv_proj(x)[0].split(self.sizes, dim=-1)
        if self.q_norm is not None and self.k_norm is not None:
            q = self.q_norm(q.unflatten(-1, (-1, self.head)).contiguous()).flatten(-2)
            k = self.k_norm(k.unflatten(-1, (-1, self.head)).contiguous()).flatten(-2)
        q, k = self.rotary(positions, q, k)
        return self.o_proj(self.attend[step](q, k, v))[0]

    def _transform(self, x: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.gate_up_proj(x)[0]))[0]


class FixedDepthModel(nn.Module):
    """Everything but the head."""

    def __init__(self, config: RecurrentDepthConfig, vllm_config: VllmConfig, prefix: str) -> None:
        super().__init__()
        self.config = config
        once = config.prelude_layers + config.coda_layers

        def block(slots: list[int]) -> FixedDepthBlock:
            return FixedDepthBlock(config, slots, vllm_config, prefix)

        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size, prefix=f"{prefix}.embed_tokens")
        self.prelude = nn.ModuleList(block([layer]) for layer in range(config.prelude_layers))
        self.injection = INJECTIONS[config.injection](config)
        self.core = nn.ModuleList(
            block([config.slot(step, layer) for step in range(config.num_steps)]) for layer in range(config.core_layers)
        )
        self.coda = nn.ModuleList(block([layer]) for layer in range(config.prelude_layers, once))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, embedding: Float[Tensor, "tokens width"], positions: Int[Tensor, "tokens"]) -> Float[Tensor, "tokens width"]:
        config = self.config
        x = embedding * config.embedding_scale if config.embedding_scale != 1 else embedding
        for block in self.prelude:
            x = block(x, positions)
        anchor, x = x, self._first_state(x, embedding, positions)
        for step in range(config.num_steps):
            x = self.injection(x, anchor)
            for block in self.core:
                x = block(x, positions, step)
            x = self.norm(x) if config.norm_in_loop else x
        if config.norm_in_loop and not self.coda:
            return x
        x = self.norm(x) if config.norm_before_coda and not config.norm_in_loop else x
        for block in self.coda:
            x = block(x, positions)
        return self.norm(x)

    def _first_state(self, anchor: Tensor, embedding: Tensor, positions: Tensor) -> Tensor:
        if self.config.initial_state == "zeros":
            return torch.zeros_like(anchor)
        if self.config.initial_state == "input":
            return anchor
        return noise_like(embedding[None], positions[None], self.config.initial_state_std, 0)[0]


class FixedDepthForCausalLM(nn.Module):
    """What vLLM's registry holds under `RecurrentDepthForCausalLM`.

    Raises:
        InputError: for what this form cannot do: pipeline parallelism, another activation than SiLU, a first state of another kind.
    """

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config: RecurrentDepthConfig = vllm_config.model_config.hf_config
        if vllm_config.parallel_config.pipeline_parallel_size > 1:
            raise InputError("a loop cannot be cut into a pipeline: use tensor parallelism, or one device")
        if config.hidden_act != "silu":
            raise InputError(f"vLLM's form has SiLU only, this model has hidden_act={config.hidden_act!r}; use lw serve")
        self.config = config
        prefix = f"{prefix}.model" if prefix else "model"
        self.model = FixedDepthModel(config, vllm_config, prefix)
        self.lm_head = ParallelLMHead(config.vocab_size, config.hidden_size, quant_config=vllm_config.quant_config, prefix="lm_head")
        if config.tie_word_embeddings:
            self.lm_head = self.lm_head.tie_weights(self.model.embed_tokens)
        self.logits_processor = LogitsProcessor(config.vocab_size)

    def embed_input_ids(self, input_ids: Int[Tensor, "tokens"]) -> Float[Tensor, "tokens width"]:
        return self.model.embed_tokens(input_ids)

    def forward(
        self, input_ids: Tensor | None, positions: Tensor, intermediate_tensors: Any = None, inputs_embeds: Tensor | None = None
    ) -> Float[Tensor, "tokens width"]:
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.embed_input_ids(input_ids)
        return self.model(inputs_embeds, positions)

    def compute_logits(self, hidden_states: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens vocabulary"] | None:
        return self.logits_processor(self.lm_head, hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Put a checkpoint's tensors where they belong; the names of those that were filled.

        An exit gate is left out: it says when to stop, and the depth is fixed.
        """
        parameters, loaded = dict(self.named_parameters()), set[str]()
        for name, tensor in weights:
            if ".exit_gate." in name or (name == "lm_head.weight" and self.config.tie_word_embeddings):
                continue
            name = name.replace(".attention.", ".").replace(".mlp.", ".")
            shard = next((part for part in _SHARDS if part in name), None)
            if shard is not None:
                name = name.replace(shard, ".qkv_proj.")
            if name not in parameters:
                raise InputError(f"the checkpoint has a tensor {name!r} that this model has no place for; was it saved by latentweaver?")
            parameter = parameters[name]
            load = getattr(parameter, "weight_loader", default_weight_loader)
            load(parameter, tensor, *([] if shard is None else [_SHARDS[shard]]))
            loaded.add(name)
        return loaded
