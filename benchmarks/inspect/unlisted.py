"""Paths of kinds that stood in no list when they were drawn: cascades of other maps, locked and nearly locked oscillators, slow manifolds, pauses,
modulated and drifting cycles, tori of three and four frequencies, hopping that is regular or not, one channel that outweighs the rest; and
nulls that shuffle, reflect, stick or count. `planted.py` runs them.

Where the truth cannot be told from the record, more than one name is right, and says so here.
"""

from __future__ import annotations

import math

import numpy as np
from harder import GOLDEN, ROTATES, SETTLES, Maker, circle, few_or_many, flow, iterated, rounded
from later import UNNAMED, embedded
from numpy import ndarray
from numpy.random import Generator

TAU = 2 * math.pi


# A cycle and something beside it -----------------------------------------------------------------------------------------


def detuned(ratio: float, off: float) -> Maker:
    """Two rhythms whose ratio is `ratio` but for `off` rad a step; the first has no period."""

    def make(rng: Generator, steps: int) -> ndarray:
        theta = rng.uniform(0.9, 1.3)
        second = circle(ratio * theta + off, steps, rng.uniform(0, 6))
        return embedded(np.concatenate([circle(theta, steps, rng.uniform(0, 6)), 0.7 * second], 1), rng)

    return make


def nearly(period: int, off: float) -> Maker:
    """A turn that misses the period by `off` rad a step."""
    return lambda rng, steps: embedded(circle(TAU / period + off, steps, rng.uniform(0, 6)), rng)


def onto(core: str, fall: float) -> Maker:
    """A fast spiral onto a slow manifold, and what happens there."""

    def make(rng: Generator, steps: int) -> ndarray:
        t = np.arange(steps + 1.0)[:, None]
        slow = {"slide": 0.2 * t, "rest": 0.97**t, "turn": circle(TAU / 7, steps, 0), "creep": np.sqrt(t + 1)}[core]
        return embedded(np.concatenate([30 * circle(rng.uniform(0.4, 2.8), steps, 0, fall), slow], 1), rng)

    return make


def paused(rng: Generator, steps: int) -> ndarray:
    """An orbit of five steps that stands still for a while before the tail begins."""
    at, long = int(rng.integers(10, 25)), int(rng.integers(10, 30))
    t = np.arange(steps + 1)
    clock = np.where(t < at, t, np.maximum(at, t - long))
    return embedded(np.stack([np.cos(TAU * clock / 5), np.sin(TAU * clock / 5)], 1), rng)


def resumed(rng: Generator, steps: int) -> ndarray:
    """An orbit that dies out in the tail and comes back before its end."""
    t = np.arange(steps + 1.0)
    size = np.where(t < 68, 1, np.where(t < 100, 0.85 ** (t - 68), np.minimum(1, 0.85**32 * 1.5 ** (t - 100))))
    return embedded(size[:, None] * circle(TAU / 5, steps, 0), rng, offset=2)


def modulated(depth: float, slow: float) -> Maker:
    """A cycle of golden turns whose size comes and goes."""
    return lambda rng, steps: embedded(
        (1 + depth * np.cos(slow * np.arange(steps + 1) + rng.uniform(0, 6)))[:, None] * circle(GOLDEN, steps, rng.uniform(0, 6)), rng
    )


def drifting(period: int, along: str) -> Maker:
    """A limit cycle whose centre moves: far, along a bend, or ever more slowly towards a place of its own."""

    def make(rng: Generator, steps: int) -> ndarray:
        t = np.arange(steps + 1.0)[:, None]
        way = {"far": 0.4 * t, "bent": np.concatenate([0.4 * t, 0.003 * t**2], 1), "arriving": 20 * 0.95**t, "root": 3 * np.sqrt(t)}[along]
        return embedded(np.concatenate([circle(TAU / period, steps, rng.uniform(0, 6)), way], 1), rng, 0.01)

    return make


def tori(count: int) -> Maker:
    """So many frequencies, at least a tenth apart."""

    def make(rng: Generator, steps: int) -> ndarray:
        while True:
            thetas = np.sort(rng.uniform(0.5, 2.9, count))
            if np.diff(thetas).min() > 0.15:
                break
        return embedded(np.concatenate([rng.uniform(0.5, 1) * circle(theta, steps, rng.uniform(0, 6)) for theta in thetas], 1), rng)

    return make


