"""Error rates of the labels on dynamics that are known by construction, other ones than the tests use.

    python benchmarks/inspect/planted.py benchmarks/inspect/results/planted.json --draws 300 --nulls 3000 --processes 8

Widths, offsets, scales and phases are drawn anew for every path; `harder.py`, `later.py` and
`unlisted.py` have more of them. A null counts as wrong if it is called orbit,
quasi-orbit or helix; so do the rhythms, noise that no record alone can tell from an orbit, and which are counted to say how often.
"""

from __future__ import annotations

import argparse
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import harder
import later
import numpy as np
import unlisted
from numpy import ndarray
from numpy.random import Generator

from latentweaver.evaluate.intervals import wilson
from latentweaver.inspect import label_path

Maker = Callable[[Generator, int], ndarray]
ROTATIONS = ("orbit", "quasi_orbit", "helix")


def embedded(core: ndarray, rng: Generator, width: int, noise: float = 0.0, offset: float = 0.0, scale: float = 1.0) -> ndarray:
    """A path of few coordinates, turned at random into `width` of them; the noise has length `noise` in all of them together."""
    width = max(width, core.shape[1])
    frame = np.linalg.qr(rng.normal(size=(width, core.shape[1])))[0].T
    shift = rng.normal(size=width)
    jitter = noise / math.sqrt(width) * rng.normal(size=(len(core), width))
    return scale * (core @ frame + offset * shift / np.linalg.norm(shift) + jitter)


def some_width(rng: Generator) -> int:
    return int(rng.choice([2, 3, 8, 48, 128, 600]))


# Dynamics ------------------------------------------------------------------------------------------------------------


def orbit(period: int, noise: float) -> Maker:
    """An ellipse that closes after `period` steps and any number of turns."""

    def make(rng: Generator, steps: int) -> ndarray:
        turns = rng.choice([m for m in range(1, period) if math.gcd(m, period) == 1])
        t, phase = np.arange(steps + 1), rng.uniform(0, 2 * math.pi)
        angle = 2 * math.pi * turns * t / period + phase
        core = np.stack([np.cos(angle), rng.uniform(0.3, 1) * np.sin(angle)], 1) if period > 2 else np.stack([(-1.0) ** t, 0 * t], 1)
        return embedded(core, rng, some_width(rng), noise, rng.choice([0, 2, 50]), 10 ** rng.uniform(-3, 3))

    return make


def stations(period: int) -> Maker:
    """`period` random points, visited in turn."""
    return lambda rng, steps: embedded(
        (rng.normal(size=(period, 6)) / math.sqrt(6))[np.arange(steps + 1) % period], rng, some_width(rng), 0.02, 3
    )


def arriving(period: int) -> Maker:
    """An orbit that is approached from three radii away."""

    def make(rng: Generator, steps: int) -> ndarray:
        path = orbit(period, 0.0)(rng, steps)
        radius = float(np.linalg.norm(path.std(0)))
        fall = rng.uniform(0.3, 0.8) ** np.arange(steps + 1)
        return path + 3 * radius / math.sqrt(path.shape[1]) * fall[:, None] * rng.normal(size=path.shape[1])

    return make


def rotation(theta: float, noise: float) -> Maker:
    def make(rng: Generator, steps: int) -> ndarray:
        angle = theta * np.arange(steps + 1) + rng.uniform(0, 6)
        return embedded(np.stack([np.cos(angle), np.sin(angle)], 1), rng, some_width(rng), noise, 4)

    return make


def circle_map(rng: Generator, steps: int) -> ndarray:
    """The sine circle map below its critical coupling."""
    x, out = rng.uniform(), []
    for _ in range(steps + 1):
        x += math.sqrt(2) - 1 - 0.6 / (2 * math.pi) * math.sin(2 * math.pi * x)
        out.append((math.cos(2 * math.pi * x), math.sin(2 * math.pi * x)))
    return embedded(np.array(out), rng, 32, 0, 2)


def contraction(*slow: float, offset: float = 2.0) -> Maker:
    """The eigenvalues `slow` and many faster ones, in a basis that is not orthogonal."""

    def make(rng: Generator, steps: int) -> ndarray:
        n = 24
        values = np.concatenate([slow, rng.uniform(-0.4, 0.4, n - len(slow))])
        basis = rng.normal(size=(n, n)) / math.sqrt(n) + np.eye(n)
        return embedded(values ** np.arange(steps + 1)[:, None] * rng.normal(size=n) @ basis, rng, 64, 0, offset)

    return make


