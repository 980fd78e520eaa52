"""What the engine is asked, and what it answers: a `Request`, the `Handle` that follows it, and an `Event` for each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import LogitsProcessor

from latentweaver.errors import LatentweaverError
from latentweaver.halting import HaltingRule
from latentweaver.runtime.schedule import Schedule

Reason = Literal["stop", "length", "cancelled", "error"]
"""Why a request ended: an end token, as many tokens as it may have, its owner's wish, or something that broke."""


class Busy(LatentweaverError):
    """The queue is full; try again later."""


@dataclass(frozen=True)
class Request:
    """One text to go on with. Answers equal `model.generate` on this prompt alone, with the same arguments.

    Attributes:
        prompt: token numbers, at least one.
        max_new_tokens: at most this many.
        num_steps: the dial: a number, a schedule's name, or a function from a token's place to a number; None for the
            model's own. With `halting` it is the maximum.
        halting: a rule that says when a token has been thought about enough.
        min_steps: with `halting`, never stop before.
        warm_start: begin each new token from the raw state of the one before it.
        initial_state: "noise", "zeros" or "input"; None for the model's own.
        seed: of noise and sampling, as `generate(generator=torch.Generator().manual_seed(seed))`. None: the noise is that
            of `generate` without a generator, and sampling does not repeat.
        sampling: fields of transformers' `GenerationConfig` (do_sample, temperature, top_p, repetition_penalty, ...), over
            those of the model's own generation config.
        processors: further logits processors, applied after those that `sampling` asks for.
        logprobs: report the log-probabilities of this many likeliest tokens, and of the chosen one; None for none.
    """

    prompt: Sequence[int]
    max_new_tokens: int = 64
    num_steps: int | str | Schedule | None = None
    halting: HaltingRule | None = None
    min_steps: int = 1
    warm_start: bool = False
    initial_state: str | None = None
    seed: int | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    processors: Sequence[LogitsProcessor] = ()
    logprobs: int | None = None


@dataclass(eq=False)
class Handle:
    """A request on its way.

    Attributes:
        request: what was asked.
        tokens: the new tokens so far.
        steps: the steps each of them took; the first's are those that every position of the prompt took.
        reused: positions of the prompt whose keys were found in another request's slot.
        reason: why it ended; None while it runs.
        error: what broke, if `reason` is "error".
        cancelled: whether its owner has given it up; the next tick ends it.
    """

    request: Request
    tokens: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    reused: int = 0
    reason: Reason | None = None
    error: str | None = None
    cancelled: bool = False

    def cancel(self) -> None:
        """Give the request up. Its slot is free after the next tick."""
        self.cancelled = True


@dataclass(frozen=True)
class Event:
    """One thing that happened to a request in a tick: a token, its end, or both.

    Attributes:
        handle: whose.
        token: the new token; None if the request ended without one.
        steps: the steps that it took.
        reason: why the request ended, if it did.
        logprob: the token's log-probability under the model, if asked for.
        likely: the likeliest tokens with theirs, if asked for.
    """

    handle: Handle
    token: int | None = None
    steps: int = 0
    reason: Reason | None = None
    logprob: float | None = None
    likely: tuple[tuple[int, float], ...] = ()
