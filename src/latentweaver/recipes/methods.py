"""Ways to learn to answer a problem that has steps, and the controls that say what their gains come from.

    coconut             steps in words give way to thoughts, stage by stage (arXiv 2412.06769)
    pause               the same with a learned token in place of each thought
    pause-multipass     the same, computed one after another as thoughts are
    no-thoughts         the same with nothing in place of the steps
    no-curriculum       thoughts from the first epoch on, no steps at all
    icot                steps removed token by token, nothing in their place (arXiv 2405.14838)
    cot, no-cot         all steps in words, or none
    codi                thoughts, taught by the same model with the steps in words (arXiv 2502.21074)
    pccot               a block of thoughts refined together, three times, taught in the same way (arXiv 2506.18582)
    lotus               blocks of thoughts refined by looping the whole model, each read out as a step (arXiv 2606.31779)

Soft thinking (arXiv 2505.15778) needs no training: `lw compare` has it read from the model that learned "cot".
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from latentweaver.tasks.token_batch import TokenBatch
from latentweaver.training.curriculum import ARMS, Example, Internalised, Markers, Schedule, Staged, Written
from latentweaver.training.latent_objectives import Answer, Distilled, ReadBatch, ReadOut, TaughtBatch

MethodName = Literal[
    "coconut", "pause", "pause-multipass", "no-thoughts", "no-curriculum", "icot", "cot", "no-cot", "codi", "pccot", "lotus"
]


@dataclass(frozen=True)
class Method:
    """A method: its data, its model, what is asked of it.

    Attributes:
        schedule: its rows and prompts, from COCONUT's curriculum.
        feedback: what is fed back in place of thoughts (see `models.feedback`).
        pause_passes: "one" or "several".
        refine: how a block of thoughts is refined ("jacobi", "loop"); None for thoughts one after another.
        learns: from the "answer" alone, "taught" by itself with the steps in words, or "read out" of its thoughts as well.
    """

    schedule: Callable[[Staged], Schedule]
    feedback: str = "hidden"
    pause_passes: str = "one"
    refine: Literal["jacobi", "loop"] | None = None
    learns: Literal["answer", "taught", "read out"] = "answer"


def _from_the_start(staged: Staged) -> Staged:
    return replace(staged, first_stage=staged.max_latent_stage + 1)


METHODS: dict[str, Method] = {
    **{name: Method(arm.schedule, arm.feedback, arm.pause_passes) for name, arm in ARMS.items()},
    "codi": Method(_from_the_start, "projected", learns="taught"),
    "pccot": Method(_from_the_start, "projected", refine="jacobi", learns="taught"),
    "lotus": Method(_from_the_start, refine="loop", learns="read out"),
}


@dataclass(frozen=True)
class Lesson:
    """How a method's batches are made.

    Attributes:
        method: the method.
        staged: COCONUT's curriculum, which every method's own is made from.
        markers: the tokens around and in place of thoughts.
        warm_epochs: epochs before the curriculum moves.
        removed_per_epoch: tokens of the steps that iCoT removes with each epoch.
        lead: tokens of each answer that only lead up to it.
        block: thoughts in place of each step in LOTUS.
        pad: the padding token.
        grid: see `TokenBatch.of`.
    """

    method: Method
    staged: Staged
    markers: Markers
    warm_epochs: int = 0
    removed_per_epoch: int = 8
    lead: int = 1
    block: int = 1
    pad: int = 0
    grid: int = 1

    @property
    def schedule(self) -> Schedule:
        """The method's curriculum."""
        staged = replace(self.staged, thoughts_per_step=self.block) if self.method.learns == "read out" else self.staged
        schedule = self.method.schedule(staged)
        return Internalised(self.removed_per_epoch) if isinstance(schedule, Internalised) else schedule

    @property
    def thoughts(self) -> int:
        """Thoughts before an answer once the curriculum is over."""
        return self.prompt(Example([0], [], [0]), 10**6).count(self.markers.latent)

    def moved(self, epoch: int) -> int:
        """Epochs for which the curriculum has been moving."""
        return max(0, epoch - self.warm_epochs)

    def prompt(self, example: Example, epoch: int) -> list[int]:
        """What is to be answered at an epoch."""
        return self.schedule.prompt(example, self.moved(epoch))

    def batch(self, examples: list[Example], epoch: int, rng: random.Random) -> Any:
        """A training batch of an epoch."""
        if self.method.learns == "taught":
            return TaughtBatch.of(examples, self.markers, self.thoughts, self.lead, pad=self.pad, grid=self.grid)
        if self.method.learns == "read out":
            blocks = min(self.moved(epoch) // self.staged.epochs_per_stage, self.staged.max_latent_stage)
            return ReadBatch.blocks(examples, self.markers, blocks, self.block, blocks, self.pad, self.grid)
        rows = [self.schedule.row(example, self.moved(epoch), rng) for example in examples]
        return TokenBatch.of(rows, self.markers.latent, self.pad, self.grid)

    def written(self, examples: list[Example]) -> TokenBatch:
        """A batch with all steps in words, whatever the method."""
        rows = [Written(steps=True).row(example, 0, random.Random()) for example in examples]
        return TokenBatch.of(rows, self.markers.latent, self.pad, self.grid)

    def objective(self) -> Any:
        """What is asked."""
        return {"answer": Answer(), "taught": Distilled(), "read out": ReadOut()}[self.method.learns]

    def model(self, base: Any, iterations: int) -> Any:
        """The decoder as a reasoner of this method."""
        from latentweaver.models.continuous_thought import continuous_thought
        from latentweaver.models.latent_block import latent_block

        method, thoughts = self.method, self.thoughts
        if not thoughts:
            return continuous_thought(base)
        ids = {"latent_token_id": self.markers.latent, "start_token_id": self.markers.start, "end_token_id": self.markers.end}
        if method.refine is None:
            return continuous_thought(base, **ids, feedback=method.feedback, pause_passes=method.pause_passes, num_steps=thoughts)
        steps = iterations if method.refine == "jacobi" else self.staged.max_latent_stage
        return latent_block(base, **ids, feedback=method.feedback, refine=method.refine, num_thoughts=thoughts, num_steps=steps)
