"""Lenses, flips, neighbours and patches on models whose thoughts were built by hand."""

import math

import numpy as np
import pytest
import torch
from maps import Map, seeded, turn

import latentweaver as lw
from latentweaver.inspect import label, record
from latentweaver.inspect.bank import build_bank
from latentweaver.inspect.lens import alarm_threshold, block_effect, coda_lens, find_flips, head_lens, read_steps
from latentweaver.inspect.patching import disturb, interchange, think_with, verdict
from latentweaver.inspect.probes import probe
from latentweaver.inspect.tuned import lens_divergence, tune_lens

ONE = torch.zeros(1, 1, dtype=torch.long)


class Counter:
    """A modular counter by hand: the state is a point on a circle of p, each step turns it by one, the head has p directions."""

    def __init__(self, p, step=1.0):
        self.p = p
        angle = 2 * math.pi / p * torch.arange(p, dtype=torch.float64)
        self.points = torch.stack([angle.cos(), angle.sin()], -1)
        self.turn = turn(step * 2 * math.pi / p)

    def begin(self, input_ids, attention_mask=None, initial_state=None, generator=None):
        return lw.Thought.start(self.points[input_ids % self.p] if initial_state is None else initial_state)

    def think(self, thought):
        return thought.advance(thought.state @ self.turn.T)

    def read(self, thought):
        return lw.Readout(logits=(20 * thought.state @ self.points.T).float())


class TestCounters:
    @pytest.mark.parametrize("p", [5, 7, 11, 23])
    def test_a_modular_counter(self, p):  # [V12b]
        model, start = Counter(p), torch.tensor([[2, 3]])
        assert {str(one) for one in label(record(model, start, steps=128))} == {f"orbit({p})"}
        reading = read_steps(model, start, steps=30, tokens=None)
        for token, a in enumerate((2, 3)):
            assert reading.top_ids[0, :, token, 0].tolist() == [(a + t) % p for t in range(31)]

    def test_one_changed_weight_breaks_it(self):  # [V12b]
        model = Counter(7, step=1.02)
        assert label(record(model, ONE, steps=128))[0, 0].name == "quasi_orbit"
        said = read_steps(model, ONE, steps=60).top_ids[0, :, 0, 0]
        assert said.tolist() != [t % 7 for t in range(61)]

    def test_an_accumulator_counts_along_a_line(self):  # [V13]
        rng = np.random.default_rng(0)
        u = torch.from_numpy(rng.normal(size=16))
        model = Map(lambda state, _: state + u, 16)
        trajectory = record(model, ONE, steps=128)
        one = label(trajectory)[0, 0]
        assert one.name == "slider"
        direction = one.evidence.rotation.drift_direction
        assert abs(direction @ u.numpy()) / np.linalg.norm(u) > 0.99
        counted = trajectory.at(0, 0) @ direction
        assert np.corrcoef(counted, np.arange(129))[0, 1] ** 2 > 0.95


class Spelled:
    """The state after t steps is the embedding of a known token; the coda is the identity, so it is read exactly."""

    def __init__(self, word, vocabulary=12, blocks=1):
        self.word, self.blocks = word, blocks
        self.table = torch.linalg.qr(torch.randn(vocabulary, vocabulary, generator=seeded(0), dtype=torch.float64))[0]

    def begin(self, input_ids, attention_mask=None, initial_state=None, generator=None):
        return lw.Thought.start(self.table[self.word[0]].expand(*input_ids.shape, -1))

    def think(self, thought):
        t = int(thought.step[0, 0]) + 1
        return thought.advance(self.table[self.word[t % len(self.word)]].expand_as(thought.state))

    def read(self, thought):
        return lw.Readout(logits=(10 * thought.state @ self.table.T).float())

    def get_output_embeddings(self):
        return lambda state: 10 * state @ self.table.T