def spiral(rho: float, theta: float) -> Maker:
    def make(rng: Generator, steps: int) -> ndarray:
        t = np.arange(steps + 1)
        return embedded((rho**t)[:, None] * np.stack([np.cos(theta * t), np.sin(theta * t)], 1), rng, some_width(rng), 0, 3)

    return make


def slider(noise: float, curve: float) -> Maker:
    def make(rng: Generator, steps: int) -> ndarray:
        t = np.arange(steps + 1)[:, None]
        along, aside = rng.normal(size=(2, 8))
        return embedded(
            t * along + curve * t**2 / steps * aside, rng, some_width(rng), noise, rng.choice([0, 100]), 10 ** rng.uniform(-2, 2)
        )

    return make


def slowing_slider(rng: Generator, steps: int) -> ndarray:
    """As the square root of time: it slows down and never arrives."""
    return embedded(5 * np.sqrt(np.arange(steps + 1))[:, None] * rng.normal(size=8), rng, 64, 0, 3)


def helix(period: float, pitch: float) -> Maker:
    def make(rng: Generator, steps: int) -> ndarray:
        t = np.arange(steps + 1)
        angle = 2 * math.pi * t / period
        return embedded(np.stack([np.cos(angle), np.sin(angle), pitch * t], 1), rng, some_width(rng), 0.05, 5)

    return make


def iterated(step: Callable[[ndarray], ndarray], start: Callable[[Generator], ndarray], burn: int) -> Maker:
    def make(rng: Generator, steps: int) -> ndarray:
        x = start(rng)
        for _ in range(burn):
            x = step(x)
        out = [x]
        for _ in range(steps):
            out.append(step(out[-1]))
        return embedded(np.array(out), rng, 16, 0, 1)

    return make


def logistic(r: float) -> Maker:
    return iterated(lambda x: r * x * (1 - x), lambda rng: rng.uniform(0.2, 0.8, 1), 3000)


def _ikeda(z: ndarray) -> ndarray:
    x, y = z
    angle = 0.4 - 6 / (1 + x * x + y * y)
    return np.array([1 + 0.9 * (x * math.cos(angle) - y * math.sin(angle)), 0.9 * (x * math.sin(angle) + y * math.cos(angle))])


def _lorenz(z: ndarray) -> ndarray:
    for _ in range(100):
        x, y, w = z
        z = z + 0.005 * np.array([10 * (y - x), x * (28 - w) - y, x * y - 8 / 3 * w])
    return z


# Nulls ---------------------------------------------------------------------------------------------------------------


def few_or_many(rng: Generator) -> int:
    return int(rng.choice([1, 2, 3, 5, 12, 40, 200]))


def walk(rng: Generator, steps: int) -> ndarray:
    """A random walk with heavy-tailed steps (Student, 2.5 degrees of freedom)."""
    return rng.standard_t(2.5, size=(steps + 1, few_or_many(rng))).cumsum(0)


def momentum(rng: Generator, steps: int) -> ndarray:
    """A walk whose steps remember the step before."""
    return correlated(rng.uniform(0.3, 0.9), rng, steps, few_or_many(rng)).cumsum(0)


def correlated(a: float | ndarray, rng: Generator, steps: int, width: int) -> ndarray:
    """x_(t+1) = a x_t + noise, started in its stationary state."""
    x = rng.normal(size=(steps + 1, width))
    x[0] /= np.sqrt(1 - np.square(a))
    for t in range(steps):
        x[t + 1] += a * x[t]
    return x


def many_times(rng: Generator, steps: int) -> ndarray:
    """Ornstein-Uhlenbeck with a time constant of its own in each direction."""
    width = few_or_many(rng)
    return correlated(rng.uniform(0.2, 0.995, width), rng, steps, width)


def overshooting(rng: Generator, steps: int) -> ndarray:
    """Noise that tends to change sign."""
    return correlated(-rng.uniform(0.2, 0.9), rng, steps, few_or_many(rng))


def twice_smoothed(rng: Generator, steps: int) -> ndarray:
    """Autoregression of second order with two real roots."""
    (a, b), width = rng.uniform(0.3, 0.95, 2), few_or_many(rng)
    x = rng.normal(size=(steps + 300, width))
    for t in range(2, len(x)):
        x[t] += (a + b) * x[t - 1] - a * b * x[t - 2]
    return x[-(steps + 1) :]


