"""The cache of a looped model: what each policy keeps, what deeper tokens find, and that it is one piece of memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import latentweaver as lw
from latentweaver.runtime.cache import cache_policy


def filled(cache, positions, value, slot, batch=1):
    key = torch.full((batch, 2, positions, 4), float(value))
    return cache.update(key, key + 0.5, slot)


def pairs(step, layer):
    """A policy of one's own: two steps share a bank."""
    return step // 2, layer


@settings(max_examples=100, deadline=None)
@given(
    tokens=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    core=st.integers(1, 3),
    policy=st.sampled_from(["full", "shared", "shared:2", "shared:3", "anchor:2", pairs]),
)
def test_a_token_is_found_where_it_wrote_last_or_at_the_deepest_step_it_reached(tokens, core, policy):
    """Each token writes its own number plus a hundredth of the step; what it wrote into a bank is found there, else its last."""
    cache, bank_of = lw.LoopCache(once_layers=1, core_layers=core, policy=policy, capacity=2), cache_policy(policy)
    for place, depth in enumerate(tokens):
        cache.extend(1, 1)
        filled(cache, 1, place, 0)
        for step in range(depth):
            for layer in range(core):
                bank = bank_of(step, layer)[0]
                keys, values = filled(cache, 1, place + step / 100, 1 + step * core + layer)
                expected = []
                for earlier in range(place):
                    there = [s for s in range(tokens[earlier]) if bank_of(s, layer)[0] == bank]
                    expected.append(earlier + (there or range(tokens[earlier]))[-1] / 100)
                assert keys[0, 0, :, 0].tolist() == pytest.approx([*expected, place + step / 100])
                assert torch.equal(values, keys + 0.5)


def test_a_policy_that_leaves_banks_out_is_refused(tiny):
    with pytest.raises(lw.InputError, match=r"bank 2.*bank 1"), torch.no_grad():
        tiny().generate(torch.tensor([[5, 9]]), cache_policy=lambda step, layer: (2 * step, layer), max_new_tokens=2)


@pytest.mark.parametrize(("policy", "banks"), [("full", 6), ("shared", 1), ("shared:4", 4), ("anchor:3", 4)])
def test_what_a_policy_keeps(policy, banks):
    cache = lw.LoopCache(once_layers=0, core_layers=2, policy=policy, capacity=8)
    cache.extend(3, 1)
    for step in range(6):
        for layer in range(2):
            keys, _ = filled(cache, 3, step, step * 2 + layer)
            assert (keys == step).all()
    assert cache.memory() == banks * 2 * 2 * 2 * 8 * 4 * 4


def test_policies_by_name():
    assert [cache_policy("anchor:2")(step, 1) for step in range(4)] == [(0, 1), (1, 1), (2, 1), (2, 1)]
    assert [cache_policy("shared:2")(step, 0)[0] for step in range(4)] == [0, 1, 0, 1]
    for name in ("compress", "shared:0", "anchor", "full:2", "shared:x"):
        with pytest.raises(lw.InputError, match=name):
            cache_policy(name)


def test_growing_keeps_what_was_written():
    cache = lw.LoopCache(1, 1, capacity=2)
    for place in range(9):
        cache.extend(1, 1)
        filled(cache, 1, place, 0)
        keys, _ = filled(cache, 1, place, 1)
        assert keys[0, 0, :, 0].tolist() == list(range(place + 1))


def test_keys_are_views_of_one_piece_of_memory():
    cache = lw.LoopCache(1, 2, capacity=16)
    cache.extend(2, 1)
    first, _ = filled(cache, 2, 1, 1)
    second, _ = filled(cache, 2, 2, 2)
    assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()


def test_copies_go_their_own_way():
    cache = lw.LoopCache(1, 1)
    cache.extend(1, 1)
    filled(cache, 1, 1, 0)
    other = cache.copy()
    other.extend(1, 1)
    filled(other, 1, 2, 0)
    cache.extend(1, 1)
    keys, _ = filled(cache, 1, 3, 0)
    assert keys[0, 0, :, 0].tolist() == [1, 3] and other.get_seq_length() == 2


def test_rows_are_chosen_repeated_and_cropped():
    cache = lw.LoopCache(1, 1)
    cache.extend(2, 2)
    cache.update(torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 2, 4), torch.zeros(2, 1, 2, 4), 0)
    cache.batch_repeat_interleave(2)
    cache.reorder_cache(torch.tensor([3, 0]))
    cache.crop(1)
    cache.extend(1, 2)
    keys, _ = cache.update(torch.full((2, 1, 1, 4), 9.0), torch.zeros(2, 1, 1, 4), 0)
    assert keys[:, 0, :, 0].tolist() == [[1, 9], [0, 9]]


@torch.no_grad()
def test_positions_at_different_steps_cannot_share_a_step(tiny):
    model = tiny()
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    start = model.begin(ids, cache=model.new_cache())
    settled = lw.think_until(model, start, lw.halting.StateChange(1.0), max_steps=9, together=False)
    assert len(set(settled.step.flatten().tolist())) > 1
    with pytest.raises(lw.InputError, match="same step"):
        model.think(settled)


@torch.no_grad()
def test_a_cache_of_transformers_cannot_be_taken_apart(tiny):
    from transformers import DynamicCache

    model = tiny()
    ids = torch.tensor([[1, 2, 3]])
    with pytest.raises(lw.InputError, match="DynamicCache"):
        model.begin(ids, cache=DynamicCache()).rows(torch.tensor([0]))
    with pytest.raises(lw.InputError, match="halting needs the library's own cache"):
        model.generate(ids, halting=lw.halting.StateChange(0.1), cache_implementation="static", max_new_tokens=2)
