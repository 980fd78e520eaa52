"""Accuracy of problems in words against steps: asked for the answer at once, or for the way to it in writing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from latentweaver.evaluate.accuracy import Cell, Table
from latentweaver.tasks.problem import Split, draw
from latentweaver.tasks.worded.stream import Words, as_batch, row_of
from latentweaver.tasks.worded.writing import DIRECT, Worded, WordedProblem, step_by_step


@dataclass(frozen=True)
class Written(Cell):
    """A cell whose answers were written with the way to them: also the tokens of a reply, on average, the last one included."""

    tokens: float


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
) -> Table:
    """How often the answer is right that the model gives after writing down its way, greedily, with that many steps for each token.

    Arguments as in `accuracy_in_words`; a reply longer than `most_tokens` counts as wrong.
    """
    cells, device = [], next(model.parameters()).device
    ends = model.generation_config.eos_token_id  # one or several, or None
    ends = tokenizer.eos_token_id if ends is None else ends
    for difficulty in difficulties:
        found = drawn(task, difficulty, problems, seed, size, split)
        prompts = [step_by_step(problem)[0] for problem in found]
        rows = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
        longest, end = max(map(len, rows)), tokenizer.eos_token_id  # which pads too: not every tokenizer has a token for it
        ids = torch.tensor([[end] * (longest - len(row)) + row for row in rows], device=device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
        for step in sorted(set(steps)):
            output = model.generate(ids, attention_mask=mask, num_steps=step, max_new_tokens=most_tokens, do_sample=False, pad_token_id=end)
            output = output[:, longest:]
            replies = tokenizer.batch_decode(output, skip_special_tokens=True)
            said = torch.isin(output, torch.as_tensor(ends, device=device), invert=True)
            tokens = said.sum(1).add(1).clamp(max=output.shape[1]).float().mean().item()
            right = sum(
                task.judge(problem, reply.rpartition(DIRECT)[2]) and DIRECT in reply for problem, reply in zip(found, replies, strict=True)
            )
            cells.append(Written(difficulty, step, right, problems, tokens))
    return Table(task.name, split, seed, tuple(cells))
