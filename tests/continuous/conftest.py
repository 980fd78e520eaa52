"""Tiny decoders that think; every test of this folder is quick."""

from collections.abc import Callable

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel

START, END, LATENT, VOCABULARY = 61, 62, 63, 64


def make_base(kind: str, seed: int = 0, **fields: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    if kind == "gpt2":
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 48}
        config = GPT2Config(vocab_size=VOCABULARY, initializer_range=0.2, **{**shape, **fields})
    else:
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "max_position_embeddings": 48}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
        config = LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.2, tie_word_embeddings=True, **heads, **{**shape, **fields})
    config.bos_token_id = config.eos_token_id = config.pad_token_id = 0
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(params=["gpt2", "llama"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def base(kind: str) -> PreTrainedModel:
    return make_base(kind)


@pytest.fixture
def bases() -> Callable[..., PreTrainedModel]:
    return make_base
