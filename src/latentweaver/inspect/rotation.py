"""Does a path go round, how often, and what is the period? Joint harmonic regression, one frequency peeled at a time.

The tail of a path, on a few principal components fitted to its first two thirds, is modelled as

    x_t = a + b t + sum_j (c_j cos theta_j t + s_j sin theta_j t)

with drift and rotation fitted together (removing the drift first would distort an ellipse that has not closed). Frequencies
are found one at a time on a grid, each next one in what the others leave, then all refined together by Gauss-Newton steps,
whose curvature gives their standard errors. What decides is not the fit but the forecast: the lines are found on the first two
thirds of the tail and must predict the last third better than a constant, a line or a parabola does. A random walk, whose
principal components are perfect cosines, fits well and forecasts badly.

Period k: the smallest k whose multiples of 2 pi / k hold every line, within 3.5 standard errors (the errors are estimates themselves).
With wide errors some k fits any line; so none is named once the odds of a fit by chance, added up over all k tried, exceed a half.

After the project's own experiments with harmonic regression; the frequency estimator is the classical one (Quinn and Hannan,
The Estimation and Tracking of Frequency, 2001).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray

MIN_TURNS = 2.5
MAX_LINES = 6
MAX_PERIOD = 32
_NONE = np.empty(0)


@dataclass(frozen=True)
class Line:
    """One frequency of a path.

    Attributes:
        theta: radians per step, in (0, pi].
        error: its standard error.
        energy: the part of the detrended tail's energy that it carries.
        growth: growth rate of its amplitude per step (negative: it dies out), and `growth_error`.
    """

    theta: float
    error: float
    energy: float
    growth: float
    growth_error: float


@dataclass(frozen=True)
class Rotation:
    """What harmonic regression says about a tail.

    Attributes:
        lines: the frequencies, strongest first; empty if nothing stands out of the noise.
        skill: 1 - (error of the forecast with lines) / (error of the best polynomial forecast) over the last third of the tail.
        turns: of the strongest line, over the tail.
        energy: the part of the detrended tail's energy that the lines carry together.
        radius: root mean square distance of the lines' part from its centre.
        drift: distance that the linear part travels over the tail, and `drift_error`.
        drift_direction: unit vector in the space of the states, or zeros.
        period: smallest k that holds every line, or None.
        coherence: circular standard deviation in radians of the phase of the strongest line from window to window.
        limit: where the strongest line's amplitude is heading, as a multiple of what it is at the end: 1 if it is steady (its growth is
            within 4 errors, or below a hundredth), 0 if it shrinks and infinite if it grows without slowing down.
        planes: what each line does in the space of the states, `[lines, 2, width]` (cosine and sine parts).
    """

    lines: tuple[Line, ...]
    skill: float
    turns: float
    energy: float
    radius: float
    drift: float
    drift_error: float
    drift_direction: Float[ndarray, "width"]
    period: int | None
    coherence: float
    limit: float
    planes: Float[ndarray, "lines 2 width"]

    @property
    def theta(self) -> float:
        """Radians per step of the strongest line, NaN without one."""
        return self.lines[0].theta if self.lines else math.nan

    @property
    def error(self) -> float:
        return self.lines[0].error if self.lines else math.nan


def rotation(tail: Float[ndarray, "n width"], noise: float = 0.0) -> Rotation:
    """Look for rotation in a tail of at least 12 states.

    Args:
        tail: consecutive states, one point of the cycle per step.
        noise: size of a rounding error of one state; lines below it are not looked for.
    """
    n = len(tail)
    train = 2 * n // 3
    centre = tail[:train].mean(0)
    basis = principal_directions(tail[:train] - centre, 6)
    y = (tail - centre) @ basis.T
    floor = max(noise**2 * n, 1e-24 * float((tail**2).sum()))
    found = _peel(y[:train], n, floor, 2)
    skill = _skill(y, train, found)
    if len(found) == 2 and skill > 0.05:  # nothing that two lines cannot begin to foretell is worth six
        found = _peel(y[:train], n, floor, MAX_LINES, found)
        skill = _skill(y, train, found)
    if skill < 0.99 and len(cycle := _cycle(y[:train])) and (better := _skill(y, train, cycle)) > skill + 0.005:
        found, skill = _refined(cycle, y)[0], better
    elif skill > 0.3:  # the same lines, and what longer data adds, on the whole tail
        basis = principal_directions(tail - tail.mean(0), 6 + 2 * (len(found) > 2))
        y = (tail - tail.mean(0)) @ basis.T
        found = _peel(y, n, floor, MAX_LINES)
    return _described(y, basis, found, skill, n)


def principal_directions(centred: Float[ndarray, "n width"], count: int) -> Float[ndarray, "count width"]:
    """Orthonormal directions of largest variance, at most `count`, those below a thousandth of the first left out."""
    n, width = centred.shape
    if width <= n:
        squares, vectors = np.linalg.eigh(centred.T @ centred)
        directions = vectors.T[::-1]
    else:
        squares, vectors = np.linalg.eigh(centred @ centred.T)
        directions = (vectors.T @ centred)[::-1]
    squares = squares[::-1]
    kept = max(1, int((squares[:count] > 1e-6 * squares[0]).sum())) if squares[0] > 0 else 1
    directions = directions[:kept]
    return directions / np.maximum(np.linalg.norm(directions, axis=-1, keepdims=True), 1e-300)


@lru_cache(maxsize=64)
def _grid(n: int, longest: int) -> tuple[ndarray, ndarray]:
    """Frequencies from MIN_TURNS turns in `longest` steps to pi, and for each (in one array `[2 * frequencies, n]`) an orthonormal pair that spans
    cosine and sine beyond constant and slope."""
    lowest = 2 * math.pi * MIN_TURNS / longest
    thetas = np.linspace(lowest, math.pi, 8 * n)
    t = np.arange(n) - n // 2
    trend = np.linalg.qr(np.stack([np.ones(n), t / n], 1))[0]
    pairs = np.stack([np.cos(thetas[:, None] * t), np.sin(thetas[:, None] * t)], -1)
    pairs -= np.einsum("nk,gkc->gnc", trend, np.einsum("nk,gnc->gkc", trend, pairs))
    u, s, _ = np.linalg.svd(pairs, full_matrices=False)
    u = u * (s[:, None, :] > 0.15 * s[:, None, :1])  # near pi the sine is next to nothing: leave it out
    return thetas, np.ascontiguousarray(u.transpose(0, 2, 1).reshape(-1, n))


def _columns(thetas: ndarray, n: int, degree: int = 1) -> ndarray:
    """[1, t, .., cos theta_j t, sin theta_j t, ..], time counted from the middle of the first `n` steps."""
    t = (np.arange(n) - n // 2).astype(float)
    polynomial = [(t / n) ** power for power in range(degree + 1)]
    waves = [wave(theta * t) for theta in thetas for wave in (np.cos, np.sin)]
    return np.stack([*polynomial, *waves], 1)


def _solve(columns: ndarray, y: ndarray) -> ndarray:
    return np.linalg.lstsq(columns, y, rcond=1e-9)[0]


def _peel(y: Float[ndarray, "n p"], longest: int, floor: float, most: int, found: ndarray = _NONE) -> ndarray:
    """Frequencies that stand out of what is left after `found`, strongest first; at most `most`."""
    n = len(y)
    thetas, flat = _grid(n, longest)
    left = y - _columns(_NONE, n) @ _solve(_columns(_NONE, n), y)
    whole = float((left**2).sum())
    if len(found):
        left = y - _columns(found, n) @ _solve(_columns(found, n), y)
    while len(found) < most:
        energy = float((left**2).sum())
        if energy <= max(floor, 1e-9 * whole):
            break
        gain = ((flat @ left) ** 2).sum(-1).reshape(-1, 2).sum(-1)
        for theta in found:  # what is left beside a line is its own unsteadiness: growth, or a wandering phase
            gain[np.abs(thetas - theta) < math.pi / n] = 0
        best = int(gain.argmax())
        if gain[best] < _outstanding(left) * energy:
            break
        theta = thetas[best]
        if math.pi - theta < 2 * math.pi / n and gain[-1] > 0.8 * gain[best]:
            theta = _at_pi_or_beside(found, y, floor)
        tried = _refined(np.append(found, theta), y, 3)[0]
        if np.diff(np.sort(tried)).min(initial=math.inf) < math.pi / (2 * n):
            break  # two lines that cannot be told apart are one that grows or dies out
        after = y - _columns(tried, n) @ _solve(_columns(tried, n), y)
        if float((after**2).sum()) >= energy:
            break
        found, left = tried, after
    if len(found) > 1:
        strength = _strength(found, y)
        found = found[np.argsort(-strength)]
    return found


def _at_pi_or_beside(found: ndarray, y: Float[ndarray, "n p"], floor: float) -> float:
    """A change of sign, unless what it leaves across its own direction shows that the direction turns, by more than chance allows.

    Along its own direction a slow turn cannot be told from a swing that grows or dies out.
    """
    n = len(y)
    at, beside = np.append(found, math.pi), _refined(np.append(found, math.pi - math.pi / (2 * n)), y, 6)[0]
    swing = _solve(_columns(at, n), y)[-2]
    along = swing / max(float(np.linalg.norm(swing)), 1e-300)
    left = [
        rest - np.outer(rest @ along, along) for rest in (y - _columns(lines, n) @ _solve(_columns(lines, n), y) for lines in (at, beside))
    ]
    before, after = (float((rest**2).sum()) for rest in left)
    turns = before > max(floor, 1e-9 * float((y**2).sum())) and before - after > _outstanding(left[0]) * before
    return float(beside[-1]) if turns else math.pi


def _cycle(y: Float[ndarray, "n p"]) -> ndarray:
    """The harmonics of a cycle that comes back after k steps without any one line standing out; none if nothing comes back.

    The detrended path must come back closer than it was at any earlier lag: slow motion, whose distance only grows, does not.
    """
    n = len(y)
    z = y - _columns(_NONE, n) @ _solve(_columns(_NONE, n), y)
    away = np.array([((z[k:] - z[:-k]) ** 2).sum(-1).mean() for k in range(1, min(MAX_PERIOD, 2 * n // 3) + 1)])
    k = int(away.argmin()) + 1
    if k < 3 or away[k - 1] > 0.25 * away[: k - 1].max():
        return _NONE
    thetas = 2 * math.pi * np.arange(1, k // 2 + 1) / k
    strength = _strength(thetas, y)
    order = np.argsort(-strength)
    return thetas[order[strength[order] > 0.01 * strength.sum()]]


def _outstanding(left: ndarray) -> float:
    """The share of a residual's energy that the best of all frequencies takes in white noise, once in 10^4 times."""
    n = len(left)
    values = (left**2).sum(0)
    channels = float(values.sum() ** 2 / (values**2).sum())
    freedom = 2 * channels
    z = 4.75  # normal quantile of 1 - 1e-4 / (about 100 independent frequencies)
    quantile = freedom * (1 - 2 / (9 * freedom) + z * math.sqrt(2 / (9 * freedom))) ** 3  # Wilson and Hilferty 1931
    return min(0.6, quantile / (channels * n))


