"""The failures of the literature, recognised while they happen and said in words.

non-finite          the loss or the gradient is no longer a number; training must stop
spike               the loss jumps far above what it has been
tokens alike        the states of different tokens point the same way (Huginn's first failed run: correlation to 1)
state ignored       steps no longer move the state, from the very first on (its second failed run)
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


def token_correlation(state: Float[Tensor, "batch sequence width"]) -> Float[Tensor, ""]:
    """Mean cosine between the states of different tokens of a row: 1 when all tokens have become alike."""
    unit = torch.nn.functional.normalize(state.float(), dim=-1)
    count = unit.shape[1]
    if count < 2:
        return unit.new_zeros(())
    return ((unit.sum(1).square().sum(-1) - count) / (count * (count - 1))).mean()


def state_change(before: Float[Tensor, "batch sequence width"], after: Float[Tensor, "batch sequence width"]) -> Float[Tensor, ""]:
    """How far the last step moved the state, relative to its norm."""
    return ((after.float() - before.float()).norm(dim=-1) / after.float().norm(dim=-1).clamp(min=1e-12)).mean()


@dataclass
class Watch:
    """Remembers recent losses and judges new ones.

    Attributes:
        window: how many losses make up the recent past.
        sigmas: a loss this many standard deviations above its mean is a spike.
        alike: a token correlation above this is reported.
        still: a relative change by the last step below this, early in training, is reported.
    """

    window: int = 50
    sigmas: float = 6.0
    alike: float = 0.98
    still: float = 1e-4
    _recent: deque[float] = field(default_factory=deque, repr=False)

    def finite(self, loss: float, gradient: float) -> str | None:
        """What is wrong if loss or gradient norm is not a number."""
        if math.isfinite(loss) and math.isfinite(gradient):
            return None
        return f"the loss is {loss} and the norm of the gradient {gradient}: training has diverged; resume with a lower learning rate"

    def spike(self, loss: float) -> str | None:
        """What is wrong if the loss has jumped; remembers it."""
        recent, warning = self._recent, None
        if len(recent) == self.window:
            mean = sum(recent) / len(recent)
            deviation = math.sqrt(sum((value - mean) ** 2 for value in recent) / len(recent))
            if loss > mean + self.sigmas * max(deviation, 0.01 * abs(mean)):
                warning = f"loss spike: {loss:.4g}, after a recent mean of {mean:.4g}; a lower learning rate or a longer warm-up helps"
            recent.popleft()
        recent.append(loss)
        return warning

    def collapse(self, before: Tensor, after: Tensor) -> tuple[dict[str, float], list[str]]:
        """Token correlation and state change, and what is wrong with them."""
        correlation, change = float(token_correlation(after)), float(state_change(before, after))
        warnings = []
        if correlation > self.alike:
            warnings.append(
                f"tokens alike: the states of different tokens have a mean cosine of {correlation:.3f}; they hold nothing of their own"
            )
        if change < self.still:
            warnings.append(f"state ignored or settled: a step moves the state by {change:.1e} of its norm; more steps cannot help")
        return {"token_correlation": correlation, "state_change": change}, warnings
