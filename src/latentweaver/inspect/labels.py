"""Names for how a path moves, with the evidence and the reasons in words.

    fixed_point    it has stopped: motion is rounding, a thousandth of its norm, or of the way it came
    converging     steps shrink; how far it still has to go is said
    slider         it moves on steadily in one direction
    orbit          it goes round, with a whole number of steps as its period
    quasi_orbit    it goes round, with no period of up to 32 steps
    helix          it goes round and slides at once
    wander         none of these: chaos, noise, or unclear
    undetermined   it cannot be told: too few steps, states that are not finite, fewer than 2.5 turns

A label is passive: it is drawn from a record and can be fooled by noise that drives a resonator. Who has the model should ask
`interventions.examine`, which replays, extends, kicks and reseeds before the word orbit is believed.

Thresholds, where the definitions leave them open, were set on synthetic systems of known truth; the tests hold the error rates.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from latentweaver.errors import InputError
from latentweaver.inspect.dynamics import ROUNDINGS, Dynamics, measure
from latentweaver.inspect.rotation import MAX_PERIOD, MIN_TURNS
from latentweaver.inspect.trajectory import Trajectory

if TYPE_CHECKING:
    import pandas

NAMES = ("fixed_point", "converging", "slider", "orbit", "quasi_orbit", "helix", "wander", "undetermined")
ROTATIONS = ("orbit", "quasi_orbit", "helix")
SHORT = 48
"""Steps of the tail below which rotations are not named (96 steps in all)."""


@dataclass(frozen=True)
class Label:
    """What a path does, and why we think so.

    Attributes:
        name: one of `NAMES`.
        reasons: in words, the deciding one first.
        period: of an orbit, in steps; for a quasi-orbit or helix 2 pi / theta, which need not be whole; at rest, that of
            what little motion is left, if it has one; else None.
        period_error: standard error of 2 pi / theta.
        confidence: "high", or "low" if a threshold was close or the record short.
        candidate: what an undetermined path would be called if the record were long enough, or had ended before it broke.
        flags: "short", "not finite", "still", "growing": what is unusual about the record.
        evidence: the numbers, of the finite states only; None where there are too few.
        row, token: which path of the recording.
    """

    name: str
    reasons: tuple[str, ...]
    period: float | None = None
    period_error: float = math.nan
    confidence: str = "high"
    candidate: str | None = None
    flags: tuple[str, ...] = ()
    evidence: Dynamics | None = field(default=None, repr=False)
    row: int = 0
    token: int = 0

    def __str__(self) -> str:
        return f"orbit({self.period:.0f})" if self.name == "orbit" and self.period else self.name


@dataclass(frozen=True)
class Labels:
    """The labels of a recording, padding left out. Index by (row, token), iterate, count."""

    all: tuple[Label, ...]

    def __getitem__(self, place: tuple[int, int]) -> Label:
        for label in self.all:
            if (label.row, label.token) == tuple(place):
                return label
        raise InputError(f"no label at (row, token) = {place}: it was not recorded, or is padding")

    def __iter__(self) -> Iterator[Label]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def counts(self) -> dict[str, int]:
        """How many paths have each name."""
        return dict(Counter(label.name for label in self.all))

    def to_pandas(self) -> pandas.DataFrame:
        """One line for each path, with the numbers that travel with a label."""
        import pandas as pd

        lines = []
        for label in self.all:
            line: dict[str, Any] = {"row": label.row, "token": label.token, "label": str(label), "confidence": label.confidence}
            line |= {"period": label.period, "period_error": label.period_error}
            if (e := label.evidence) is not None:
                line |= {"speed": e.speed, "floor": e.floor, "rate": e.rate, "remaining": e.remaining, "turning": e.turning}
                line |= {"straightness": e.straightness, "drift_r2": e.drift_r2, "radius": e.radius, "steps": e.steps, "dtype": e.dtype}
                line |= {"theta": e.rotation.theta, "theta_error": e.rotation.error, "skill": e.rotation.skill, "drift": e.rotation.drift}
                line |= {"determinism": e.determinism}
            lines.append(line | {"flags": " ".join(label.flags), "why": "; ".join(label.reasons)})
        return pd.DataFrame(lines)


def label(trajectory: Trajectory) -> Labels:
    """Name the path of every recorded token that is not padding.

    Raises:
        InputError: if the recording kept no states.
    """
    found = []
    for row in range(trajectory.rows):
        for token in range(trajectory.tokens):
            if trajectory.real[row, token]:
                one = label_path(trajectory.at(row, token), trajectory.dtype)
                if trajectory.every > 1:
                    one = replace(one, reasons=(*one.reasons, f"only every {trajectory.every}th step was kept: times are in kept steps"))
                found.append(replace(one, row=row, token=token))
    return Labels(tuple(found))


def label_path(states: Float[ndarray, "steps+1 width"], dtype: str | None = None, points_per_step: int = 1) -> Label:
    """Name one path.

    Args:
        states: one state per step, x_0 first.
        dtype: what they were computed in, if coarser than the array.
        points_per_step: must be 1. States inside a step (one for each layer of the loop) go round with the layers, whatever
            the model does; take one point of the cycle, `states[layer::points_per_step]`.

    Raises:
        InputError: a shape other than [steps + 1, width], no states, or more than one point per step.
    """
    x = np.asarray(states)
    if points_per_step != 1:
        raise InputError(
            f"states of {points_per_step} points per step circle by construction; label states[i::{points_per_step}], one point of the cycle"
        )
    if x.ndim != 2 or not x.size:
        raise InputError(f"a path is [steps + 1, width] with at least one state, got {list(x.shape)}")
    finite = np.isfinite(x).all(-1)
    if not finite.all():
        return _broken(x[: int((~finite).argmax())], dtype)
    if len(x) < 2:
        return Label("undetermined", ("no step was taken",), confidence="low", flags=("short",))
    return decide(measure(x, dtype))


def _broken(before: Float[ndarray, "finite width"], dtype: str | None) -> Label:
    """A path that ends in NaN or infinity: what it did before, and "wander" if it grew until it left the numbers."""
    why = f"states are not finite from step {len(before)} on"
    if len(before) < 9:
        return Label("undetermined", (why,), confidence="low", flags=("not finite",))
    head = decide(measure(before, dtype))
    if "growing" in head.flags:
        return replace(head, reasons=(*head.reasons, why), flags=(*head.flags, "not finite"))
    until = f"until then: {head.candidate or head}, {head.reasons[0]}"
    return Label(
        "undetermined",
        (why, until),
        head.period,
        head.period_error,
        "low",
        head.candidate or head.name,
        (*head.flags, "not finite"),
        head.evidence,
    )


def decide(d: Dynamics) -> Label:
    """The name that the numbers deserve: the rules in the order of `NAMES`."""
    calm = d.loudest <= 4 * ROUNDINGS * d.floor  # a pulse now and then leaves the median step at nothing
    still = d.loudest == 0 and d.speed == 0
    if d.speed == 0 and d.excursion == 0:
        return Label("fixed_point", ("the state never moved: think returns its input",), flags=("still",), evidence=d)
    if d.steps < 8:
        return Label(
            "undetermined",
            (f"{d.steps} step{'s are' if d.steps > 1 else ' is'} too few for any label; take 128",),
            confidence="low",
            flags=("short",),
            evidence=d,
        )
    if still:
        return Label("fixed_point", ("successive states of the tail are equal bit for bit",), evidence=d)
    if d.floor > 0 and d.speed * d.norm <= ROUNDINGS * d.floor and calm:
        return _creeping(d) or Label(
            "fixed_point", (f"steps of {d.speed * d.norm / d.floor:.1f} roundings of {d.dtype}: arithmetic, not motion",), evidence=d
        )
    return _settled(d) or _sliding(d) or _rotating(d) or _resting(d) or _unclear(d)


def _creeping(d: Dynamics) -> Label | None:
    """Steps as small as roundings that go one way together; roundings themselves do not."""
    n = d.steps - d.steps // 2
    way = d.straightness * d.speed * d.norm * n
    if d.straightness < 0.3 or way < 4 * ROUNDINGS * d.floor or d.drift_r2 < 0.5:
        return None
    steady = d.drift_r2 > 0.9 and d.slowdown >= 0.8
    why = f"each step is within {ROUNDINGS} roundings of {d.dtype}, but {n} of them lead one way, {way / d.floor:.0f} roundings far"
    more = "and no slower in the end" if steady else f"slowing down to {d.slowdown:.2f} within half of the tail"
    return Label("slider" if steady else "converging", (f"{why}, {more}: run it again in a finer dtype",), confidence="low", evidence=d)


def _settled(d: Dynamics) -> Label | None:
    endless = d.power > -1.05
    shrinking = not endless and d.rate < 0.995 and d.shrinkage < 0.8 and d.trend < -4
    if not shrinking:
        return _arriving(d) or _decaying(d)
    mode = _approach(d)
    if d.remaining <= 1e-3 * d.excursion:
        return Label(
            "fixed_point",
            (f"steps shrink by {d.rate:.4f} each, {mode}; {d.remaining:.2g} remains of a way of {d.excursion:.2g}",),
            evidence=d,
        )
    close = d.rate > 0.99
    return Label(
        "converging",
        (
            f"steps shrink by {d.rate:.4f} each, {mode}; about {d.remaining:.3g} still to go, {d.remaining / max(d.excursion, 1e-300):.1%} of the way",
        ),
        confidence="low" if close else "high",
        evidence=d,
    )


def _decaying(d: Dynamics) -> Label | None:
    """Steps that shrink like a power of time below -1, as beside a fixed point that only pulls nonlinearly: the way has an end, far off."""
    if not d.power <= -1.05 or not d.shrinkage < 0.8 or d.trend > -4 or d.turning < 0.5:
        return None
    left = d.last_step * d.steps / (-d.power - 1)
    why = f"steps shrink like t^{d.power:.2f}; about {left:.3g} still to go, {left / max(d.excursion, 1e-300):.1%} of the way"
    return Label("converging", (why,), confidence="low", evidence=d)


def _arriving(d: Dynamics) -> Label | None:
    """An approach whose steps are lost in jitter, while the way still tells it."""
    if d.approach < 0.9 or not d.slowdown < 0.8:
        return None
    why = f"{d.approach:.1%} of its main direction is an approach that shrinks by {d.approach_rate:.3f} a step, under jitter that does not add up"
    return Label("converging", (why,), confidence="low", evidence=d)


def _approach(d: Dynamics) -> str:
    if d.turning < -0.5:
        return "alternating"
    if d.turning > 0.9 and d.slow > 0.5:
        return "from one side"
    return "in a spiral"


def _sliding(d: Dynamics) -> Label | None:
    if d.drift_r2 <= 0.9 or not (d.rate > 0.98 or d.power > -1.05) or _passes(d):
        return None
    if d.turning >= 0.5 and d.straightness > 0.1:
        return Label(
            "slider", (f"{d.drift_r2:.1%} of the tail is a straight line in time; steps agree to cos {d.turning:.2f}",), evidence=d
        )
    if d.steadiness > 0.7 and d.slowdown < 0.8:
        rate = d.slowdown ** (1 / (d.steps / 4))
        why = f"under its jitter it slows down to {d.slowdown:.2f} within half of the tail, by {rate:.4f} a step"
        return Label("converging", (why,), confidence="low", evidence=d)
    if d.steadiness > 0.7:
        return Label(
            "slider", (f"{d.drift_r2:.1%} of the tail is a straight line in time, with jitter around it that does not add up",), evidence=d
        )
    return Label(
        "wander",
        (f"a biased walk: {d.drift_r2:.1%} drift, but steps agree only to cos {d.turning:.2f} and their errors add up",),
        evidence=d,
    )


def _passes(d: Dynamics) -> bool:
    """Whether harmonic regression speaks for rotation: enough turns, energy, steadiness, and a forecast that holds."""
    r = d.rotation
    if not r.lines:
        return False
    n = d.steps - d.steps // 2 + 1
    steady = abs(r.lines[0].growth) * n < 0.7 and not (d.rate > 1.005 and d.trend > 4)
    predictable = r.skill > (0.5 if len(r.lines) == 1 or r.energy > 0.8 else 0.6)
    # what follows a rule closer than the lines do, or lines that come and go: chaos with a rhythm
    left = 1 - r.energy if r.period is None else min(1 - r.energy, d.closing)
    unexplained = d.determinism > 0.85 and 1 - d.determinism < 0.7 * left and (r.energy < 0.97 or r.period is not None)
    fleeting = any(line.energy > 0.01 and abs(line.growth) * n > 0.7 and abs(line.growth) > 4 * line.growth_error for line in r.lines)
    return (
        r.turns >= MIN_TURNS
        and r.energy >= 0.5
        and r.coherence < 0.5
        and steady
        and predictable
        and not unexplained
        and not (fleeting and r.energy < 0.97)
    )


def _rotating(d: Dynamics) -> Label | None:
    if not _passes(d):
        return None
    r = d.rotation
    turn = 2 * math.pi / r.theta
    error = turn * r.error / r.theta
    if not 0.5 <= r.limit <= 2:
        return _unsteady(d, turn)
    lines = f"{len(r.lines)} line{'s' * (len(r.lines) > 1)} with {r.energy:.1%} of the energy, forecast skill {r.skill:.2f}, {r.turns:.1f} turns"
    slides = r.drift > 3 * r.radius and r.drift > 3 * r.drift_error
    if slides:
        name, period = "helix", turn
        why = f"one turn in {turn:.4g} +- {error:.1g} steps while sliding {r.drift / r.radius:.1f} radii"
    elif r.period:
        name, period = "orbit", float(r.period)
        why = f"returns every {r.period} steps: {r.period} theta = 2 pi m within the errors (theta {r.theta:.5f} +- {r.error:.1g})"
    else:
        name, period = "quasi_orbit", turn
        why = f"one turn in {turn:.4g} +- {error:.1g} steps; no period of up to {min(MAX_PERIOD, _longest(d))} steps holds every line"
    reasons = (why, lines)
    if (resting := _resting(d)) is not None:  # what is left of the motion goes round, too little to be called anything but rest
        return replace(resting, reasons=(*resting.reasons, *reasons), period=period, period_error=error)
    near = d.speed * d.norm < 32 * d.floor
    if near:
        reasons = (*reasons, f"its steps are only {d.speed * d.norm / d.floor:.0f} roundings of {d.dtype}: run it again in a finer dtype")
    if d.steps - d.steps // 2 < SHORT:
        return Label(
            "undetermined", (f"a rotation in {d.steps} steps is not enough to name: take 96 or more", *reasons),
            period, error, "low", candidate=name, flags=("short",), evidence=d,
        )  # fmt: skip
    slow = 0 < math.pi - r.theta < math.pi / (d.steps - d.steps // 2)  # less than half a turn beside the change of sign was seen
    close = near or slow or r.skill < 0.7 or r.energy < 0.7 or (name == "orbit" and 3 * period * r.error > math.pi / 8)
    return Label(name, reasons, period, error, "low" if close else "high", evidence=d)


def _longest(d: Dynamics) -> int:
    """The longest period that the tail is long enough to show."""
    return int(1.05 * (d.steps - d.steps // 2 + 1) / MIN_TURNS)


def _unsteady(d: Dynamics, turn: float) -> Label:
    """A rotation that shrinks or grows without slowing down: a spiral, slower than the record is long."""
    line = d.rotation.lines[0]
    a_step = f"by {math.exp(line.growth):.5f} (+- {line.growth_error:.1g}) a step"
    if line.growth < 0:
        why = f"turns of {turn:.4g} steps shrink {a_step}, towards rest or a smaller orbit: this record is too short to tell which"
        return Label("converging", (why,), confidence="low", evidence=d)
    why = f"turns of {turn:.4g} steps grow {a_step} and do not slow down: it has not settled"
    return Label("wander", (why,), confidence="low", flags=("growing",), evidence=d)


def _resting(d: Dynamics) -> Label | None:
    if d.speed < 1e-3 and not (d.rate > 1.001 and d.trend > 4) and d.spread < 5e-3 * d.norm:
        clear = d.speed < 1e-4 and d.spread < 5e-4 * d.norm
        why = f"moves by {d.speed:.1g} of its norm within {d.spread / d.norm:.1g} of it"
        return Label("fixed_point", (why,), confidence="high" if clear else "low", evidence=d)
    return None


def _leaning(d: Dynamics) -> str:
    """What a record that is too short for a name looks most like."""
    straight = d.drift_r2 > 0.9 and d.turning >= 0.5
    if d.shrinkage < 0.8 and (straight or d.turning < -0.5):
        return "converging"
    return "slider" if straight else "wander"


def _unclear(d: Dynamics) -> Label:
    r = d.rotation
    flags = ("growing",) if d.rate > 1.005 and d.trend > 4 else ()
    if flags:
        return Label("wander", (f"steps grow by {d.rate:.4f} each: it diverges or has not settled",), flags=flags, evidence=d)
    if d.slow > 0.9 and d.turning > 0.9:
        return Label(
            "undetermined", (f"smooth motion, but less than {MIN_TURNS} turns in the tail: take {4 * d.steps} steps",),
            confidence="low", candidate="quasi_orbit", flags=("short",), evidence=d,
        )  # fmt: skip
    if r.lines and not _passes(d):
        why = f"a rhythm of {2 * math.pi / r.theta:.3g} steps with {r.energy:.0%} of the energy does not hold: forecast skill {r.skill:.2f}, coherence {r.coherence:.2f} rad"
    else:
        why = "no steady direction, no rhythm that stands out of the noise"
    if d.slow > 0.9:
        why += f"; {d.slow:.0%} of its energy is in motion of fewer than {MIN_TURNS} turns in the tail, which only a longer run can name"
    kind = (
        "follows a rule (chaos is likely)"
        if d.determinism > 0.9
        else "looks like noise"
        if d.determinism < 0.5
        else "between rule and noise"
    )
    if d.steps - d.steps // 2 < SHORT:
        return Label(
            "undetermined",
            (f"{d.steps} steps are too few to tell: take 96 or more", why),
            confidence="low",
            candidate=_leaning(d),
            flags=("short",),
            evidence=d,
        )
    if d.speed * d.norm < 32 * d.floor:  # roundings go on by a rule, too, and a slow contraction adds them up
        why_not = f"its steps are only {d.speed * d.norm / d.floor:.0f} roundings of {d.dtype}: run it again in a finer dtype"
        return Label("wander", (why, why_not), confidence="low", evidence=d)
    return Label(
        "wander", (why, f"{kind}: nearest-neighbour skill {d.determinism:.2f}"), confidence="low" if r.skill > 0.4 else "high", evidence=d
    )
