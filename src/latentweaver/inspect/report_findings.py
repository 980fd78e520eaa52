"""What a report is about: how each token moved, what the model would have said, and how far both can be trusted.

`gather` does the looking with a reasoner at hand: it records, reads after every step, starts again elsewhere, and puts the most
telling tokens on the bench (`interventions`). `from_trajectory` makes do with a recording. Both give `Findings`: plain values and
arrays about one row of the input, from which the page and the JSON file are written; nothing is computed there.

What may surprise: the distance to a state that belongs to the same run falls for every path, also for a random walk. So `distance` is
measured to where *another* start ended, wherever the model could be asked for one, and `distance_to` says which it is. And the first
step leaps from where the state was put, often far away, to where thinking goes on; with it in a portrait one would see nothing else. So the
components are fitted from step 1 on.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.inspect.interventions import Examination, examine
from latentweaver.inspect.labels import ROTATIONS, Label, label_path
from latentweaver.inspect.lens import Flips, Lens, LensReading, read_steps
from latentweaver.inspect.portrait import Portrait, draw_portrait
from latentweaver.inspect.recorder import record
from latentweaver.inspect.trajectory import Trajectory
from latentweaver.thought import Reasoner, Thought

SETTLED = 0.03
"""A token has settled once every later step moves its state by less than this part of its norm: the rule of `--steps auto`."""
GHOSTS = 2000
"""Random walks drawn for a report, shared out among its tokens: 20 to 100 for each."""
COMPONENTS = 6
CODA = "its own coda"


@dataclass(frozen=True)
class Provenance:
    """Where a report comes from.

    Attributes:
        model: the model's name or class.
        weights: the first 16 digits of the SHA-256 of its parameters, "" for a reasoner that has none.
        dtype: what the states were judged by.
        steps: how many were thought; `every`: every which was kept.
        seed: of the first state; None if unknown.
        command: what was run, "" if not from the command line.
        versions: of the software, by name.
    """

    model: str
    weights: str
    dtype: str
    steps: int
    every: int
    seed: int | None
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """What was read after each kept step; arrays `[tokens, kept]` or with the `k` likeliest behind. None where it was not read.

    `read_to` is the last step that was read: the last one, or the last before every state was NaN or infinite; from there on all is
    NaN. `lens` says what the states were read through. `answers` is what the model itself said then, -1 where that readout was not finite; what is said of the answer is NaN there. Rank 0 is the likeliest. `kl_final` is KL(last readout || this one) and `pair_difference` the
    difference of two log-probabilities, both in nats.
    """

    top_ids: Int[ndarray, "tokens kept k"]
    top_logprobs: Float[ndarray, "tokens kept k"]
    answers: Int[ndarray, "tokens"]
    read_to: int
    entropy: Float[ndarray, "tokens kept"] | None = None
    answer_logprob: Float[ndarray, "tokens kept"] | None = None
    answer_rank: Float[ndarray, "tokens kept"] | None = None
    kl_final: Float[ndarray, "tokens kept"] | None = None
    control: int | None = None
    control_rank: Float[ndarray, "tokens kept"] | None = None
    pair: tuple[int, int] | None = None
    pair_difference: Float[ndarray, "tokens kept"] | None = None
    flips: tuple[Flips | None, ...] = ()
    lens: str = CODA


@dataclass(frozen=True)
class Starts:
    """Where other first states led.

    Attributes:
        kind: "noise" (drawn by the model) or "perturbed" (by us, its own start being fixed).
        states: `[starts, kept, tokens, width]`.
        independence: mean cosine between the end states of all pairs, this run among them, `[tokens]`; 1 when all agree.
        spread: root mean square distance between ends over that between first states, `[tokens]`; 0 when they meet.
        same_answer: share of the runs that say the commonest answer, `[tokens]`; NaN if a readout is not finite.
        labels: of each start and token.
    """

    kind: str
    states: Float[ndarray, "starts kept tokens width"]
    independence: Float[ndarray, "tokens"]
    spread: Float[ndarray, "tokens"]
    same_answer: Float[ndarray, "tokens"]
    labels: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Findings:
    """Everything a report shows, about one row of an input.

    Attributes:
        provenance: where it comes from.
        positions: of the tokens in the sequence, `[tokens]`; `ids` the tokens, None where the input was none.
        text: from a token id to what it reads.
        generated: whether the model wrote the token itself, `[tokens]`.
        steps: the kept steps, `[kept]`; those after the row halted are left out.
        states: `[kept, tokens, width]`.
        speed: |x_t - x_(t-1)| / |x_t|, `[tokens, kept]`, NaN at the first.
        distance: |x_t - x*| / |x*|, `[tokens, kept]`, to what `distance_to` says.
        settled: first step from which on every step moves the state by less than `SETTLED` of its norm; None if there is none.
        labels, portraits: of each token; a string says why there is no portrait. Each has `ghosts` random walks beside it.
        said, starts: what was read, and where other starts led; None if the model was not at hand.
        examined: tokens that were replayed, extended and kicked.
    """

    provenance: Provenance
    positions: Int[ndarray, "tokens"]
    ids: tuple[int, ...] | None
    text: Callable[[int], str]
    generated: tuple[bool, ...]
    steps: Int[ndarray, "kept"]
    states: Float[ndarray, "kept tokens width"]
    speed: Float[ndarray, "tokens kept"]
    distance: Float[ndarray, "tokens kept"]
    distance_to: str
    settled: tuple[int | None, ...]
    labels: tuple[Label, ...]
    portraits: tuple[Portrait | str, ...]
    ghosts: int
    said: Said | None = None
    starts: Starts | None = None
    examined: dict[int, Examination] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return len(self.positions)

    def name(self, token: int) -> str:
        """What a token reads; of a state that belongs to no token, its place."""
        if self.ids is not None:
            return self.text(self.ids[token])
        return "the thought" if self.tokens == 1 else f"place {self.positions[token]}"


def gather(
    model: Reasoner,
    input_ids: Int[Tensor, "batch sequence"],
    attention_mask: Tensor | None = None,
    *,
    steps: int = 128,
    tokens: int | slice | Sequence[int] | None = None,
    row: int = 0,
    text: Callable[[int], str] | None = None,
    generated: int = 0,
    top: int = 5,
    control: int | None = None,
    pair: tuple[int, int] | None = None,
    lens: tuple[str, Lens] | None = None,
    starts: int = 3,
    bench: int = 1,
    seed: int = 0,
    name: str = "",
    command: str = "",
    trajectory_to: Any = None,
) -> Findings:
    """Look at a model thinking. Arguments as in `reporting.report`."""
    if starts < 0 or bench < 0 or generated < 0 or top < 1:
        raise InputError(f"starts, bench and generated must be at least 0 and top at least 1; got {starts}, {bench}, {generated} and {top}")
    if isinstance(input_ids, Tensor) and input_ids.dim() > 0 and len(input_ids) and not -len(input_ids) <= row < len(input_ids):
        raise InputError(f"no row {row} in an input of {len(input_ids)} rows")
    inputs = input_ids[[row]] if isinstance(input_ids, Tensor) and input_ids.numel() else input_ids
    mask = None if attention_mask is None else attention_mask[[row]]
    trajectory = record(model, inputs, mask, steps=steps, tokens=tokens, generator=_generator(inputs, seed))
    if trajectory_to is not None:
        trajectory.save(trajectory_to)
    real = np.flatnonzero(trajectory.real[0])
    where = trajectory.positions[real].tolist()
    found = from_trajectory(trajectory, text=text)
    about = replace(found.provenance, model=name or trajectory.model, weights=weights_hash(model), seed=seed, command=command)
    assert trajectory.final is not None, "record always keeps the last Thought"
    own = trajectory.final.state.shape[1] - generated
    found = replace(found, provenance=about, generated=tuple(bool(position >= own) for position in found.positions))
    if not where:
        return found
    finite = np.flatnonzero(np.isfinite(found.states).all(-1).any(-1))
    read_to = int(finite.max(initial=0)) or steps  # what is said of nothing but NaN would hide what was said before
    reading = read_steps(
        model, inputs, mask, steps=read_to, tokens=where, lens=None if lens is None else lens[1], control=control, pair=pair, top=top,
        generator=_generator(inputs, seed),
    )  # fmt: skip
    found = replace(found, said=replace(_said(reading, control, steps), lens=CODA if lens is None else lens[0]))
    if starts:
        found = _start_again(found, model, inputs, mask, where, starts, seed, trajectory.final)
    return replace(found, examined=_examine(found, model, inputs, mask, where, bench, seed) if steps >= 8 else {})


def from_trajectory(trajectory: Trajectory, row: int = 0, *, text: Callable[[int], str] | None = None) -> Findings:
    """What a recording alone can tell.

    Raises:
        InputError: if it kept no states, or there is no such row.
    """
    if trajectory.states is None:
        raise InputError("this recording kept no states; record with 'states' in keep")
    if not -trajectory.rows <= row < trajectory.rows:
        raise InputError(f"no row {row} in a recording of {trajectory.rows} rows")
    real = np.flatnonzero(trajectory.real[row])
    kept = int(trajectory.taken[row])
    states = np.asarray(trajectory.states[row, :kept][:, real])
    positions = trajectory.positions[real]
    steps = trajectory.steps[:kept]
    speed = _speed(states)
    paths = [states[:, token] for token in range(len(real))]
    said = None
    if trajectory.top_ids is not None and trajectory.top_logprobs is not None and len(real):
        ids, logprobs = (_token_first(array[row, :kept][:, real]) for array in (trajectory.top_ids, trajectory.top_logprobs))
        entropy = None if trajectory.entropy is None else _token_first(trajectory.entropy[row, :kept][:, real])
        said = Said(ids, logprobs, np.where(np.isnan(logprobs[:, -1, 0]), -1, ids[:, -1, 0]), int(steps[-1]), entropy)
    ghosts = min(100, max(20, GHOSTS // max(1, len(real))))
    return Findings(
        provenance=Provenance(
            model=trajectory.model,
            weights="",
            dtype=trajectory.dtype,
            steps=int(steps[-1]) if len(steps) else 0,
            every=trajectory.every,
            seed=None,
            versions=versions(),
        ),
        positions=positions,
        ids=None if trajectory.token_ids is None else tuple(trajectory.token_ids[row, real].tolist()),
        text=text or (lambda token: f"#{token}"),
        generated=(False,) * len(real),
        steps=steps,
        states=states,
        speed=speed,
        distance=_distance(states, states[-1]) if len(states) else np.zeros((len(real), 0)),
        distance_to="its own last state, which falls for every path, also for a random walk: no sign of convergence",
        settled=tuple(settled_at(speed[token], steps) for token in range(len(real))),
        labels=tuple(replace(label_path(path, trajectory.dtype), row=row, token=token) for token, path in enumerate(paths)),
        portraits=tuple(_portrait(path, bool(len(steps)) and steps[0] == 0, ghosts) for path in paths),
        ghosts=ghosts,
        said=said,
    )


def settled_at(speed: Float[ndarray, "kept"], steps: Int[ndarray, "kept"]) -> int | None:
    """The first step from which on every step is shorter than `SETTLED` of the state's norm; None if the last one is not (or NaN)."""
    moving = ~(speed[1:] < SETTLED)
    if not len(moving) or moving[-1]:
        return None
    return int(steps[1:][moving.nonzero()[0].max(initial=-1) + 1])


