"""From steps in words to steps in thought: which tokens of an example are shown, asked for, or replaced, at each epoch.

    question <start> <latent>*n <end> the steps that are left, answer        labels on what follows <end>

COCONUT (arXiv 2412.06769) works in stages: at stage s the first s steps are gone and s * c thoughts stand in their place; after
the last stage all steps are gone. Its controls differ in the data only, or in what the model feeds back (`ARMS`):

    coconut             the curriculum, thoughts fed back
    pause               the same curriculum, a learned token in place of each thought
    pause-multipass     the same, computed one after another as thoughts are. A causal decoder gives the same numbers
    no-thoughts         the same curriculum with nothing in place of the steps
    no-curriculum       the last stage from the first epoch on
    icot                steps removed token by token from the left (stepwise internalisation, arXiv 2405.14838)
    cot, no-cot         all steps, or none, all the time

COCONUT's result on ProsQA (97.0 %) is within noise of pause (96.6), no-thoughts (95.5) and iCoT (98.2), in its own table 1: no
claim about thoughts without these beside it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol

from latentweaver.errors import InputError
from latentweaver.tasks.token_batch import IGNORED, Row


@dataclass(frozen=True)
class Example:
    """A problem as tokens: a question, the steps to its answer, and the answer with the token that ends it."""

    question: list[int]
    steps: list[list[int]]
    answer: list[int]


@dataclass(frozen=True)
class Markers:
    """The tokens around and in place of thoughts."""

    latent: int
    start: int
    end: int


class Schedule(Protocol):
    """What a curriculum is: a training row, and a prompt to evaluate with, for every epoch."""

    def row(self, example: Example, epoch: int, rng: random.Random) -> Row: ...

    def prompt(self, example: Example, epoch: int) -> list[int]: ...


def _row(prompt: list[int], said: list[int]) -> Row:
    return prompt + said, [IGNORED] * len(prompt) + said


@dataclass(frozen=True)
class Staged:
    """COCONUT's curriculum, number for number.

    Attributes:
        markers: the special tokens; None for none, and then no thoughts either.
        thoughts_per_step: thoughts in place of each step ("c_thought").
        epochs_per_stage: epochs before the next step goes.
        max_latent_stage: the last stage with steps left; after it all steps are gone and thoughts are those of this stage.
        pad_latent_to_max: after the last stage, give every problem as many thoughts, however few its steps.
        uniform_prob: probability of drawing the stage of a row uniformly from 0 to its number of steps.
        first_stage: the stage of epoch 0.
    """

    markers: Markers | None
    thoughts_per_step: int = 1
    epochs_per_stage: int = 5
    max_latent_stage: int = 6
    pad_latent_to_max: bool = True
    uniform_prob: float = 0.0
    first_stage: int = 0

    def __post_init__(self) -> None:
        for name, least in (("thoughts_per_step", 0), ("epochs_per_stage", 1), ("max_latent_stage", 0), ("first_stage", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.uniform_prob <= 1:
            raise InputError(f"uniform_prob must lie in [0, 1], got {self.uniform_prob}")

    def stage(self, epoch: int) -> int:
        """The stage of an epoch; it goes on rising after the last one with steps."""
        return self.first_stage + epoch // self.epochs_per_stage

    def row(self, example: Example, epoch: int, rng: random.Random) -> Row:
        stage = self.stage(epoch)
        if self.uniform_prob and rng.random() < self.uniform_prob:
            stage = rng.randint(0, len(example.steps))
        gone = thoughts = stage
        if stage > self.max_latent_stage:
            gone, thoughts = len(example.steps), self._most(example)
        return _row(self._thinking(example, thoughts), [*chain(*example.steps[gone:]), *example.answer])

    def prompt(self, example: Example, epoch: int) -> list[int]:
        return self._thinking(example, min(self.stage(epoch), self._most(example)))

    def _most(self, example: Example) -> int:
        return self.max_latent_stage if self.pad_latent_to_max else min(len(example.steps), self.max_latent_stage)

    def _thinking(self, example: Example, steps: int) -> list[int]:
        if self.markers is None:
            return list(example.question)
        thoughts = [self.markers.latent] * (steps * self.thoughts_per_step)
        return [*example.question, self.markers.start, *thoughts, self.markers.end]


@dataclass(frozen=True)
class Written:
    """Plain text all the time: with all steps (chain of thought), or with none."""

    steps: bool

    def row(self, example: Example, epoch: int, rng: random.Random) -> Row:
        return _row(list(example.question), [*(chain(*example.steps) if self.steps else ()), *example.answer])

    def prompt(self, example: Example, epoch: int) -> list[int]:
        return list(example.question)


@dataclass(frozen=True)
class Internalised:
    """Stepwise internalisation (iCoT, arXiv 2405.14838): the first `removed_per_epoch` * epoch tokens of the steps are gone.

    Attributes:
        removed_per_epoch: tokens that go with each epoch.
        smoothing: a row loses o more tokens with probability proportional to exp(-smoothing o): the published lambda, 4.
        all_gone: beyond this many removed tokens all are; None for never.
    """

    removed_per_epoch: int = 8
    smoothing: float = 4.0
    all_gone: int | None = None

    def row(self, example: Example, epoch: int, rng: random.Random) -> Row:
        steps = list(chain(*example.steps))
        gone = epoch * self.removed_per_epoch + int(rng.expovariate(self.smoothing) if self.smoothing < math.inf else 0)
        if self.all_gone is not None and gone > self.all_gone:
            gone = len(steps)
        return _row(list(example.question), [*steps[gone:], *example.answer])

    def prompt(self, example: Example, epoch: int) -> list[int]:
        return list(example.question)


@dataclass(frozen=True)
class Arm:
    """A method to compare: its data, and what the model feeds back in place of thoughts."""

    schedule: Callable[[Staged], Schedule]
    feedback: str = "hidden"
    pause_passes: str = "one"


ARMS: dict[str, Arm] = {
    "coconut": Arm(lambda staged: staged),
    "pause": Arm(lambda staged: staged, "pause"),
    "pause-multipass": Arm(lambda staged: staged, "pause", "several"),
    "no-thoughts": Arm(lambda staged: replace(staged, markers=None)),
    "no-curriculum": Arm(lambda staged: replace(staged, first_stage=staged.max_latent_stage + 1)),
    "icot": Arm(lambda staged: Internalised()),
    "cot": Arm(lambda staged: Written(steps=True)),
    "no-cot": Arm(lambda staged: Written(steps=False)),
}
"""COCONUT and every control of it, from its curriculum."""
