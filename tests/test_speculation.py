"""Guessing ahead in depth changes when a text is known, and nothing else."""

from __future__ import annotations

import pytest
import torch

import latentweaver as lw
from latentweaver.halting import StateChange
from latentweaver.runtime.wavefront_graph import GraphBeats, compiled

PROMPT = torch.tensor([[5, 9, 2, 7, 1, 30]])
PLAIN = {"max_new_tokens": 30, "do_sample": False, "pad_token_id": 0, "eos_token_id": None, "num_steps": 8}
WAYS = {
    "draft 2, verify": {"draft_steps": 2},
    "draft 3, verify 2": {"draft_steps": 3, "draft_tokens": 2},
    "wavefront of 8": {"draft_steps": 1, "wavefront": True},
    "wavefront of 4": {"draft_steps": 2, "wavefront": True},
    "wavefront of 1": {"draft_steps": 8, "wavefront": True},
}
FORMS = {
    "huginn": {},
    "ouro": {"norm_in_loop": True, "injection": "none", "initial_state": "input", "block": "peri", "prelude_layers": 0, "coda_layers": 0},
    "retrofit": {"block": "pre", "injection": "add", "norm_before_coda": False, "num_key_value_heads": 2, "initial_state": "zeros"},
}


def run(model, ids=PROMPT, **options):
    if options.get("beats") == "graph":
        options["beats"] = GraphBeats(model, options["num_steps"], 2, 40)
    return model.generate(ids, return_dict_in_generate=True, output_logits=True, **options)


def same(found, plain, tolerance=2e-4):
    assert found.sequences.tolist() == plain.sequences.tolist()
    assert float((torch.stack(found.logits) - torch.stack(plain.logits)).abs().max()) < tolerance


@pytest.mark.parametrize("way", [*WAYS.values(), {"beats": "graph"}], ids=[*WAYS, "fixed places"])
@pytest.mark.parametrize("form", FORMS)
class TestTheTextIsThatOfPlainDecoding:
    def test_greedy(self, tiny, form, way):
        model = tiny(**FORMS[form], initializer_range=0.1)
        plain, found = run(model, **PLAIN), run(model, **PLAIN, **way)
        same(found, plain)
        assert found.steps.tolist() == plain.steps.tolist() == [[8] * 30]
        assert len(set(plain.sequences[0].tolist())) > 3, "a text of one token would hide mistakes"

    def test_sampled_with_penalties(self, tiny, form, way):
        model = tiny(**FORMS[form], initializer_range=0.1)
        sampling = {**PLAIN, "do_sample": True, "temperature": 0.8, "repetition_penalty": 1.3, "max_new_tokens": 20}
        plain = run(model, **sampling, generator=torch.Generator().manual_seed(4))
        same(run(model, **sampling, **way, generator=torch.Generator().manual_seed(4)), plain)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_originals_own_speculative_run(original, way):
    huginn = original("huginn_tiny4")
    expected = huginn.notes["greedy_generations_init_scale_0"]
    ids = huginn.io["input_ids"][:1, : huginn.notes["prompt_len"]]
    options = {"max_new_tokens": huginn.notes["generated"], "do_sample": False, "initial_state": "zeros", "num_steps": 8}
    found = run(huginn.load(), ids, **options, **way)
    assert found.sequences[0].tolist() == expected["full_r8"] == expected["speculative_draft2_verify8_look4"]


class TestWhatGuessesAreWorth:
    """Two ends: guesses that always hold, and what is counted when they do not."""

    def test_drafts_at_full_depth_always_hold(self, tiny):
        report = run(tiny(), **PLAIN, draft_steps=8, draft_tokens=4).speculated
        assert (report.tokens, report.rounds, report.accepted_length) == (29, 6, 29 / 6)  # the first token is the prompt's
        assert report.passes == 6 * 8 + 8 * report.guessed

    def test_a_state_that_settles_at_once_makes_a_full_wavefront(self, tiny):
        model = tiny()
        with torch.no_grad():
            model.model.injection.weight[:, :32] = 0  # no memory: every step comes to the same state
        report = run(model, **PLAIN, draft_steps=2, wavefront=True).speculated
        assert report.rounds == 29 + 3, "after the first token took four beats, each beat should have brought one"
        assert report.passes_per_token == pytest.approx(2 * 32 / 29)

    def test_one_stage_takes_the_passes_of_plain_decoding(self, tiny):
        report = run(tiny(), **PLAIN, draft_steps=8, wavefront=True).speculated
        assert report.passes_per_token == 8

    def test_plain_decoding_reports_none(self, tiny):
        assert run(tiny(), **PLAIN).speculated is None


