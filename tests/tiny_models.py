"""The configuration of the smallest model that has every part."""

from __future__ import annotations

from typing import Any

import latentweaver as lw


def tiny_config(**fields: Any) -> lw.RecurrentDepthConfig:
    shape = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "max_position_embeddings": 64}
    return lw.RecurrentDepthConfig(**{**shape, "prelude_layers": 1, "core_layers": 2, "coda_layers": 1, "num_steps": 3, **fields})
