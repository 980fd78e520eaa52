"""Opening a checkpoint of continuous thought: a decoder of transformers inside, so transformers reads it; we say what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from latentweaver.checkpoints.reading import read_config, read_tensors
from latentweaver.errors import CheckpointError
from latentweaver.models.continuous_thought import ContinuousThoughtForCausalLM
from latentweaver.models.latent_block import LatentBlockForCausalLM

KINDS: dict[str, type[ContinuousThoughtForCausalLM]] = {
    "continuous_thought": ContinuousThoughtForCausalLM,
    "latent_block": LatentBlockForCausalLM,
}
"""Model types of config.json, and what they are."""


def load_continuous(folder: Path, dtype: torch.dtype | None) -> ContinuousThoughtForCausalLM:
    """A model that was saved with `save_pretrained`; `dtype` None for what the checkpoint says.

    Raises:
        CheckpointError: naming the tensors that are missing, unknown, of the wrong shape, or not finite.
    """
    kind = read_config(folder)["model_type"]
    for name, tensor in read_tensors(folder):  # also refuses pickles and truncated files
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{folder} holds NaN or infinite values in {name}")
    try:
        loaded: Any = KINDS[kind].from_pretrained(
            folder, dtype=dtype or "auto", output_loading_info=True, ignore_mismatched_sizes=True, use_safetensors=True
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}/config.json does not describe a {kind}: {_sentence(error)}") from error
    model, report = loaded
    for what, names in (
        ("is missing", report["missing_keys"]),
        ("holds tensors that the model does not have:", report["unexpected_keys"]),
        ("holds tensors of the wrong shape:", [_misshapen(each) for each in report["mismatched_keys"]]),
    ):
        if names:
            raise CheckpointError(f"{folder} {what} {', '.join(sorted(names))}")
    return model.eval()


def _misshapen(entry: Any) -> str:
    name, given, expected = entry
    return f"{name} (expected {list(expected)}, got {list(given)})"


def _sentence(error: Exception) -> str:
    return str(error).strip().split("\n")[0].split(". ")[0]