def coloured(power: float) -> Maker:
    """Noise with spectrum 1 / f^power, cut from a record eight times as long."""

    def make(rng: Generator, steps: int) -> ndarray:
        n = 8 * (steps + 1)
        f = np.fft.rfftfreq(n)
        f[0] = f[1]
        spectrum = rng.normal(size=(len(f), few_or_many(rng))) * (1 + 0j)
        spectrum += 1j * rng.normal(size=spectrum.shape)
        return np.fft.irfft(spectrum / f[:, None] ** (power / 2), n, axis=0)[: steps + 1]

    return make


def on_a_sphere(rng: Generator, steps: int) -> ndarray:
    """A walk that a norm keeps at length one."""
    width, size = max(2, few_or_many(rng)), 10 ** rng.uniform(-2, 0)
    x = rng.normal(size=width)
    out = [x / np.linalg.norm(x)]
    for _ in range(steps):
        x = out[-1] + size * rng.normal(size=width) / math.sqrt(width)
        out.append(x / np.linalg.norm(x))
    return np.array(out)


def bridge(rng: Generator, steps: int) -> ndarray:
    """A walk that ends where it began."""
    x, t = rng.normal(size=(steps + 1, few_or_many(rng))).cumsum(0), np.arange(steps + 1)[:, None] / steps
    return x - t * x[-1] - (1 - t) * x[0]


def jittery_walk(rng: Generator, steps: int) -> ndarray:
    width = few_or_many(rng)
    return rng.normal(size=(steps + 1, width)).cumsum(0) + rng.uniform(0.5, 5) * rng.normal(size=(steps + 1, width))


def telegraph(rng: Generator, steps: int) -> ndarray:
    """Signs that change at random times."""
    return (-1.0) ** (rng.random((steps + 1, few_or_many(rng))) < rng.uniform(0.05, 0.5)).cumsum(0)


def moving_sum(rng: Generator, steps: int) -> ndarray:
    """The sum of the last few of independent numbers."""
    span = int(rng.integers(2, 12))
    x = np.pad(rng.normal(size=(steps + 1 + span, few_or_many(rng))).cumsum(0), ((1, 0), (0, 0)))
    return (x[span:] - x[:-span])[: steps + 1]


def heavy(rng: Generator, steps: int) -> ndarray:
    return embedded(rng.standard_t(2, size=(steps + 1, 2)), rng, 64, 2, 10)


NULLS: dict[str, Maker] = {
    "heavy-tailed walk": walk,
    "walk with momentum": momentum,
    "walk on a sphere": on_a_sphere,
    "walk with jitter": jittery_walk,
    "walk that returns": bridge,
    "Ornstein-Uhlenbeck, many times": many_times,
    "overshooting noise": overshooting,
    "second-order noise": twice_smoothed,
    **{f"1/f^{power} noise": coloured(power) for power in (0.5, 1.0, 1.5, 2.0, 2.5)},
    "telegraph noise": telegraph,
    "moving sums": moving_sum,
    "heavy-tailed noise": heavy,
}

CASES: dict[str, tuple[str, Maker]] = {
    **{f"period {k}, no noise": (f"orbit({k})", orbit(k, 0)) for k in range(2, 13)},
    **{f"period {k}, 5 % noise": (f"orbit({k})", orbit(k, 0.05)) for k in range(2, 13)},
    **{f"period {k}, approached": (f"orbit({k})", arriving(k)) for k in range(2, 13)},
    **{f"{k} stations": (f"orbit({k})", stations(k)) for k in (3, 4, 5, 6, 7, 9, 11, 12, 16)},
    **{f"rotation {name}, {noise:.0%} noise": ("quasi_orbit", rotation(theta, noise)) for noise in (0, 0.05)
       for name, theta in {"sqrt 2": 2 * math.pi * (math.sqrt(2) - 1), "1/e": 2 * math.pi / math.e, "golden": 2 * math.pi * 0.3819660113}.items()},
    "rotation 7/40": ("quasi_orbit", rotation(2 * math.pi * 7 / 40, 0.02)),
    "circle map": ("quasi_orbit", circle_map),
    **{f"eigenvalues {v}": ("fixed_point", contraction(*v)) for v in ((0.6,), (0.75, -0.7), (0.5, 0.5))},
    **{f"eigenvalues {v}": ("converging", contraction(*v)) for v in ((0.95,), (-0.95,), (0.985,), (-0.985,), (0.97, 0.96), (0.97, -0.96))},
    "eigenvalue .98, far from zero": ("converging", contraction(0.98, offset=500)),
    **{f"spiral {rho}, {theta} rad": ("converging", spiral(rho, theta)) for rho, theta in ((0.97, 1.0), (0.985, 2.0), (0.95, 0.2), (0.98, 0.1))},
    **{f"slider, noise {noise}, curve {curve}": ("slider", slider(noise, curve)) for noise in (0, 0.3) for curve in (0, 0.2, 0.5)},
    "slider that slows down": ("slider", slowing_slider),
    **{f"helix {period}, pitch {pitch}": ("helix", helix(period, pitch)) for period, pitch in ((4, 0.5), (9.5, 0.3), (3, 1), (12, 0.15), (6, 0.08))},
    **{f"logistic {r}": (wanted, logistic(r)) for r, wanted in (
        (1.7, "fixed_point"), (2.9, "fixed_point"), (3.2, "orbit(2)"), (3.5, "orbit(4)"), (3.55, "orbit(8)"), (3.74, "orbit(5)"), (3.832, "orbit(3)"),
        (3.7, "wander"), (3.95, "wander"))},
    "tent map": ("wander", iterated(lambda x: 1.999 * np.minimum(x, 1 - x), lambda rng: rng.uniform(0.1, 0.9, 1), 100)),
    "Ikeda map": ("wander", iterated(_ikeda, lambda rng: rng.uniform(0, 0.5, 2), 500)),
    "Lorenz system, every 0.5": ("wander", iterated(_lorenz, lambda rng: np.array([0, 0, 20]) + rng.normal(size=3), 20)),
}  # fmt: skip


