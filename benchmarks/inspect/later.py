"""Paths of kinds that were drawn after the rules had been mended on those of `harder.py`: pulses and saws, tori, late and staged convergence,
approaches under jitter, turns close to pi, one channel that drowns the rest, short records; and nulls that switch, burst or shrink.

They broke five rules in turn, so these kinds are known by now too. `planted.py` runs them.
"""

from __future__ import annotations

import math

import numpy as np
from harder import GOLDEN, ROTATES, SETTLES, Maker, autoregressive, circle, few_or_many, iterated, rounded
from numpy import ndarray
from numpy.random import Generator


def embedded(core: ndarray, rng: Generator, noise: float = 0.0, offset: float | None = None) -> ndarray:
    """A path of few coordinates in up to 500, shifted by up to twenty times its size, the noise of that length in all of them together."""
    core = core.reshape(len(core), -1)
    width = max(int(rng.choice([2, 3, 8, 48, 500])), core.shape[1])
    frame, shift = np.linalg.qr(rng.normal(size=(width, core.shape[1])))[0].T, rng.normal(size=width)
    away = rng.choice([0, 2, 20]) if offset is None else offset
    jitter = noise / math.sqrt(width) * rng.normal(size=(len(core), width))
    return 10 ** rng.uniform(-3, 3) * (core @ frame + away * shift / np.linalg.norm(shift) + jitter)


def phase(steps: int, period: int, rng: Generator) -> ndarray:
    return (np.arange(steps + 1) + rng.integers(period)) % period


def pulse(period: int, wide: int) -> Maker:
    """Up for `wide` steps of every `period`."""
    return lambda rng, steps: embedded((phase(steps, period, rng) < wide).astype(float), rng, offset=2)


def saw(period: int) -> Maker:
    return lambda rng, steps: embedded(phase(steps, period, rng) / period, rng, 0.01)


def drifting(period: int) -> Maker:
    """Points in turn that drift off together, in 500 dimensions or few."""

    def make(rng: Generator, steps: int) -> ndarray:
        points = rng.normal(size=(period, 6)) / math.sqrt(6)
        slide = rng.uniform(0.001, 0.01) * np.arange(steps + 1)[:, None]
        return embedded(np.concatenate([points[phase(steps, period, rng)], slide], 1), rng, 0.02, 2)

    return make


def after_a_walk(period: int) -> Maker:
    def make(rng: Generator, steps: int) -> ndarray:
        first = 2 * rng.normal(size=(int(rng.integers(5, 50)), 2)).cumsum(0)
        return embedded(np.concatenate([first, circle(2 * math.pi / period, steps, 0)])[: steps + 1], rng)

    return make


def torus(rng: Generator, steps: int) -> ndarray:
    """Two frequencies."""
    return embedded(np.concatenate([circle(rng.uniform(0.4, 2.9), steps, rng.uniform(0, 6)) for _ in range(2)], 1), rng)


def together(one: int, two: int) -> Maker:
    return lambda rng, steps: embedded(
        np.concatenate([circle(2 * math.pi / one, steps, 0), 0.6 * circle(2 * math.pi / two, steps, 1)], 1), rng, 0.02
    )


def near_pi(theta: float, noise: float) -> Maker:
    return lambda rng, steps: embedded(circle(theta, steps, rng.uniform(0, 6)), rng, noise)


def late(rng: Generator, steps: int) -> ndarray:
    """Rests where it began for 10 to 60 steps, then falls by 0.7 a step."""
    fall = 0.7 ** np.maximum(np.arange(steps + 1) - rng.integers(10, 60), 0)
    return embedded(fall[:, None] * rng.normal(size=5), rng)


def staged(rng: Generator, steps: int) -> ndarray:
    t = np.arange(steps + 1)
    return embedded(np.stack([0.6**t, 0.3 * 0.93**t], 1), rng)


def stops(rng: Generator, steps: int) -> ndarray:
    """An orbit that dies out from step 20 to 60 on."""
    fall = 0.8 ** np.maximum(np.arange(steps + 1) - rng.integers(20, 60), 0.0)
    return embedded(fall[:, None] * circle(2 * math.pi / 5, steps, 0), rng, offset=2)


def begins(rng: Generator, steps: int) -> ndarray:
    """Rest, and an orbit from step 70 to 100 on."""
    return embedded((np.arange(steps + 1) >= rng.integers(70, 100))[:, None] * circle(2 * math.pi / 5, steps, 0), rng, offset=2)


def jittered(rho: float) -> Maker:
    return lambda rng, steps: embedded(rho ** np.arange(steps + 1.0), rng, 2e-3, 1)


def drowned(rng: Generator, steps: int) -> ndarray:
    """A channel that moves a million times as far as thirty that rest."""
    t = np.arange(steps + 1)[:, None]
    return np.concatenate([1e6 * t, 0.5**t * rng.normal(size=30)], 1)


def short(core: str, length: int) -> Maker:
    """The first steps alone."""

    def make(rng: Generator, steps: int) -> ndarray:
        t = np.arange(length + 1)[:, None]
        if core == "walk":
            return rng.normal(size=(length + 1, 64)).cumsum(0)
        if core == "noise":
            return rng.normal(size=(length + 1, 64))
        return embedded(circle(2 * math.pi / 3, length, 0) if core == "period 3" else 1.0 * t * rng.normal(size=4), rng)

    return make