class TestEnds:
    @pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
    def test_the_text_may_fill_the_context(self, tiny, way):
        model = tiny(max_position_embeddings=20)
        options = {**PLAIN, "max_new_tokens": 14}
        same(run(model, **options, **way), run(model, **options))

    @pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
    def test_it_stops_at_the_end_token(self, tiny, way):
        model = tiny(initializer_range=0.1)
        text = run(model, **PLAIN).sequences[0].tolist()
        options = {**PLAIN, "eos_token_id": text[15]}
        same(run(model, **options, **way), run(model, **options))

    def test_a_beat_serves_one_text_after_another(self, tiny):
        model = tiny(initializer_range=0.1)
        beats = GraphBeats(model, 8, 2, 40)
        for prompt in (PROMPT, torch.tensor([[44, 2, 19]]), PROMPT):
            for seed in (1, 2):
                options = {**PLAIN, "generator": seed}
                same(run(model, prompt, **options, beats=beats), run(model, prompt, **options))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"draft_steps": 0}, "from 1 to num_steps"),
        ({"draft_steps": 9}, "from 1 to num_steps"),
        ({"draft_steps": 2.0}, "whole number"),
        ({"draft_steps": 2, "draft_tokens": 0}, "above 0"),
        ({"draft_tokens": 4}, "draft_steps"),
        ({"draft_steps": 3, "wavefront": True}, "must divide"),
        ({"draft_steps": 2, "wavefront": True, "draft_tokens": 3}, "draft_tokens"),
        ({"draft_steps": 2, "cache_policy": "shared"}, "every step"),
        ({"draft_steps": 2, "use_cache": False}, "cache of its own"),
        ({"draft_steps": 2, "halting": StateChange()}, "halting"),
        ({"draft_steps": 2, "warm_start": True}, "warm_start"),
        ({"draft_steps": 2, "watch": print}, "watch"),
        ({"draft_steps": 2, "num_steps": "first:4,2"}, "schedule"),
        ({"draft_steps": 2, "num_beams": 2}, "greedy decoding and sampling"),
        ({"beats": "graph", "num_steps": 4}, "another model or dial"),
        ({"beats": "graph", "max_new_tokens": 50}, "capacity=56"),
    ],
)
def test_what_cannot_be_had_is_named(tiny, options, said):
    model = tiny()
    if options.get("beats") == "graph":
        options = {**options, "beats": GraphBeats(model, 8, 2, 40)}
    with pytest.raises(lw.InputError, match=said):
        model.generate(PROMPT, **{**PLAIN, **options})


def test_products_that_nobody_makes_are_named(tiny):
    with pytest.raises(lw.InputError, match="own, library, compiled, got 'fast'"):
        compiled(tiny(), 8, products="fast")


def test_a_batch_is_refused(tiny):
    with pytest.raises(lw.InputError, match="one text at a time, got a batch of 2"):
        tiny().generate(PROMPT.repeat(2, 1), **PLAIN, draft_steps=2)


@pytest.mark.slow
def test_compiled_blocks_write_the_same(tiny):
    model = tiny(initializer_range=0.1)
    same(run(model, **PLAIN, beats=compiled(model, 8, 4, 40)), run(model, **PLAIN))
    assert "forward" not in vars(model.model.core[0]), "the blocks should be as they were"


@pytest.mark.slow
@pytest.mark.parametrize("way", [{"draft_steps": 1, "draft_tokens": 4}, {"draft_steps": 1, "wavefront": True}], ids=["verify", "wavefront"])
def test_real_weights(way):
    model, tokenizer = lw.load("smollm2-135m", device="cpu"), lw.load_tokenizer("smollm2-135m")
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    options = {"max_new_tokens": 12, "do_sample": False, "num_steps": 4}
    plain, found = run(model, ids, **options), run(model, ids, **options, **way)
    same(found, plain, tolerance=2e-3)
    assert found.speculated.passes_per_token < 4
