"""Halting saves real work: a row that has halted is not computed, state-based rules never run the coda, and rules are small."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import latentweaver as lw
from latentweaver.halting import (
    KL,
    Acceleration,
    ArgmaxStability,
    Confidence,
    Cosine,
    EntropyChange,
    Fixed,
    HaltingRule,
    LearnedGate,
    StateChange,
    View,
)


class Settling:
    """A reasoner whose row i moves by `pace[i]` ** step along one axis: its rules' values are known by hand."""

    def __init__(self, pace):
        self.pace = torch.tensor(pace)
        self.rows_thought, self.reads = [], 0

    def begin(self, input_ids, attention_mask=None, initial_state=None, generator=None):
        state = torch.ones(*input_ids.shape, 4)
        pace = self.pace[: len(input_ids), None, None].expand(-1, input_ids.shape[1], 1)
        return lw.Thought.start(state, anchor={"pace": pace, "move": torch.ones(1, 1, 4)})

    def think(self, thought):
        self.rows_thought.append(len(thought.state))
        pace = thought.anchor["pace"]
        step = thought.step[..., None] + 1
        return thought.advance(thought.state + pace**step * thought.anchor["move"])

    def read(self, thought):
        self.reads += 1
        return lw.Readout(logits=thought.state * torch.arange(4.0))


IDS = torch.zeros(3, 2, dtype=torch.long)


def test_a_halted_row_is_not_computed_any_more():
    model = Settling([0.1, 0.5, 0.9])
    rule = StateChange(0.05)
    settled = lw.think_until(model, model.begin(IDS), rule, max_steps=20)
    took = settled.step[:, 0].tolist()
    assert took == sorted(took) and len(set(took)) == 3
    assert model.rows_thought == [sum(step <= mine for mine in took) for step in range(1, max(took) + 1)]
    for row in range(3):
        alone = lw.think_for(Settling(model.pace[row : row + 1].tolist()), Settling([model.pace[row].item()]).begin(IDS[:1]), took[row])
        assert torch.equal(settled.state[row], alone.state[0])


def test_positions_may_halt_by_themselves():
    model = Settling([0.5])
    start = model.begin(IDS[:1])
    start = start.branch(torch.tensor([[[1.0] * 4, [100.0] * 4]]))
    settled = lw.think_until(model, start, StateChange(0.01), max_steps=20, together=False)
    assert settled.step[0, 1] < settled.step[0, 0]
    after = lw.think_for(model, start, int(settled.step[0, 1]))
    assert torch.equal(settled.state[0, 1], after.state[0, 1])


@pytest.mark.parametrize("rule", [StateChange(0.01), Cosine(1e-4), Acceleration(0.01), Fixed(4)], ids=lambda rule: type(rule).__name__)
def test_state_based_rules_never_read(rule):
    model = Settling([0.5])
    lw.think_until(model, model.begin(IDS[:1]), rule, max_steps=8)
    assert model.reads == 0


@pytest.mark.parametrize("rule", [KL(), KL(min_p=0.1), EntropyChange(), ArgmaxStability(3)], ids=str)
def test_readout_based_rules_read_once_a_step(rule):
    model = Settling([0.5])
    settled = lw.think_until(model, model.begin(IDS[:1]), rule, max_steps=30)
    assert model.reads == settled.step[0, 0] < 30


def test_state_based_rules_never_run_the_coda_of_a_real_model(tiny):
    model, runs = tiny(initializer_range=0.05), []
    model.model.coda[0].register_forward_hook(lambda *_: runs.append(1))
    with torch.no_grad():
        lw.think_until(model, model.begin(IDS + 5), StateChange(0.1), max_steps=12)
    assert not runs
    out = model.generate(
        IDS[:1] + 5, num_steps=12, halting=StateChange(0.1), max_new_tokens=4, do_sample=False, return_dict_in_generate=True
    )
    assert len(runs) == 4 and out.steps.sum() < 4 * 12, "the coda runs once a token, to read it"