def _strength(thetas: ndarray, y: ndarray) -> ndarray:
    columns = _columns(thetas, len(y))
    weights = _solve(columns, y)[2:].reshape(len(thetas), 2, -1)
    waves = columns[:, 2:].reshape(len(y), len(thetas), 2)
    return np.array([((waves[:, j] @ weights[j]) ** 2).sum() for j in range(len(thetas))])


def _refined(thetas: ndarray, y: ndarray, rounds: int = 12) -> tuple[ndarray, ndarray]:
    """Gauss-Newton on all frequencies together; their standard errors from its curvature.

    The frequencies alone are iterated: amplitudes are solved for exactly (variable projection, Golub and Pereyra 1973).
    """
    n = len(y)
    t = (np.arange(n) - n // 2).astype(float)
    thetas = thetas.copy()
    at_pi = np.abs(thetas - math.pi) < 1e-9
    while True:
        columns = _columns(thetas, n)
        q = np.linalg.qr(columns[:, ~np.all(np.abs(columns) < 1e-9, axis=0)])[0]
        weights = _solve(columns, y)
        left = y - columns @ weights
        c, s = weights[2::2], weights[3::2]
        slopes = np.stack([
            t[:, None] * (-np.sin(theta * t)[:, None] * c[j] + np.cos(theta * t)[:, None] * s[j]) for j, theta in enumerate(thetas)
        ])  # fmt: skip
        slopes -= np.einsum("nk,jkp->jnp", q, np.einsum("nk,jnp->jkp", q, slopes))
        design = slopes.reshape(len(thetas), -1)
        normal = design @ design.T
        inverse = np.linalg.pinv(normal, rcond=1e-12, hermitian=True)
        change = inverse @ (design @ left.ravel())
        change[at_pi] = 0
        change = np.clip(change, -math.pi / (4 * n), math.pi / (4 * n))
        thetas = np.clip(thetas + change, 1e-3, math.pi)
        rounds -= 1
        if not rounds or np.abs(change).max(initial=0) < 1e-12:
            break
    # noise differs from channel to channel (components fitted to noise have more): White's sandwich
    noise = (left**2).sum(0) / max(1, n - 2 - 2 * len(thetas))
    meat = np.einsum("jnp,knp,p->jk", slopes, slopes, noise)
    errors = np.sqrt(np.maximum(np.diag(inverse @ meat @ inverse), 0))
    if at_pi.any():  # the slope vanishes there; the asymptotic error stands in
        amplitude = _strength(thetas, y) / n
        errors[at_pi] = np.sqrt(12 * noise.mean() / np.maximum(amplitude[at_pi], 1e-300)) / n**1.5
    return thetas, errors


def _skill(y: Float[ndarray, "n p"], train: int, thetas: ndarray) -> float:
    """Forecast of the last third from the first two: with lines against without, each with its best polynomial."""
    if not len(thetas):
        return 0.0
    n, ahead = len(y), y[train:]

    def error(lines: ndarray, degree: int) -> float:
        t = (np.arange(n) - train // 2).astype(float)
        waves = [wave(theta * t) for theta in lines for wave in (np.cos, np.sin)]
        columns = np.stack([*((t / train) ** power for power in range(degree + 1)), *waves], 1)
        return float(((ahead - columns[train:] @ _solve(columns[:train], y[:train])) ** 2).sum())

    without = min(error(_NONE, degree) for degree in (0, 1, 2))
    within = min(error(thetas[:count], degree) for degree in (0, 1, 2) for count in range(1, len(thetas) + 1))
    return 1 - within / without if without > 0 else 0.0


def _described(y: ndarray, basis: ndarray, thetas: ndarray, skill: float, n: int) -> Rotation:
    thetas, errors = _refined(thetas, y) if len(thetas) else (thetas, thetas)
    while len(thetas) > 1 and (gaps := np.abs(thetas[:, None] - thetas) + math.pi * np.eye(len(thetas))).min() < math.pi / (2 * n):
        thetas, errors = _refined(np.delete(thetas, max(np.unravel_index(gaps.argmin(), gaps.shape))), y)  # one line that grows or dies out
    columns = _columns(thetas, n)
    weights = _solve(columns, y)
    left = y - columns @ weights
    slope = weights[1] / n
    variance = float((left**2).sum()) / max(1, left.size - weights.size)
    slope_error = math.sqrt(variance * float(np.linalg.pinv(columns.T @ columns)[1, 1]) * y.shape[1]) / n
    direction = slope @ basis
    length = float(np.linalg.norm(direction))
    waves = columns[:, 2:].reshape(n, len(thetas), 2)
    swing = weights[2:].reshape(len(thetas), 2, y.shape[1])
    parts = np.einsum("njc,jcp->jnp", waves, swing)
    together = float((parts.sum(0) ** 2).sum())
    total = together + float((left**2).sum())
    lines = tuple(
        Line(float(theta), float(error), float((part**2).sum()) / total, *_growth(part, left, len(thetas)))
        for theta, error, part in zip(thetas, errors, parts, strict=True)
    )
    return Rotation(
        lines=lines,
        skill=skill,
        turns=float(thetas[0]) * n / (2 * math.pi) if lines else 0.0,
        energy=together / total if lines else 0.0,
        radius=math.sqrt(together / n),
        drift=length * (n - 1),
        drift_error=slope_error * (n - 1),
        drift_direction=direction / length if length > 0 else direction,
        period=_period(list(lines), n) if lines else None,
        coherence=_coherence(left, parts[0], swing[0], lines[0].theta) if lines else math.nan,
        limit=_limit(parts[0], left, lines[0]) if lines else math.nan,
        planes=swing @ basis,
    )


def _growth(part: ndarray, left: ndarray, lines: int) -> tuple[float, float]:
    """Regress what is left on t times the line itself: amplitude (1 + g t) around the middle of the tail."""
    n = len(part)
    t = (np.arange(n) - n // 2).astype(float)[:, None]
    regressor = t * part
    square = float((regressor**2).sum())
    if square == 0:
        return 0.0, 0.0
    growth = float((regressor * left).sum()) / square
    rest = left - growth * regressor
    # jitter of the amplitude moves all channels together: one score for each moment, not one for each number
    alone, together = float((rest**2).sum()) / max(1, left.size - 1) * square, float(((regressor * rest).sum(-1) ** 2).sum())
    return growth, math.sqrt(max(alone, together) * n / max(1, n - 3 - 2 * lines)) / square


def _limit(part: ndarray, left: ndarray, line: Line) -> float:
    """Where the amplitude is heading, over what it is now: of a decay a(t) = A + B exp(-r t), A = a - a'^2 / a'' at any t.

    a, a' and a'' come from regressing what is left on the line itself times 1, t, t^2.
    """
    n = len(part)
    if abs(line.growth) <= max(4 * line.growth_error, 0.01 / n):
        return 1.0
    t = (np.arange(n) - n // 2) / n
    columns = np.stack([(part * power[:, None]).ravel() for power in (np.ones(n), t, t**2)], 1)
    (level, slope, bend), inverse = _solve(columns, left.ravel()), np.linalg.pinv(columns.T @ columns)
    rest = left.ravel() - columns @ np.array([level, slope, bend])
    bend_error = math.sqrt(float(rest @ rest) / max(1, len(rest) - 3) * float(inverse[2, 2]))
    if slope * bend >= 0 or abs(bend) <= 4 * bend_error:
        return 0.0 if slope < 0 else math.inf  # it does not slow down
    return max(0.0, 1 + level - slope**2 / (2 * bend)) / max(1 + level + slope / 2, 1e-12)


def _coherence(left: ndarray, part: ndarray, weights: ndarray, theta: float) -> float:
    """Circular spread of the phase between the line and the data, over windows of about a turn and at least six steps."""
    signal, n = left + part, len(left)
    t = np.arange(n) - n // 2
    wave = np.exp(-1j * theta * t)
    values = np.linalg.svd(weights, compute_uv=False)
    window = max(6, math.ceil(2 * math.pi / theta))
    noise = 4 * math.sqrt(2 * float((left**2).sum())) / n  # four times what noise alone makes of a line's second axis
    if len(values) > 1 and values[1] > max(0.05 * values[0], noise):  # an ellipse: undo its shape
        u = signal @ np.linalg.pinv(weights)
        q = (u[:, 0] + 1j * u[:, 1]) * wave
    elif theta > math.pi - 1e-6:  # a change of sign
        q = (signal @ weights[0]) * np.real(wave)
    else:  # a line: its mirror frequency has to average out
        q = (signal @ weights[0] + 1j * (signal @ weights[1])) * wave
        window = max(window, math.ceil(math.pi / (math.pi - theta)))
    if window > n:
        return math.pi
    q = np.array([q[i : i + window].mean() for i in range(0, n - window + 1, window)])
    mean = abs(np.mean(q / np.maximum(np.abs(q), 1e-300)))
    return math.sqrt(max(0.0, -2 * math.log(max(min(mean, 1.0), 1e-12))))


def _period(lines: list[Line], n: int) -> int | None:
    """Smallest k <= 32 with every line at a multiple of 2 pi / k; lines of no weight may be left out, the strongest not.

    A weaker line that dies out is how a cycle is approached, and no part of it.
    """
    lasting = [line for line in lines if not (line.growth * n < -0.7 and line.growth < -4 * line.growth_error) or line is lines[0]]
    for weight in (1e-5, 1e-2):
        counted = [line for j, line in enumerate(lasting) if j == 0 or line.energy > weight]
        chance = 0.0
        for k in range(2, MAX_PERIOD + 1):
            chance += max(3.5 * k * counted[0].error, 2e-3 * k / n) / math.pi
            if k * MIN_TURNS > 1.05 * n or chance > 0.5:
                break
            if all(_fits(line, k, n, 3.5 if j == 0 else 4) for j, line in enumerate(counted)):  # errors are estimates too
                return k
    return None


def _fits(line: Line, k: int, n: int, errors: float) -> bool:
    off = k * line.theta - 2 * math.pi * round(k * line.theta / (2 * math.pi))
    return abs(off) <= max(errors * k * line.error, 2e-3 * k / n)
