"""Translations of other people's checkpoints: their configuration and tensor names into ours.

Each format is two pure functions: one from their config.json to a `RecurrentDepthConfig`, one from one of their tensors to
ours (a dictionary, because some of theirs hold several of ours). Nothing is defaulted that a checkpoint should say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from latentweaver.errors import CheckpointError
from latentweaver.models.config import RecurrentDepthConfig

Named = Mapping[str, Tensor]


@dataclass(frozen=True)
class Format:
    """How to read one kind of checkpoint.

    Attributes:
        config: their config.json, parsed, to ours.
        translate: one of their tensors, by name, to ours. May raise `CheckpointError` for one it does not know.
    """

    config: Callable[[Mapping[str, Any]], RecurrentDepthConfig]
    translate: Callable[[str, Tensor], dict[str, Tensor]]


def _need(config: Mapping[str, Any], *names: str) -> Any:
    """The first of these names that the config has.

    Raises:
        CheckpointError: if it has none of them.
    """
    for name in names:
        if config.get(name) is not None:
            return config[name]
    raise CheckpointError(f"config.json does not say {' or '.join(names)}")


_GENERATION = ("bos_token_id", "eos_token_id", "pad_token_id", "dtype", "torch_dtype")


def _common(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in _GENERATION if config.get(name) is not None}


# Huginn (seal-rg/recurrent-pretraining, Apache-2.0) -------------------------------------------------------------------


def huginn_config(config: Mapping[str, Any]) -> RecurrentDepthConfig:
    """From Huginn's config.json (`model_type` "huginn_raven"), whose field names come in two dialects."""
    width = _need(config, "n_embd", "hidden_size")
    heads = _need(config, "n_heads", "num_attention_heads")
    groups = config.get("num_key_value_heads") or config.get("n_kv_heads") or heads
    if groups != heads:
        raise CheckpointError(f"Huginn's stacked Wqkv is read for as many key heads as query heads; config.json says {groups} and {heads}")
    if config.get("injection_type", "linear") not in ("linear", "add", "none"):
        raise CheckpointError(
            f"injection_type {config['injection_type']!r} of this Huginn checkpoint is not supported; linear, add and none are"
        )
    if config.get("test_time_noise"):
        raise CheckpointError(f"test_time_noise must be 0, config.json says {config['test_time_noise']}")
    scale = (config.get("init_values") or {}).get("embed_scale")
    return RecurrentDepthConfig(
        vocab_size=_need(config, "padded_vocab_size", "vocab_size"),
        hidden_size=width,
        intermediate_size=_need(config, "intermediate_size"),
        num_attention_heads=heads,
        head_dim=config.get("head_dim"),
        prelude_layers=_need(config, "n_layers_in_prelude"),
        core_layers=_need(config, "n_layers_in_recurrent_block"),
        coda_layers=_need(config, "n_layers_in_coda"),
        num_steps=_need(config, "mean_recurrence"),
        injection=config.get("injection_type", "linear"),
        initial_state="noise" if config.get("state_init", "like-init") == "like-init" else "zeros",
        block="sandwich",
        embedding_scale=width**0.5 if scale is None else scale,
        attention_bias="qk" if config.get("qk_bias") else "none",
        rope_layout="interleaved",
        rope_theta=_need(config, "rope_base", "rope_theta"),
        max_position_embeddings=_need(config, "block_size", "max_position_embeddings"),
        rms_norm_eps=_need(config, "norm_eps", "rms_norm_eps"),
        tie_word_embeddings=bool(_need(config, "tie_embeddings", "tie_word_embeddings")),
        **_common(config),
    )


