"""What only the owner of the map can ask: replay, extend, kick, reseed.

A record alone cannot tell an orbit from a resonator that noise keeps ringing; no passive statistic could. But think is ours:

    replay   think again from recorded states: the same next state? if not, noise drives the map, and nothing is called an orbit
    extend   four times as long: a label that changes is withdrawn
    kick     push the state a little and follow it: does it come back, stay apart, run away, or was the orbit dying anyway?
    reseed   eight first states: the same end, the same label, the same answer?

`examine` asks all four and gives one verdict. Everything thinks without a cache, about one row of the input; a kick moves one
token's state and lets the others respond.

The kick's outcomes and its settings (0.02 of the orbit's radius, in the span of the tail, medians of eight) follow the project's
own first run of this test; a push that leaves the map's domain is repeated ten times smaller and, if it still does, reported as
"diverged".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.inspect.dynamics import ROUNDINGS, measure
from latentweaver.inspect.labels import ROTATIONS, Label, label_path
from latentweaver.inspect.recorder import coarsest_dtype
from latentweaver.inspect.rotation import principal_directions
from latentweaver.thought import Reasoner, Thought

NOISE_DRIVEN = "oscillation, noise-driven possible"
STEP_DRIVEN = "oscillation, step-driven possible"


@dataclass(frozen=True)
class Replay:
    """Does the map repeat itself?

    Attributes:
        error: largest |f(x_t) - x_(t+1)| over the steps tried, for the token, and `floor`, what rounding excuses.
        deterministic: whether the error is within the floor.
        shift_error: the same with x_t thought on as if it came at another step.
        autonomous: whether the map does the same at every step.
    """

    error: float
    floor: float
    deterministic: bool
    shift_error: float
    autonomous: bool


@dataclass(frozen=True)
class Extension:
    """The label of a longer run.

    Attributes:
        times: how many times as long.
        label: what the longer run does.
        holds: whether that is the same, or has only finished converging.
        shrinkage: radius of the longer run's tail over that of the shorter one's.
        refused: why the model would not think as long as it was asked to, "" if it did.
    """

    times: float
    label: Label
    holds: bool
    shrinkage: float
    refused: str = ""


@dataclass(frozen=True)
class Kick:
    """What becomes of a small push.

    Attributes:
        outcome: "attractor" or "repeller" (of a fixed point), "limit cycle" (comes back to the orbit), "neutral" (stays beside
            it), "transient" (the orbit itself dies out), "chaos" (runs away exponentially), "diverged" (leaves the domain),
            "not tried" (the model refuses to think longer than the record).
        size: length of the push that was used.
        returned: distance to the unkicked orbit at the end over that at first, whatever the phase; median of the kicks.
        apart: distance to the unkicked run at the same step at the end, over the size; median.
        growth: exponent per step of that distance until it has grown tenfold, NaN if it never does.
        diverged: how many of the kicks left the domain.
    """

    outcome: str
    size: float
    returned: float
    apart: float
    growth: float
    diverged: int


@dataclass(frozen=True)
class Reseed:
    """Where other first states lead.

    Attributes:
        starts: "noise" (drawn by the model), "perturbed" (by us, its own start being fixed), or "given".
        path_independence: mean cosine between the end states of all pairs; 1 when all agree.
        spread: root mean square distance between end states over that between first states; 0 when they meet.
        same_answer: share of the starts with the commonest likeliest token, NaN without a readout.
        labels: the label from each start.
        same_label: share of the starts with the commonest label.
    """

    starts: str
    path_independence: float
    spread: float
    same_answer: float
    labels: tuple[str, ...]
    same_label: float
    ends: Float[ndarray, "seeds width"] = field(repr=False)


@dataclass(frozen=True)
class Examination:
    """The verdict on one token, with everything that led to it."""

    verdict: str
    reasons: tuple[str, ...]
    passive: Label
    replay: Replay
    extension: Extension
    kick: Kick
    reseed: Reseed | None


class Bench:
    """One token of one input, thought about on the bench.

    Args:
        model: any reasoner.
        input_ids: `[batch, sequence]`; only `row` is used.
        attention_mask: 1 for real tokens.
        row, token: whose state is looked at; the last token by default.
        steps: T.
        begin: passed on to `model.begin`. Not a cache: interventions think from the middle of a run.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: Reasoner,
        input_ids: Int[Tensor, "batch sequence"],
        attention_mask: Tensor | None = None,
        *,
        row: int = 0,
        token: int = -1,
        steps: int = 128,
        **begin: Any,
    ) -> None:
        if steps < 8:
            raise InputError(f"interventions need at least 8 steps, got {steps}")
        if begin.get("cache") is not None:
            raise InputError("interventions think from the middle of a run and cannot share a cache; leave it out")
        self.model, self.token, self.steps = model, token, steps
        self.inputs = {"input_ids": input_ids[[row]]}
        if attention_mask is not None:
            self.inputs["attention_mask"] = attention_mask[[row]]
        self.options, self.refusal = begin, ""
        self.run = [model.begin(**self.inputs, **begin)]
        if not -self.run[0].state.shape[1] <= token < self.run[0].state.shape[1]:
            raise InputError(f"no token {token} in a sequence of {self.run[0].state.shape[1]}")
        self._think_to(steps)
        self.dtype = coarsest_dtype(model, self.run[0].state)
        self.passive = label_path(self.path(steps), self.dtype)

    def path(self, steps: int) -> Float[ndarray, "steps+1 width"]:
        """The token's states up to `steps`, or as far as the model thinks (`refusal` says why it goes no further)."""
        self._think_to(steps)
        return np.stack([_array(thought.state[0, self.token]) for thought in self.run[: steps + 1]])

    @torch.no_grad()
    def replay(self, tries: int = 16) -> Replay:
        """Think again from `tries` states of the run, at their own step and at another one."""
        at = np.unique(np.linspace(0, self.steps - 1, tries).astype(int))
        error = shift_error = 0.0
        for t in at:
            wanted = self.run[t + 1].state[0, self.token].double()
            other = self.run[int((t + self.steps // 2 + 1) % self.steps)]
            again = self.model.think(self.run[t])
            shifted = self.model.think(replace(self.run[t], step=other.step))
            error = max(error, _away(again.state[0, self.token].double() - wanted))
            shift_error = max(shift_error, _away(shifted.state[0, self.token].double() - wanted))
        evidence = self.passive.evidence
        floor = evidence.floor if evidence is not None else 0.0
        return Replay(error, floor, error <= floor, shift_error, shift_error <= max(floor, 2 * error))

    def extend(self, times: int = 4) -> Extension:
        """The label of a run `times` as long."""
        path = self.path(times * self.steps)
        longer, reached = label_path(path, self.dtype), (len(path) - 1) / self.steps
        finished = {("converging", "fixed_point"), ("undetermined", longer.name)}
        same = str(longer) == str(self.passive) and longer.name != "undetermined"
        holds = same or (self.passive.name, longer.name) in finished
        before, after = _radius(path[self.steps // 2 : self.steps + 1]), _radius(path[-(self.steps // 2 + 1) :])
        return Extension(reached, longer, holds, after / before if before > 0 else 0.0, self.refusal if reached < times else "")

    @torch.no_grad()
    def kick(self, size: float = 0.02, kicks: int = 8, steps: int | None = None, seed: int = 0) -> Kick:
        """Push the token's state at `kicks` moments of the tail and follow it for `steps` (as long again by default).

        `size` is relative to the radius of the tail, or, where the state rests, to its norm.
        """
        longer = self.path(4 * self.steps)
        steps = min(self.steps if steps is None else steps, len(longer) - 1 - self.steps)
        if steps < 8:
            return Kick("not tried", 0.0, math.nan, math.nan, math.nan, 0)
        tail = longer[self.steps // 2 : self.steps + 1]
        if not np.isfinite(longer).all():
            return Kick("diverged", 0.0, math.nan, math.nan, math.nan, 0)
        floor = ROUNDINGS * measure(tail, self.dtype).floor
        radius = _radius(tail)
        resting = radius <= floor or self.passive.name == "fixed_point"
        span = np.eye(tail.shape[1]) if resting else principal_directions(tail - tail.mean(0), tail.shape[1])
        length = size * (float(np.linalg.norm(tail[-1])) if resting else radius) or size
        if not resting:  # a push smaller than the gaps between the orbit's points could not be seen to come back
            length = max(length, min(4 * _gap(longer[self.steps // 2 :]), 5 * length))
        rng = np.random.default_rng(seed)
        directions = rng.normal(size=(kicks, len(span))) @ span
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        moments = np.linspace(self.steps // 2, self.steps, kicks).astype(int)
        far = 100 * (float(np.abs(longer - tail[-1]).max()) + length)
        smallest = length / 10**4
        while True:
            still, kicked = self._kicked(moments, directions * length, steps)
            with np.errstate(invalid="ignore", over="ignore"):
                lost = ~(np.abs(kicked - still).max((1, 2)) < far)
            if not lost.any() or length < max(100 * floor, 2 * smallest):
                break
            length /= 10
        if lost.sum() > kicks / 2:
            return Kick("repeller" if resting else "diverged", length, math.nan, math.nan, math.nan, int(lost.sum()))
        still, kicked = still[~lost], kicked[~lost]
        apart = np.linalg.norm(kicked - still, axis=-1) / length
        orbit = longer[self.steps // 2 :]
        first = np.array([_nearest(path[:1], orbit)[0] for path in kicked])
        last = np.array([np.median(_nearest(path[-max(1, steps // 8) :], orbit)) for path in kicked])
        returned = float(np.median(last / np.maximum(first, 1e-300)))
        end = float(np.median(apart[:, -max(1, steps // 8) :]))
        growth = _exponent(apart)
        if not resting and not growth > 0 and end > 0.3 and length / 100 > 100 * floor:
            # it does not come back in step, and may have met the size of the attractor too soon to be seen to run away: watch from closer by
            still, kicked = self._kicked(moments, directions * length / 100, steps)
            growth = _exponent(np.linalg.norm(kicked - still, axis=-1) * 100 / length)
        if resting:
            outcome = "attractor" if end < 0.5 else "repeller" if end > 2 else "neutral"
        elif growth > 0:
            outcome = "chaos"
        elif _radius(longer[-(self.steps // 2 + 1) :]) < 0.5 * radius:
            outcome = "transient"
        else:
            outcome = "limit cycle" if returned < 0.5 else "neutral"
        return Kick(outcome, length, returned, end, growth, int(lost.sum()))

    @torch.no_grad()
    def reseed(self, seeds: int = 8, starts: Float[Tensor, "seeds sequence width"] | None = None) -> Reseed:
        """Think from other first states: `starts`, or drawn by the model, or else around its own fixed start."""
        if seeds < 2:
            raise InputError(f"reseed needs at least 2 starts, got {seeds}")
        options = {name: value for name, value in self.options.items() if name not in ("generator", "initial_state")}
        kind = "noise"
        if starts is None:
            begun = [
                self.model.begin(**self.inputs, **options, generator=torch.Generator().manual_seed(1000 + seed)) for seed in range(seeds)
            ]
            if all(torch.equal(begun[0].state, thought.state) for thought in begun[1:]):
                kind = "perturbed"
                own = begun[0].state
                noise = torch.randn(seeds, *own.shape[1:], generator=torch.Generator().manual_seed(0)).to(own)
                begun = [thought.branch(own + noise[[i]] * own.float().std().clamp(min=1e-3).to(own)) for i, thought in enumerate(begun)]
        else:
            kind = "given"
            begun = [self.run[0].branch(start[None].to(self.run[0].state)) for start in starts]
        ends, firsts, names, answers = [], [], [], []
        for thought in begun:
            firsts.append(_array(thought.state[0, self.token]))
            states = [firsts[-1]]
            for _ in range(self.steps):
                thought = self.model.think(thought)
                states.append(_array(thought.state[0, self.token]))
            ends.append(states[-1])
            names.append(str(label_path(np.stack(states), self.dtype)))
            answers.append(int(self.model.read(thought).logits[0, self.token].argmax()))
        end, first = np.stack(ends).astype(np.float64), np.stack(firsts).astype(np.float64)
        unit = end / np.maximum(np.linalg.norm(end, axis=-1, keepdims=True), 1e-300)
        pair = np.triu_indices(len(end), 1)
        apart = [np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1)[pair].mean()) for x in (first, end)]
        return Reseed(
            starts=kind,
            path_independence=float((unit @ unit.T)[pair].mean()),
            spread=float(apart[1] / apart[0]) if apart[0] > 0 else math.nan,
            same_answer=max(answers.count(answer) for answer in answers) / len(answers),
            labels=tuple(names),
            same_label=max(names.count(name) for name in names) / len(names),
            ends=end,
        )

    def _think_to(self, steps: int) -> None:
        with torch.no_grad():
            while len(self.run) <= steps and not self.refusal:
                try:
                    self.run.append(self.model.think(self.run[-1]))
                except InputError as error:
                    if len(self.run) <= self.steps:
                        raise
                    self.refusal = str(error)

    def _kicked(self, moments: ndarray, pushes: Float[ndarray, "kicks width"], steps: int) -> tuple[ndarray, ndarray]:
        """Paths `[kicks, steps + 1, width]` from each moment, left alone and pushed; both see the same rounding.

        One batch, if thinking leaves the anchor alone. Where it remembers there what it thought (as continuous thought does), each pushed
        state is thought on from the Thought of its own moment, and the run itself is what would have become of it.
        """
        kicks, anchors = len(moments), [self.run[moment].anchor for moment in moments]
        if any(anchor.get(name) is not value for anchor in anchors for name, value in anchors[0].items()):
            run = self.path(int(moments.max()) + steps).astype(np.float64)
            kicked = [self._pushed(moment, push, steps) for moment, push in zip(moments, pushes, strict=True)]
            return np.stack([run[moment : moment + steps + 1] for moment in moments]), np.stack(kicked).astype(np.float64)
        inputs = {name: value.repeat_interleave(2 * kicks, 0) for name, value in self.inputs.items()}
        states = torch.cat([self.run[moment].state for moment in moments] * 2)
        states[kicks:, self.token] += torch.from_numpy(pushes).to(states)
        step = torch.cat([self.run[moment].step for moment in moments] * 2)
        paths = self._followed(replace(self.model.begin(**inputs, **self.options), state=states, step=step), steps)
        still, kicked = np.split(paths.astype(np.float64), 2)
        return still, kicked

    def _pushed(self, moment: int, push: Float[ndarray, "width"], steps: int) -> Float[ndarray, "steps+1 width"]:
        state = self.run[moment].state.clone()
        state[:, self.token] += torch.from_numpy(push).to(state)
        return self._followed(self.run[moment].branch(state), steps)[0]

    def _followed(self, thought: Thought, steps: int) -> Float[ndarray, "rows steps+1 width"]:
        """The token's states on the way."""
        paths = [_array(thought.state[:, self.token])]
        for _ in range(steps):
            thought = self.model.think(thought)
            paths.append(_array(thought.state[:, self.token]))
        return np.stack(paths, 1)


def examine(
    model: Reasoner,
    input_ids: Int[Tensor, "batch sequence"],
    attention_mask: Tensor | None = None,
    *,
    row: int = 0,
    token: int = -1,
    steps: int = 128,
    seeds: int = 8,
    **begin: Any,
) -> Examination:
    """Label a token, then replay, extend, kick and reseed (`seeds` starts; 0 for none), and give one verdict.

    Costs about (4 + seeds) x steps thinks, and `steps` thinks of a batch of nine. Arguments as in `Bench`.
    """
    bench = Bench(model, input_ids, attention_mask, row=row, token=token, steps=steps, **begin)
    replayed, extended = bench.replay(), bench.extend()
    kicked = bench.kick()
    reseeded = bench.reseed(seeds) if seeds else None
    passive = bench.passive
    verdict, reasons = judge(passive, replayed, extended, kicked)
    if not replayed.deterministic:
        passive, extended = _capped(passive), replace(extended, label=_capped(extended.label))
        if reseeded is not None:
            names = tuple(NOISE_DRIVEN if name.startswith(ROTATIONS) else name for name in reseeded.labels)
            reseeded = replace(reseeded, labels=names)
    return Examination(verdict, reasons, passive, replayed, extended, kicked, reseeded)


def judge(passive: Label, replayed: Replay, extended: Extension, kicked: Kick) -> tuple[str, tuple[str, ...]]:
    """The verdict that label and interventions allow together, and why."""
    reasons = list(passive.reasons)
    name = str(passive)
    goes_round = passive.name in ROTATIONS or extended.label.name in ROTATIONS
    if not replayed.deterministic:
        reasons.append(
            f"replay fails: the same state is thought on to states {replayed.error:.2g} apart (rounding excuses {replayed.floor:.2g})"
        )
        return (NOISE_DRIVEN if goes_round else name), tuple(reasons)
    reasons.append("replay: the map repeats itself")
    if not replayed.autonomous:
        reasons.append(f"the map depends on the step: {replayed.shift_error:.2g} apart when a state is thought on at another step")
        if goes_round:
            return STEP_DRIVEN, tuple(reasons)
    if extended.refused:
        reasons.append(f"it thinks no longer than {extended.times:.3g} times the record: {extended.refused}")
    reasons.append(f"kick of {kicked.size:.2g}: {kicked.outcome}" if kicked.size else f"kick: {kicked.outcome}")
    if passive.name in ROTATIONS and kicked.outcome == "transient":
        reasons.append(f"withdrawn: its radius shrinks to {extended.shrinkage:.2f} in a run {extended.times:.3g} times as long")
        return "converging", tuple(reasons)
    if passive.name in ROTATIONS and kicked.outcome == "chaos":
        reasons.append("withdrawn: a small push grows exponentially")
        return "wander", tuple(reasons)
    if not extended.holds:
        reasons.append(f"withdrawn: {extended.times:.3g} times as long it is {extended.label}")
        return "undetermined", tuple(reasons)
    if passive.name in ("undetermined", "converging"):
        name = str(extended.label)
    reasons.append(f"extended {extended.times:.3g} times: {extended.label}")
    return name, tuple(reasons)


def _array(state: Tensor) -> ndarray:
    return (state if state.dtype == torch.float64 else state.float()).cpu().numpy()


def _away(difference: Tensor) -> float:
    size = float(difference.norm())
    return size if math.isfinite(size) else math.inf


def _radius(path: ndarray) -> float:
    return float(np.sqrt(((path - path.mean(0)) ** 2).sum(-1).mean()))


def _gap(orbit: ndarray) -> float:
    """Distance that nine in ten of the orbit's points have at most to the nearest other one; 0 if it comes back to the same ones."""
    square = (orbit**2).sum(-1)
    apart = square[:, None] - 2 * orbit @ orbit.T + square[None]
    np.fill_diagonal(apart, np.inf)
    return float(np.sqrt(np.maximum(np.quantile(apart.min(-1), 0.9), 0)))


def _nearest(points: ndarray, orbit: ndarray) -> ndarray:
    """Distance of each point to the closest point of the orbit."""
    square = (points**2).sum(-1)[:, None] - 2 * points @ orbit.T + (orbit**2).sum(-1)[None]
    return np.sqrt(np.maximum(square, 0).min(-1))


def _exponent(apart: Float[ndarray, "kicks steps+1"]) -> float:
    """Growth per step on the way to nine tenths of the largest distance (of its logarithm); NaN if it never is tenfold.

    Phases that are sheared apart grow like t, and get from half to nine tenths with a power of time of 1; what grows exponentially needs at
    most 1.8 times as long as for the first half, a power of 2 and more.
    """
    grown = np.log(np.maximum(apart, 1e-300)).mean(0)
    if not grown.max() > math.log(10):
        return math.nan
    half, end = (int((grown >= share * grown.max()).argmax()) for share in (0.5, 0.9))
    if end - half > 3:
        power = np.polyfit(np.log(np.arange(half, end + 1)), grown[half : end + 1], 1)[0]
        if power < 1.5:
            return math.nan
    return float(grown[end]) / end


def _capped(label: Label) -> Label:
    """A label of a noisy map: nothing is called an orbit."""
    rings = label.name in ROTATIONS or label.candidate in ROTATIONS
    return replace(label, name=NOISE_DRIVEN, candidate=None, confidence="low") if rings else label