def versions() -> dict[str, str]:
    """The software that a number may depend on."""
    from latentweaver import __version__

    return {"latentweaver": __version__, "torch": str(torch.__version__), "numpy": np.__version__, "python": platform.python_version()}


def weights_hash(model: Any) -> str:
    """The first 16 digits of the SHA-256 over names, dtypes, shapes and bytes of a module's parameters; "" without parameters."""
    if not isinstance(model, torch.nn.Module):
        return ""
    digest, count = hashlib.sha256(), 0
    for name, weight in model.named_parameters():
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        count += 1
    return digest.hexdigest()[:16] if count else ""


def _speed(states: ndarray) -> Float[ndarray, "tokens kept"]:
    out = np.full(states.shape[:2], np.nan)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for step in range(1, len(states)):
            before, now = states[step - 1].astype(np.float64), states[step].astype(np.float64)  # squares may leave float32
            move, norm = np.linalg.norm(now - before, axis=-1), np.linalg.norm(now, axis=-1)
            out[step] = np.where(move == 0, move, move / norm)
    return out.T


def _distance(states: ndarray, end: Float[ndarray, "tokens width"]) -> Float[ndarray, "tokens kept"]:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        end = end.astype(np.float64)
        away = np.stack([np.linalg.norm(now.astype(np.float64) - end, axis=-1) for now in states])
        return np.where(away == 0, away, away / np.linalg.norm(end, axis=-1)).T