_HUGINN_PARTS = {"prelude": "prelude", "core_block": "core", "coda": "coda"}
_HUGINN_BLOCK = {
    "norm_1.weight": "attention_norm.weight",
    "norm_2.weight": "attention_post_norm.weight",
    "norm_3.weight": "mlp_norm.weight",
    "norm_4.weight": "mlp_post_norm.weight",
    "attn.proj.weight": "attention.o_proj.weight",
    "mlp.fc.weight": "mlp.gate_up_proj.weight",
    "mlp.proj.weight": "mlp.down_proj.weight",
}
_HUGINN_TOP = {
    "transformer.wte.weight": "model.embed_tokens.weight",
    "transformer.adapter.weight": "model.injection.weight",
    "transformer.ln_f.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}


def huginn_tensor(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """One of Huginn's tensors. The rotary table `freqs_cis` is recomputed, not read."""
    if name == "freqs_cis":
        return {}
    if name in _HUGINN_TOP:
        return {_HUGINN_TOP[name]: tensor}
    found = re.fullmatch(r"transformer\.(prelude|core_block|coda)\.(\d+)\.(.+)", name)
    if found is None:
        return {name: tensor}
    part, layer, rest = found.groups()
    block = f"model.{_HUGINN_PARTS[part]}.{layer}."
    if rest == "attn.Wqkv.weight":
        q, k, v = tensor.chunk(3)
        return {block + f"attention.{which}_proj.weight": piece for which, piece in (("q", q), ("k", k), ("v", v))}
    if rest == "attn.qk_bias":
        return {block + f"attention.{which}_proj.bias": piece.reshape(-1) for which, piece in (("q", tensor[0]), ("k", tensor[1]))}
    return {block + _HUGINN_BLOCK.get(rest, rest): tensor}


# Ouro (ByteDance, Apache-2.0) -----------------------------------------------------------------------------------------


def ouro_config(config: Mapping[str, Any]) -> RecurrentDepthConfig:
    """From Ouro's config.json (`model_type` "ouro")."""
    return RecurrentDepthConfig(
        **llama_fields(config),
        prelude_layers=0,
        core_layers=_need(config, "num_hidden_layers"),
        coda_layers=0,
        num_steps=_need(config, "total_ut_steps"),
        injection="none",
        initial_state="input",
        block="peri",
        norm_in_loop=True,
        norm_before_coda=False,
        exit_gate=True,
        **_common(config),
    )


_OURO_BLOCK = {
    "input_layernorm.weight": "attention_norm.weight",
    "input_layernorm_2.weight": "attention_post_norm.weight",
    "post_attention_layernorm.weight": "mlp_norm.weight",
    "post_attention_layernorm_2.weight": "mlp_post_norm.weight",
}


def ouro_tensor(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """One of Ouro's tensors."""
    name = name.replace("early_exit_gate", "exit_gate")
    return _llama_layers(name, tensor, _OURO_BLOCK, lambda layer: f"model.core.{layer}.")


# Llama and its family -------------------------------------------------------------------------------------------------

LLAMA_FAMILY = ("llama", "mistral", "qwen2", "qwen3", "smollm3")


def llama_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Llama-family config.json that say the shape of the blocks and the embedding, in our names."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope = {"rope_type": rope.get("rope_type", rope.get("type", "default")), **rope}
    rope.setdefault("rope_theta", config.get("rope_theta"))
    if rope["rope_theta"] is None:
        raise CheckpointError("config.json does not say rope_theta")
    heads = _need(config, "num_attention_heads")
    kind = config.get("model_type")
    return {
        "vocab_size": _need(config, "vocab_size"),
        "hidden_size": _need(config, "hidden_size"),
        "intermediate_size": _need(config, "intermediate_size"),
        "num_attention_heads": heads,
        "num_key_value_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim"),
        "attention_bias": "qkv" if kind == "qwen2" else "all" if config.get("attention_bias") else "none",
        "mlp_bias": bool(config.get("mlp_bias")),
        "qk_norm": kind == "qwen3",
        "hidden_act": config.get("hidden_act", "silu"),
        "rope_layout": "half",
        "rope_parameters": rope,
        "max_position_embeddings": _need(config, "max_position_embeddings"),
        "rms_norm_eps": config.get("rms_norm_eps", 1e-6),
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
    }


_LLAMA_BLOCK = {
    "input_layernorm.weight": "attention_norm.weight",
    "post_attention_layernorm.weight": "mlp_norm.weight",
}
_PIECES = {"mlp.gate_proj": "mlp.gate_up_proj#0", "mlp.up_proj": "mlp.gate_up_proj#1"}
"""Matrices stored apart that are one of ours; the number after # is the place (`joined` puts them together)."""


def llama_tensor(layers: list[str | None]) -> Callable[[str, Tensor], dict[str, Tensor]]:
    """A translation for a Llama-family model whose layer i becomes the block `layers[i]` ("prelude.0"), or is dropped (None)."""

    def place(layer: int) -> str | None:
        return None if layers[layer] is None else f"model.{layers[layer]}."

    return lambda name, tensor: _llama_layers(name, tensor, _LLAMA_BLOCK, place)


def _llama_layers(name: str, tensor: Tensor, norms: Mapping[str, str], place: Callable[[int], str | None]) -> dict[str, Tensor]:
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", name)
    if found is None:
        return {} if name.endswith("rotary_emb.inv_freq") else {name: tensor}
    block, rest = place(int(found[1])), found[2]
    if block is None:
        return {}
    rest = norms.get(rest, rest.replace("self_attn.", "attention."))
    for theirs, ours in _PIECES.items():
        rest = rest.replace(theirs, ours)
    return {block + rest: tensor}


def joined(tensors: Named) -> dict[str, Tensor]:
    """Put pieces named "matrix#0", "matrix#1", ... together into "matrix", stacked along the rows."""
    import torch

    whole: dict[str, Tensor] = {}
    pieces: dict[str, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        found = re.fullmatch(r"(.+)#(\d+)(\..+)", name)
        if found is None:
            whole[name] = tensor
        else:
            pieces.setdefault(found[1] + found[3], {})[int(found[2])] = tensor
    for name, parts in pieces.items():
        whole[name] = torch.cat([parts[place] for place in sorted(parts)])
    return whole


FORMATS: dict[str, Format] = {
    "huginn_raven": Format(huginn_config, huginn_tensor),
    "ouro": Format(ouro_config, ouro_tensor),
}
"""Formats by the `model_type` of their config.json."""