class TestValues:
    """The formulas, on states that one can compute by hand."""

    def trace(self, rule, states):
        class Given:
            def read(self, thought):
                return lw.Readout(logits=thought.state)

        thoughts = [lw.Thought.start(torch.tensor(state, dtype=torch.float32)[None, None]) for state in states]
        memory, values = rule.start(thoughts[0]), []
        for thought in thoughts[1:]:
            value, memory = rule.measure(memory, View(Given(), thought))
            values.append(value.item())
        return values

    def test_state_change(self):
        assert self.trace(StateChange(), [[0, 0], [3, 4], [3, 0]]) == pytest.approx([1.0, 4 / 3])

    def test_cosine(self):
        assert self.trace(Cosine(), [[0, 0], [1, 0], [0, 2], [0, 5]]) == pytest.approx([1.0, 1.0, 0.0])

    def test_acceleration_has_no_value_before_two_steps_and_none_for_a_steady_one(self):
        assert self.trace(Acceleration(), [[1, 0], [2, 0], [3, 0], [5, 0]]) == pytest.approx([torch.inf, 0.0, 1 / 5])

    def test_kl_from_uniform_and_from_the_last(self):
        p, q = torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.5])
        logits = p.log().tolist()
        assert self.trace(KL(), [[0, 0], logits, logits]) == pytest.approx([(q * (q / p).log()).sum().item(), 0.0], abs=1e-6)

    def test_entropy_change(self):
        flat, sharp = [0.0, 0.0], [100.0, 0.0]
        values = self.trace(EntropyChange(), [flat, flat, sharp])
        assert values == pytest.approx([100 - torch.tensor(2.0).log().item(), torch.tensor(2.0).log().item()], abs=1e-4)

    def test_argmax_stability_counts_and_starts_again(self):
        a, b = [1.0, 0.0], [0.0, 1.0]
        assert self.trace(ArgmaxStability(), [a, a, a, a, b, b]) == [0, 1, 2, 0, 1]

    def test_confidence_counts_steps_in_a_row(self):
        unsure, sure = [0.0, 0.0], [9.0, 0.0]
        assert self.trace(Confidence(0.9), [unsure, sure, unsure, sure, sure]) == [1, 0, 1, 2]

    def test_learned_gate_adds_up_the_chances_of_leaving(self):
        class GateOf:
            def exit_logit(self, thought):
                return thought.state[..., 0]

            def begin(self): ...

        rule, half = LearnedGate(0.7), lw.Thought.start(torch.zeros(1, 1, 1))
        memory = rule.start(half)
        values = []
        for _ in range(3):
            value, memory = rule.measure(memory, View(GateOf(), half, read=lambda thought: None))
            values.append(value.item())
        assert values == pytest.approx([0.5, 0.75, 0.875])
        assert not rule.enough(torch.tensor(0.69)) and rule.enough(torch.tensor(0.7))
        assert not LearnedGate(1.0).enough(torch.tensor(1.0)), "threshold 1 means the last step, also where rounding gives 1"


@settings(max_examples=40, deadline=None)
@given(
    pace=st.lists(st.floats(0.05, 0.95), min_size=1, max_size=4),
    threshold=st.floats(1e-3, 0.5),
    least=st.integers(1, 6),
    more=st.integers(0, 12),
)
def test_steps_lie_between_the_bounds_and_a_stricter_rule_takes_no_fewer(pace, threshold, least, more):
    ids, most = torch.zeros(len(pace), 1, dtype=torch.long), least + more

    def run(limit):
        model = Settling(pace)
        return lw.think_until(model, model.begin(ids), StateChange(limit), max_steps=most, min_steps=least).step

    loose, strict = run(threshold), run(threshold / 3)
    assert ((least <= loose) & (loose <= strict) & (strict <= most)).all()


def test_a_rule_of_ones_own():
    @dataclass(frozen=True)
    class Confident(HaltingRule):
        probability: float = 0.85
        summary = "last"

        def start(self, thought):
            return {}

        def measure(self, memory, view):
            return view.log_probs.amax(-1).exp(), memory

        def enough(self, value):
            return value >= self.probability

    model = Settling([0.5, 0.99])
    settled = lw.think_until(model, model.begin(IDS[:2]), Confident(), max_steps=30)
    said = model.read(settled).logits.softmax(-1).amax(-1)[:, -1]
    assert (said >= 0.85).all() and settled.step[0, 0] > settled.step[1, 0]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: StateChange(0), "threshold.*0"),
        (lambda: KL(-1), "threshold.*-1"),
        (lambda: Fixed(0), "steps.*0"),
        (lambda: ArgmaxStability(0), "patience.*0"),
        (lambda: Confidence(1.0), r"\(0, 1\).*1.0"),
        (lambda: LearnedGate(1.5), r"\(0, 1\].*1.5"),
    ],
)
def test_thresholds_that_mean_nothing(make, said):
    with pytest.raises(lw.InputError, match=said):
        make()


def test_a_gate_that_is_not_there(tiny):
    with pytest.raises(lw.InputError, match="no exit gate"):
        tiny().generate(IDS[:1] + 1, halting=LearnedGate(0.5), max_new_tokens=1)


def test_a_shipped_reasoner_knows_when_it_knows():
    """weaver-chains answers a chain of depth d from step d + 1 on, and is sure of it only then."""
    model, tokenizer = lw.load("weaver-chains", device="cpu"), lw.load_tokenizer("weaver-chains")
    for question, answer, depth in (("r=3 k=r+4 q=k+r ?q=", "0", 2), ("a=3 b=a+4 c=b+a d=c+b e=d+d f=e+1 ?f=", "5", 5)):
        ids = tokenizer(question, return_tensors="pt").input_ids
        out = model.generate(
            ids, num_steps=40, halting=Confidence(), max_new_tokens=1, do_sample=False, return_dict_in_generate=True, pad_token_id=0
        )
        assert tokenizer.decode(out.sequences[0, -1]) == answer
        assert depth + 1 <= out.steps[0, 0] <= depth + 3
