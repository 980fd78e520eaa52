"""The hyperparameters of continuous thought: the decoder's own configuration, and how its states are fed back."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from latentweaver.errors import InputError

FEEDBACK_NAMES = ("hidden", "projected", "pause", "soft")


class ContinuousThoughtConfig(PreTrainedConfig):
    """Configuration of `ContinuousThoughtForCausalLM`.

    Args:
        text_config: the decoder's own configuration, or a dictionary of it.
        num_steps: the dial: thoughts before the answer where a call does not say otherwise.
        feedback: what is fed back: "hidden", "projected", "pause" or "soft" (see `feedback`).
        latent_token_id: the token that stands where a thought goes; needed for training batches and for "pause".
        start_token_id: a token put after the prompt, before the first thought; None for none.
        end_token_id: a token put after the last thought, at which the answer is read; None for none.
        projection_size: inner width of the projection; None for the decoder's width.
        pause_passes: "one" or "several" passes for pause tokens. A causal decoder gives the same numbers either way; several cost
            what thoughts cost.
        soft_temperature: of a soft token's probabilities.
        soft_top_k: how many tokens a soft token mixes.
        soft_noise: how much Gumbel noise is added to a soft token's logits.
    """

    model_type = "continuous_thought"
    sub_configs = {"text_config": AutoConfig}  # pyright: ignore

    def __init__(
        self,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        num_steps: int = 6,
        feedback: str = "hidden",
        latent_token_id: int | None = None,
        start_token_id: int | None = None,
        end_token_id: int | None = None,
        projection_size: int | None = None,
        pause_passes: str = "one",
        soft_temperature: float = 1.0,
        soft_top_k: int = 15,
        soft_noise: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if text_config is None:
            text_config = AutoConfig.for_model("gpt2")
        elif isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        self.text_config = text_config
        self.num_steps = num_steps
        self.feedback = feedback
        self.latent_token_id = latent_token_id
        self.start_token_id = start_token_id
        self.end_token_id = end_token_id
        self.projection_size = projection_size
        self.pause_passes = pause_passes
        self.soft_temperature = soft_temperature
        self.soft_top_k = soft_top_k
        self.soft_noise = soft_noise
        self._check()
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            kwargs.setdefault(name, getattr(text_config, name, None))
        kwargs.setdefault("tie_word_embeddings", getattr(text_config, "tie_word_embeddings", False))
        attention = text_config._attn_implementation  # transformers would reset the decoder's to ours, which is not chosen yet
        super().__init__(**kwargs)
        self._attn_implementation = attention

    def _check(self) -> None:
        if self.feedback not in FEEDBACK_NAMES:
            raise InputError(f"feedback must be one of {', '.join(FEEDBACK_NAMES)}; got {self.feedback!r}")
        if self.feedback == "pause" and self.latent_token_id is None:
            raise InputError("feedback 'pause' feeds the latent token's embedding, so latent_token_id must be given")
        if self.pause_passes not in ("one", "several"):
            raise InputError(f"pause_passes must be 'one' or 'several', got {self.pause_passes!r}")
        if self.num_steps < 1:
            raise InputError(f"num_steps must be at least 1, got {self.num_steps}")
        if not self.soft_temperature > 0:
            raise InputError(f"soft_temperature must be above 0, got {self.soft_temperature}")
        if self.soft_top_k < 1:
            raise InputError(f"soft_top_k must be at least 1, got {self.soft_top_k}")
        for name in ("latent_token_id", "start_token_id", "end_token_id"):
            token = getattr(self, name)
            if token is not None and not 0 <= token < self.text_config.vocab_size:
                raise InputError(f"{name} must be a token of the decoder (0 to {self.text_config.vocab_size - 1}), got {token}")


AutoConfig.register(ContinuousThoughtConfig.model_type, ContinuousThoughtConfig, exist_ok=True)
