"""What a reasoner answers: prompts of any lengths together, every column computed once, written greedily.

A prompt may bring thoughts of its own (latent tokens between their markers); `begin` has them, and the answer is read on from its
memory token by token. With `halting`, the model thinks until the rule says enough, and then writes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from latentweaver.errors import InputError
from latentweaver.halting import HaltingRule, View
from latentweaver.runtime.thinking import think_until
from latentweaver.tasks.token_batch import TokenBatch
from latentweaver.thought import Thought


@dataclass(frozen=True)
class Said:
    """What was written after a prompt.

    Attributes:
        tokens: what was written, with the token that ends it if that was reached.
        thoughts: thoughts that were had before it, latent tokens of the prompt among them.
    """

    tokens: tuple[int, ...]
    thoughts: int

    @property
    def cost(self) -> int:
        """Columns after the question that had to be computed one after another: thoughts and tokens."""
        return len(self.tokens) + self.thoughts


@dataclass(frozen=True)
class Says(HaltingRule):
    """Enough when `token` is the likeliest thing to say next."""

    token: int
    summary = "last"

    def start(self, thought: Thought) -> dict[str, torch.Tensor]:
        return {}

    def measure(self, memory: dict[str, torch.Tensor], view: View) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return (view.readout.logits.argmax(-1) == self.token).float(), memory

    def enough(self, value: torch.Tensor) -> torch.Tensor:
        return value > 0.5


@torch.no_grad()
def answers(
    model: Any,
    prompts: list[list[int]],
    end: int,
    limit: int,
    latent: int | None = None,
    batch_size: int = 64,
    halting: HaltingRule | None = None,
    most: int = 128,
) -> list[Said]:
    """What `model` writes after each prompt, in the order of the prompts.

    Args:
        model: a reasoner whose `begin` reads on with `after=` (continuous thought does).
        prompts: tokens.
        end: the token that ends an answer.
        limit: tokens to write at most.
        latent: the token that stands for a thought, if prompts have any.
        batch_size: prompts at a time; those of like length go together.
        halting: think until this says enough before writing, `most` thoughts at the most; None for the prompts' own thoughts.

    Raises:
        InputError: an empty prompt, or a limit below 1.
    """
    if limit < 1 or batch_size < 1:
        raise InputError(f"limit and batch_size must be at least 1, got {limit} and {batch_size}")
    device = next(model.parameters()).device
    said: list[Said] = [Said((), 0)] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = TokenBatch.of([(prompts[i], prompts[i]) for i in chosen], latent).to(device)
        thought = model.begin(batch.input_ids, batch.attention_mask)
        had = [prompts[i].count(latent) if latent is not None else 0 for i in chosen]
        if halting is not None:
            thought = think_until(model, thought, halting, most)
            had = thought.step[:, -1].tolist()
        for i, thoughts, tokens in zip(chosen, had, write(model, thought, end, limit), strict=True):
            said[i] = Said(tuple(tokens), thoughts)
    return said


@torch.no_grad()
def write(model: Any, thought: Thought, end: int, limit: int) -> list[list[int]]:
    """What the model writes after a Thought, row by row, greedily, until every row has said `end` or `limit` tokens."""
    columns, over = [], torch.zeros(len(thought.state), dtype=torch.bool, device=thought.state.device)
    if hasattr(model, "close"):
        thought = model.close(thought)
    for count in range(1, limit + 1):
        token = model.read(thought).logits[:, -1].argmax(-1)
        columns.append(token)
        over = over | (token == end)
        if count == limit or bool(over.all()):
            break
        thought = model.begin(token[:, None], after=thought)
    rows = torch.stack(columns, 1).tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


@torch.no_grad()
def seconds_per_answer(model: Any, prompts: list[list[int]], end: int, limit: int, latent: int | None = None, **options: Any) -> float:
    """Wall time of an answer asked alone, averaged over these prompts; one more warms up."""
    answers(model, prompts[:1], end, limit, latent, 1, **options)
    began = time.perf_counter()
    answers(model, prompts, end, limit, latent, 1, **options)
    return (time.perf_counter() - began) / len(prompts)