def _portrait(path: Float[ndarray, "kept width"], start: bool, ghosts: int) -> Portrait | str:
    """A portrait of the path, or of as much of it as is finite; `start`, the state before any thinking, is left out."""
    finite = np.isfinite(path).all(-1)
    first, last = int(start), len(path) if finite.all() else int((~finite).argmax())
    if last - first < 4:
        count = max(0, last - first)
        return f"{count} finite state{'s' * (count != 1)} after the start: a portrait needs at least 4"
    if not np.ptp(path[:last], axis=0).any():
        return "the state never moved: there is no path to draw"
    return draw_portrait(path[first:last], COMPONENTS, ghosts)


def _said(reading: LensReading, control: int | None, steps: int) -> Said:
    top_logprobs = _token_first(reading.top_logprobs[0])
    silent = np.isnan(top_logprobs[..., 0])
    mute = np.broadcast_to(silent[:, -1:], silent.shape)  # no last word, so nothing can be said of it
    missing = steps + 1 - silent.shape[1]

    def whole(array: ndarray) -> ndarray:
        """NaN (or token 0) for the steps that were not read."""
        fill = np.nan if array.dtype.kind == "f" else 0
        return np.concatenate([array, np.full((len(array), missing, *array.shape[2:]), fill, array.dtype)], 1)

    def read(array: ndarray | None, unless: ndarray = silent) -> ndarray | None:
        return None if array is None else whole(np.where(unless, np.nan, _token_first(array[0])))

    return Said(
        top_ids=whole(_token_first(reading.top_ids[0])),
        top_logprobs=whole(top_logprobs),
        answers=np.where(silent[:, -1], -1, reading.answers[0]),
        read_to=int(reading.steps[-1]),
        entropy=read(reading.entropy),
        answer_logprob=read(reading.answer_logprob, silent | mute),
        answer_rank=read(reading.answer_rank, silent | mute),
        kl_final=read(reading.kl_final, silent | mute),
        control=control,
        control_rank=read(reading.control_rank),
        pair=reading.pair,
        pair_difference=read(reading.pair_difference),
        flips=tuple(None if silent[token].any() else reading.flips(0, token) for token in range(len(silent))),
    )


