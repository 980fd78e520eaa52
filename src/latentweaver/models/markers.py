"""The tokens around and in place of thoughts: in a tokenizer, and in a decoder's matrices."""

from __future__ import annotations

from typing import Any

import torch

from latentweaver.errors import InputError

MARKERS = {"latent": "<|latent|>", "start": "<|start-latent|>", "end": "<|end-latent|>"}
"""COCONUT's names for its three tokens."""


def marker_ids(tokenizer: Any, markers: dict[str, str] = MARKERS) -> dict[str, int]:
    """`latent_token_id` and so on, from a tokenizer.

    Raises:
        InputError: if the tokenizer does not know one of them.
    """
    known = tokenizer.get_vocab()
    missing = [name for name in markers.values() if name not in known]
    if missing:
        raise InputError(f"the tokenizer has no token {', '.join(missing)}; add_markers(base, tokenizer) adds what is missing")
    return {f"{role}_token_id": known[name] for role, name in markers.items()}


@torch.no_grad()
def add_markers(base: Any, tokenizer: Any, like: str = "<<", markers: dict[str, str] = MARKERS) -> None:
    """Add the markers to the tokenizer and to the decoder's matrices, their rows those of the token `like`, as COCONUT does.

    A tokenizer that has them already is left as it is, and so is its decoder.

    Raises:
        InputError: if the tokenizer does not know `like`.
    """
    known = tokenizer.get_vocab()
    new = [name for name in markers.values() if name not in known]
    if not new:
        return
    if like not in known:
        raise InputError(f"the tokenizer has no token {like!r} for the markers to start from; choose another with like=")
    tokenizer.add_tokens(new)
    if len(tokenizer) > base.get_input_embeddings().weight.shape[0]:
        base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for matrix in (base.get_input_embeddings().weight, base.get_output_embeddings().weight):
        matrix[tokenizer.convert_tokens_to_ids(new)] = matrix[known[like]].clone()