UNNAMED = ("wander", "undetermined")
CASES: dict[str, tuple[tuple[str, ...], Maker]] = {
    **{f"pulse of {wide} in {k}": ((f"orbit({k})",), pulse(k, wide)) for k, wide in ((7, 3), (9, 1), (12, 5), (16, 1))},
    **{f"saw of {k}": ((f"orbit({k})",), saw(k)) for k in (2, 3, 5, 9)},
    **{f"{k} points that drift off": ((f"orbit({k})", "helix"), drifting(k)) for k in (2, 3, 5, 8, 12)},
    **{f"period {k} after a walk": ((f"orbit({k})",), after_a_walk(k)) for k in (3, 8)},
    **{f"periods {a} and {b} at once": ((f"orbit({math.lcm(a, b)})",), together(a, b)) for a, b in ((3, 5), (4, 6))},
    "two frequencies": (("quasi_orbit",), torus),
    "golden rotation that also changes sign": (("quasi_orbit",), lambda rng, steps: embedded(
        np.concatenate([circle(GOLDEN, steps, rng.uniform(0, 6)), 0.3 * circle(math.pi, steps, 0)[:, :1]], 1), rng)),
    **{f"turn of {theta}, {noise:.0%} noise": (("quasi_orbit",), near_pi(theta, noise)) for theta in (3.05, 3.1, 3.12) for noise in (0, 0.05)},
    "settles late": (SETTLES, late),
    "settles in two stages": (SETTLES, staged),
    "orbit that dies": (SETTLES, stops),
    "orbit that begins late": (UNNAMED, begins),
    **{f"approach of {rho} under jitter": (SETTLES, jittered(rho)) for rho in (0.97, 0.98, 0.985)},
    "slider in one channel of 31": (("slider",), drowned),
    **{f"{core}, {length} steps": (("undetermined", *(("slider",) if core == "slider" else ())), short(core, length))
       for core in ("period 3", "walk", "noise", "slider") for length in (8, 12, 16)},
    "period 7 far from zero kept in bfloat16": (("orbit(7)",), rounded(
        lambda rng, steps: (rng.normal(size=(7, 64)) / 8)[np.arange(steps + 1) % 7] + 2.5 * rng.normal(size=64), "bfloat16")),
    "amplitude that jitters by a tenth": (ROTATES, lambda rng, steps: embedded(circle(2 * math.pi / 5, steps, 0) * (1 + 0.1 * rng.normal(size=(steps + 1, 1))), rng)),
    "Henon map": (("wander",), iterated(lambda z: np.array([1 - 1.4 * z[0] ** 2 + z[1], 0.3 * z[0]]), lambda rng: rng.uniform(-0.1, 0.1, 2), 100)),
    "Gauss map": (("wander",), iterated(lambda x: np.exp(-6.2 * x * x) - 0.5, lambda rng: rng.uniform(-0.1, 0.1, 1), 200)),
    "Duffing map": (("wander",), iterated(lambda z: np.array([z[1], -0.2 * z[0] + 2.75 * z[1] - z[1] ** 3]), lambda rng: rng.uniform(0.1, 0.5, 2), 200)),
    "logistic 3.575, chaos in narrow bands": (("wander",), iterated(lambda x: 3.575 * x * (1 - x), lambda rng: rng.uniform(0.2, 0.8, 1), 5000)),
}  # fmt: skip


# Nulls ---------------------------------------------------------------------------------------------------------------


def switching(rate: float, wells: int) -> Maker:
    """From one of a few points to another, now and then."""

    def make(rng: Generator, steps: int) -> ndarray:
        at = np.cumsum(rng.integers(1, wells, steps + 1) * (rng.random(steps + 1) < rate)) % wells
        return embedded(rng.normal(size=(wells, 6))[at], rng, 0.02)

    return make


def volatile(rng: Generator, steps: int) -> ndarray:
    """Independent numbers whose common size is a walk of its logarithm."""
    return np.exp(0.15 * rng.normal(size=(steps + 1, 1)).cumsum(0)) * rng.normal(size=(steps + 1, few_or_many(rng)))


def changing(factor: float, summed: bool) -> Maker:
    def make(rng: Generator, steps: int) -> ndarray:
        x = factor ** np.arange(steps + 1)[:, None] * rng.normal(size=(steps + 1, few_or_many(rng)))
        return x.cumsum(0) if summed else x

    return make


def coupled(rng: Generator, steps: int) -> ndarray:
    """Noise through a random matrix of spectral radius 0.8."""
    n = int(rng.choice([3, 6, 20]))
    matrix = rng.normal(size=(n, n))
    matrix *= 0.8 / np.abs(np.linalg.eigvals(matrix)).max()
    x, out = rng.normal(size=n), []
    for _ in range(steps + 300):
        x = matrix @ x + rng.normal(size=n)
        out.append(x)
    return np.array(out[-(steps + 1) :])


def shots(rng: Generator, steps: int) -> ndarray:
    """Rare kicks that die out by 0.8 a step."""
    kicks = (rng.random((steps + 101, few_or_many(rng))) < 0.08) * rng.exponential(size=(steps + 101, 1))
    for t in range(1, len(kicks)):
        kicks[t] += 0.8 * kicks[t - 1]
    return kicks[-(steps + 1) :] + 1e-3 * rng.normal(size=(steps + 1, kicks.shape[1]))


NULLS: dict[str, Maker] = {
    **{f"two points, {rate:.0%} switches": switching(rate, 2) for rate in (0.03, 0.1, 0.3)},
    "four points, 15 % switches": switching(0.15, 4),
    "noise of wandering size": volatile,
    "walk of wandering size": lambda rng, steps: volatile(rng, steps).cumsum(0),
    "noise that shrinks by 0.99": changing(0.99, False),
    "noise that grows by 1.01": changing(1.01, False),
    "walk whose steps shrink by 0.985": changing(0.985, True),
    "noise through a matrix": coupled,
    "shots that decay": shots,
    "noise that rings weakly, r = 0.7": autoregressive(0.7, 1.9),
}