ACCEPTED = {name: (wanted,) for name, (wanted, _) in CASES.items()} | {
    name: wanted for name, (wanted, _) in {**harder.CASES, **later.CASES, **unlisted.CASES}.items()
}
MAKERS = (
    {name: make for name, (_, make) in {**CASES, **harder.CASES, **later.CASES, **unlisted.CASES}.items()}
    | NULLS
    | harder.NULLS
    | later.NULLS
    | unlisted.NULLS
    | harder.RHYTHMS
)


def run(job: tuple[str, int, int, int]) -> tuple[str, Counter[str]]:
    name, first, last, steps = job
    seed, found = zlib.crc32(name.encode()), Counter()
    for i in range(first, last):
        path = MAKERS[name](np.random.default_rng([77123, seed, i]), steps)
        found[str(label_path(*path) if isinstance(path, tuple) else label_path(path))] += 1
    return name, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--nulls", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="go on with a record that was cut off: what OUT holds is not drawn again")
    options = parser.parse_args()
    nulls = dict.fromkeys({**NULLS, **harder.NULLS, **later.NULLS, **unlisted.NULLS}, options.nulls)
    counts = {**dict.fromkeys(ACCEPTED, options.draws), **nulls, **dict.fromkeys(harder.RHYTHMS, options.draws)}
    got: dict[str, Counter[str]] = {}
    if options.keep and options.out.exists():
        record = json.loads(options.out.read_text())
        got = {name: Counter(one["labels"]) for part in ("nulls", "rhythms", "cases") for name, one in record[part].items()}
        counts = {name: count for name, count in counts.items() if name not in got}
    jobs = [(name, i, min(i + 50, count), options.steps) for name, count in counts.items() for i in range(0, count, 50)]
    got |= {name: Counter() for name in counts}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    last = jobs[0][0]
    with ProcessPoolExecutor(options.processes) as pool:
        for name, found in pool.map(run, jobs):
            got[name].update(found)
            if name != last:
                last = name
                write(options.out, options.steps, {one: labels for one, labels in got.items() if labels and one != name})
    write(options.out, options.steps, got)


def write(out: Path, steps: int, got: dict[str, Counter[str]]) -> None:
    """Everything that is finished."""
    record: dict[str, Any] = {"steps": steps, "cases": {}, "nulls": {}, "rhythms": {}}
    for name, found in got.items():
        of, labels = found.total(), dict(found.most_common())
        if name in ACCEPTED:
            right = sum(n for label, n in found.items() if label in ACCEPTED[name] or label.split("(")[0] in ACCEPTED[name])
            record["cases"][name] = {
                "wanted": " or ".join(ACCEPTED[name]),
                "right": right,
                "of": of,
                "interval": wilson(right, of),
                "labels": labels,
            }
        else:
            count = sum(n for label, n in found.items() if label.startswith(ROTATIONS))
            kind = "rhythms" if name in harder.RHYTHMS else "nulls"
            record[kind][name] = {"false": count, "of": of, "interval": wilson(count, of), "labels": labels}
    out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
