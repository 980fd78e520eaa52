"""Is it used? Put another state in the middle of a thought and see what the answer does.

A label that a probe reads from a state may be a copy that nothing downstream looks at. So the state after some step is exchanged for
that of a prompt with another value, beside the control that makes the number mean something: a donor prompt with the *same* value,
which changes everything but the value. Only what the first does beyond the second is due to the value (the form of the CODI
interchange, where same-value patches had no effect and other-value patches moved the answer as predicted).

    interchange   another prompt's state, against same-value donors
    disturb       noise, mean-ablation, permutation between tokens or rows, truncation (stopping there)
    verdict       readable x causal: four sentences, and "the model thinks X" is none of them
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.inspect.recorder import positions_of
from latentweaver.inspect.separability import bootstrap
from latentweaver.thought import Reasoner, Thought

Edit = Callable[[Thought], Float[Tensor, "batch sequence width"]]
Disturbance = Literal["noise", "mean", "permute tokens", "permute rows", "truncate"]


@dataclass(frozen=True)
class Change:
    """What an edit does to the answer, averaged over rows.

    Attributes:
        kind, step: what was done, and after which step.
        changed: the share of rows whose likeliest token becomes another.
        drop: by how many nats the log-probability of the unedited answer falls, and its 95 % bootstrap interval.
        kl: KL(unedited || edited), nats.
        recovered: the share of rows whose likeliest token is the donor's answer, for `interchange`.
    """

    kind: str
    step: int
    changed: float
    drop: float
    interval: tuple[float, float]
    kl: float
    recovered: float = math.nan


@dataclass(frozen=True)
class Interchange:
    """Other-value patches against same-value patches.

    Attributes:
        other, same: the change by donors of another value, and of the same one.
        shift: how far the log-odds of the donor's answer against the unedited one move with an other-value donor, beyond what the same-value
            donor of that row moves them, nats, with its 95 % bootstrap interval over rows.
        causal: whether that interval lies above 0.1 nats.
    """

    other: Change
    same: Change
    shift: float
    interval: tuple[float, float]
    causal: bool


@dataclass(frozen=True)
class Verdict:
    """Readable and causal, each yes or no, and the one sentence that they allow."""

    readable: bool
    causal: bool
    sentence: str


@torch.no_grad()
def think_with(model: Reasoner, thought: Thought, steps: int, edits: dict[int, Edit]) -> Thought:
    """Think `steps` steps from `thought`; after step t (0: before the first) the state becomes `edits[t](thought)`.

    Raises:
        InputError: an edit after a step that is not taken, or one that changes the state's shape.
    """
    if outside := [t for t in edits if not 0 <= t <= steps]:
        raise InputError(f"edits after steps {outside}, but only {steps} are taken")
    for t in range(steps + 1):
        if t:
            thought = model.think(thought)
        if t in edits:
            thought = thought.branch(edits[t](thought))
    return thought


@torch.no_grad()
def interchange(
    model: Reasoner,
    inputs: Int[Tensor, "rows sequence"],
    other: Int[Tensor, "rows sequence"],
    same: Int[Tensor, "rows sequence"],
    *,
    step: int,
    steps: int,
    tokens: int | slice | Sequence[int] | None = -1,
    answer_token: int = -1,
    subspace: Sequence[int] | Float[Tensor, "directions width"] | None = None,
    seed: int = 0,
    **begin: Any,
) -> Interchange:
    """Exchange states after `step` and compare what donors of another value and of the same value do.

    Args:
        inputs: the prompts.
        other: for each a donor prompt in which the value differs, of the same length.
        same: for each another donor prompt with the same value.
        step: after which step the state is exchanged.
        steps: how many are thought in all.
        tokens: whose states are exchanged; None for all.
        answer_token: where the answer is read.
        subspace: exchange only these channels, or what lies along these orthonormal directions.

    Raises:
        InputError: donors of another shape, or a step outside 0 .. steps.
    """
    if other.shape != inputs.shape or same.shape != inputs.shape:
        raise InputError(f"donors must have the shape of the inputs {list(inputs.shape)}, got {list(other.shape)} and {list(same.shape)}")
    start = model.begin(inputs, **begin)
    where = positions_of(tokens, start.state.shape[1]).to(start.state.device)

    def answer(thought: Thought) -> Float[Tensor, "rows vocabulary"]:
        return model.read(thought).logits[:, answer_token].float().log_softmax(-1)

    plain = answer(think_with(model, start, steps, {}))
    donor_answers = answer(think_with(model, model.begin(other, **begin), steps, {})).argmax(-1)

    def patched(donor: Tensor) -> Tensor:
        given = think_with(model, model.begin(donor, **begin), step, {}).state
        return answer(think_with(model, start, steps, {step: lambda thought: _exchanged(thought.state, given, where, subspace)}))

    with_other, with_same = patched(other), patched(same)
    own = plain.argmax(-1)

    def odds(p: Tensor) -> Tensor:
        return p.gather(1, donor_answers[:, None])[:, 0] - p.gather(1, own[:, None])[:, 0]

    beyond = (odds(with_other) - odds(with_same)).double().cpu().numpy()
    low, high = bootstrap(beyond, np.arange(len(beyond)), 2000, np.random.default_rng(seed))
    recovered = float((with_other.argmax(-1) == donor_answers).float().mean())
    return Interchange(
        other=replace(_change("other value", step, plain, with_other, seed), recovered=recovered),
        same=_change("same value", step, plain, with_same, seed),
        shift=float(beyond.mean()),
        interval=(low, high),
        causal=low > 0.1,
    )


@torch.no_grad()
def disturb(
    model: Reasoner,
    inputs: Int[Tensor, "rows sequence"],
    kind: Disturbance,
    *,
    step: int,
    steps: int,
    tokens: int | slice | Sequence[int] | None = None,
    answer_token: int = -1,
    subspace: Sequence[int] | Float[Tensor, "directions width"] | None = None,
    size: float = 1.0,
    mean: Float[Tensor, "width"] | None = None,
    seed: int = 0,
    **begin: Any,
) -> Change:
    """Spoil the state after `step` and see what the answer does.

    Args:
        kind: "noise" (normal, `size` times the state's own norm), "mean" (every state becomes `mean`, or the rows' mean), "permute
            tokens" (states change places within a row), "permute rows" (a token gets another row's state), "truncate" (stop
            after `step` and answer).
        tokens: whose states; all if None.

    Other arguments as in `interchange`.
    """
    start = model.begin(inputs, **begin)
    where = positions_of(tokens, start.state.shape[1]).to(start.state.device)
    generator = torch.Generator().manual_seed(seed)

    def edit(thought: Thought) -> Tensor:
        state = thought.state
        chosen = state[:, where]
        if kind == "noise":
            noise = torch.randn(chosen.shape, generator=generator).to(chosen)
            given = chosen + size * noise * chosen.norm(dim=-1, keepdim=True) / math.sqrt(chosen.shape[-1])
        elif kind == "mean":
            given = (chosen.mean(0, keepdim=True) if mean is None else mean.to(chosen)).expand_as(chosen)
        elif kind == "permute tokens":
            given = chosen[:, _derangement(len(where), generator)]
        else:
            given = chosen[_derangement(len(chosen), generator)]
        donor = state.clone()
        donor[:, where] = given
        return _exchanged(state, donor, where, subspace)

    known = ("noise", "mean", "permute tokens", "permute rows", "truncate")
    if kind not in known:
        raise InputError(f"cannot {kind!r} a state; known are {list(known)}")
    plain = model.read(think_with(model, start, steps, {})).logits[:, answer_token].float().log_softmax(-1)
    spoiled = think_with(model, start, step, {}) if kind == "truncate" else think_with(model, start, steps, {step: edit})
    return _change(kind, step, plain, model.read(spoiled).logits[:, answer_token].float().log_softmax(-1), seed)


def verdict(readable: bool, causal: bool, what: str = "the value") -> Verdict:
    """What may be said of a state, given whether a held-out probe reads `what` and whether exchanging it moves the answer."""
    sentence = {
        (True, True): f"{what} can be read from this state, and the answer depends on it",
        (True, False): f"{what} can be read from this state, but nothing shows that the answer depends on it",
        (False, True): f"the answer depends on this state, but {what} could not be read from it by this probe",
        (False, False): f"{what} could not be read from this state, and exchanging it does not move the answer",
    }[readable, causal]
    return Verdict(readable, causal, sentence)


def _exchanged(state: Tensor, donor: Tensor, where: Tensor, subspace: Sequence[int] | Tensor | None) -> Tensor:
    """`state` with the tokens `where` taken from `donor`, in the subspace only."""
    out = state.clone()
    away = donor[:, where] - state[:, where]
    if isinstance(subspace, Tensor):
        basis = subspace.to(away)
        away = away @ basis.T @ basis
    elif subspace is not None:
        kept = torch.zeros(away.shape[-1], dtype=away.dtype, device=away.device)
        kept[list(subspace)] = 1
        away = away * kept
    out[:, where] = donor[:, where] if subspace is None else state[:, where] + away
    return out


def _derangement(count: int, generator: torch.Generator) -> Tensor:
    """An order in which nothing stays where it was: a random cycle."""
    if count < 2:
        raise InputError("there is nothing to permute: at least 2 are needed")
    order = torch.randperm(count, generator=generator)
    out = torch.empty_like(order)
    out[order] = order.roll(1)
    return out


def _change(kind: str, step: int, plain: Tensor, edited: Tensor, seed: int) -> Change:
    own = plain.argmax(-1)
    drop = (plain.gather(1, own[:, None]) - edited.gather(1, own[:, None]))[:, 0].double().cpu().numpy()
    return Change(
        kind=kind,
        step=step,
        changed=float((edited.argmax(-1) != own).float().mean()),
        drop=float(drop.mean()),
        interval=bootstrap(drop, np.arange(len(drop)), 2000, np.random.default_rng(seed)),
        kl=float((plain.exp() * (plain - edited).clamp(-1e4, 1e4)).sum(-1).mean()),
    )
