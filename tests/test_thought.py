"""A Thought is a value: immutable, branched, saved and restored bit for bit, taken apart by rows."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import latentweaver as lw

IDS = torch.tensor([[5, 9, 2, 7, 1], [3, 3, 8, 4, 6]])


@pytest.fixture
def model(tiny):
    return tiny()


@torch.no_grad()
def test_thinking_leaves_the_old_thought_alone(model):
    thought = model.begin(IDS)
    before = thought.state.clone()
    after = model.think(thought)
    assert torch.equal(thought.state, before)
    assert (thought.step == 0).all() and (after.step == 1).all()
    assert after.parent == thought.identity != after.identity
    with pytest.raises(dataclasses.FrozenInstanceError):
        thought.step = after.step
    with pytest.raises(TypeError):
        thought.anchor["input"] = before


@torch.no_grad()
def test_thinking_again_gives_the_same(model):
    thought = model.think(model.begin(IDS))
    assert model.think(thought).same_as(model.think(thought))


@torch.no_grad()
@pytest.mark.parametrize("cached", [False, True])
def test_branches_do_not_disturb_each_other(model, cached):
    thought = model.think(model.begin(IDS, cache=model.new_cache() if cached else None))
    other = thought.branch(thought.state + 0.1)
    alone = lw.think_for(model, model.think(model.begin(IDS)), 4)
    a, b = thought, other
    for _ in range(4):
        a, b = model.think(a), model.think(b)
    assert torch.allclose(a.state, alone.state, atol=1e-6)
    assert not torch.allclose(b.state, alone.state, atol=1e-3)


@torch.no_grad()
def test_a_restored_thought_continues_bit_for_bit(model, tmp_path):
    thought = lw.think_for(model, model.begin(IDS, generator=7), 2)
    thought.save(tmp_path / "thought.safetensors")
    again = lw.Thought.load(tmp_path / "thought.safetensors")
    assert again.same_as(thought) and again.identity == thought.identity
    assert torch.equal(lw.think_for(model, again, 3).state, lw.think_for(model, thought, 3).state)


def test_a_generator_is_restored_where_it_was(tmp_path):
    generator = torch.Generator().manual_seed(3)
    torch.rand(5, generator=generator)
    lw.Thought.start(torch.zeros(1, 1, 2), generator=generator).save(tmp_path / "thought")
    again = lw.Thought.load(tmp_path / "thought").generator
    assert torch.equal(torch.rand(4, generator=again), torch.rand(4, generator=generator))


@torch.no_grad()
def test_a_thought_with_a_cache_is_not_saved_by_half(model, tmp_path):
    with pytest.raises(lw.InputError, match="cache"):
        model.begin(IDS, cache=model.new_cache()).save(tmp_path / "thought")


def test_a_file_that_holds_no_thought(tmp_path):
    from safetensors.torch import save_file

    save_file({"state": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(lw.InputError, match="holds no Thought"):
        lw.Thought.load(tmp_path / "other")


@torch.no_grad()
@pytest.mark.parametrize("cached", [False, True])
def test_rows_think_as_they_would_in_the_batch(model, cached):
    whole = model.think(model.begin(IDS, cache=model.new_cache() if cached else None))
    part = whole.rows(torch.tensor([1]))
    assert part.step.shape == (1, 5)
    assert torch.allclose(model.think(part).state, model.think(whole).state[1:], atol=1e-6)


@torch.no_grad()
def test_another_state_must_have_the_same_shape(model):
    thought = model.begin(IDS)
    with pytest.raises(lw.InputError, match=r"\[2, 5, 32\].*\[1, 5, 32\]"):
        thought.branch(thought.state[:1])


@torch.no_grad()
def test_many_steps_are_one_step_many_times(model):
    start = model.begin(IDS)
    by_hand = start
    for _ in range(6):
        by_hand = model.think(by_hand)
    assert torch.equal(lw.think_for(model, start, 6).state, by_hand.state)
    assert torch.equal(model(IDS, num_steps=6).logits, model.read(by_hand).logits)


def test_the_example_reasoner_speaks_the_same_verbs(capsys):
    import runpy
    from pathlib import Path

    runpy.run_path(str(Path(__file__).parents[1] / "examples" / "own_reasoner.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    document = (Path(__file__).parents[1] / "docs" / "own-reasoner.md").read_text()
    assert lines[1].startswith("steps until nothing changes: [5, 2]")
    assert all(line in document for line in lines), "the document shows what the example prints"
