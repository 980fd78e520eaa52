"""A pretrained decoder as transformers has it, with its tokenizer: what continuous thought wraps."""

from __future__ import annotations

from collections.abc import Mapping
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


@torch.no_grad()
def reworded(decoder: Any, tokenizer: Any, own: Any, stand_ins: Mapping[str, str]) -> None:
    """Give a decoder the vocabulary of another tokenizer, a word a token: a word begins as the mean of the pieces it was before.

    Args:
        decoder: changed in place, input and output rows alike.
        tokenizer: the one it was trained with.
        own: the other one. Its special tokens begin as the one that ends a text.
        stand_ins: words to be taken for others at first, where it should not matter what a word is made of.
    """
    pieces = []
    for word, _ in sorted(own.get_vocab().items(), key=lambda entry: entry[1]):
        known = stand_ins.get(word, word)
        text = f" {known}" if known.isalpha() else known
        pieces.append(
            [tokenizer.eos_token_id] if word in own.all_special_tokens else tokenizer(text, add_special_tokens=False)["input_ids"]
        )
    sides = (decoder.get_input_embeddings, decoder.get_output_embeddings)
    rows = [torch.stack([side().weight[ids].mean(0) for ids in pieces]) for side in sides]
    decoder.resize_token_embeddings(len(own), mean_resizing=False)
    for side, new in zip(sides, rows, strict=True):
        side().weight.copy_(new)
    for config in (decoder.config, decoder.generation_config):
        config.bos_token_id, config.eos_token_id, config.pad_token_id = None, own.eos_token_id, own.pad_token_id


def tokenizer_of(path_or_name: str) -> Any:
    """The tokenizer of such a base, without reading its weights."""
    return load_tokenizer(_path_of(path_or_name))


def _path_of(path_or_name: str) -> Path:
    return source_of(path_or_name) if path_or_name in NAMES else locate(path_or_name)
