"""Nearest contextual neighbours: in which sentence, at which step, was a state most like this one?

A small bank that the user builds from texts of their own, after LatentLens (arXiv 2602.00462), whose published banks hold millions of
embeddings and weigh tens of gigabytes. Similarity is the cosine after the bank's mean is taken off: states share a large common part
that would make all of them alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.thought import Reasoner


@dataclass(frozen=True)
class Neighbour:
    """An entry of the bank: the text, which of its tokens, after which step, and how alike (cosine, -1 to 1)."""

    text: str
    position: int
    step: int
    similarity: float


@dataclass(frozen=True)
class Bank:
    """States with where they come from. Build it with `build_bank`.

    Attributes:
        units: `[entries, width]`, mean taken off, length one.
        mean: `[width]`.
        texts, positions, steps: of each entry.
    """

    units: Float[ndarray, "entries width"]
    mean: Float[ndarray, "width"]
    texts: tuple[str, ...]
    positions: Int[ndarray, "entries"]
    steps: Int[ndarray, "entries"]

    def search(self, state: Float[ndarray, "width"], k: int = 5) -> list[Neighbour]:
        """The k most similar entries, best first."""
        x = np.asarray(state, np.float64)
        if x.shape != self.mean.shape:
            raise InputError(f"the bank holds states of width {len(self.mean)}, got shape {list(x.shape)}")
        similarity = self.units @ _unit(x - self.mean)
        best = np.argsort(-similarity, kind="stable")[:k]
        return [Neighbour(self.texts[i], int(self.positions[i]), int(self.steps[i]), float(similarity[i])) for i in best]


@torch.no_grad()
def build_bank(model: Reasoner, inputs: Sequence[Int[Tensor, "1 sequence"]], texts: Sequence[str], steps: Sequence[int]) -> Bank:
    """Think about each input and keep the states of all its tokens after the steps named.

    Raises:
        InputError: no inputs, as many texts as inputs not given, or no steps.
    """
    if not len(inputs) or len(inputs) != len(texts) or not len(steps) or min(steps) < 0:
        raise InputError(
            f"a bank needs inputs, a text for each, and steps of at least 0; got {len(inputs)}, {len(texts)} and {list(steps)}"
        )
    states, said, positions, when = [], [], [], []
    for ids, text in zip(inputs, texts, strict=True):
        thought = model.begin(ids)
        for step in range(max(steps) + 1):
            if step:
                thought = model.think(thought)
            if step in steps:
                states.append(thought.state[0].double().cpu().numpy())
                count = len(states[-1])
                said += [text] * count
                positions += range(count)
                when += [step] * count
    entries = np.concatenate(states)
    mean = entries.mean(0)
    return Bank(_unit(entries - mean), mean, tuple(said), np.array(positions), np.array(when))


def _unit(x: ndarray) -> ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-300)