def staircase(period: int) -> Maker:
    """Rest, and a leap on every so many steps."""
    return lambda rng, steps: embedded(1.0 * (np.arange(steps + 1) // period)[:, None] * rng.normal(size=4), rng)


def seesaw(rng: Generator, steps: int) -> ndarray:
    """From side to side while it slides."""
    t = np.arange(steps + 1.0)
    return embedded(np.stack([(-1) ** t, 0.3 * t], 1), rng)


def visits(low: int, high: int) -> Maker:
    """Two wells in turn, so long in one and so long in the other, with a small swing inside each."""

    def make(rng: Generator, steps: int) -> ndarray:
        at = (np.arange(steps + 1) + rng.integers(low + high)) % (low + high)
        inside = np.where(at < low, at, at - low)
        return embedded(np.stack([np.where(at < low, -1.0, 1.0), 0.2 * 0.6**inside], 1), rng)

    return make


def resonance(rng: Generator, steps: int) -> ndarray:
    """A rotation pushed at its own frequency: it grows as time does."""
    return embedded(np.arange(steps + 1.0)[:, None] * circle(rng.uniform(0.5, 2.8), steps, 0), rng)


def outweighed(core: str) -> Maker:
    """Sixty-three channels that do something, and one that is a hundred times as large and rests, jitters or slides."""

    def make(rng: Generator, steps: int) -> ndarray:
        t = np.arange(steps + 1.0)[:, None]
        cycle = circle(TAU / 5, steps, rng.uniform(0, 6)) @ np.linalg.qr(rng.normal(size=(63, 2)))[0].T
        big = {"rests": 100.0 + 0 * t, "settles": 100 + 50 * 0.7**t, "slides": 100 + 0.5 * t}[core]
        return np.concatenate([cycle, big], 1)

    return make


def kept(core: str, kind: str, size: float) -> Maker:
    """A path of that size around an offset of norm about one, kept in few digits."""

    def path(rng: Generator, steps: int) -> ndarray:
        t = np.arange(steps + 1.0)[:, None]
        frame = np.linalg.qr(rng.normal(size=(256, 2)))[0].T
        move = (
            circle(TAU / 6, steps, rng.uniform(0, 6))
            if core == "orbit"
            else np.concatenate([0.9**t, 0 * t], 1)
            if core == "rest"
            else t @ np.ones((1, 2)) / steps
        )
        return size * move @ frame + rng.normal(size=256) / 16

    return rounded(path, kind)


def overflows(rng: Generator, steps: int) -> tuple[ndarray, str]:
    """Grows out of float16 on the way."""
    with np.errstate(over="ignore", invalid="ignore"):
        return (1.15 ** np.arange(steps + 1)[:, None] * rng.normal(size=32)).astype(np.float16), "float16"


# Maps and flows ----------------------------------------------------------------------------------------------------------


def ricker(r: float) -> Maker:
    return iterated(lambda x: x * np.exp(r * (1 - x)), lambda rng: rng.uniform(0.5, 1.5, 1), 4000)


def cubic(a: float) -> Maker:
    return iterated(lambda x: a * x - x**3, lambda rng: rng.uniform(0.1, 0.5, 1), 4000)


def henon(a: float) -> Maker:
    return iterated(lambda z: np.array([1 - a * z[0] ** 2 + z[1], 0.3 * z[0]]), lambda rng: rng.uniform(-0.1, 0.1, 2), 4000)


def delayed(a: float, burn: int) -> Maker:
    """The delayed logistic map: a turn is born from rest at a = 2."""
    return iterated(lambda z: np.array([a * z[0] * (1 - z[1]), z[0]]), lambda rng: (1 - 1 / a) + rng.uniform(-0.05, 0.05, 2), burn)


def tongue(coupling: float, distance: float) -> Maker:
    """The sine circle map, so far outside the tongue of period one (negative: inside)."""
    drive = coupling / TAU + distance

    def step(x: ndarray) -> ndarray:
        return x + drive - coupling / TAU * np.sin(TAU * x)

    return iterated(step, lambda rng: rng.uniform(0, 1, 1), 500, lambda x: np.concatenate([np.cos(TAU * x), np.sin(TAU * x)]))


def forced(theta: float) -> Maker:
    """A contraction with a bend in it, pushed round by a turn of its own."""

    def make(rng: Generator, steps: int) -> ndarray:
        matrix, x, out = 0.6 * np.linalg.qr(rng.normal(size=(8, 8)))[0], np.zeros(8), []
        into = rng.normal(size=(2, 8))
        for t in range(steps + 101):
            x = np.tanh(matrix @ x + np.array([math.cos(theta * t), math.sin(theta * t)]) @ into)
            out.append(x)
        return embedded(np.array(out[-(steps + 1) :]), rng)

    return make


def may_leonard(x: ndarray) -> ndarray:
    """Three species that drive one another out in turn, each round slower than the one before."""
    return x * (1 - x - 0.6 * np.roll(x, -1) - 1.6 * np.roll(x, 1))


def cat(x: ndarray) -> ndarray:
    return np.array([(2 * x[0] + x[1]) % 1, (x[0] + x[1]) % 1])


def duffing(drive: float) -> Maker:
    """Two wells, driven: it hops by a rule, and nobody can foretell when. Seen every 3 units of time, about twice a turn of the drive."""

    def make(rng: Generator, steps: int) -> ndarray:
        x, v, t, h, out = *rng.uniform(-1, 1, 2), 0.0, 0.03, []
        for i in range(100 * (steps + 101)):
            v += h * (x - x**3 - 0.25 * v + drive * math.cos(t))
            x, t = x + h * v, t + h
            if i % 100 == 0:
                out.append((x, v))
        return embedded(np.array(out[-(steps + 1) :]), rng)

    return make


def chua(x: ndarray) -> ndarray:
    bend = -0.714 * x[0] - 0.2145 * (abs(x[0] + 1) - abs(x[0] - 1))
    return np.array([15.6 * (x[1] - x[0] - bend), x[0] - x[1] + x[2], -28 * x[1]])


CHAOS: dict[str, Maker] = {
    "Ricker map in chaos": ricker(3.0),
    "cubic map in chaos": cubic(2.9),
    "Lozi map": iterated(lambda z: np.array([1 - 1.7 * abs(z[0]) + z[1], 0.5 * z[0]]), lambda rng: rng.uniform(-0.1, 0.1, 2), 500),
    "cat map": iterated(cat, lambda rng: rng.uniform(0, 1, 2), 50),
    "delayed logistic map in chaos": delayed(2.27, 2000),
    "two wells, driven": duffing(0.4),
    "Chua's circuit": flow(chua, (0.7, 0.0, 0.0), 1.0, 100),
    "on-off intermittency": iterated(
        lambda z: np.array([z[0] * 2.8 * z[1] * (1 - z[0]), 3.99 * z[1] * (1 - z[1])]), lambda rng: rng.uniform(0.2, 0.8, 2), 500
    ),
}

CASES: dict[str, tuple[tuple[str, ...], Maker]] = {
    **{f"ratio {ratio:g}, off by {off}": (("quasi_orbit",), detuned(ratio, off)) for ratio in (2, 1.5) for off in (0.0, 0.002, 0.02)},
    **{f"period {k} missed by {off}": (("quasi_orbit",), nearly(k, off)) for k in (3, 8) for off in (0.002, 0.01)},
    "spiral of 0.8 onto a slide": (("slider",), onto("slide", 0.8)),
    "spiral of 0.9 onto a slide": (("slider",), onto("slide", 0.9)),
    "spiral of 0.8 onto a slow approach": (SETTLES, onto("rest", 0.8)),
    "spiral of 0.8 onto a cycle of 7": (("orbit(7)",), onto("turn", 0.8)),
    "spiral of 0.9 onto a cycle of 7": (("orbit(7)",), onto("turn", 0.9)),
    "spiral of 0.8 onto a way that slows down": (("slider",), onto("creep", 0.8)),
    "orbit that paused": (("orbit(5)",), paused),
    "orbit that dies and comes back": (UNNAMED, resumed),
    **{f"size modulated by {depth}, {slow} rad": (("quasi_orbit",), modulated(depth, slow)) for depth in (0.1, 0.5, 1.0) for slow in (0.2, 0.5)},
    "cycle of 5 that drifts far": (("helix",), drifting(5, "far")),
    "cycle of 5 that drifts along a bend": (("helix",), drifting(5, "bent")),
    "cycle of 5 whose centre arrives": (("orbit(5)", "helix"), drifting(5, "arriving")),
    "cycle of 5 that slides as a root": (("helix",), drifting(5, "root")),
    **{f"{count} frequencies": (("quasi_orbit",), tori(count)) for count in (3, 4)},
    **{f"stairs of {k} steps": (("helix", "slider"), staircase(k)) for k in (2, 4, 7)},
    "from side to side and on": (("helix",), seesaw),
    **{f"two wells, {a} and {b} steps in turn": ((f"orbit({a + b})",), visits(a, b)) for a, b in ((3, 3), (5, 7), (2, 9))},
    "pushed at its own frequency": (UNNAMED, resonance),
    **{f"cycle of 5 beside a channel of 100 that {core}": (("orbit(5)",), outweighed(core)) for core in ("rests", "settles")},
    "cycle of 5 beside a channel of 100 that slides": (("helix",), outweighed("slides")),
    **{f"orbit of {size} kept in {kind}": (("orbit(6)",), kept("orbit", kind, size)) for kind, size in (("float16", 0.1), ("float16", 0.02), ("bfloat16", 0.2))},
    "approach of 0.9 kept in float16": (SETTLES, kept("rest", "float16", 0.5)),
    "slider kept in float16": (("slider",), kept("slide", "float16", 0.5)),
    "grows out of float16": (UNNAMED, overflows),
    **{f"Ricker map {r}": ((f"orbit({k})",), ricker(r)) for r, k in ((2.2, 2), (2.6, 4), (2.67, 8), (3.12, 3))},
    **{f"cubic map {a}": ((f"orbit({k})",), cubic(a)) for a, k in ((2.1, 2), (2.27, 4))},
    **{f"Henon map {a}": ((f"orbit({k})",), henon(a)) for a, k in ((0.8, 2), (0.95, 4), (1.04, 8), (1.25, 7))},
    "turn born from rest, small": (("quasi_orbit", "undetermined"), delayed(2.02, 4000)),
    "turn born from rest, large": (("quasi_orbit", "undetermined", "orbit"), delayed(2.1, 4000)),
    "turn that dies slowly onto rest": (SETTLES, delayed(1.97, 20)),
    "outside a tongue, far": (("quasi_orbit",), tongue(0.8, 0.06)),
    "outside a tongue, near: slips": (("quasi_orbit", *UNNAMED), tongue(0.8, 0.002)),
    "inside a tongue": (SETTLES, tongue(0.8, -0.01)),
    "contraction pushed round by golden turns": (("quasi_orbit",), forced(GOLDEN)),
    "contraction pushed round in seven": (("orbit(7)",), forced(TAU / 7)),
    "three that drive one another out": (UNNAMED, flow(may_leonard, (2.0, 1.9, 1.8), 3.0, 60)),
    **{name: (("wander",), make) for name, make in CHAOS.items()},
    "t^-0.2 towards a place": (("slider", "converging"), lambda rng, steps: embedded((np.arange(steps + 1) + 1.0) ** -0.2, rng)),
    "period 40": (("quasi_orbit", *UNNAMED), lambda rng, steps: embedded((rng.normal(size=(40, 6)))[np.arange(steps + 1) % 40], rng)),
    "period 24": (("orbit(24)",), lambda rng, steps: embedded((rng.normal(size=(24, 6)))[np.arange(steps + 1) % 24], rng)),
    "a rule of two with a beat of three": (("orbit(6)",), lambda rng, steps: embedded(
        np.stack([(-1.0) ** np.arange(steps + 1), np.cos(TAU * np.arange(steps + 1) / 3)], 1), rng, 0.02)),
    "ring of eleven rounded corners": (ROTATES, lambda rng, steps: embedded(np.tanh(4 * circle(TAU * 3 / 11, steps, rng.uniform(0, 6))), rng, 0.02)),
}  # fmt: skip


# Nulls ---------------------------------------------------------------------------------------------------------------


def shuffled(points: int) -> Maker:
    """All of a few points in each round, each round in another order."""

    def make(rng: Generator, steps: int) -> ndarray:
        at = np.concatenate([rng.permutation(points) for _ in range(steps // points + 1)])[: steps + 1]
        return embedded(rng.normal(size=(points, 6))[at], rng, 0.02)

    return make


def chain(points: int) -> Maker:
    """A Markov chain on a few points, its odds drawn at random."""

    def make(rng: Generator, steps: int) -> ndarray:
        odds, at = rng.dirichlet(np.ones(points), points).cumsum(-1), [0]
        for _ in range(steps):
            at.append(min(points - 1, int((odds[at[-1]] < rng.random()).sum())))
        return embedded(rng.normal(size=(points, 6))[at], rng, 0.02)

    return make


def in_a_box(rng: Generator, steps: int) -> ndarray:
    """A walk that walls throw back."""
    x = np.cumsum(rng.uniform(0.05, 0.5) * rng.normal(size=(steps + 1, few_or_many(rng))), 0)
    return np.abs((x + 1) % 4 - 2) - 1


def on_a_ring(points: int) -> Maker:
    """One place on or back around a ring of points, by a coin."""

    def make(rng: Generator, steps: int) -> ndarray:
        at = np.cumsum(rng.choice([-1, 1], steps + 1)) % points
        return embedded(np.stack([np.cos(TAU * at / points), np.sin(TAU * at / points)], 1), rng, 0.02)

    return make


def double_well(rng: Generator, steps: int) -> ndarray:
    """Noise that hops between two wells."""
    x, out, size = rng.normal(size=few_or_many(rng)), [], rng.uniform(0.2, 0.5)
    for _ in range(steps + 50):
        x = x + 0.3 * np.clip(x - x**3, -2, 2) + size * rng.normal(size=x.shape)
        out.append(x)
    return np.array(out[-(steps + 1) :])


def counted(rng: Generator, steps: int) -> ndarray:
    """Ornstein-Uhlenbeck noise, rounded to a few whole numbers."""
    x = rng.normal(size=(steps + 1, few_or_many(rng)))
    for t in range(steps):
        x[t + 1] += 0.8 * x[t]
    return np.round(x / 2)


def sticky(rng: Generator, steps: int) -> ndarray:
    """A new random place now and then, rest between."""
    fresh = np.cumsum(rng.random(steps + 1) < rng.uniform(0.1, 0.6))
    return rng.normal(size=(steps + 2, few_or_many(rng)))[fresh]


def smooth_path(rng: Generator, steps: int) -> ndarray:
    """Noise through a bell-shaped window."""
    width = rng.uniform(1, 5)
    window = np.exp(-0.5 * (np.arange(-20, 21) / width) ** 2)
    x = rng.normal(size=(steps + 41, few_or_many(rng)))
    return np.stack([np.convolve(one, window, "valid") for one in x.T], 1)


def two_orbits(rng: Generator, steps: int) -> ndarray:
    """From a cycle of 3 to one of 5 and back, every few steps, by a coin."""
    side = np.cumsum(rng.random(steps + 1) < 0.15) % 2
    return embedded(np.where(side[:, None] == 0, circle(TAU / 3, steps, 0), 3 + circle(TAU / 5, steps, 0)), rng)


def dithered(rng: Generator, steps: int) -> ndarray:
    """Rest, in the two neighbours of a number that cannot be held, by a coin."""
    return rng.normal(size=64) + 1e-2 * (rng.random((steps + 1, 64)) < 0.5)


def wide_walk(rng: Generator, steps: int) -> ndarray:
    """A walk as wide as a large model's state."""
    return rng.normal(size=(steps + 1, 5280)).cumsum(0)


NULLS: dict[str, Maker] = {
    **{f"{k} points, each round in another order": shuffled(k) for k in (3, 5, 8)},
    **{f"Markov chain on {k} points": chain(k) for k in (3, 6)},
    "walk between walls": in_a_box,
    **{f"walk on a ring of {k}": on_a_ring(k) for k in (5, 12)},
    "noise in a double well": double_well,
    "noise in whole numbers": counted,
    "rest and leaps": sticky,
    "noise through a window": smooth_path,
    "between two orbits": two_orbits,
    "two neighbours by a coin": dithered,
    "walk in 5280 dimensions": wide_walk,
}
