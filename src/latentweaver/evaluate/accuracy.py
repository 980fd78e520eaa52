"""Accuracy against steps: one pass of thinking to the most steps, read on the way at every number of steps asked for."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from latentweaver.errors import InputError
from latentweaver.evaluate.intervals import wilson
from latentweaver.tasks.batches import IGNORED, collate
from latentweaver.tasks.characters import Characters
from latentweaver.tasks.problem import Split, Task, draw
from latentweaver.thought import Reasoner


@dataclass(frozen=True)
class Cell:
    """How often answers were right at one difficulty and one number of steps, with a 95 % Wilson interval."""

    difficulty: int
    steps: int
    right: int
    count: int

    @property
    def accuracy(self) -> float:
        return self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.right, self.count)

    @property
    def shown(self) -> list[str]:
        """What a printed table shows of it, line by line: per cent, and the interval."""
        low, high = self.interval
        return [f"{100 * self.accuracy:.1f}", f"{100 * low:.0f}-{100 * high:.0f}"]


@dataclass(frozen=True)
class Table:
    """Accuracy by difficulty and steps. `print` it (per cent, the 95 % interval below), or write it with `to_json`."""

    task: str
    split: Split
    seed: int
    cells: tuple[Cell, ...]

    def cell(self, difficulty: int, steps: int) -> Cell:
        """The cell of a difficulty and a number of steps.

        Raises:
            InputError: if the table has none.
        """
        for cell in self.cells:
            if (cell.difficulty, cell.steps) == (difficulty, steps):
                return cell
        raise InputError(f"the table has no difficulty {difficulty} at {steps} steps")

    def __str__(self) -> str:
        steps = sorted({cell.steps for cell in self.cells})
        rows = [["difficulty \\ steps", *map(str, steps)]]
        for difficulty in sorted({cell.difficulty for cell in self.cells}):
            lines = zip(*(self.cell(difficulty, step).shown for step in steps), strict=True)
            rows += [[str(difficulty) if i == 0 else "", *line] for i, line in enumerate(lines)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows)

    def to_json(self, path: str | Path | None = None) -> str:
        """The table as JSON, intervals included; written to `path` if given."""
        cells = [{**asdict(cell), "accuracy": cell.accuracy, "interval": cell.interval} for cell in self.cells]
        text = json.dumps({"task": self.task, "split": self.split, "seed": self.seed, "cells": cells}, indent=1)
        if path is not None:
            Path(path).write_text(text + "\n")
        return text


@torch.no_grad()
def accuracy_against_steps(
    model: Reasoner,
    task: Task,
    steps: Sequence[int],
    difficulties: Sequence[int],
    problems: int = 200,
    seed: int = 0,
    split: Split = "test",
    batch_size: int = 64,
) -> Table:
    """How often `model` answers right, for each difficulty and each number of steps.

    An answer counts as right if every token of it, its end included, is the likeliest after the tokens before: what greedy
    decoding would write with that many steps for each token.

    Args:
        model: a reasoner whose tokens are the task's `Characters`.
        task: where problems come from.
        steps: numbers of steps to read the answer at.
        difficulties: difficulties to ask for.
        problems: how many of each difficulty.
        seed: another seed, other problems.
        split: the side of the split.
        batch_size: problems thought about at once.

    Raises:
        InputError: no steps or difficulties, one that the task cannot draw, or a model with other tokens.
    """
    if not steps or min(steps) < 1 or not difficulties:
        raise InputError(f"need steps of at least 1 and at least one difficulty, got {list(steps)} and {list(difficulties)}")
    wanted, characters = sorted(set(steps)), Characters(task.characters)
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", len(characters))
    if vocabulary != len(characters):
        raise InputError(
            f"the model has {vocabulary} tokens and the task {task.name} has {len(characters)}: it was not trained on this task"
        )
    device = next(model.parameters()).device if isinstance(model, nn.Module) else torch.device("cpu")
    cells = []
    for difficulty in difficulties:
        rng = random.Random(f"evaluate {task.name} {split} {difficulty} {seed}")
        right = dict.fromkeys(wanted, 0)
        drawn = sorted((draw(task, split, difficulty, rng) for _ in range(problems)), key=lambda problem: len(problem.prompt))
        for start in range(0, problems, batch_size):
            batch = collate(drawn[start : start + batch_size], characters, hints=False).to(device)
            ignored = batch.labels == IGNORED
            thought = model.begin(batch.input_ids)
            for step in range(1, wanted[-1] + 1):
                thought = model.think(thought)
                if step in right:
                    said = model.read(thought).logits.argmax(-1)
                    right[step] += int(((said == batch.labels) | ignored).all(-1).sum())
        cells += [Cell(difficulty, step, right[step], problems) for step in wanted]
    return Table(task.name, split, seed, tuple(cells))