class _From:
    """The same reasoner, beginning a little beside its own start."""

    def __init__(self, model: Reasoner, seed: int) -> None:
        self.model, self.seed = model, seed
        self.think, self.read = model.think, model.read

    def begin(
        self, input_ids: Any, attention_mask: Tensor | None = None, initial_state: Any = None, generator: torch.Generator | None = None
    ) -> Thought:
        options = {"attention_mask": attention_mask, "initial_state": initial_state, "generator": generator}
        thought = self.model.begin(input_ids, **{name: value for name, value in options.items() if value is not None})
        own = thought.state
        noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(self.seed)).to(own)
        return replace(thought, state=own + noise * own.float().std().clamp(min=1e-3).to(own))


@torch.no_grad()
def _start_again(
    found: Findings, model: Reasoner, inputs: Any, mask: Tensor | None, where: list[int], count: int, seed: int, final: Thought | None
) -> Findings:
    """Think from other first states, and measure distance to where the last of them ended."""
    steps = found.provenance.steps
    options = {} if mask is None else {"attention_mask": mask}
    first, second = (model.begin(inputs, generator=_generator(inputs, other), **options).state for other in (seed, seed + 1000))
    kind = "perturbed" if torch.equal(first, second) else "noise"
    runs = []
    for other in range(1, count + 1):
        if kind == "noise":
            runs.append(record(model, inputs, mask, steps=steps, tokens=where, generator=_generator(inputs, seed + 1000 * other)))
        else:
            beside = _From(model, 1000 * other)
            runs.append(record(beside, inputs, mask, steps=steps, tokens=where, generator=_generator(inputs, seed)))
    states = np.stack([run.states[0] for run in runs])
    ends = np.concatenate([found.states[None, -1], states[:, -1]]).astype(np.float64)
    firsts = np.concatenate([found.states[None, 0], states[:, 0]]).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        unit = ends / np.maximum(np.linalg.norm(ends, axis=-1, keepdims=True), 1e-300)
        pairs = [(i, j) for i in range(count + 1) for j in range(i)]
        independence = np.mean([(unit[i] * unit[j]).sum(-1) for i, j in pairs], 0)
        apart = [np.sqrt(np.mean([((x[i] - x[j]) ** 2).sum(-1) for i, j in pairs], 0)) for x in (firsts, ends)]
        spread = apart[1] / apart[0]
    answers = np.stack([_last_words(model, thought, where) for thought in (final, *(run.final for run in runs))])
    same = np.array([np.nan if (said < 0).any() else np.unique(said, return_counts=True)[1].max() / len(said) for said in answers.T])
    names = tuple(tuple(str(label_path(run[:, token], found.provenance.dtype)) for token in range(found.tokens)) for run in states)
    drawn = "another start" if kind == "noise" else "a start beside its own"
    return replace(
        found,
        starts=Starts(kind, states, independence, spread, same, names),
        distance=_distance(found.states, states[-1, -1]),
        distance_to=f"where {drawn} ended after {steps} steps",
    )