class TestLenses:
    def test_decodes_exactly_at_every_step(self):  # [V15]
        word = [3, 1, 4, 1, 5, 9, 2, 6]
        model = Spelled(word)
        for lens in (coda_lens(model), head_lens(model)):
            reading = read_steps(model, ONE, steps=7, lens=lens, control=0, pair=(6, 1), top=3)
            assert reading.top_ids[0, :, 0, 0].tolist() == word
            assert reading.answers.tolist() == [[6]]
            assert reading.answer_rank[0, -1, 0] == 0
            assert (reading.control_rank[0, :, 0] > 0).all()
            assert reading.pair_difference[0, -1, 0] == pytest.approx(10, abs=1e-4)
            assert reading.pair_difference[0, 1, 0] == pytest.approx(-10, abs=1e-4)
            assert reading.kl_final[0, -1, 0] == pytest.approx(0, abs=1e-5)
            assert reading.decodable().tolist() == word

    def test_the_wrong_block_reads_something_else(self):  # [V15]
        model = Spelled([3] * 9)
        other = torch.linalg.qr(torch.randn(12, 12, generator=seeded(5), dtype=torch.float64))[0]

        def within(thought):  # a point inside the step, before its last block has turned the state back
            return model.read(thought.branch(thought.state @ other)).logits

        right = read_steps(model, ONE, steps=8).answer_rank[0, :, 0]
        wrong = read_steps(model, ONE, steps=8, lens=within).answer_rank[0, :, 0]
        assert (right == 0).all()
        assert wrong.max() > 0
        assert block_effect(np.stack([right, wrong], 1)) > 0.9
        noise = np.random.default_rng(0).integers(100, size=(40, 4))
        assert block_effect(noise) < 0.3

    def test_a_tuned_lens_reads_what_the_coda_cannot(self):
        target = torch.linalg.qr(torch.randn(6, 6, generator=seeded(2), dtype=torch.float64))[0].float()

        class Late:  # the answer is there from the start, but only the last step turns it to where the head looks
            def begin(self, input_ids, attention_mask=None, initial_state=None, generator=None):
                return lw.Thought.start(5 * torch.nn.functional.one_hot(input_ids, 6).float() @ target)

            def think(self, thought):
                return thought.advance(thought.state @ target.T if int(thought.step[0, 0]) == 3 else thought.state)

            def read(self, thought):
                return lw.Readout(logits=thought.state)

        model = Late()
        train = [torch.randint(0, 6, (4, 5), generator=seeded(i)) for i in range(4)]
        held = [torch.randint(0, 6, (4, 5), generator=seeded(9))]
        before = lens_divergence(model, coda_lens(model), held, 4)
        after = lens_divergence(model, tune_lens(model, train, 4, epochs=60, lr=0.03), held, 4)
        assert (before[:4] > 1).all()
        assert (after[:4] < 0.05).all()
        assert before[4] == pytest.approx(0, abs=1e-6)
        assert after[4] == pytest.approx(0, abs=1e-6)

    def test_the_nearest_neighbour_is_the_same_token_elsewhere(self):
        model = Counter(9)
        bank = build_bank(model, [torch.tensor([[1, 2]]), torch.tensor([[5, 6]])], ["one two", "five six"], steps=[0, 2])
        found = bank.search(model.points[6].numpy(), k=1)[0]
        assert (found.text, found.position, found.step) == ("five six", 1, 0)
        assert found.similarity == pytest.approx(1)
        with pytest.raises(lw.InputError, match="width 2"):
            bank.search(np.zeros(3))

    def test_in_a_transformer(self):
        torch.manual_seed(0)
        config = lw.RecurrentDepthConfig(
            vocab_size=11, hidden_size=16, intermediate_size=32, num_attention_heads=2, prelude_layers=1, core_layers=1, coda_layers=1, num_steps=4
        )  # fmt: skip
        model = lw.RecurrentDepthForCausalLM(config).eval()
        ids = torch.randint(0, 11, (2, 5), generator=seeded(0))
        reading = read_steps(model, ids, steps=4, tokens=None, lens=head_lens(model))
        assert reading.top_ids.shape == (2, 5, 5, 5)
        lens = tune_lens(model, [ids], 4, epochs=30, lr=3e-2)
        assert lens_divergence(model, lens, [ids], 4).sum() < lens_divergence(model, coda_lens(model), [ids], 4).sum()
        assert all(p.grad is None for p in model.parameters())


def planted_flip(at, steps=16, noise=0.0, rng=None, size=4.0):
    """Token 1 leads until step `at`, token 2 from then on."""
    logits = np.zeros((steps + 1, 10))
    logits[:at, 1], logits[at:, 1] = size, 1
    logits[:at, 2], logits[at:, 2] = 1, size
    if rng is not None:
        logits += noise * rng.normal(size=logits.shape)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


class TestFlips:
    def test_a_flip_at_step_7_of_16(self):  # [V25]
        found = find_flips(planted_flip(7))
        assert found.steps == (7,)
        assert (found.last, found.lead) == (7, 9)
        assert (found.advantage[:7] < 0).all()
        assert (found.advantage[7:] > 0).all()
        assert not found.unstable
        assert find_flips(planted_flip(15)).unstable
        assert find_flips(planted_flip(0)).last is None

    def test_in_a_model(self):  # [V25]
        table = torch.zeros(17, 5, dtype=torch.float64)
        table[:7, 1], table[7:, 3] = 4, 4
        model = Map(lambda state, thought: table[int(thought.step[0, 0]) + 1].expand_as(state), 5, start=table[0])
        found = read_steps(model, ONE, steps=16).flips()
        assert (found.steps, found.last, found.lead) == ((7,), 7, 9)
        assert np.sign(found.advantage).tolist() == [-1] * 7 + [1] * 10

    @pytest.mark.parametrize("rate", [0.05, 0.01])
    def test_false_alarms_stay_below_the_nominal_rate(self, rate):  # [V25]
        rng = np.random.default_rng(0)

        def stable(count):
            return [find_flips(planted_flip(0, noise=0.6, rng=rng)).score for _ in range(count)]

        threshold = alarm_threshold(stable(1000), rate)
        fresh = np.array(stable(3000))
        assert (fresh > threshold).mean() <= rate + 3 * math.sqrt(rate / 1000)
        late = [find_flips(planted_flip(15, noise=0.3, rng=rng)).score for _ in range(200)]
        assert np.mean(np.array(late) > threshold) > 0.95
        with pytest.raises(lw.InputError, match="at least 99"):
            alarm_threshold([0.0] * 50, 0.01)

    def test_bad_input(self):
        with pytest.raises(lw.InputError, match="NaN from step 2"):
            find_flips(np.where(np.arange(5)[:, None] == 2, np.nan, planted_flip(1, 4)))


