"""How one path moves: the numbers behind a label, each defined once.

Stroboscopic states x_0 .. x_T of one token; D_t = x_(t+1) - x_t is a step; the tail is the last half of the path. Rounding is
judged by `floor`, the size of one rounding error of a state in the dtype that it was computed in: below a few of them, motion
is arithmetic (a contraction in bfloat16 ends in a cycle of roundings that looks like an orbit).

What may surprise: distance to the last state falls for every path, also a random walk, and so is not a measure of
convergence here; the length of the steps is. Everything is the same after a rotation or a shift of the space, apart from `speed`
and `floor`, which compare with the length of the states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from latentweaver.errors import InputError
from latentweaver.inspect.rotation import MAX_PERIOD, Rotation, principal_directions, rotation
from latentweaver.inspect.trajectory import roundoff

ROUNDINGS = 4
"""Motion of fewer than so many floors is rounding."""


@dataclass(frozen=True)
class Dynamics:
    """The numbers of one path.

    Attributes:
        steps: T, how many steps the path has (kept ones).
        dtype: what rounding was judged by.
        norm: median norm of the tail's states.
        floor: unit roundoff times that norm.
        speed: v, median step of the tail over the median norm of its states.
        last_step: length of the final step.
        loudest: length of the longest step of the tail's last half. A pulse now and then leaves the median step at 0.
        rate: r, by how much steps shrink from one to the next (exp of the Theil-Sen slope of log |D_t| in the tail, over
            steps above 4 floors); NaN if fewer than 8 are.
        power: p, if steps shrink like t^p rather than exponentially (it fits four times as well); else NaN. Above -1 the path
            that such steps add up to has no end.
        trend: Mann-Kendall z of log |D_t| in the tail, with the variance inflated by the autocorrelation of the detrended series.
        slowdown: how far the mean moves between the last two quarters of the tail, over how far between the first two; noise of
            the means taken off. 1 for a slider, less for an approach that jitter hides from the steps.
        shrinkage: median step of the tail's last quarter over that of its first.
        remaining: the path still to go if steps go on shrinking at this rate, v_T r / (1 - r); infinite for r >= 1,
            0 where there is no motion above rounding, NaN where r is not known.
        excursion: largest distance of any state from the last one, after the first sixteenth of the path (a leap off a far
            start says nothing).
        turning: mean cosine between successive steps of the tail.
        straightness: |x_T - x_(T/2)| over the length of the path between.
        acceleration: median |D_t - D_(t-1)| / |D_t| of the tail.
        drift_r2: the part of the tail's variance that a straight line in time explains.
        radius: root mean square distance of the detrended tail from its line.
        spread: root mean square distance of the tail from its mean.
        recurrence: R(k) for k = 1 .. 32: rms |Z_(t+k) - Z_t| / (sqrt 2 radius), Z the detrended tail. 1 for white noise, 0
            at the period, small and rising for slow motion.
        steadiness: R(1) over the largest R(k), of the tail less a parabola: near 1 for jitter, small for a walk, whose errors add up.
        slow: the part of the detrended energy below 2.5 turns per tail.
        rotation: what harmonic regression found.
        approach: the part of the variance along the tail's main direction that its way to a limit explains, a + b r^t with the r that
            fits best, where that fits better than a straight line and what is left is jitter that does not add up; else 0.
            `approach_rate` is that r, NaN without.
        determinism: 1 - error / variance of predicting the next tail state from the closest earlier one, on the last third:
            near 1 for what follows a rule (also chaos), 0 for noise.
        closing: what going back by the named period misses, in the same components and in the same unit (half the mean square gap over
            the variance); NaN without a period.
    """

    steps: int
    dtype: str
    norm: float
    floor: float
    speed: float
    last_step: float
    loudest: float
    rate: float
    power: float
    trend: float
    slowdown: float
    shrinkage: float
    remaining: float
    excursion: float
    turning: float
    straightness: float
    acceleration: float
    drift_r2: float
    radius: float
    spread: float
    recurrence: Float[ndarray, "32"]
    steadiness: float
    slow: float
    rotation: Rotation
    approach: float
    approach_rate: float
    determinism: float
    closing: float


def measure(states: Float[ndarray, "steps+1 width"], dtype: str | None = None) -> Dynamics:
    """Measure one path.

    Args:
        states: finite, at least 2 of them, one point of the cycle per step.
        dtype: what they were computed in, if coarser than the array.

    Raises:
        InputError: another shape, fewer than 2 states, or states that are not finite.
    """
    x = np.asarray(states)
    if x.ndim != 2 or len(x) < 2 or not x.shape[1]:
        raise InputError(f"a path is [steps + 1, width] with at least 2 states, got {list(x.shape)}")
    if not np.isfinite(x).all():
        raise InputError(f"states are not finite from step {int((~np.isfinite(x).all(-1)).argmax())} on")
    dtype = dtype or str(x.dtype)
    x = x.astype(np.float64)
    biggest = float(np.abs(x).max())
    if biggest > 0 and not 1e-60 < biggest < 1e60:  # squares would leave the range of float64
        unit = 2.0 ** math.floor(math.log2(biggest))
        return _enlarged(measure(x / unit, dtype), unit)
    steps = len(x) - 1
    half = steps // 2
    tail = x[half:]
    moves = np.diff(x, axis=0)
    length = np.linalg.norm(moves, axis=-1)
    norm = float(np.median(np.linalg.norm(tail, axis=-1)))
    floor = roundoff(dtype) * norm
    late = length[half:]
    rate, trend = _rate(late, ROUNDINGS * floor)
    quarter = max(1, len(late) // 4)
    first, last = float(np.median(late[:quarter])), float(np.median(late[-quarter:]))
    n = len(tail)
    time = np.arange(n) - (n - 1) / 2
    centred = tail - tail.mean(0)
    frame = None
    if x.shape[1] > 2 * n:  # a tail of n states has no more than n dimensions: turn it into them, exactly
        frame, corner = np.linalg.qr(centred.T)
        centred = np.ascontiguousarray(corner.T)
    slope = time @ centred / max(float(time @ time), 1e-300)
    z = centred - time[:, None] * slope
    spread, radius = _rms(centred), _rms(z)
    pairs = (moves[half:-1] * moves[half + 1 :]).sum(-1)
    product = late[:-1] * late[1:]
    moving = product > 0
    # a rounding error of each state, in one direction, and of what is recorded
    found = rotation(centred, ROUNDINGS * floor / math.sqrt(12)) if n >= 12 and radius > floor else _nothing(x.shape[1])
    if frame is not None and n >= 12 and radius > floor:
        found = replace(found, drift_direction=frame @ found.drift_direction, planes=found.planes @ frame.T)
    recurrence = _recurrence(z, radius)
    found = _closing(found, z, centred, max(1e-3 * radius, ROUNDINGS * floor))
    shown = z @ principal_directions(z, 6).T
    approach, approach_rate = _approach(centred) if n >= 24 and spread > ROUNDINGS * floor else (0.0, math.nan)
    return Dynamics(
        steps=steps,
        dtype=dtype,
        norm=norm,
        floor=floor,
        speed=float(np.median(late)) / norm if norm > 0 else 0.0,
        last_step=float(length[-1]),
        loudest=float(late[len(late) // 2 :].max()),
        rate=rate,
        power=_power(late, half, ROUNDINGS * floor),
        trend=trend,
        slowdown=_slowdown(centred),
        shrinkage=last / first if first > 0 else (1.0 if last == 0 else math.inf),
        remaining=0.0 if np.median(late) <= ROUNDINGS * floor else float(length[-1]) * rate / (1 - rate) if not rate >= 1 else math.inf,
        excursion=float(np.linalg.norm(x[steps // 16 :] - x[-1], axis=-1).max()),
        turning=float((pairs[moving] / product[moving]).mean()) if moving.any() else 0.0,
        straightness=float(np.linalg.norm(tail[-1] - tail[0])) / float(late.sum()) if late.sum() > 0 else 0.0,
        acceleration=_acceleration(moves[half:]),
        drift_r2=1 - (radius / spread) ** 2 if spread > 0 else 0.0,
        radius=radius,
        spread=spread,
        recurrence=recurrence,
        steadiness=_steadiness(z, time),
        slow=_slow(z),
        rotation=found,
        approach=approach,
        approach_rate=approach_rate,
        determinism=_determinism(shown) if radius > ROUNDINGS * floor and n >= 24 else math.nan,
        closing=_gap(shown, found.period) / (2 * _gap(shown)) if found.period and radius > 0 else math.nan,
    )


def _enlarged(d: Dynamics, unit: float) -> Dynamics:
    """The numbers of a path `unit` times as large."""
    lengths = ("norm", "floor", "last_step", "loudest", "remaining", "excursion", "radius", "spread")
    r = d.rotation
    r = replace(r, radius=unit * r.radius, drift=unit * r.drift, drift_error=unit * r.drift_error, planes=unit * r.planes)
    return replace(d, rotation=r, **{name: unit * getattr(d, name) for name in lengths})


def _closing(found: Rotation, z: ndarray, centred: ndarray, least: float) -> Rotation:
    """A period whose double (or another multiple) closes far better was only near: one that has doubled, its halves almost alike.

    Told from the tail and from the detrended one: less its trend, a path that closes after 32 steps no longer does. Gaps below
    `least` are left alone.
    """
    period = found.period
    for path in (centred, z):
        gap = {m: _rms(path[m:] - path[:-m]) for m in range(1, min(MAX_PERIOD, len(z) - 2) + 1)}
        while period is not None and gap[period] > least:
            better = [m for m in range(2 * period, len(gap) + 1, period) if gap[m] ** 2 < 0.2 * gap[period] ** 2]
            if not better:
                break
            period = better[0]
    return replace(found, period=period)


def _nothing(width: int) -> Rotation:
    return Rotation((), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, np.zeros(width), None, math.nan, math.nan, np.zeros((0, 2, width)))


def _gap(y: ndarray, k: int | None = None) -> float:
    """Mean square distance between states `k` steps apart; from their mean without k."""
    away = y - y.mean(0) if k is None else y[k:] - y[:-k]
    return float((away**2).sum()) / len(away)


def _approach(tail: ndarray) -> tuple[float, float]:
    """An exponential approach under jitter, along the tail's main direction: the steps no longer shrink where the jitter is longer than they
    are, the way still bends. It must fit better than a straight line by a quarter."""
    n, x = len(tail), tail @ principal_directions(tail, 1)[0]
    t, whole = np.arange(n), float(x @ x)

    def rest(curve: ndarray) -> ndarray:
        columns = np.linalg.qr(np.stack([np.ones(n), curve], 1))[0]
        return x - columns @ (columns.T @ x)

    rates = (0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.965, 0.97, 0.975, 0.98, 0.985, 0.99)
    left = [rest(float(r) ** t) for r in rates]
    best = int(np.argmin([one @ one for one in left]))
    error = float(left[best] @ left[best])
    away = [_rms(left[best][k:, None] - left[best][:-k, None]) for k in range(1, n // 2)]
    jitter = error <= 1e-24 * whole or away[0] > 0.7 * max(away)
    bends = error < 0.75 * float((rest(t.astype(float)) ** 2).sum())
    return (1 - error / whole, rates[best]) if jitter and bends else (0.0, math.nan)


def _rms(z: ndarray) -> float:
    return math.sqrt(float((z**2).sum()) / len(z))


def _rate(late: Float[ndarray, "steps"], threshold: float) -> tuple[float, float]:
    """Theil-Sen rate and Mann-Kendall z of the logarithm of the steps above the threshold."""
    above = late > threshold
    if above.sum() < 8:
        return math.nan, 0.0
    t = np.flatnonzero(above).astype(float)
    y = np.log(late[above])
    i, j = np.triu_indices(len(t), 1)
    rise = y[j] - y[i]
    slope = float(np.median(rise / (t[j] - t[i])))
    score = float(np.sign(np.where(np.abs(rise) < 1e-12, 0, rise)).sum())
    n = len(t)
    left = y - slope * t
    left = left - left.mean()
    # noise that only looks like a trend does not order nineteen pairs in twenty
    inflation = 1.0 if abs(score) > 0.9 * n * (n - 1) / 2 else _correlation_time(left)
    variance = n * (n - 1) * (2 * n + 5) / 18 * inflation
    return math.exp(slope), score / math.sqrt(variance)


def _power(late: Float[ndarray, "steps"], start: int, threshold: float) -> float:
    t = np.flatnonzero(late > threshold) + start + 1.0
    if len(t) < 8 or len(t) < len(late):
        return math.nan
    y = np.log(late)
    exponential, power = np.polyfit(t, y, 1), np.polyfit(np.log(t), y, 1)
    misfit = [float(((y - np.polyval(line, at)) ** 2).sum()) for line, at in ((exponential, t), (power, np.log(t)))]
    return float(power[0]) if misfit[1] < misfit[0] / 4 else math.nan


def _correlation_time(left: Float[ndarray, "n"]) -> float:
    """Integrated autocorrelation time, at least 1: sum over lags until the autocorrelation first falls below 0.05."""
    power = float(left @ left)
    if power < 1e-18 * len(left):
        return 1.0
    time = 1.0
    for lag in range(1, len(left) // 2):
        rho = float(left[lag:] @ left[:-lag]) / power
        if rho < 0.05:
            break
        time += 2 * rho
    return time


def _slowdown(tail: ndarray) -> float:
    size = len(tail) // 4
    if size < 3:
        return math.nan
    means = tail[-4 * size :].reshape(4, size, -1).mean(1)
    jitter = 0.5 * float((np.diff(tail, 2, axis=0) ** 2).sum()) / 3 / (len(tail) - 2)  # second differences: 6 sigma^2
    start, end = (float(((means[i + 1] - means[i]) ** 2).sum()) - 2 * jitter / size for i in (0, 2))
    return math.sqrt(max(end, 0) / start) if start > 0 else 1.0


def _acceleration(moves: ndarray) -> float:
    length = np.linalg.norm(moves[1:], axis=-1)
    change = np.linalg.norm(np.diff(moves, axis=0), axis=-1)
    return float(np.median(change[length > 0] / length[length > 0])) if (length > 0).any() else 0.0


def _recurrence(z: ndarray, radius: float) -> ndarray:
    out = np.full(32, np.nan)
    for k in range(1, min(32, len(z) - 1) + 1):
        out[k - 1] = _rms(z[k:] - z[:-k]) / (math.sqrt(2) * radius) if radius > 0 else np.nan
    return out


def _steadiness(z: ndarray, time: ndarray) -> float:
    bend = time**2 - (time**2).mean()
    left = z - bend[:, None] * (bend @ z) / max(float(bend @ bend), 1e-300)
    away = [_rms(left[k:] - left[:-k]) for k in range(1, len(z) // 2)]
    return away[0] / max(away) if away and max(away) > 0 else 1.0


def _slow(z: ndarray) -> float:
    """The share of energy below 2.5 turns, by discrete Fourier transform with a Hann window against leakage."""
    n = len(z)
    if n < 8:
        return math.nan
    basis = principal_directions(z, 6)
    power = (np.abs(np.fft.rfft((z @ basis.T) * np.hanning(n)[:, None], axis=0)) ** 2).sum(-1)
    return float(power[:4].sum() / power.sum()) if power.sum() > 0 else math.nan


def _determinism(y: ndarray) -> float:
    """Nearest-neighbour forecast, one step ahead (Farmer and Sidorowich 1987; Sugihara and May 1990), on delays of one."""
    now, then = np.concatenate([y[1:-1], y[:-2]], -1), y[2:]
    train = 2 * len(now) // 3
    distance = ((now[train:, None] - now[None, :train]) ** 2).sum(-1)
    nearest = distance.argmin(-1)
    error = float(((then[train:] - then[nearest]) ** 2).sum())
    variance = float(((then[train:] - then[:train].mean(0)) ** 2).sum())
    return 1 - error / variance if variance > 0 else math.nan
