"""Rules that say "enough": when a state has been thought about long enough.

A rule is a small object that looks at a Thought after every step and gives each position a value; `enough` compares the
value with the rule's threshold. State-based rules (`StateChange`, `Cosine`, `Acceleration`) look at the latent state only
and cost next to nothing. Readout-based rules (`KL`, `EntropyChange`, `ArgmaxStability`, `Confidence`) run the coda and the head
after every step, which can cost as much as the steps that they save. `LearnedGate` asks the model's own gate.

Writing another rule: subclass `HaltingRule` and give `start` (what to remember of the first state) and `measure` (the value
after a step, and what to remember next). What is remembered is a dictionary of batch-first tensors, so that halted rows can
leave the batch.

Names, values and default thresholds of the rules shared with it follow the Huginn reference (arXiv 2502.05171, section 6.1
and its published code).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.thought import Gated, Readout, Reasoner, Thought

Memory = dict[str, Tensor]


class View:
    """What a rule may look at after a step: the Thought, and the readout, which is computed only if asked for.

    `read` replaces the model's own `read` where fewer positions are enough (the last one, while a prompt is read).
    """

    def __init__(self, model: Reasoner, thought: Thought, read: Callable[[Thought], Readout] | None = None) -> None:
        self.model = model
        self.thought = thought
        self._read = read or model.read

    @cached_property
    def readout(self) -> Readout:
        return self._read(self.thought)

    @cached_property
    def log_probs(self) -> Float[Tensor, "batch sequence vocabulary"]:
        return self.readout.logits.float().log_softmax(-1)


class HaltingRule(ABC):
    """Base of all rules.

    Attributes:
        summary: how the values of a row's positions become one value for the row when a whole prompt halts together:
            "mean" over its real positions (the reference's choice for state-based rules) or the "last" one.
        min_steps: never enough before this many steps.
    """

    summary: Literal["mean", "last"] = "mean"
    min_steps: int = 1

    @abstractmethod
    def start(self, thought: Thought) -> Memory:
        """What to remember of the Thought before its first step."""

    @abstractmethod
    def measure(self, memory: Memory, view: View) -> tuple[Float[Tensor, "batch sequence"], Memory]:
        """The value of every position after a step, and what to remember for the next one."""

    @abstractmethod
    def enough(self, value: Float[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Whether a value says that it is time to stop."""

    def of_row(self, value: Float[Tensor, "batch sequence"], mask: Bool[Tensor, "batch sequence"] | None = None) -> Float[Tensor, "batch"]:
        """One value for each row, from the values of its real positions (`mask` true)."""
        if self.summary == "last":
            return value[:, -1]
        if mask is None:
            return value.mean(-1)
        weight = mask.to(value)
        return (value * weight).sum(-1) / weight.sum(-1).clamp(min=1)


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise InputError(f"{name} must be above 0, got {value}")


@dataclass(frozen=True)
class Fixed(HaltingRule):
    """Exactly `steps` steps for every position."""

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps must be at least 1, got {self.steps}")

    def start(self, thought: Thought) -> Memory:
        return {"count": thought.state.new_zeros(thought.state.shape[:2])}

    def measure(self, memory: Memory, view: View) -> tuple[Tensor, Memory]:
        count = memory["count"] + 1
        return count, {"count": count}

    def enough(self, value: Tensor) -> Tensor:
        return value >= self.steps


@dataclass(frozen=True)
class StateChange(HaltingRule):
    """Stop when a step moves the state by less than `threshold` of its norm: |x_t - x_(t-1)| / |x_t|. Reads no logits."""

    threshold: float = 0.03
    min_steps: int = 1

    def __post_init__(self) -> None:
        _positive("threshold", self.threshold)

    def start(self, thought: Thought) -> Memory:
        return {"state": thought.state}

    def measure(self, memory: Memory, view: View) -> tuple[Tensor, Memory]:
        state = view.thought.state
        change = (state - memory["state"]).norm(dim=-1) / state.norm(dim=-1)
        return change, {"state": state}

    def enough(self, value: Tensor) -> Tensor:
        return value < self.threshold


@dataclass(frozen=True)
class Cosine(StateChange):
    """Stop when a step turns the state by less than `threshold`: 1 - cos(x_t, x_(t-1)). Reads no logits."""

    threshold: float = 1e-3

    def measure(self, memory: Memory, view: View) -> tuple[Tensor, Memory]:
        state, before = view.thought.state, memory["state"]
        cosine = (state * before).sum(-1) / state.norm(dim=-1) / before.norm(dim=-1).clamp(min=1e-12)  # zeros have no direction
        return 1 - cosine, {"state": state}


@dataclass(frozen=True)
class Acceleration(StateChange):
    """Stop when steps stop changing: |D_t - D_(t-1)| / |x_t| with D_t = x_t - x_(t-1). Reads no logits.

    The second difference sees what `StateChange` cannot: a state that still moves, but steadily. The first step has no
    second difference and never halts (its value is infinite). After arXiv 2509.23314, which exits on the norm of the
    second difference; dividing by the norm of the state makes the threshold independent of the model's scale.
    """

    def start(self, thought: Thought) -> Memory:
        return {"state": thought.state, "move": torch.full_like(thought.state, torch.inf)}

    def measure(self, memory: Memory, view: View) -> tuple[Tensor, Memory]:
        state = view.thought.state
        move = state - memory["state"]
        return (move - memory["move"]).norm(dim=-1) / state.norm(dim=-1), {"state": state, "move": move}


@dataclass(frozen=True)
class KL(HaltingRule):
    """Stop when a step no longer changes what would be said: KL(p_(t-1) || p_t) below `threshold`, p_0 uniform.

    With `min_p`, probabilities below `min_p` times the largest count as 1/V before both are renormalised, so that only the
    likely tokens matter. Costs a readout after every step.
    """

    threshold: float = 1e-3
    min_p: float | None = None
    min_steps: int = 1
    summary = "last"

    def __post_init__(self) -> None:
        _positive("threshold", self.threshold)

    def start(self, thought: Thought) -> Memory:
        return {}

    def measure(self, memory: Memory, view: View) -> tuple[Tensor, Memory]:
        log_probs = view.log_probs
        if self.min_p is not None:
            probs = log_probs.exp()
            unlikely = probs < self.min_p * probs.amax(-1, keepdim=True)
            probs = probs.masked_fill(unlikely, 1 / probs.shape[-1])
            log_probs = (probs / probs.sum(-1, keepdim=True)).log()
        before = memory.get("log_probs", torch.full_like(log_probs, 1 / log_probs.shape[-1]).log())
        return (before.exp() * (before - log_probs)).sum(-1), {"log_probs": log_probs}

    def enough(self, value: Tensor) -> Tensor:
        return value < self.threshold


@dataclass(frozen=True)
class EntropyChange(HaltingRule):
    """Stop when a step no longer changes how sure the model is: |H_t - H_(t-1)| below `threshold` nats. Costs a readout a step."""

    threshold: float = 1e-3
    min_steps: int = 1
    summary = "last"

    def __post_init__(self) -> None:
        _positive("threshold", self.threshold)

    def start(self, thought: Thought) -> Memory:
        # The reference starts from an entropy of 100 nats, so that the first step never halts.
        return {"entropy": torch.full(thought.state.shape[:2], 100.0, device=thought.state.device)}

    def measure(self, memory: Memory, view: View) -> tuple[Tensor, Memory]:
        probs = view.log_probs.exp()
        entropy = -(probs * (probs + 1e-10).log()).sum(-1)
        return (entropy - memory["entropy"][:, -entropy.shape[1] :]).abs(), {"entropy": entropy}

    def enough(self, value: Tensor) -> Tensor:
        return value < self.threshold


@dataclass(frozen=True)
class ArgmaxStability(HaltingRule):
    """Stop when the likeliest token has stayed the same for `patience` steps in a row. Costs a readout a step."""

    patience: int = 5
    min_steps: int = 1
    summary = "last"

    def __post_init__(self) -> None:
        _positive("patience", self.patience)

    def start(self, thought: Thought) -> Memory:
        nothing_yet = torch.full(thought.state.shape[:2], -1, device=thought.state.device)
        return {"token": nothing_yet, "stable": torch.zeros_like(nothing_yet)}

    def measure(self, memory: Memory, view: View) -> tuple[Tensor, Memory]:
        token: Int[Tensor, "batch sequence"] = view.readout.logits.argmax(-1)
        width = token.shape[1]
        same = token == memory["token"][:, -width:]
        stable = torch.where(same, memory["stable"][:, -width:] + 1, 0)
        return stable.float(), {"token": token, "stable": stable}

    def enough(self, value: Tensor) -> Tensor:
        return value >= self.patience


@dataclass(frozen=True)
class Confidence(HaltingRule):
    """Stop when the likeliest token has had at least `probability` for `patience` steps in a row. Costs a readout a step.

    For reasoners that are unsure until they know, such as `weaver-chains`: their states settle before their answer does.
    """

    probability: float = 0.9
    patience: int = 2
    min_steps: int = 1
    summary = "last"

    def __post_init__(self) -> None:
        if not 0 < self.probability < 1:
            raise InputError(f"probability must lie in (0, 1), got {self.probability}")
        _positive("patience", self.patience)

    def start(self, thought: Thought) -> Memory:
        return {"sure": torch.zeros(thought.state.shape[:2], device=thought.state.device)}

    def measure(self, memory: Memory, view: View) -> tuple[Tensor, Memory]:
        likeliest = view.log_probs.amax(-1).exp()
        before = memory["sure"][:, -likeliest.shape[1] :]
        sure = torch.where(likeliest >= self.probability, before + 1, 0)
        return sure, {"sure": sure}

    def enough(self, value: Tensor) -> Tensor:
        return value >= self.patience


@dataclass(frozen=True)
class LearnedGate(HaltingRule):
    """Stop when the model's own exit distribution has reached `threshold` (Ouro's Q-exit, arXiv 2510.25741).

    With gate g_t the probability of leaving at step t is p_t = sigmoid(g_t) * prod_(j<t) (1 - sigmoid(g_j)); the value after
    step t is the sum of p up to t. At threshold 1 a model runs to its last step.
    """

    threshold: float = 0.5
    min_steps: int = 1
    summary = "last"

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise InputError(f"threshold of a learned gate must lie in (0, 1], got {self.threshold}")

    def start(self, thought: Thought) -> Memory:
        return {"staying": torch.ones(thought.state.shape[:2], device=thought.state.device)}

    def measure(self, memory: Memory, view: View) -> tuple[Tensor, Memory]:
        if not isinstance(view.model, Gated):
            raise InputError(f"{type(view.model).__name__} has no exit gate; use a rule such as StateChange instead of LearnedGate")
        staying = memory["staying"] * (1 - view.model.exit_logit(view.thought).float().sigmoid())
        return 1 - staying, {"staying": staying}

    def enough(self, value: Tensor) -> Tensor:
        if self.threshold == 1:  # rounding may bring the sum to exactly 1 before the last step
            return torch.zeros_like(value, dtype=torch.bool)
        return value >= self.threshold
