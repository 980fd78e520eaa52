"""Two methods on the same problems: is one better, or was it luck?

The problems are the same for both, so their difference is much less noisy than either accuracy. `mcnemar` looks at the problems on
which exactly one of the two is right; `difference` resamples problems, and seeds where there are several.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from latentweaver.errors import InputError

Runs = Sequence[Sequence[int]]
"""For every seed, whether each problem was answered rightly; problems in the same order everywhere."""


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Two-sided exact p-value that two methods are right equally often (McNemar 1947, its binomial form).

    Of the n problems on which they differ, k fall to one side; p = 2 P(Binomial(n, 1/2) <= min(k, n - k)), at most 1.

    Raises:
        InputError: answers to different numbers of problems.
    """
    if len(a) != len(b):
        raise InputError(f"paired tests need the same problems, got {len(a)} and {len(b)}")
    only_a = sum(x and not y for x, y in zip(a, b, strict=True))
    only_b = sum(y and not x for x, y in zip(a, b, strict=True))
    n, k = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n)


@dataclass(frozen=True)
class Interval:
    """A mean with a 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap(runs: Runs, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean of `[seeds][problems]` numbers, problems and seeds resampled (Efron 1979; percentiles 2.5 and 97.5).

    Raises:
        InputError: no numbers, or seeds with different numbers of problems.
    """
    if not runs or not runs[0] or any(len(run) != len(runs[0]) for run in runs):
        raise InputError("a bootstrap needs at least one seed and the same problems, at least one, for all seeds")
    rng, count = random.Random(seed), len(runs[0])
    means = []
    for _ in range(resamples):
        chosen = rng.choices(range(len(runs)), k=len(runs))
        total = [sum(column) for column in zip(*(runs[i] for i in chosen), strict=True)]
        means.append(sum(rng.choices(total, k=count)) / (count * len(runs)))
    means.sort()
    mean = sum(map(sum, runs)) / (count * len(runs))
    return Interval(mean, means[round(0.025 * (resamples - 1))], means[round(0.975 * (resamples - 1))])


def difference(a: Runs, b: Runs, resamples: int = 2000, seed: int = 0) -> Interval:
    """How much oftener `a` is right than `b` on the same problems; seed i of one is paired with seed i of the other.

    Raises:
        InputError: different numbers of seeds or problems.
    """
    if len(a) != len(b) or any(len(x) != len(y) for x, y in zip(a, b, strict=True)):
        raise InputError("paired tests need the same seeds and the same problems on both sides")
    return bootstrap([[int(x) - int(y) for x, y in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)], resamples, seed)
