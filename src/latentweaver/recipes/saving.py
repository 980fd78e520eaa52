"""A trained reasoner as a folder that `from_pretrained` and `AutoTokenizer` open: one token a character."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentweaver.tasks.characters import END, PAD, Characters
from latentweaver.training import ranks


def tokenizer_of(characters: Characters) -> Any:
    """A transformers tokenizer with the same ids as `characters`."""
    return one_a_character(characters.ids, pad_token=PAD, eos_token=END, unk_token=PAD)


def one_a_character(ids: dict[str, int], **special: str) -> Any:
    """A transformers tokenizer with these ids, `special` naming its special tokens (`unk_token` must be among them)."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel(dict(ids), unk_token=special["unk_token"]))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, padding_side="left", **special)


def save_reasoner(model: Any, characters: Characters, folder: Path) -> Path:
    """Write configuration, weights (safetensors) and tokenizer into `folder`; of several processes the first does."""
    if ranks.rank() == 0:
        model.save_pretrained(folder)
        tokenizer_of(characters).save_pretrained(folder)
    return folder
