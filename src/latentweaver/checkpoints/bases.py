"""A pretrained decoder as transformers has it, with its tokenizer: what continuous thought wraps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from latentweaver.checkpoints.loading import load_tokenizer, locate
from latentweaver.checkpoints.names import NAMES, source_of
from latentweaver.checkpoints.reading import read_config
from latentweaver.errors import CheckpointError


def load_decoder(path_or_name: str) -> tuple[Any, Any]:
    """The causal language model of a folder, a GGUF file or a name, in float32, and its tokenizer.

    Raises:
        CheckpointError: if there is none, it cannot be read, or it already is a reasoner.
    """
    from transformers import AutoModelForCausalLM

    from latentweaver.checkpoints.continuous import KINDS
    from latentweaver.checkpoints.formats import FORMATS

    path = _path_of(path_or_name)
    options: dict[str, Any] = {"dtype": torch.float32}
    if path.suffix == ".gguf":
        folder, options = path.parent, {**options, "gguf_file": path.name}
    else:
        kind = read_config(path).get("model_type")
        if kind in KINDS or kind in FORMATS or kind == "recurrent_depth":
            raise CheckpointError(f"{path_or_name} is a {kind}, which thinks already; give a plain decoder (GPT-2, Llama, SmolLM2)")
        folder = path
    try:
        decoder = AutoModelForCausalLM.from_pretrained(folder, **options)
    except (ImportError, KeyError, OSError, ValueError) as error:
        raise CheckpointError(f"{path_or_name} cannot be read as a causal language model: {str(error).strip().splitlines()[0]}") from error
    return decoder, load_tokenizer(path)


def tokenizer_of(path_or_name: str) -> Any:
    """The tokenizer of such a base, without reading its weights."""
    return load_tokenizer(_path_of(path_or_name))


def _path_of(path_or_name: str) -> Path:
    return source_of(path_or_name) if path_or_name in NAMES else locate(path_or_name)
