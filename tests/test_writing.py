"""Answers that are written with the way to them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from latentweaver.evaluate.worded import accuracy_in_writing, drawn
from latentweaver.tasks.worded import WORDED
from latentweaver.tasks.worded.writing import step_by_step


class Letters:
    """A tokenizer of one number a character, with an end and nothing to pad with."""

    eos_token_id, pad_token = 0, None

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": list(map(ord, text))}

    def batch_decode(self, rows: torch.Tensor, skip_special_tokens: bool) -> list[str]:
        return ["".join(chr(number) for number in row if number) for row in rows.tolist()]


class Knowing(torch.nn.Module):
    """Writes the right way to every problem but the first it is asked."""

    def __init__(self, replies: dict[str, str]) -> None:
        super().__init__()
        self.replies, self.anything = replies, torch.nn.Parameter(torch.zeros(1))
        self.wrong = next(iter(replies))
        self.generation_config = SimpleNamespace(eos_token_id=[0, 7])

    def generate(self, ids: torch.Tensor, attention_mask: torch.Tensor, max_new_tokens: int, **options: Any) -> torch.Tensor:
        prompts = ["".join(map(chr, row[kept.bool()].tolist())) for row, kept in zip(ids, attention_mask, strict=True)]
        replies = [[] if prompt == self.wrong else [*map(ord, self.replies[prompt])] for prompt in prompts]
        longest = min(max(map(len, replies)) + 1, max_new_tokens)
        return torch.cat([ids, torch.tensor([(row + [0] * longest)[:longest] for row in replies])], 1)


def test_replies_are_judged_and_counted_without_a_token_to_pad_with() -> None:
    task, size = WORDED["swaps"](), (0.0, 0.5)
    replies = dict(step_by_step(problem)[:2] for problem in drawn(task, 4, 6, 3, size))
    assert len(replies) == 6 and len(set(map(len, replies))) > 1
    table = accuracy_in_writing(Knowing(replies), Letters(), task, [2], [4], 6, 3, size, most_tokens=4000)
    cell: Any = table.cells[0]
    assert (cell.right, cell.count) == (5, 6)
    lengths = [len(reply) + 1 for reply in list(replies.values())[1:]]
    assert cell.tokens == pytest.approx((sum(lengths) + 1) / 6)
    assert accuracy_in_writing(Knowing(replies), Letters(), task, [2], [4], 6, 3, size, most_tokens=3).cells[0].right == 0