@torch.no_grad()
def _last_words(model: Reasoner, thought: Thought | None, where: list[int]) -> Int[ndarray, "tokens"]:
    """The likeliest token at each position, -1 where the readout is not finite."""
    assert thought is not None, "record always keeps the last Thought"
    logits = model.read(thought).logits
    shift = thought.state.shape[1] - logits.shape[1]  # a readout of the last positions only
    chosen = logits[0, [position - shift for position in where]]
    return torch.where(chosen.isnan().any(-1), -1, chosen.argmax(-1)).cpu().numpy()


def _examine(
    found: Findings, model: Reasoner, inputs: Any, mask: Tensor | None, where: list[int], count: int, seed: int
) -> dict[int, Examination]:
    """Put the last token on the bench, then those that seem to go round, then those whose label is unsure."""
    last = found.tokens - 1

    def urgency(token: int) -> tuple[bool, bool, bool, int]:
        label = found.labels[token]
        return token != last, label.name not in ROTATIONS and label.candidate not in ROTATIONS, label.confidence == "high", token

    able = [token for token in range(found.tokens) if "not finite" not in found.labels[token].flags]
    return {
        token: examine(model, inputs, mask, token=where[token], steps=found.provenance.steps, seeds=0, generator=_generator(inputs, seed))
        for token in sorted(able, key=urgency)[:count]
    }


def _token_first(array: ndarray) -> ndarray:
    return np.ascontiguousarray(np.asarray(array).swapaxes(0, 1))


def _generator(inputs: Any, seed: int) -> torch.Generator:
    device = inputs.device if isinstance(inputs, Tensor) else "cpu"
    return torch.Generator(device).manual_seed(seed)
