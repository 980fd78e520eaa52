"""Paths at the edges of what a record of 128 steps can tell: slow spirals, orbits still being approached, doubled periods, coupled and noisy
oscillators, near-equal eigenvalues, intermittency, roundings, any scale, one dimension. `planted.py` runs them.

Where the truth cannot be told from the record, more than one name is right, and says so here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from numpy.random import Generator

Maker = Callable[[Generator, int], Any]
GOLDEN = 2 * math.pi * 0.3819660113
ROTATES = ("orbit", "quasi_orbit", "helix")


def turned(core: ndarray, rng: Generator, scale: float | None = None) -> ndarray:
    """A path of few coordinates, turned at random into more of them, shifted and scaled."""
    width = max(int(rng.choice([2, 3, 8, 48, 128])), core.shape[1])
    frame = np.linalg.qr(rng.normal(size=(width, core.shape[1])))[0].T
    shift = rng.normal(size=width)
    return (10 ** rng.uniform(-3, 3) if scale is None else scale) * (core @ frame + rng.choice([0, 2, 20]) * shift / np.linalg.norm(shift))


def circle(theta: float, steps: int, phase: float, rho: float = 1.0) -> ndarray:
    t = np.arange(steps + 1)
    return (rho**t)[:, None] * np.stack([np.cos(theta * t + phase), np.sin(theta * t + phase)], 1)


def iterated(
    step: Callable[[Any], Any], start: Callable[[Generator], ndarray], burn: int, shown: Callable[[Any], Any] = lambda x: x
) -> Maker:
    def make(rng: Generator, steps: int) -> ndarray:
        x, out = start(rng), []
        for t in range(burn + steps + 1):
            if t >= burn:
                out.append(shown(x))
            x = step(x)
        return turned(np.array(out), rng)

    return make


def spiral(rho: float, theta: float | None = None) -> Maker:
    return lambda rng, steps: turned(circle(rng.uniform(0.5, 2.8) if theta is None else theta, steps, rng.uniform(0, 6), rho), rng)


def approached(period: int, fall: float) -> Maker:
    """An orbit that begins three times as wide."""
    return lambda rng, steps: turned(
        (1 + 2 * fall ** np.arange(steps + 1))[:, None] * circle(2 * math.pi / period, steps, rng.uniform(0, 6)), rng
    )


def logistic(r: float) -> Maker:
    return iterated(lambda x: r * x * (1 - x), lambda rng: rng.uniform(0.2, 0.8, 1), 20000)


def kuramoto(coupling: float) -> Maker:
    """Two phase oscillators of different speed."""

    def step(state: ndarray) -> ndarray:
        speed, phase = state
        away = math.sin(phase[1] - phase[0])
        return np.array([speed, phase + speed + coupling * np.array([away, -away])])

    def start(rng: Generator) -> ndarray:
        return np.array([np.array([1.0, 1.37]) + rng.uniform(-0.1, 0.1, 2), rng.uniform(0, 6, 2)])

    return iterated(step, start, 600, lambda x: np.concatenate([np.cos(x[1]), 0.7 * np.sin(x[1])]))


def noisy_cycle(theta: float, noise: float) -> Maker:
    def make(rng: Generator, steps: int) -> ndarray:
        c, s = math.cos(theta), math.sin(theta)
        x, out = rng.normal(size=2), []
        for t in range(200 + steps + 1):
            x = np.array([[c, -s], [s, c]]) @ (x * (1 + 0.3 * (1 - x @ x))) + noise * rng.normal(size=2)
            if t >= 200:
                out.append(x)
        return turned(np.array(out), rng)

    return make


def jordan(block: ndarray, size: int) -> Maker:
    """`size` equal eigenvalues (or pairs of them) that feed one another: steps grow before they shrink."""
    whole = np.kron(np.eye(size), block) + np.kron(np.diag(np.ones(size - 1), 1), np.eye(len(block)))
    return iterated(lambda x: whole @ x, lambda rng: rng.normal(size=len(whole)), 0)


def turn(theta: float) -> ndarray:
    return np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])


def beats(apart: float) -> Maker:
    def make(rng: Generator, steps: int) -> ndarray:
        theta = rng.uniform(0.6, 2.4)
        return turned(
            np.concatenate([circle(theta, steps, rng.uniform(0, 6)), 0.8 * circle(theta + apart, steps, rng.uniform(0, 6))], 1), rng
        )

    return make


def sized(scale: float, dtype: Any = np.float64) -> Maker:
    return lambda rng, steps: (scale * circle(2 * math.pi / 5, steps, rng.uniform(0, 6))).astype(dtype)


def points(period: int) -> Maker:
    """So many numbers in turn, in one dimension."""
    return lambda rng, steps: (rng.normal(size=period)[np.arange(steps + 1) % period] + 3)[:, None]


def escaping(growth: float) -> Maker:
    """Away from a fixed point that it was put a millionth beside."""
    return lambda rng, steps: 5 * rng.normal(size=16) + 1e-6 * growth ** np.arange(steps + 1)[:, None] * rng.normal(size=16)


def changed(rng: Generator, steps: int) -> ndarray:
    """From five steps a turn to seven, late."""
    at = int(rng.integers(75, 110))
    return turned(np.concatenate([circle(2 * math.pi / 5, steps, 0)[:at], circle(2 * math.pi / 7, steps, 1)[at:]]), rng)


def faster(rng: Generator, steps: int) -> ndarray:
    t = np.arange(steps + 1)
    return turned(np.stack([np.cos(0.5 * t + 0.004 * t * t), np.sin(0.5 * t + 0.004 * t * t)], 1), rng)


def flow(field: Callable[[ndarray], ndarray], at: tuple[float, ...], every: float, burn: int) -> Maker:
    """A differential equation, looked at every so often (Runge and Kutta's fourth order, steps of at most 0.05)."""
    count = math.ceil(every / 0.05)

    def step(x: ndarray) -> ndarray:
        h = every / count
        for _ in range(count):
            a = field(x)
            b = field(x + h / 2 * a)
            c = field(x + h / 2 * b)
            x = x + h / 6 * (a + 2 * b + 2 * c + field(x + h * c))
        return x

    return iterated(step, lambda rng: np.array(at) + 0.3 * rng.normal(size=len(at)), burn)


def roessler(c: float) -> Callable[[ndarray], ndarray]:
    return lambda x: np.array([-x[1] - x[2], x[0] + 0.2 * x[1], 0.2 + x[2] * (x[0] - c)])


def standard(kick: float) -> Maker:
    def step(x: ndarray) -> ndarray:
        p = (x[0] + kick * math.sin(x[1])) % (2 * math.pi)
        return np.array([p, (x[1] + p) % (2 * math.pi)])

    return iterated(step, lambda rng: rng.uniform(0, 6, 2), 0, lambda x: np.concatenate([np.cos(x), np.sin(x)]))


def lattice(x: ndarray) -> ndarray:
    """Twelve logistic maps, each pulled at by its neighbours."""
    f = 3.9 * x * (1 - x)
    return 0.7 * f + 0.15 * (np.roll(f, 1) + np.roll(f, -1))


def power(p: float) -> Maker:
    return lambda rng, steps: turned((np.arange(steps + 1) + 1.0)[:, None] ** p * rng.normal(size=8), rng, 1.0)


def rounded(make: Callable[[Generator, int], ndarray], kind: str) -> Maker:
    """A path computed exactly and kept in few digits."""

    def made(rng: Generator, steps: int) -> tuple[ndarray, str]:
        path = make(rng, steps)
        return torch.from_numpy(8 * path / np.abs(path).max()).to(getattr(torch, kind)).float().numpy(), kind

    return made


def computed(rho: float, kind: str) -> Maker:
    """A rotation that contracts, every product rounded."""

    def made(rng: Generator, steps: int) -> tuple[ndarray, str]:
        core, frame, dtype = 0.3 * np.eye(32), np.linalg.qr(rng.normal(size=(32, 32)))[0], getattr(torch, kind)
        core[:2, :2] = rho * turn(2 * math.pi / 5)
        matrix, shift, x = (
            torch.from_numpy(a).to(dtype) for a in (frame @ core @ frame.T, 3 * rng.normal(size=32), 3 * rng.normal(size=32))
        )
        out = []
        for _ in range(steps + 1):
            out.append(x.float().numpy())
            x = matrix @ x + shift
        return np.array(out), kind

    return made


SETTLES = ("converging", "fixed_point")
CASES: dict[str, tuple[tuple[str, ...], Maker]] = {
    **{f"spiral of {rho}, any angle": (("converging",), spiral(rho)) for rho in (0.985, 0.99, 0.993, 0.995, 0.997, 0.999)},
    **{f"spiral of {rho}, slow": (("converging", "undetermined"), spiral(rho, 0.15)) for rho in (0.98, 0.99, 0.995)},
    **{f"period {k}, approached at {fall}": ((f"orbit({k})",), approached(k, fall)) for k in (3, 7) for fall in (0.8, 0.9, 0.95, 0.97)},
    **{f"logistic {r}": ((wanted,), logistic(r)) for r, wanted in (
        (3.546, "orbit(8)"), (3.5665, "orbit(16)"), (3.569, "orbit(32)"), (3.845, "orbit(6)"), (3.6, "wander"), (3.678, "wander"), (3.96, "wander"), (3.99, "wander"))},
    **{f"logistic {r}, intermittent": (("wander",), logistic(r)) for r in (3.8282, 3.857)},
    "sine map in chaos": (("wander",), iterated(lambda x: 0.95 * np.sin(math.pi * x), lambda rng: rng.uniform(0.2, 0.8, 1), 2000)),
    "Pomeau and Manneville": (("wander", "undetermined"), iterated(lambda x: (x + x**1.5) % 1, lambda rng: rng.uniform(0.01, 0.99, 1), 300)),
    "two oscillators, locked": (("quasi_orbit", "orbit"), kuramoto(0.35)),
    "two oscillators, not locked": (("quasi_orbit", "orbit"), kuramoto(0.08)),
    "limit cycle with 2 % noise": (ROTATES, noisy_cycle(2 * math.pi / 5, 0.02)),
    **{f"three equal eigenvalues {r}": (SETTLES, jordan(np.array([[r]]), 3)) for r in (0.6, 0.8, 0.9, 0.95, -0.9)},
    **{f"two equal pairs {rho}": (SETTLES, jordan(rho * turn(1.1), 2)) for rho in (0.8, 0.9, 0.95, 0.97)},
    **{f"beats, {apart} apart": (("quasi_orbit", "undetermined"), beats(apart)) for apart in (0.05, 0.1, 0.3)},
    **{f"of size {scale:g}": (("orbit(5)",), sized(scale, dtype)) for scale, dtype in (
        (1e-300, np.float64), (1e-38, np.float32), (1e-30, np.float32), (1e30, np.float32), (1e38, np.float32), (1e300, np.float64))},
    **{f"{k} numbers in one dimension": ((f"orbit({k})",), points(k)) for k in (2, 3, 5, 8, 13)},
    "golden rotation seen from the side": (("quasi_orbit",), lambda rng, steps: 1 + 3 * np.cos(GOLDEN * np.arange(steps + 1) + rng.uniform(0, 6))[:, None]),
    **{f"escape by {growth}": (("wander", "undetermined"), escaping(growth)) for growth in (1.05, 1.1, 1.2, 2.0)},
    "from 5 to 7 steps a turn": (("wander", "undetermined"), changed),
    "ever faster": (("wander", "undetermined"), faster),
    "van der Pol": (("quasi_orbit", "orbit"), flow(lambda x: np.array([x[1], 2 * (1 - x[0] ** 2) * x[1] - x[0]]), (1.0, 0.0), 0.7, 60)),
    "Roessler, period 1": (("quasi_orbit", "orbit"), flow(roessler(2.5), (1.0, 1.0, 0.0), 1.0, 300)),
    "Roessler in chaos": (("wander", "undetermined"), flow(roessler(5.7), (1.0, 1.0, 0.0), 1.0, 200)),
    "standard map in chaos": (("wander",), standard(5.0)),
    "lattice of maps in chaos": (("wander",), iterated(lattice, lambda rng: rng.uniform(0.2, 0.8, 12), 300)),
    "as the logarithm of time": (("slider", "converging"), lambda rng, steps: turned(np.log1p(np.arange(steps + 1))[:, None] * rng.normal(size=8), rng, 1.0)),
    **{f"as t^{p}": (wanted, power(p)) for p, wanted in ((0.7, ("slider",)), (0.3, ("slider", "converging")), (-0.5, (*SETTLES, "slider")), (-1.0, SETTLES))},
    **{f"period 5 kept in {kind}": (("orbit(5)",), rounded(lambda rng, steps: circle(2 * math.pi / 5, steps, rng.uniform(0, 6)), kind)) for kind in ("bfloat16", "float16")},
    **{f"golden rotation kept in {kind}": (("quasi_orbit",), rounded(lambda rng, steps: circle(GOLDEN, steps, rng.uniform(0, 6)), kind)) for kind in ("bfloat16", "float16")},
    "slider kept in bfloat16": (("slider",), rounded(lambda rng, steps: np.arange(steps + 1)[:, None] * rng.normal(size=8), "bfloat16")),
    "contraction of 0.97 kept in bfloat16": (SETTLES, rounded(lambda rng, steps: 0.97 ** np.arange(steps + 1)[:, None] * rng.normal(size=8) + rng.normal(size=8), "bfloat16")),
    **{f"spiral of {rho} computed in {kind}": (SETTLES, computed(rho, kind)) for kind in ("bfloat16", "float16", "float32") for rho in (0.9, 0.98)},
}  # fmt: skip


# Nulls without a rhythm, and (RHYTHMS) noise that has one, which no record alone can tell from an orbit ----------------------


def few_or_many(rng: Generator) -> int:
    return int(rng.choice([1, 2, 3, 5, 12, 40, 200]))


def autoregressive(r: float, theta: float, width: int | None = None) -> Maker:
    """Noise that rings: two complex roots."""

    def make(rng: Generator, steps: int) -> ndarray:
        x = rng.normal(size=(steps + 600, few_or_many(rng) if width is None else width))
        for t in range(2, len(x)):
            x[t] += 2 * r * math.cos(theta) * x[t - 1] - r * r * x[t - 2]
        return x[-(steps + 1) :]

    return make


def bursts(rng: Generator, steps: int) -> ndarray:
    """Independent numbers whose size comes and goes."""
    width = few_or_many(rng)
    size, out = np.ones(width), []
    for _ in range(steps + 100):
        x = rng.normal(size=width) * np.sqrt(size)
        size = 0.05 + 0.2 * x * x + 0.75 * size
        out.append(x)
    return np.array(out[-(steps + 1) :])


def cauchy(rng: Generator, steps: int) -> ndarray:
    return rng.standard_cauchy(size=(steps + 1, few_or_many(rng))).cumsum(0)


def phase_walk(spread: float) -> Maker:
    """A rotation whose phase takes a random step each time."""

    def make(rng: Generator, steps: int) -> ndarray:
        phase = np.cumsum(1.0 + spread * rng.normal(size=steps + 1))
        return turned(np.stack([np.cos(phase), np.sin(phase)], 1), rng)

    return make


def slips(rate: float) -> Maker:
    """Five points in turn, one left out or seen twice now and then."""

    def make(rng: Generator, steps: int) -> ndarray:
        at = np.cumsum(np.where(rng.random(steps + 1) < rate, rng.choice([0, 2], steps + 1), 1)) % 5
        return turned(rng.normal(size=(5, 6))[at], rng)

    return make


NULLS: dict[str, Maker] = {
    "noise that rings weakly, r = 0.5": autoregressive(0.5, 1.0),
    "noise whose size comes and goes": bursts,
    "Cauchy walk": cauchy,
    "five points, three in ten slips": slips(0.3),
}
RHYTHMS: dict[str, Maker] = {
    "noise that rings, r = 0.9": autoregressive(0.9, 1.3),
    "noise that rings, r = 0.98": autoregressive(0.98, 1.3, 2),
    "phase that walks, 0.15 rad a step": phase_walk(0.15),
    "phase that walks, 0.6 rad a step": phase_walk(0.6),
    "five points, one in ten slips": slips(0.1),
}