class Mediated:
    """Two channels hold the same bit: channel 0 feeds the answer, channel 1 is a copy that nothing looks at. The rest is noise."""

    def begin(self, input_ids, attention_mask=None, initial_state=None, generator=None):
        bit = (input_ids[:, :1] % 2).double() * 2 - 1
        rest = torch.sin(input_ids.double()[..., None] * torch.arange(1, 7))
        state = torch.cat([bit[..., None].expand(-1, input_ids.shape[1], 2), rest], -1)
        return lw.Thought.start(state if initial_state is None else initial_state, anchor={})

    def think(self, thought):
        return thought.advance(torch.cat([thought.state[..., :2], 0.9 * thought.state[..., 2:]], -1))

    def read(self, thought):
        return lw.Readout(logits=torch.stack([-3 * thought.state[..., 0], 3 * thought.state[..., 0]], -1).float())


def prompts(count, seed):
    """Prompts of two tokens, donors with the other bit, donors with the same bit."""
    ids = torch.randint(0, 500, (count, 2), generator=seeded(seed))
    shuffled = torch.randint(0, 500, (count, 2), generator=seeded(seed + 1))
    same = shuffled.clone()
    same[:, 0] = shuffled[:, 0] - shuffled[:, 0] % 2 + ids[:, 0] % 2
    other = same.clone()
    other[:, 0] = same[:, 0] ^ 1
    return ids, other, same


class TestPatching:
    @pytest.mark.parametrize(("channel", "causal"), [(0, True), (1, False)])
    def test_the_mediator_is_causal_and_its_copy_only_readable(self, channel, causal):  # [V24]
        model = Mediated()
        ids, other, same = prompts(100, 0)
        states = record(model, ids, steps=4).states[:, 2, -1]
        read = probe(
            states[:, [channel]] + 0.1 * np.random.default_rng(0).normal(size=(100, 1)), (ids[:, 0] % 2).numpy(), np.arange(100)
        ).probe
        found = interchange(model, ids, other, same, step=2, steps=4, subspace=[channel])
        said = verdict(read.low > 0.5, found.causal, "the bit")
        assert (said.readable, said.causal) == (True, causal)
        assert found.same.changed == 0
        assert found.other.changed == float(causal)
        if causal:
            assert found.shift == pytest.approx(12, abs=0.01)
            assert found.other.recovered == 1
            assert "depends on it" in said.sentence
        else:
            assert found.shift == 0
            assert "nothing shows" in said.sentence

    def test_directions_as_well_as_channels(self):
        ids, other, same = prompts(40, 3)
        along = torch.zeros(1, 8, dtype=torch.float64)
        along[0, 0] = 1
        assert interchange(Mediated(), ids, other, same, step=1, steps=3, subspace=along).causal
        assert not interchange(Mediated(), ids, other, same, step=1, steps=3, subspace=along.roll(1)).causal

    def test_disturbances(self):
        ids = prompts(60, 5)[0]
        ids[:30, 0], ids[30:, 0] = 2, 3
        done = {
            kind: disturb(Mediated(), ids, kind, step=2, steps=4, subspace=[0] if kind != "truncate" else None)
            for kind in ("noise", "mean", "permute tokens", "permute rows", "truncate")
        }
        assert done["truncate"].changed == 0  # the answer was ready
        assert done["permute tokens"].changed == 0  # both tokens hold the bit
        assert done["mean"].drop > 0.5
        assert 0.2 < done["permute rows"].changed < 0.8
        assert done["noise"].drop > 0
        copy = disturb(Mediated(), ids, "noise", step=2, steps=4, subspace=[1], size=10)
        assert (copy.changed, copy.drop) == (0, 0)

    def test_no_edit_is_no_change(self):
        ids = prompts(4, 7)[0]
        model = Mediated()
        plain = think_with(model, model.begin(ids), 3, {})
        same = think_with(model, model.begin(ids), 3, {1: lambda thought: thought.state})
        assert torch.equal(plain.state, same.state)

    def test_a_verdict_never_says_what_the_model_thinks(self):
        for readable in (True, False):
            for causal in (True, False):
                assert "thinks" not in verdict(readable, causal).sentence

    def test_bad_input(self):
        ids, other, same = prompts(4, 0)
        with pytest.raises(lw.InputError, match="edits after steps"):
            interchange(Mediated(), ids, other, same, step=9, steps=4, subspace=[0])
        with pytest.raises(lw.InputError, match="shape of the inputs"):
            interchange(Mediated(), ids, other[:2], same, step=1, steps=4)
        with pytest.raises(lw.InputError, match="cannot"):
            disturb(Mediated(), ids, "shout", step=1, steps=2)
