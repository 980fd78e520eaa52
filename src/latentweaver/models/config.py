"""The hyperparameters of a recurrent-depth model: one typed field each, with the name of the field in every error."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from latentweaver.errors import InputError

_CHOICES = {
    "block": ("pre", "peri", "sandwich"),
    "injection": ("linear", "scaled", "add", "diagonal", "none"),
    "initial_state": ("noise", "zeros", "input"),
    "rope_layout": ("half", "interleaved"),
    "attention_bias": ("none", "qk", "qkv", "all"),
}


class RecurrentDepthConfig(PreTrainedConfig):
    """Configuration of `RecurrentDepthForCausalLM`.

    Args:
        vocab_size: number of tokens.
        hidden_size: width of the states.
        intermediate_size: width inside the MLP.
        num_attention_heads: query heads.
        num_key_value_heads: key and value heads; None for as many as query heads.
        head_dim: width of a head; None for hidden_size / num_attention_heads.
        prelude_layers: blocks that embed the input, run once.
        core_layers: blocks of the recurrent core, run at every step.
        coda_layers: blocks that read the state out, run once.
        num_steps: the dial: steps taken where a call does not say otherwise.
        injection: how the embedded input enters each step: "linear", "scaled", "add", "diagonal" or "none" (see `cores`).
        initial_state: the state before the first step: "noise" (truncated normal), "zeros" or "input" (the prelude's output).
        initial_state_std: standard deviation of the noise, before it is cut at three of them.
        causal: whether a position sees only itself and what is before it. False is for pictures, which are read as a whole and
            answered in place: every position sees every other, and nothing can be written after them.
        block: where a block's norms sit: "pre", "peri" or "sandwich" (see `blocks`).
        norm_in_loop: whether the final norm ends every step, and is then part of it (Ouro), rather than of the readout.
        norm_before_coda: whether the final norm is applied before the coda as well as after it (Huginn).
        exit_gate: whether a learned gate says after each step how likely the model is to stop there (Ouro).
        embedding_scale: factor on the token embeddings.
        attention_bias: which projections have a bias: "none", "qk" (Huginn), "qkv" (Qwen 2) or "all".
        mlp_bias: whether the MLP's projections have a bias.
        qk_norm: whether queries and keys are normalised per head (Qwen 3).
        hidden_act: activation of the MLP.
        rope_layout: which channels the rotary embedding pairs: "half" (Llama) or "interleaved" (Huginn).
        rope_parameters: `{"rope_type": ..., "rope_theta": ...}` as in transformers; `rope_theta` alone is accepted too.
        max_position_embeddings: longest input, in tokens.
        rms_norm_eps: epsilon of every norm.
        initializer_range: standard deviation of fresh weights; None for sqrt(2 / (5 width)) (arXiv 2312.16903).
        tie_word_embeddings: whether the head shares its matrix with the token embedding.
        use_cache: whether calls keep keys and values by default.
        int8: whether the matrices are 8-bit whole numbers (`runtime.int8`): smaller and faster on a CPU, not for training.

    `num_hidden_layers`, which transformers reads to size a static cache, is derived: prelude + coda + core x num_steps.
    """

    model_type = "recurrent_depth"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        vocab_size: int = 32000,
        hidden_size: int = 512,
        intermediate_size: int = 1728,
        num_attention_heads: int = 8,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        prelude_layers: int = 2,
        core_layers: int = 4,
        coda_layers: int = 2,
        num_steps: int = 8,
        injection: str = "linear",
        initial_state: str = "noise",
        initial_state_std: float = 0.4**0.5,
        causal: bool = True,
        block: str = "sandwich",
        norm_in_loop: bool = False,
        norm_before_coda: bool = True,
        exit_gate: bool = False,
        embedding_scale: float = 1.0,
        attention_bias: str = "none",
        mlp_bias: bool = False,
        qk_norm: bool = False,
        hidden_act: str = "silu",
        rope_layout: str = "half",
        rope_parameters: dict[str, Any] | None = None,
        rope_theta: float = 10000.0,
        max_position_embeddings: int = 4096,
        rms_norm_eps: float = 1e-6,
        initializer_range: float | None = None,
        tie_word_embeddings: bool = False,
        use_cache: bool = True,
        int8: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_attention_heads if num_key_value_heads is None else num_key_value_heads
        self.head_dim = hidden_size // num_attention_heads if head_dim is None else head_dim
        self.prelude_layers = prelude_layers
        self.core_layers = core_layers
        self.coda_layers = coda_layers
        self.num_steps = num_steps
        self.injection = injection
        self.initial_state = initial_state
        self.initial_state_std = initial_state_std
        self.causal = causal
        self.block = block
        self.norm_in_loop = norm_in_loop
        self.norm_before_coda = norm_before_coda
        self.exit_gate = exit_gate
        self.embedding_scale = embedding_scale
        self.attention_bias = attention_bias
        self.mlp_bias = mlp_bias
        self.qk_norm = qk_norm
        self.hidden_act = hidden_act
        self.rope_layout = rope_layout
        self.rope_parameters = rope_parameters or {"rope_type": "default", "rope_theta": rope_theta}
        self.max_position_embeddings = max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        self.int8 = int8
        kwargs.pop("num_hidden_layers", None)
        self._check()
        self.num_hidden_layers = prelude_layers + coda_layers + core_layers * num_steps
        super().__init__(**kwargs)
        self.tie_word_embeddings = tie_word_embeddings

    def _check(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}")
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "core_layers", "num_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise InputError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            raise InputError(f"head_dim must be even for rotary positions, got {self.head_dim}")

    def slot(self, step: int, layer: int) -> int:
        """Cache slot of a core block at a step; the prelude and the coda come first, so the depth may vary."""
        return self.prelude_layers + self.coda_layers + step * self.core_layers + layer


AutoConfig.register(RecurrentDepthConfig.model_type, RecurrentDepthConfig, exist_ok=True)
