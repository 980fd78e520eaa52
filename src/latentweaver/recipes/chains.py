"""`weaver-chains`: a small reasoner for chains of dependent sums, trained from nothing.

What makes it learn where answers alone do not: the value of *every* statement is supervised, after *every* step, and only
once there have been as many steps as it is deep. So each update is a one-hop problem at all depths at once: fetch two values
that became known a step ago, add them. Depth is then a matter of repetition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from latentweaver import tasks
from latentweaver.evaluate import accuracy_against_steps
from latentweaver.recipes.saving import save_reasoner
from latentweaver.tasks.batches import Stream
from latentweaver.tasks.characters import Characters
from latentweaver.training.depth import Curriculum, Uniform
from latentweaver.training.loop import Settings, train
from latentweaver.training.objectives import EveryStep


@dataclass(frozen=True)
class Chains:
    """The recipe of `weaver-chains`.

    Attributes:
        depth: deepest chain to train on; the shallowest has depth 1.
        statements: most statements in a problem.
        width: width of the states.
        inner: width inside the MLP.
        heads: attention heads.
        prelude, core, coda: blocks of each part.
        injection: how the input enters each step.
        initial_state: the first state.
        low_steps, high_steps: bounds of the number of steps of an update, drawn uniformly.
        backprop: how many of them have gradients.
        warm_steps, warm_updates, rise_updates: the upper bound is `warm_steps` for the first updates, then rises linearly.
        hints: whether values are supervised where they become known, or answers alone.
        solvable_only: whether a value is asked for only once there were as many steps as it is deep.
        answer_weight: how much a label of the answer counts beside one of a statement.
        batch_size: problems to an update.
        grow: updates over which problems grow from two statements to their full size and depth.
        updates, lr, weight_decay, optimiser, warmup, cooldown, seed, precision, compile, workers, device, accumulate, recompute, attention, shard_blocks: see
            `training.Settings`.
        evaluate_every, checkpoint_every, log_every: updates between these.
        evaluate_problems: problems of each look; on a processor fewer keep it short.
    """

    depth: int = 16
    statements: int = 52
    width: int = 256
    inner: int = 688
    heads: int = 4
    prelude: int = 1
    core: int = 2
    coda: int = 1
    injection: str = "linear"
    initial_state: str = "noise"
    low_steps: int = 1
    high_steps: int = 20
    backprop: int = 6
    warm_steps: int = 2
    warm_updates: int = 1000
    rise_updates: int = 2000
    hints: bool = True
    solvable_only: bool = True
    answer_weight: float = 4.0
    batch_size: int = 128
    grow: int = 0
    updates: int = 7000
    lr: float = 2e-3
    weight_decay: float = 0.05
    optimiser: Literal["adamw", "muon"] = "muon"
    warmup: int = 100
    cooldown: float = 0.6
    seed: int = 0
    precision: Literal["bf16", "bf16-stream", "fp32"] = "fp32"
    compile: bool = False
    workers: int = 0
    device: str | None = None
    accumulate: int = 1
    recompute: bool = False
    attention: str | None = None
    shard_blocks: bool = False
    evaluate_every: int = 500
    evaluate_problems: int = 128
    checkpoint_every: int = 1000
    log_every: int = 20

    @property
    def task(self) -> tasks.Task:
        """The task, with as many statements as the recipe wants."""
        return tasks.Chains(statements=self.statements)

    def model(self) -> Any:
        """A fresh model."""
        import torch

        from latentweaver.models.config import RecurrentDepthConfig
        from latentweaver.models.recurrent_depth import RecurrentDepthForCausalLM

        characters = Characters(self.task.characters)
        torch.manual_seed(self.seed)
        return RecurrentDepthForCausalLM(
            RecurrentDepthConfig(
                vocab_size=len(characters),
                hidden_size=self.width,
                intermediate_size=self.inner,
                num_attention_heads=self.heads,
                prelude_layers=self.prelude,
                core_layers=self.core,
                coda_layers=self.coda,
                num_steps=self.high_steps,
                injection=self.injection,
                initial_state=self.initial_state,
                causal=not self.task.in_place,
                max_position_embeddings=512,
                pad_token_id=characters.pad,
                eos_token_id=characters.end,
                bos_token_id=None,
            )
        )

    def objective(self) -> EveryStep:
        """What is asked."""
        return EveryStep(solvable_only=self.solvable_only, answer_weight=self.answer_weight)

    def run(self, folder: str | Path, resume: bool = False, report: Callable[[dict[str, Any]], None] | None = None) -> Path:
        """Train, and save the model with its tokenizer in `folder`/model."""
        folder = Path(folder)
        model = self.model()
        train(
            model,
            self.objective(),
            Curriculum(
                Uniform(self.low_steps, self.high_steps, self.backprop, seed=self.seed),
                start=self.warm_steps,
                updates=self.rise_updates,
                field="high",
                hold=self.warm_updates,
            ),
            Stream(
                self.task,
                (1, self.depth),
                self.batch_size,
                seed=self.seed,
                hints=self.hints,
                multiple=1 if self.task.in_place else 32,  # pictures are of one size, and padding would be part of them
                grow=self.grow,
            ),
            Settings.of(self),
            folder,
            resume,
            self.measure,
            report,
        )
        return save_reasoner(model, Characters(self.task.characters), folder / "model")

    def looks(self) -> dict[str, tuple[int, int]]:
        """What is looked at during training, by name: (difficulty, steps). Enough steps, one, and beyond what was trained."""
        deepest = min(2 * self.depth, self.statements - 1)
        return {
            "depth_2": (2, 4),
            f"depth_{self.depth}": (self.depth, self.depth + 4),
            f"depth_{self.depth}_one_step": (self.depth, 1),
            f"depth_{deepest}": (deepest, deepest + 8),
            f"depth_{self.depth}_long": (self.depth, 4 * self.high_steps),
        }

    def measure(self, model: Any) -> dict[str, float]:
        """The accuracy of each look."""
        result = {}
        for name, (difficulty, steps) in self.looks().items():
            table = accuracy_against_steps(model, self.task, [steps], [difficulty], problems=self.evaluate_problems, batch_size=128, seed=1)
            result[name] = table.cells[0].accuracy
        return result


@dataclass(frozen=True)
class AnswersOnly(Chains):
    """A control of `Chains`: the same model, warm-up and length, but only the answers are supervised, no value on the way."""

    hints: bool = False


@dataclass(frozen=True)
class NoLoop(Chains):
    """A control of `Chains`: the same blocks applied once. There is no second step in which a value could be fetched, so every
    value is asked for at once."""

    low_steps: int = 1
    high_steps: int = 1
    warm_steps: int = 1
    solvable_only: bool = False


@dataclass(frozen=True)
class NoLoopDeep(NoLoop):
    """A control of `Chains`: no loop, but ten blocks of their own between prelude and coda in place of two that are shared."""

    core: int = 10
