"""What is asked of a thought: small objects that turn a batch and a depth into one number to descend.

    LastStep        the labels, read once after the last step (Huginn's next-token loss at a sampled depth)
    EachSequence    the same, every sequence with its own number of steps (Parcae's)
    EveryStep       the labels, read after every step with gradient, where they can be known by then
    ExpectedExit    Ouro's first stage: the losses of all steps weighed by a learned exit, plus its entropy
    GateOnly        Ouro's second stage: the gate alone learns where another step still pays

Writing another: a callable that takes (model, batch, (n, k), seed) and returns `Terms`. `mean` keeps it exact on several
processes. The batch needs `input_ids` and `labels`, aligned as in `tasks.batches` (the label of a token is what should be said after
it), and for `EveryStep` also `depth` and `is_answer` if it is told to look at them.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from latentweaver.errors import InputError
from latentweaver.thought import Reasoner, Thought
from latentweaver.training import ranks
from latentweaver.training.depth import TruncatedPoisson

IGNORED = -100
Depth = tuple[int, int]


@dataclass
class Terms:
    """What an objective returns: the loss, and named numbers worth logging (tensors, so that nothing waits for the device)."""

    loss: Float[Tensor, ""]
    report: dict[str, Tensor] = field(default_factory=dict)
    states: tuple[Tensor, Tensor] | None = None  # the last two states, for the watch


class Objective(Protocol):
    def __call__(self, model: Any, batch: Any, depth: Depth, seed: int) -> Terms: ...


def shifted(input_ids: Int[Tensor, "batch sequence"]) -> Int[Tensor, "batch sequence"]:
    """Labels of plain next-token prediction: every token's successor, nothing after the last."""
    return F.pad(input_ids[:, 1:], (0, 1), value=IGNORED)


def _warm(model: Reasoner, batch: Any, without: int, seed: int) -> Thought:
    thought = model.begin(batch.input_ids, generator=seed)  # type: ignore[arg-type]  # a seed is a generator to our models
    with torch.no_grad():
        for _ in range(without):
            thought = model.think(thought)
    return thought


def token_losses(
    logits: Float[Tensor, "batch sequence vocabulary"], labels: Int[Tensor, "batch sequence"]
) -> Float[Tensor, "batch sequence"]:
    """Cross-entropy of every position; 0 where the label is IGNORED."""
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none").view_as(labels)


