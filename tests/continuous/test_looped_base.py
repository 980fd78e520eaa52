"""Continuous thought over recurrent depth: a decoder whose middle is looped for every token is a decoder as any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import latentweaver as lw
from conftest import END, LATENT, START
from latentweaver.errors import InputError
from latentweaver.models.continuous_thought import continuous_thought
from latentweaver.models.latent_block import latent_block
from latentweaver.recipes import RECIPES
from latentweaver.tasks.token_batch import IGNORED, TokenBatch
from latentweaver.training.latent_objectives import Answer

MARKERS = {"latent_token_id": LATENT, "start_token_id": START, "end_token_id": END}


@pytest.fixture
def looped(bases: Callable[..., Any]) -> Any:
    return lw.retrofit(bases("llama", num_hidden_layers=4), prelude=1, core=2, coda=1, num_steps=3, memory=0.5).double().eval()


@pytest.fixture
def batch() -> TokenBatch:
    rows = [
        ([1, 2, 3, START, LATENT, LATENT, LATENT, END, 4, 5], [IGNORED] * 8 + [4, 5]),
        ([6, 7, 8, 9, 10, 11, START, LATENT, END, 12, 13], [IGNORED] * 9 + [12, 13]),
        ([14, 15, START, END, 16], [IGNORED] * 4 + [16]),
    ]
    return TokenBatch.of(rows, LATENT)


def one_line(base: Any, ids: torch.Tensor) -> torch.Tensor:
    """Hidden states of a row, every thought computed from nothing: no cache, no padding."""
    embeds = base.get_input_embeddings()(ids)[None]
    for place in (ids == LATENT).nonzero().flatten().tolist():
        thought = base.base_model(inputs_embeds=embeds[:, :place], use_cache=False).last_hidden_state[:, -1:]
        embeds = torch.cat([embeds[:, :place], thought, embeds[:, place + 1 :]], 1)
    return base.base_model(inputs_embeds=embeds, use_cache=False).last_hidden_state[0]


@pytest.mark.parametrize("steps", [1, 3])
def test_states_and_gradients_are_those_of_the_definition(looped: Any, batch: TokenBatch, steps: int) -> None:
    looped.config.num_steps = steps
    model = continuous_thought(looped, **MARKERS)
    hidden = model.trace(batch.input_ids, batch.attention_mask).hidden
    rows = [one_line(looped, ids[mask.bool()]) for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
    for row, mask, mine in zip(rows, batch.attention_mask.bool(), hidden, strict=True):
        assert torch.allclose(mine[mask], row, atol=1e-12)
    weigh = torch.randn_like(hidden)
    parameters = [p for name, p in looped.named_parameters() if "lm_head" not in name]
    ours = torch.autograd.grad((hidden * weigh * batch.attention_mask[..., None]).sum(), parameters)
    wanted = torch.stack([(row * part[mask]).sum() for row, part, mask in zip(rows, weigh, batch.attention_mask.bool(), strict=True)]).sum()
    for mine, theirs in zip(ours, torch.autograd.grad(wanted, parameters), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-10)
    injection = dict(looped.named_parameters())["model.injection.weight"]
    assert bool(ours[[p is injection for p in parameters].index(True)].any()) == (steps > 0)


def test_the_verbs_say_what_the_batch_says(looped: Any, batch: TokenBatch) -> None:
    model = continuous_thought(looped, **MARKERS)
    hidden = model.trace(batch.input_ids, batch.attention_mask).hidden
    thought = model.begin(torch.tensor([[1, 2, 3]]))
    before = {name: value.clone() for name, value in thought.anchor.items() if isinstance(value, torch.Tensor)}
    one = model.think(thought)
    three = model.think(model.think(one))
    at = int((batch.input_ids[0] == END).nonzero())
    read = model.read(three).hidden
    assert read is not None
    assert torch.allclose(read, hidden[:1, at : at + 1], atol=1e-12)
    assert all(torch.equal(value, thought.anchor[name]) for name, value in before.items())  # thinking on left it as it was
    assert torch.equal(model.think(thought).state, one.state)


def test_more_loops_are_another_thought(looped: Any) -> None:
    model = continuous_thought(looped, **MARKERS)
    deep = model.think(model.begin(torch.tensor([[1, 2, 3]]))).state
    looped.config.num_steps = 1
    assert not torch.allclose(model.think(model.begin(torch.tensor([[1, 2, 3]]))).state, deep, atol=1e-3)


def test_a_saved_model_is_the_same(looped: Any, tmp_path: Path) -> None:
    model = continuous_thought(looped.float(), **MARKERS, num_steps=2)
    model.save_pretrained(tmp_path)
    again = lw.load(tmp_path, device="cpu")
    ids = torch.tensor([[1, 2, 3, START, LATENT, LATENT, END, 4]])
    assert torch.equal(again(ids).logits, model(ids).logits)


@pytest.mark.parametrize("refine", [None, "jacobi"])
def test_projected_thoughts_begin_as_linear_layers_do(looped: Any, refine: str | None) -> None:
    wrap = continuous_thought if refine is None else latent_block
    model = wrap(looped.float(), **MARKERS, feedback="projected", **({"refine": refine} if refine else {}))
    assert 0.005 < float(model.feedback.layers[0].weight.detach().std()) < 0.05


@pytest.mark.slow
def test_compiled_blocks_share_their_code_among_layers_and_compute_the_same(looped: Any, batch: TokenBatch) -> None:
    from torch._dynamo.utils import counters

    model = continuous_thought(looped, **MARKERS)
    plain = Answer()(model, batch, (0, 1), 0).loss
    torch._dynamo.reset()
    counters.clear()
    for module in model.modules():
        if type(module).__name__ == "Block":
            module.compile(backend="eager", dynamic=True)
    try:
        assert torch.allclose(Answer()(model, batch, (0, 1), 0).loss, plain, atol=1e-12)
        pieces = counters["stats"]["unique_graphs"]
        looped.config.num_steps = 9  # layers whose keys nobody has seen yet
        Answer()(model, batch, (0, 1), 0)
        assert counters["stats"]["unique_graphs"] == pieces
    finally:
        torch._dynamo.reset()


def test_a_recipe_with_loops_learns_and_says_how_deep_it_is(tmp_path: Path) -> None:
    fields = {"method": "coconut", "loops": 2, "loop_layers": 2, "layers": 4, "width": 32, "heads": 2, "problems": 32, "test_problems": 4}
    fields |= {"epochs": 9, "epochs_per_stage": 1, "batch_size": 16, "lr": 1e-3, "evaluate_every": 1000, "log_every": 1, "difficulty": 2}
    recipe = RECIPES["words-coconut"](**fields, tasks=("sums",), device="cpu", limit=4)
    lines: list[dict[str, Any]] = []
    place = recipe.run(tmp_path, report=lines.append)
    model = lw.load(place, device="cpu")
    assert (model.base.config.prelude_layers, model.base.config.core_layers, model.base.config.num_steps) == (1, 2, 2)
    assert lines[-1]["loss"] < lines[0]["loss"]
    with pytest.raises(InputError, match="at most the decoder's 4 layers, got 5"):
        RECIPES["words-coconut"](**{**fields, "loop_layers": 5}, tasks=("sums",)).parts  # noqa: B018
