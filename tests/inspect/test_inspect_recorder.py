"""The recorder sees everything, keeps what was asked for, and changes nothing."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import latentweaver as lw
from latentweaver.inspect import Recorder, Trajectory, label, record

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = lw.RecurrentDepthConfig(
        vocab_size=61, hidden_size=32, intermediate_size=64, num_attention_heads=2, prelude_layers=1, core_layers=2, coda_layers=1, num_steps=4
    )  # fmt: skip
    return lw.RecurrentDepthForCausalLM(config).eval()


@pytest.fixture(scope="module")
def ids():
    return torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_holds_every_step_of_every_token_and_changes_no_bit(model, ids):
    states = [model.begin(ids)]
    for _ in range(12):
        states.append(model.think(states[-1]))
    trajectory = record(model, ids, steps=12, keep=("states", "top", "entropy"), track=[3])
    assert trajectory.states.shape == (2, 13, 9, 32)
    for step, thought in enumerate(states):
        assert np.array_equal(trajectory.states[:, step], thought.state.numpy())
        logprobs = model.read(thought).logits.log_softmax(-1)
        assert np.array_equal(trajectory.top_ids[:, step, :, 0], logprobs.argmax(-1).numpy())
        assert np.allclose(trajectory.tracked_logprobs[:, step, :, 0], logprobs[..., 3].numpy())
        assert np.allclose(trajectory.entropy[:, step], -(logprobs.exp() * logprobs).sum(-1).numpy(), atol=1e-5)
    assert torch.equal(trajectory.final.state, states[-1].state)
    assert torch.equal(model.read(trajectory.final).logits, model.read(states[-1]).logits)


def test_keeps_only_what_was_asked_for(model, ids):
    whole = record(model, ids, steps=8)
    some = record(model, ids, steps=8, tokens=[-1, 2], every=2)
    assert some.positions.tolist() == [8, 2]
    assert some.steps.tolist() == [0, 2, 4, 6, 8]
    assert np.array_equal(some.states, whole.states[:, ::2][:, :, [8, 2]])
    assert whole.entropy is None
    assert record(model, ids, steps=2, keep="entropy").states is None


def test_streams_large_recordings_to_disk(model, ids, tmp_path):
    held = record(model, ids, steps=8)
    streamed = record(model, ids, steps=8, path=tmp_path / "states.npy")
    assert isinstance(streamed.states.base, np.memmap) or isinstance(streamed.states, np.memmap)
    assert np.array_equal(held.states, streamed.states)
    assert np.array_equal(np.load(tmp_path / "states.npy"), held.states.swapaxes(0, 1))
    spilled = record(model, ids, steps=8, memory=1000)
    assert spilled.path is not None
    assert np.array_equal(held.states, spilled.states)


@pytest.mark.parametrize("policy", ["full", "shared", "anchor:2"])
def test_works_with_every_cache_and_as_a_hook_of_generate(model, ids, policy):
    plain = record(model, ids, steps=6)
    cached = record(model, ids, steps=6, cache=model.new_cache(policy))
    assert np.allclose(plain.states, cached.states, atol=1e-5)
    without = model.generate(ids, max_new_tokens=3, num_steps=5, do_sample=False, cache_policy=policy)
    recorder = Recorder(model, keep=("states", "top"))
    assert torch.equal(without, model.generate(ids, max_new_tokens=3, num_steps=5, do_sample=False, cache_policy=policy, watch=recorder))
    assert [t.states.shape for t in recorder.trajectories()] == [(2, 5, 9, 32), (2, 5, 1, 32), (2, 5, 1, 32)]


def test_rows_that_halt_early_end_there(model, ids):
    trajectory = record(model, ids, steps=60, halting=lw.halting.StateChange(0.02))
    assert len(set(trajectory.taken.tolist())) == 2
    short = int(trajectory.taken.argmin())
    assert np.isfinite(trajectory.states[short, : trajectory.taken[short]]).all()
    assert np.isnan(trajectory.states[short, trajectory.taken[short] :]).all()
    assert len(trajectory.to_pandas()) == int(trajectory.taken.sum()) * 9


def test_padding_is_known_as_padding(model, ids):
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    trajectory = record(model, ids, mask, steps=10)
    assert trajectory.real.sum() == 14
    assert len(label(trajectory)) == 14


def test_any_reasoner():
    from own_reasoner import Reachability

    chain = torch.tensor([[0, 1, 1, 2, 2, 3, 0]])
    trajectory = record(Reachability(5), chain, steps=8)
    assert trajectory.states[0][:, 0].sum(-1).tolist() == [1, 2, 3, 4, 4, 4, 4, 4, 4]
    assert label(trajectory)[0, 0].name == "fixed_point"


def test_bad_input_is_said_to_be_bad(model, ids):
    with pytest.raises(lw.InputError, match="without a recurrence"):
        record(torch.nn.Linear(2, 2), ids)
    with pytest.raises(lw.InputError, match="no tokens"):
        record(model, ids[:, :0])
    with pytest.raises(lw.InputError, match="steps"):
        record(model, ids, steps=0)
    with pytest.raises(lw.InputError, match="of a sequence of 9"):
        record(model, ids, steps=2, tokens=[9])
    for wrong in ("x", 1.5, [0.5]):
        with pytest.raises(lw.InputError, match="whole numbers"):
            record(model, ids, steps=2, tokens=wrong)
    with pytest.raises(lw.InputError, match="cannot keep"):
        record(model, ids, steps=2, keep="everything")
    with pytest.raises(lw.InputError, match="states must be"):
        Trajectory.of(np.zeros((0, 3)))


class _Still:
    """A model that calls itself a reasoner and does not think."""

    def begin(self, input_ids, **_):
        return lw.Thought.start(input_ids[..., None].float())

    def think(self, thought):
        return thought.advance(thought.state)

    def read(self, thought):
        return lw.Readout(logits=torch.cat([thought.state, -thought.state], -1))


class _Breaks(_Still):
    def think(self, thought):
        return thought.advance(thought.state * (torch.nan if int(thought.step[0, 0]) == 6 else 0.5))


class _GivesBack(_Still):
    def think(self, thought):
        return thought


def test_a_model_that_does_not_count_its_steps_is_told_so(tmp_path):
    with pytest.raises(lw.InputError, match=r"think of _GivesBack returned a thought of step 0 after one of step 0.*thought\.advance"):
        record(_GivesBack(), torch.tensor([[1, 2]]), steps=3)
    with pytest.raises(lw.InputError, match="think of _GivesBack"):
        lw.inspect.report(_GivesBack(), torch.tensor([[1, 2]]), tmp_path / "r.html", steps=20)


def test_odd_models_are_shown_as_what_they_are():
    ids = torch.tensor([[1, 2]])
    still = label(record(_Still(), ids, steps=20))[0, 1]
    assert still.name == "fixed_point"
    assert "still" in still.flags
    broken = label(record(_Breaks(), ids, steps=20))[0, 0]
    assert broken.name == "undetermined"
    assert "not finite" in broken.flags
    assert "step 7" in broken.reasons[0]
    one = label(record(_Still(), ids, steps=1))[0, 0]
    assert one.name in ("fixed_point", "undetermined")
    table = record(_Breaks(), ids, steps=20).to_pandas()
    assert table.norm[table.step == 19].isna().all()  # NaN is shown as NaN


@pytest.mark.slow
@torch.no_grad()
def test_costs_at_most_a_tenth_of_thinking():
    torch.manual_seed(0)
    config = lw.RecurrentDepthConfig(
        vocab_size=61, hidden_size=256, intermediate_size=512, num_attention_heads=4, prelude_layers=1, core_layers=4, coda_layers=1, num_steps=4
    )  # fmt: skip
    model = lw.RecurrentDepthForCausalLM(config).eval()
    ids = torch.randint(0, 61, (2, 64))

    def seconds(run):
        start = time.process_time()
        run()
        return time.process_time() - start

    def think():
        lw.think_for(model, replace(model.begin(ids)), 32)

    pairs = [(seconds(think), seconds(lambda: record(model, ids, steps=32))) for _ in range(7)]
    assert min(b for _, b in pairs) < 1.1 * min(a for a, _ in pairs)
