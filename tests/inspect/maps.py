"""Reasoners whose map is written down: `Map` thinks with any function of the state, `read` is a linear head."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

import latentweaver as lw


class Map:
    """state <- step(state, thought), on one token or several; the first state is drawn, or given."""

    def __init__(
        self, step: Callable[[Tensor, lw.Thought], Tensor], width: int, head: Tensor | None = None, start: Tensor | None = None, scale=1.0
    ):
        self.step, self.width, self.start, self.scale = step, width, start, scale
        self.head = torch.eye(width, dtype=torch.float64) if head is None else head

    def begin(self, input_ids, attention_mask=None, initial_state=None, generator=None):
        batch, sequence = input_ids.shape
        state = initial_state
        if state is None and self.start is not None:
            state = self.start.expand(batch, sequence, -1)
        if state is None:
            state = self.scale * torch.randn(1, sequence, self.width, generator=generator, dtype=torch.float64).expand(batch, -1, -1)
        return lw.Thought.start(state.clone(), anchor={"ids": input_ids}, generator=generator)

    def think(self, thought):
        return thought.advance(self.step(thought.state, thought))

    def read(self, thought):
        return lw.Readout(logits=(thought.state @ self.head.T).float())


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def turn(theta: float, rho: float = 1.0) -> Tensor:
    c, s = math.cos(theta), math.sin(theta)
    return rho * torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


class Embedded:
    """A planted map of few coordinates inside `width`: rotated at random, shifted, all other directions contracting by 0.3."""

    def __init__(self, step: Callable[[Tensor], Tensor], core: int, width: int, seed: int, start: Tensor, offset: float = 5.0):
        frame = torch.linalg.qr(torch.randn(width, width, generator=seeded(seed), dtype=torch.float64))[0]
        self.inside, self.outside = frame[:core], frame[core:]
        self.centre = offset * torch.randn(width, generator=seeded(seed + 1), dtype=torch.float64) / math.sqrt(width)
        self.step = step
        rest = 0.5 * torch.randn(width - core, generator=seeded(seed + 2), dtype=torch.float64)
        first = self.centre + start @ self.inside + rest @ self.outside
        self.model = Map(self._think, width, start=first)

    def _think(self, state: Tensor, thought: lw.Thought) -> Tensor:
        away = state - self.centre
        return self.centre + self.step(away @ self.inside.T) @ self.inside + 0.3 * (away @ self.outside.T) @ self.outside


def stuart_landau(theta: float, pull: float = 0.2) -> Callable[[Tensor], Tensor]:
    """A limit cycle of radius 1 that turns by theta a step."""
    rotation = turn(theta)
    return lambda x: (x * (1 + pull * (1 - (x**2).sum(-1, keepdim=True)))) @ rotation.T


def logistic(r: float) -> Callable[[Tensor], Tensor]:
    return lambda x: r * x * (1 - x)
