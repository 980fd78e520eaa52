"""How many steps an update takes: samplers of (n steps without gradient, k steps with).

A sampler is a function of the update's number: the same number gives the same depth, on every rank and after a resume.

    Fixed                   always the same
    Uniform                 a total between two bounds; the last k steps have gradients
    LogNormalPoisson        Huginn's "poisson-lognormal-filling" (arXiv 2502.05171): a heavy right tail, so that every depth is seen
    TruncatedPoisson        Parcae's "poisson-truncated-full" (arXiv 2604.12946), one total for each sequence

The curriculum of retrofitted recurrence (arXiv 2511.07384) wraps any of them whose mean can be set: `Curriculum`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from latentweaver.errors import InputError


def generator_for(seed: int, update: int) -> torch.Generator:
    """A CPU generator that depends on (seed, update) alone."""
    generator = torch.Generator()
    generator.manual_seed((seed * 0x9E3779B97F4A7C15 + update * 0xBF58476D1CE4E5B9 + 0x94D049BB) % 2**63)
    return generator


class DepthSampler(ABC):
    """Draws (n, k) for an update."""

    seed: int

    @abstractmethod
    def __call__(self, update: int) -> tuple[int, int]:
        """(steps without gradient, steps with) of that update."""


def _at_least_one(**fields: float) -> None:
    for name, value in fields.items():
        if not value >= 1:
            raise InputError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class Fixed(DepthSampler):
    """Always n steps without gradient and k with."""

    without: int
    with_gradient: int
    seed: int = 0

    def __call__(self, update: int) -> tuple[int, int]:
        return self.without, self.with_gradient


@dataclass(frozen=True)
class Uniform(DepthSampler):
    """A total drawn uniformly from `low` to `high`; the last `backprop` steps have gradients."""

    low: int
    high: int
    backprop: int
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least_one(low=self.low, backprop=self.backprop)
        if self.high < self.low:
            raise InputError(f"high must be no less than low ({self.low}), got {self.high}")

    def __call__(self, update: int) -> tuple[int, int]:
        total = int(torch.randint(self.low, self.high + 1, (), generator=generator_for(self.seed, update)))
        k = min(total, self.backprop)
        return total - k, k


@dataclass(frozen=True)
class LogNormalPoisson(DepthSampler):
    """Huginn's sampler. rate ~ LogNormal(ln(mean) - sigma^2/2, sigma); total = Poisson(rate) + 1; k = min(backprop, total).

    As published, the +1 puts the mean of the total at `mean` + 1: 32.98 was measured for a target of 32 ("filling": short
    draws are all gradient, n = max(total - backprop, 0)).
    """

    mean: float = 32
    backprop: int = 8
    sigma: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least_one(mean=self.mean, backprop=self.backprop)

    def __call__(self, update: int) -> tuple[int, int]:
        total = int(self.totals(1, generator_for(self.seed, update)))
        k = min(total, self.backprop)
        return total - k, k

    def totals(self, count: int, generator: torch.Generator) -> Int[Tensor, "count"]:
        """`count` draws of the total number of steps."""
        mu = math.log(self.mean) - self.sigma**2 / 2
        rate = torch.exp(mu + self.sigma * torch.randn(count, generator=generator, dtype=torch.float64))
        return torch.poisson(rate, generator=generator).long() + 1


@dataclass(frozen=True)
class TruncatedPoisson(DepthSampler):
    """Parcae's sampler. total = max(Poisson(mean), 1); k = min(total, backprop).

    `per_sequence` draws a total for each sequence of a batch; called as a sampler it draws one for the batch.
    """

    mean: float = 8
    backprop: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least_one(mean=self.mean, backprop=self.backprop)

    def __call__(self, update: int) -> tuple[int, int]:
        total = int(self.per_sequence(update, 1))
        k = min(total, self.backprop)
        return total - k, k

    def per_sequence(self, update: int, batch: int) -> Int[Tensor, "batch"]:
        """The total of each sequence; gradients flow through the last `backprop` steps of each."""
        rate = torch.full((batch,), float(self.mean), dtype=torch.float64)
        return torch.poisson(rate, generator=generator_for(self.seed, update)).long().clamp(min=1)


@dataclass(frozen=True)
class Curriculum(DepthSampler):
    """A sampler whose `field` ("mean" or "high", say) stays at `start` for `hold` updates, then rises linearly to its own
    value over `updates`."""

    sampler: Any
    start: float
    updates: int
    field: str = "mean"
    hold: int = 0

    def __post_init__(self) -> None:
        if not hasattr(self.sampler, self.field):
            raise InputError(f"{type(self.sampler).__name__} has no {self.field!r} for a curriculum to raise")
        _at_least_one(updates=self.updates)

    @property
    def seed(self) -> int:  # type: ignore[override]
        return self.sampler.seed

    def __call__(self, update: int) -> tuple[int, int]:
        end = getattr(self.sampler, self.field)
        value = self.start + (end - self.start) * min(max(update - self.hold, 0) / self.updates, 1)
        return replace(self.sampler, **{self.field: type(end)(round(value) if isinstance(end, int) else value)})(update)
