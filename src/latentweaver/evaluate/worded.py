"""Accuracy of problems in words against steps: asked for the answer at once, or for the way to it in writing."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from latentweaver.errors import InputError
from latentweaver.evaluate.accuracy import Cell, Table
from latentweaver.tasks.problem import Split, draw
from latentweaver.tasks.worded.stream import Words, as_batch, row_of
from latentweaver.tasks.worded.writing import DIRECT, Worded, WordedProblem, step_by_step

WRITTEN_SIZES = (0.0, 0.1)
"""How much there is beyond what the answer needs where the way is written down: little, as the text holds the problem twice."""


@dataclass(frozen=True)
class Written(Cell):
    """A cell whose answers were written with the way to them.

    Attributes:
        tokens: of a reply, on average, the last one included.
        answered: replies that came to an answer, right or wrong.
    """

    tokens: float
    answered: int

    @property
    def shown(self) -> list[str]:
        return [*super().shown, f"{self.tokens:.0f} tokens"]


def drawn(task: Worded, difficulty: int, problems: int, seed: int, size: tuple[float, float], split: Split = "test") -> list[WordedProblem]:
    """Problems of one difficulty, their sizes between two bounds, in order of length."""
    rng = random.Random(f"evaluate {task.name} {split} {difficulty} {seed}")
    found = [draw(task, split, difficulty, rng, rng.uniform(*size)) for _ in range(problems)]
    return sorted(found, key=lambda problem: len(problem.prompt))  # type: ignore[return-value]


@torch.no_grad()
def accuracy_in_words(
    model: Any,
    tokenizer: Any,
    task: Worded,
    steps: Sequence[int],
    difficulties: Sequence[int],
    problems: int = 200,
    seed: int = 0,
    size: tuple[float, float] = (0.0, 1.0),
    split: Split = "test",
    batch_size: int = 128,
) -> Table:
    """How often the likeliest next word after the prompt is the answer, for each difficulty and number of steps.

    Args:
        model: a reasoner, with `read(thought, logits_to_keep)`.
        tokenizer: its tokenizer.
        task: where problems come from.
        steps: numbers of steps to read the answer at.
        difficulties: difficulties to ask for.
        problems: how many of each.
        seed: another seed, other problems.
        size: bounds of how much there is beyond what the answer needs.
        split: the side of the split.
        batch_size: problems thought about at once.

    Raises:
        InputError: a difficulty that the task cannot draw, or a tokenizer to which an answer is several tokens.
    """
    words, wanted, cells = Words(tokenizer), sorted(set(steps)), []
    device = next(model.parameters()).device
    for difficulty in difficulties:
        right = dict.fromkeys(wanted, 0)
        found = drawn(task, difficulty, problems, seed, size, split)
        for start in range(0, problems, batch_size):
            part = found[start : start + batch_size]
            for problem in part:
                words.one(problem.answer)
            rows = [row_of(problem, words, hints=False) for problem in part]
            prompts = [(ids[:-1], labels[:-1], depths[:-1], answer[:-1]) for ids, labels, depths, answer in rows]
            batch = as_batch(prompts, max(len(row[0]) for row in prompts), words.end).to(device)
            last = torch.tensor([len(row[0]) - 1 for row in prompts], device=device)
            at = torch.zeros_like(batch.is_answer)
            at[torch.arange(len(part), device=device), last] = True
            thought = model.begin(batch.input_ids)
            for step in range(1, wanted[-1] + 1):
                thought = model.think(thought)
                if step in right:
                    right[step] += int((model.read(thought, rows=at).logits.argmax(-1) == batch.labels[at]).sum())
        cells += [Cell(difficulty, step, right[step], problems) for step in wanted]
    return Table(task.name, split, seed, tuple(cells))


@torch.no_grad()
def accuracy_in_writing(
    model: Any,
    tokenizer: Any,
    task: Worded,
    steps: Sequence[int],
    difficulties: Sequence[int],
    problems: int = 64,
    seed: int = 0,
    size: tuple[float, float] = (0.0, 1.0),
    most_tokens: int = 160,
    split: Split = "test",
    batch_size: int = 128,
    report: Callable[[Written], None] | None = None,
) -> Table:
    """How often the answer is right that the model gives after writing down its way, greedily, with that many steps for each token.

    Arguments as in `accuracy_in_words`, and:

    Args:
        model: also has transformers' `generate`, with `num_steps`.
        most_tokens: a longer reply counts as wrong.
        report: is given each cell as soon as it is known, at each difficulty the one with the most steps first.

    Returns:
        A table of `Written` cells.

    Raises:
        InputError: a difficulty that the task cannot draw, or a tokenizer that has no tokens for words.
    """
    cells: list[Written] = []
    for difficulty in difficulties:
        found = drawn(task, difficulty, problems, seed, size, split)
        rows = [tokenizer(step_by_step(problem)[0], add_special_tokens=False)["input_ids"] for problem in found]
        unknown = getattr(tokenizer, "unk_token_id", None)
        if any(unknown in row for row in rows):
            raise InputError(f"this model's tokenizer has no tokens for {found[0].prompt!r}: it cannot read problems in words")
        for step in sorted(set(steps), reverse=True):
            replies, tokens = [], 0
            for start in range(0, problems, batch_size):
                said, count = _replies(model, tokenizer, rows[start : start + batch_size], step, most_tokens)
                replies, tokens = replies + said, tokens + count
            answers = [reply.rpartition(DIRECT)[2] if DIRECT in reply else None for reply in replies]
            right = sum(answer is not None and task.judge(problem, answer) for problem, answer in zip(found, answers, strict=True))
            answered = sum(answer is not None for answer in answers)
            cells.append(Written(difficulty, step, right, problems, tokens=tokens / problems, answered=answered))
            if report is not None:
                report(cells[-1])
    return Table(task.name, split, seed, tuple(sorted(cells, key=lambda cell: (cell.difficulty, cell.steps))))


def _replies(model: Any, tokenizer: Any, rows: list[list[int]], steps: int, most_tokens: int) -> tuple[list[str], int]:
    """What is written after prompts of any lengths, and how many tokens of it all there are, the last ones included."""
    device, longest, end = next(model.parameters()).device, max(map(len, rows)), tokenizer.eos_token_id
    ends = model.generation_config.eos_token_id  # one or several, or None
    ends = end if ends is None else ends
    ids = torch.tensor([[end] * (longest - len(row)) + row for row in rows], device=device)  # not every tokenizer has a token to pad with
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    output = model.generate(ids, attention_mask=mask, num_steps=steps, max_new_tokens=most_tokens, do_sample=False, pad_token_id=end)
    output = output[:, longest:]
    said = torch.isin(output, torch.as_tensor(ends, device=device), invert=True)
    return tokenizer.batch_decode(output, skip_special_tokens=True), int(said.sum(1).add(1).clamp(max=output.shape[1]).sum())
