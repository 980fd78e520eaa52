"""Answers that are written with the way to them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from latentweaver.cli import main
from latentweaver.evaluate.worded import WRITTEN_SIZES, accuracy_in_writing, drawn
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
    assert cell.answered == 5
    assert accuracy_in_writing(Knowing(replies), Letters(), task, [2], [4], 6, 3, size, most_tokens=4000, batch_size=4) == table
    cut: Any = accuracy_in_writing(Knowing(replies), Letters(), task, [2], [4], 6, 3, size, most_tokens=3).cells[0]
    assert (cut.right, cut.answered, cut.tokens) == (0, 0, pytest.approx((5 * 3 + 1) / 6))


def test_cells_are_told_as_they_come_and_kept_in_order() -> None:
    task, told = WORDED["arrows"](), []
    replies = dict(step_by_step(problem)[:2] for level in (3, 1) for problem in drawn(task, level, 3, 0, (0.0, 0.1)))
    table = accuracy_in_writing(Knowing(replies), Letters(), task, [1, 4], [3, 1], 3, 0, (0.0, 0.1), 4000, report=told.append)
    assert [(cell.difficulty, cell.steps) for cell in told] == [(3, 4), (3, 1), (1, 4), (1, 1)]
    assert [(cell.difficulty, cell.steps) for cell in table.cells] == [(1, 1), (1, 4), (3, 1), (3, 4)]
    shown = str(table).splitlines()
    assert shown[3].split() == [f"{told[2].tokens:.0f}", "tokens"] * 2
    assert len(shown) == 1 + 2 * 3


class TestCommand:
    """`lw eval MODEL --written`, with a model that writes what it is made to."""

    @pytest.fixture
    def model(self, monkeypatch: pytest.MonkeyPatch) -> Knowing:
        from latentweaver.checkpoints import loading

        task = WORDED["homes"]()
        found = [problem for level in (1, 2) for problem in drawn(task, level, 5, 7, WRITTEN_SIZES)]
        model = Knowing(dict(step_by_step(problem) for problem in found))
        monkeypatch.setattr(loading, "load", lambda name, device: model)
        monkeypatch.setattr(loading, "load_tokenizer", lambda name: Letters())
        monkeypatch.setenv("COLUMNS", "200")
        return model

    ASKED = ["eval", "model", "--task", "homes", "--written", "--problems", "5", "--seed", "7", "--tokens", "4000"]

    def test_shows_and_keeps_accuracy_and_tokens(self, model: Knowing, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        main([*self.ASKED, "--steps", "1,4", "--difficulty", "2,1", "--json", str(tmp_path / "table.json")])
        lines, cells = capsys.readouterr().out.splitlines(), json.loads((tmp_path / "table.json").read_text())["cells"]
        assert lines[0].startswith("difficulty 1, steps 4: 80.0 (38-96), ")
        assert lines[4].startswith("model on homes, accuracy in per cent")
        assert [(cell["difficulty"], cell["steps"], cell["right"]) for cell in cells] == [(1, 1, 4), (1, 4, 4), (2, 1, 5), (2, 4, 5)]
        assert all(f"{cell['tokens']:.0f} tokens" in lines[8 if cell["difficulty"] == 1 else 11] for cell in cells)

    def test_a_model_that_does_not_come_to_an_answer_is_refused(self, model: Knowing, capsys: pytest.CaptureFixture[str]) -> None:
        assert "or --tokens 3 is too few" in self.refused(["--tokens", "3", "--difficulty", "1"], capsys)
        model.replies = dict.fromkeys(model.replies, " What a nice question.")
        assert "none of 5 replies (difficulty 1, steps 8) came to an answer: model was not taught" in self.refused(
            ["--steps", "8,2", "--difficulty", "1,2"], capsys
        )

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            (["--task", "chains"], "chains has no written form; tasks that have one: sums, homes,"),
            (["--tokens", "0"], "--tokens must be at least 1, got 0"),
            (["--difficulty", "2,30"], "--difficulty: homes has difficulties 1 to 24, got 30"),
        ],
    )
    def test_what_cannot_be_asked_is_refused_before_anything_is_loaded(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str], words: str
    ) -> None:
        assert words in self.refused(more, capsys)

    def test_a_tokenizer_without_words_is_refused(
        self, model: Knowing, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(Letters, "unk_token_id", ord("H"), raising=False)
        assert "has no tokens for 'Homes. " in self.refused([], capsys)

    def refused(self, more: list[str], capsys: pytest.CaptureFixture[str]) -> str:
        with pytest.raises(SystemExit) as stop:
            main([*self.ASKED, *more])
        assert stop.value.code == 2
        error = capsys.readouterr().err.strip()
        assert "\n" not in error
        return error
