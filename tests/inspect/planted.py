"""Paths whose dynamics are known by construction, and the nulls that must not be mistaken for them."""

from __future__ import annotations

import math

import numpy as np
from numpy import ndarray

GOLDEN = 2 * math.pi * (math.sqrt(5) - 1) / 2


def embed(core: ndarray, rng: np.random.Generator, width: int = 64, noise: float = 0.0, offset: float = 0.0) -> ndarray:
    """A path of few coordinates, rotated at random into `width` of them, `offset` from zero, with noise in every coordinate."""
    frame = np.linalg.qr(rng.normal(size=(width, core.shape[1])))[0].T
    direction = rng.normal(size=width)
    return core @ frame + offset * direction / np.linalg.norm(direction) + noise * rng.normal(size=(len(core), width))


def circle(theta: float, steps: int, rng: np.random.Generator, rho: float = 1.0, squash: float = 1.0) -> ndarray:
    t = np.arange(steps + 1)
    phase = rng.uniform(0, 2 * math.pi)
    return (rho**t)[:, None] * np.stack([np.cos(theta * t + phase), squash * np.sin(theta * t + phase)], 1)


def cycle(period: int, steps: int, rng: np.random.Generator, width: int = 8) -> ndarray:
    """`period` random points visited in turn: every harmonic is there."""
    points = rng.normal(size=(period, width)) / math.sqrt(width)
    return points[np.arange(steps + 1) % period]


def contraction(rho: float, steps: int, rng: np.random.Generator, width: int = 8) -> ndarray:
    return (rho ** np.arange(steps + 1))[:, None] * rng.normal(size=width)


def slider(steps: int, rng: np.random.Generator, width: int = 8, curve: float = 0.0) -> ndarray:
    t = np.arange(steps + 1)[:, None]
    u, c = rng.normal(size=(2, width))
    return t * u + curve * t**2 / steps * c


def helix(period: float, steps: int, rng: np.random.Generator, pitch: float = 0.3) -> ndarray:
    """`pitch`: how far it slides a step, in radii."""
    return np.concatenate([circle(2 * math.pi / period, steps, rng), pitch * np.arange(steps + 1)[:, None]], 1)


def logistic(r: float, steps: int, rng: np.random.Generator) -> ndarray:
    x = [rng.uniform(0.2, 0.8)]
    for _ in range(1000):
        x[0] = r * x[0] * (1 - x[0])
    for _ in range(steps):
        x.append(r * x[-1] * (1 - x[-1]))
    return np.array(x)[:, None]


def henon(steps: int, rng: np.random.Generator) -> ndarray:
    x, y = rng.uniform(-0.1, 0.1, 2)
    out = []
    for t in range(1000 + steps + 1):
        x, y = 1 - 1.4 * x * x + y, 0.3 * x
        if t >= 1000:
            out.append((x, y))
    return np.array(out)


def walk(steps: int, rng: np.random.Generator, width: int = 64) -> ndarray:
    return rng.normal(size=(steps + 1, width)).cumsum(0)


def white(steps: int, rng: np.random.Generator, width: int = 64) -> ndarray:
    return rng.normal(size=(steps + 1, width))


def ornstein(a: float, steps: int, rng: np.random.Generator, width: int = 64) -> ndarray:
    """x_(t+1) = a x_t + noise, started in its stationary state."""
    x = rng.normal(size=(steps + 1, width))
    x[0] /= math.sqrt(1 - a * a)
    for t in range(steps):
        x[t + 1] += a * x[t]
    return x


def pink(steps: int, rng: np.random.Generator, width: int = 64) -> ndarray:
    """1/f noise, cut from a record four times as long so that it does not close on itself."""
    n = 4 * (steps + 1)
    f = np.fft.rfftfreq(n)
    f[0] = f[1]
    spectrum = rng.normal(size=(len(f), width)) + 1j * rng.normal(size=(len(f), width))
    return np.fft.irfft(spectrum / np.sqrt(f)[:, None], n, axis=0)[: steps + 1]


def resonator(rho: float, theta: float, steps: int, rng: np.random.Generator) -> ndarray:
    """A damped rotation kept going by noise."""
    c, s = rho * math.cos(theta), rho * math.sin(theta)
    turn = np.array([[c, -s], [s, c]])
    x = rng.normal(size=2) / math.sqrt(1 - rho * rho)
    out = [x]
    for _ in range(steps):
        out.append(turn @ out[-1] + rng.normal(size=2))
    return np.array(out)


NULLS = {
    "walk": walk,
    "white": white,
    "ou .5": lambda steps, rng, width=64: ornstein(0.5, steps, rng, width),
    "ou .9": lambda steps, rng, width=64: ornstein(0.9, steps, rng, width),
    "ou .99": lambda steps, rng, width=64: ornstein(0.99, steps, rng, width),
    "pink": pink,
}
