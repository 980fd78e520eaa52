"""Ouro's checkpoints load exactly: the state of every loop, the gate, the exit distribution, early and weighted exits, tokens."""

from __future__ import annotations

import pytest
import torch

from latentweaver.halting import LearnedGate, View

TOLERANCE = 1e-5


@pytest.fixture
def ouro(original):
    return original("ouro_tiny")


@pytest.fixture
def model(ouro):
    return ouro.load()


def far(ours, theirs) -> float:
    return (ours - theirs).abs().max().item()


@torch.no_grad()
def test_every_loop(ouro, model):
    io, loops = ouro.io, ouro.notes["config"]["total_ut_steps"]
    thought = model.begin(io["input_ids"])
    rule = LearnedGate(0.5)
    memory, reached, leaving, logits = rule.start(thought), 0.0, [], []
    for loop in range(loops):
        thought = model.think(thought)
        assert far(thought.state, io[f"hidden_ut{loop}"]) <= TOLERANCE
        assert far(model.exit_logit(thought), io[f"gate_logit_ut{loop}"]) <= TOLERANCE
        logits.append(model.read(thought).logits)
        assert far(logits[-1], io[f"logits_exit_at_step{loop}"]) <= TOLERANCE
        value, memory = rule.measure(memory, View(model, thought))
        leaving.append(1 - reached if loop == loops - 1 else value - reached)
        reached = value
    exits = torch.stack(leaving, -1)
    assert far(exits, io["exit_pdf"]) <= TOLERANCE
    weighted = (exits[..., None] * torch.stack(logits, 2)).sum(2)
    assert far(weighted, io["logits_weighted"]) <= TOLERANCE


@torch.no_grad()
def test_the_gate_decides_for_every_token_by_itself(ouro, model):
    io = ouro.io
    assert far(model(io["input_ids"], halting=LearnedGate(0.5)).logits, io["logits_threshold_0.5"]) <= TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"num_steps": 4}, {"halting": LearnedGate(1.0)}], ids=["default", "by the dial", "threshold 1"])
def test_all_loops(ouro, model, options):
    logits = model(ouro.io["input_ids"], **options).logits
    assert far(logits, ouro.io["logits_default"]) <= TOLERANCE
    assert far(logits, ouro.io["logits_last"]) <= TOLERANCE


@pytest.mark.parametrize(
    "options", [{}, {"use_cache": False}, {"cache_implementation": "static"}], ids=["cache", "no cache", "static cache"]
)
def test_greedy_run(ouro, model, options):
    expected = ouro.notes["generations"]["greedy_nocache_4ut"]
    new = ouro.io["gen_logits"].shape[1]
    prompt = torch.tensor([expected[:-new]])
    out = model.generate(prompt, max_new_tokens=new, do_sample=False, return_dict_in_generate=True, output_logits=True, **options)
    assert out.sequences[0].tolist() == expected == ouro.notes["generations"]["greedy_hf_generate_cache"]
    assert far(torch.stack(out.logits, 1), ouro.io["gen_logits"]) <= TOLERANCE


def test_an_early_exit_saves_its_loops(ouro, model):
    """The published code runs every loop and picks afterwards; ours must not."""
    passes = []
    model.model.core[0].register_forward_hook(lambda *_: passes.append(1))
    out = model.generate(
        ouro.io["input_ids"][:1], halting=LearnedGate(0.05), max_new_tokens=8, do_sample=False, return_dict_in_generate=True
    )
    assert out.steps.sum() < 8 * 4
    assert len(passes) == out.steps.sum()