def mean(losses: Float[Tensor, "..."], weight: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """The weighted mean of this rank's losses, divided by the weight of all ranks: its average over the ranks is the mean over
    all of them, however unevenly the labels fall."""
    return ranks.size() * (losses * weight).sum() / ranks.total(weight.sum()).clamp(min=1)


def read_at(model: Any, thought: Thought, places: tuple[Tensor, Tensor]) -> Float[Tensor, "places vocabulary"]:
    """Logits at some places (row, position) only. A model whose `read` takes `rows` turns no other states into logits, which with a
    large vocabulary is most of the work of reading."""
    if "rows" in inspect.signature(model.read).parameters:
        return model.read(thought, rows=places).logits
    return model.read(thought).logits[places]


def answered(
    model: Any, thought: Thought, labels: Int[Tensor, "places"], places: tuple[Tensor, Tensor], compile: bool = False
) -> tuple[Float[Tensor, "places"], Float[Tensor, "places"]]:
    """Cross-entropy of each label at its place (row, position), and whether it was the likeliest token.

    With `compile` what follows the last step (coda, head and loss) is one compiled piece, so that the logits of a large vocabulary
    are never written in float32.
    """
    return (_compiled() if compile else _answered)(model, thought, labels, places)


def _answered(model: Any, thought: Thought, labels: Tensor, places: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    logits = read_at(model, thought, places)
    return F.cross_entropy(logits.float(), labels, reduction="none"), (logits.argmax(-1) == labels).float()


@functools.cache
def _compiled() -> Any:
    return torch.compile(_answered)


@dataclass(frozen=True)
class LastStep:
    """The labels, read once after n + k steps.

    Attributes:
        compile: as in `answered`.
    """

    compile: bool = False

    def __call__(self, model: Any, batch: Any, depth: Depth, seed: int) -> Terms:
        places = (batch.labels != IGNORED).nonzero(as_tuple=True)  # waits for the device, which has nothing to do yet
        thought = _warm(model, batch, depth[0], seed)
        before = thought.state
        for _ in range(depth[1]):
            before = thought.state
            thought = model.think(thought)
        losses, right = answered(model, thought, batch.labels[places], places, self.compile)
        each = torch.ones_like(losses)
        return Terms(mean(losses, each), {"accuracy": mean(right, each).detach()}, (before.detach(), thought.state.detach()))


@dataclass(frozen=True)
class EachSequence:
    """The labels, read once; each sequence takes its own number of steps, the last `sampler.backprop` of them with gradients.

    The depth that the loop draws is not used: one number for the whole batch is what this objective replaces.
    """

    sampler: TruncatedPoisson

    def __call__(self, model: Any, batch: Any, depth: Depth, seed: int) -> Terms:
        drawn = self.sampler.per_sequence(seed, batch.input_ids.shape[0] * ranks.size())[ranks.rank() :: ranks.size()]
        totals = drawn.to(batch.input_ids.device)[:, None, None]
        thought = _warm(model, batch, 0, seed)
        for step in range(1, int(totals.max()) + 1):
            within = step > totals - self.sampler.backprop + 1  # the first step with gradient starts from a state without
            state = torch.where(within, thought.state, thought.state.detach())
            moved = model.think(thought.branch(state))
            thought = moved.branch(torch.where(step <= totals, moved.state, state))
        known = (batch.labels != IGNORED).float()
        return Terms(mean(token_losses(model.read(thought).logits, batch.labels), known), {"steps": totals.float().mean()})


@dataclass(frozen=True)
class EveryStep:
    """The labels, read after every one of the k steps with gradient.

    Attributes:
        growth: weight of a step relative to the step before; 1 weighs all alike, above 1 favours late ones.
        solvable_only: ask for a label only once there were as many steps as its `depth`. Every update is then a one-hop
            problem for the values whose operands became known a step before: the dense one-hop supervision that breaks the
            plateau of path-following tasks. Otherwise an early step learns to say how unsure it is.
        truncate: cut the gradient between steps, so that each step is trained on its own (as in deep supervision).
        answer_weight: weight of a label of the answer relative to one of a hint, of which there are many more.
        unknown: the token to say in place of a label whose `depth` is not reached yet, all of which weigh no more than those that are;
            None to ask nothing there.
    """

    growth: float = 1.0
    solvable_only: bool = True
    truncate: bool = False
    answer_weight: float = 1.0
    unknown: int | None = None

    def __call__(self, model: Any, batch: Any, depth: Depth, seed: int) -> Terms:
        without, with_gradient = depth
        thought = _warm(model, batch, without, seed)
        if with_gradient < 1:
            raise InputError(f"every-step supervision needs at least one step with gradient, got {depth}")
        known = asked = (batch.labels != IGNORED).float()
        if self.answer_weight != 1:
            known = torch.where(batch.is_answer, self.answer_weight * known, known)
        total, weights = torch.zeros((), device=known.device), 0.0
        before, logits, labels = thought.state, known[..., None], batch.labels
        for step in range(without + 1, without + with_gradient + 1):
            before = thought.state
            if self.truncate and step > without + 1:
                thought = thought.branch(thought.state.detach())
            thought = model.think(thought)
            logits = model.read(thought).logits
            if self.unknown is not None:
                waiting = (batch.labels != IGNORED) & (batch.depth > step)
                labels = torch.where(waiting, self.unknown, batch.labels)
                share = ranks.total((known * ~waiting).sum()) / ranks.total((known * waiting).sum()).clamp(min=1)
                asked = torch.where(waiting, known * share.clamp(max=1), known)
            elif self.solvable_only:
                asked = known * (batch.depth <= step)
            weight = self.growth ** (step - without - with_gradient)
            total = total + weight * mean(token_losses(logits, labels), asked)
            weights += weight
        right = (logits.argmax(-1) == labels).to(logits.dtype)
        return Terms(total / weights, {"accuracy": mean(right, asked).detach()}, (before.detach(), thought.state.detach()))


def exit_distribution(gates: Float[Tensor, "steps batch sequence"]) -> Float[Tensor, "steps batch sequence"]:
    """Probability of leaving at each step: sigmoid(g_t) prod_(j<t) (1 - sigmoid(g_j)); the last step takes what is left."""
    leave, stay = gates.sigmoid(), torch.cumprod((-gates).sigmoid(), 0)
    reached = torch.cat([torch.ones_like(stay[:1]), stay[:-1]])
    return torch.cat([(leave * reached)[:-1], reached[-1:]])


def _all_steps(model: Any, batch: Any, depth: Depth, seed: int) -> tuple[Tensor, Tensor]:
    """Losses and gate logits of every step, both `[steps, batch, sequence]`."""
    if depth[0]:
        raise InputError(f"an expected loss over exits needs gradients through every step, so n must be 0; got {depth}")
    thought = _warm(model, batch, 0, seed)
    losses, gates = [], []
    for _ in range(depth[1]):
        thought = model.think(thought)
        losses.append(token_losses(model.read(thought).logits, batch.labels))
        gates.append(model.exit_logit(thought).float())
    return torch.stack(losses), torch.stack(gates)


@dataclass(frozen=True)
class ExpectedExit:
    """Ouro's stage I (arXiv 2510.25741): sum_t p(t) loss_t - beta H(p), averaged over the labelled tokens.

    The entropy keeps the exit distribution from collapsing onto one step (a uniform prior over exits).
    """

    beta: float = 0.1

    def __call__(self, model: Any, batch: Any, depth: Depth, seed: int) -> Terms:
        losses, gates = _all_steps(model, batch, depth, seed)
        known = (batch.labels != IGNORED).to(losses.dtype)
        exits = exit_distribution(gates)
        expected = (exits * losses).sum(0)
        entropy = -(exits * exits.clamp(min=1e-12).log()).sum(0)
        steps = torch.arange(1, len(exits) + 1, device=exits.device, dtype=exits.dtype)
        report = {"entropy": mean(entropy, known).detach(), "exit_step": mean((steps[:, None, None] * exits).sum(0), known).detach()}
        return Terms(mean(expected - self.beta * entropy, known), report)


@dataclass(frozen=True)
class GateOnly:
    """Ouro's stage II: the gate learns to go on exactly where the next step still lowers the loss.

    improvement_t = max(loss_(t-1) - loss_t, 0); the target of going on to t is sigmoid(slope (improvement_t - threshold)),
    learned by binary cross-entropy on 1 - sigmoid(gate_(t-1)). Losses carry no gradient: freeze all but the gate.
    """

    slope: float = 50.0
    threshold: float = 0.005

    def __call__(self, model: Any, batch: Any, depth: Depth, seed: int) -> Terms:
        if sum(depth) < 2:
            raise InputError(f"the gate compares a step with the one before, so it needs at least 2 steps; got {depth}")
        losses, gates = _all_steps(model, batch, depth, seed)
        improvement = (losses[:-1] - losses[1:]).clamp(min=0).detach()
        go_on = torch.sigmoid(self.slope * (improvement - self.threshold))
        loss = F.binary_cross_entropy_with_logits(-gates[:-1], go_on, reduction="none")
        known = (batch.labels != IGNORED).to(loss.dtype).expand_as(loss)
        return Terms(mean(loss, known), {"go_on": mean(go_on, known).detach()})
