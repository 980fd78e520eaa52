"""Hint, truncation and trace tests on planted models: what they go by and what they say is known by construction."""

import math

import numpy as np
import pytest
import torch

import latentweaver as lw
from latentweaver.inspect.stated import Writer, held_against, hint_test, truncation_test

DIGITS, HINT, INERT, MARK, END, BECAUSE, VOCABULARY = range(10), 10, 11, 12, 13, 14, 15


class Written:
    """Says one token after the text so far, as `rule` tells; its mind is made up after two latent steps, before it says END."""

    def __init__(self, rule):
        self.rule = rule

    def begin(self, input_ids, attention_mask=None, initial_state=None, generator=None):
        wanted = torch.tensor([[self.rule(row.tolist())] for row in input_ids])
        first = torch.nn.functional.one_hot(torch.full_like(wanted, END), VOCABULARY).double()
        return lw.Thought.start(first, anchor={"wanted": wanted})

    def think(self, thought):
        if int(thought.step.max()) < 1:
            return thought.advance(thought.state)
        return thought.advance(torch.nn.functional.one_hot(thought.anchor["wanted"], VOCABULARY).double())

    def read(self, thought):
        return lw.Readout(logits=(10 * thought.state).float())


def sums(uses_hint, says_hint, reads_chain=False):
    """`a b [HINT h | INERT h]`, then a, b and a + b are written; the answer is a + b, or the hint, or the last digit written."""

    def rule(ids):
        text = ids[: ids.index(MARK)] if MARK in ids else ids
        a, b = text[:2]
        hint = text[3] if text[2] == HINT else None
        chain = [a, b, (a + b) % 10]
        if hint is not None and says_hint:
            chain = [BECAUSE, hint, *chain]
        if MARK in ids:
            if reads_chain:
                return text[-1] if len(text) > 4 else 0
            return hint if hint is not None and uses_hint else (a + b) % 10
        return [*chain, END][len(text) - 4]

    return Written(rule)


def writer(model):
    return Writer(model, marker=(MARK,), end=END, most=8, steps=3)


def prompts(count=40, seed=0):
    rng = np.random.default_rng(seed)
    digits = rng.integers(10, size=(count, 2)).tolist()
    hints = [int((a + b + rng.integers(1, 10)) % 10) for a, b in digits]
    plain = [[a, b, INERT, 0] for a, b in digits]
    hinted = [[a, b, HINT, hint] for (a, b), hint in zip(digits, hints, strict=True)]
    inert = [[a, b, INERT, hint] for (a, b), hint in zip(digits, hints, strict=True)]
    return plain, hinted, inert, hints


def mentions(reasoning):
    return BECAUSE in reasoning


@pytest.mark.parametrize("uses", [True, False])
@pytest.mark.parametrize("says", [True, False])
def test_whether_the_answer_follows_a_hint_and_whether_it_is_said(uses, says):
    found = hint_test(writer(sums(uses, says)), *prompts(), mentions)
    assert found.prompts == 40
    assert found.uses == uses
    assert found.followed == float(uses)
    assert found.inert == 0
    if uses:
        assert found.said == float(says)
        assert ("not all that the answer goes by" in found.sentence) != says
        assert found.by_step[:2] == pytest.approx([0, 0])  # the hint works from the second latent step on
        assert found.by_step[2:] == pytest.approx([10, 10], abs=0.01)
    else:
        assert math.isnan(found.said)
        assert "nothing shows" in found.sentence
    assert "thinks" not in found.sentence


def test_a_text_that_is_as_good_as_a_hint_is_no_hint():
    plain, hinted, _, hints = prompts()
    found = hint_test(writer(sums(True, True)), plain, hinted, hinted, hints, mentions)
    assert found.followed == found.inert == 1
    assert not found.uses


def test_prompts_answered_by_the_hint_anyway_tell_nothing():
    plain, hinted, inert, hints = prompts()
    right = [(a + b) % 10 for a, b, *_ in plain]
    mixed = [*hints[:30], *right[30:]]
    hinted = [[*prompt[:3], hint] for prompt, hint in zip(hinted, mixed, strict=True)]
    assert hint_test(writer(sums(True, True)), plain, hinted, inert, mixed, mentions).prompts == 30
    with pytest.raises(lw.InputError, match="other answers"):
        hint_test(writer(sums(True, True)), plain, hinted, inert, right, mentions)


@pytest.mark.parametrize("reads_chain", [True, False])
def test_whether_the_answer_needs_the_reasoning(reads_chain):
    found = truncation_test(writer(sums(False, False, reads_chain)), prompts(60, 1)[0], kept=(0, 0.5, 1))
    assert found.needed == reads_chain
    assert found.same[-1] == 1
    if reads_chain:
        assert found.same[0] < 0.4
        assert found.swapped < 0.4
        assert "depends on it" in found.sentence
    else:
        assert found.same == (1, 1, 1)
        assert found.swapped == 1
        assert "nothing shows" in found.sentence


def test_decoded_values_are_held_against_those_of_other_problems():
    rng = np.random.default_rng(0)
    written = rng.integers(10, size=(80, 3)).tolist()
    faithful = held_against([[*one[:2], -1] for one in written], written)
    assert (faithful.precision, faithful.beyond_chance) == (1, True)
    assert faithful.recall == pytest.approx(2 / 3)
    assert faithful.other_precision < 0.4
    unrelated = held_against(rng.integers(10, size=(80, 3)).tolist(), written)
    assert not unrelated.beyond_chance
    always = held_against([[5, 5, 5]] * 80, [[5, *one] for one in written])  # a token that stands in every chain
    assert always.precision >= 1 / 3
    assert not always.beyond_chance


def test_in_a_transformer():
    torch.manual_seed(0)
    config = lw.RecurrentDepthConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_attention_heads=2, prelude_layers=1, core_layers=1, coda_layers=1, num_steps=3
    )  # fmt: skip
    model = lw.RecurrentDepthForCausalLM(config).eval()
    one = Writer(model, (MARK,), END, 4, 3)
    prompt = [1, 2, INERT, 3]
    reasoning = one.reasoning(prompt)
    wanted = model.generate(torch.tensor([prompt]), max_new_tokens=4, num_steps=3, do_sample=False, eos_token_id=END, pad_token_id=0)[
        0, 4:
    ].tolist()
    assert list(reasoning) == [token for token in wanted if token != END]
    assert one.answer(prompt, reasoning).shape == (4, VOCABULARY)
    hint_test(one, *prompts(4), mentions)


def test_bad_input():
    plain, hinted, inert, hints = prompts(4)
    with pytest.raises(lw.InputError, match="as many prompts"):
        hint_test(writer(sums(True, True)), plain[:2], hinted, inert, hints, mentions)
    with pytest.raises(lw.InputError, match="writes no reasoning"):
        truncation_test(writer(Written(lambda ids: END)), plain)
    with pytest.raises(lw.InputError, match="0 among them"):
        truncation_test(writer(sums(True, True)), plain, kept=(0.5, 1))
    with pytest.raises(lw.InputError, match="marker"):
        Writer(sums(True, True), (), END, 4, 3)
    with pytest.raises(lw.InputError, match="at least two"):
        held_against([[1]], [[1]])
