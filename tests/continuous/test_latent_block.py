"""Blocks of thoughts: Jacobi iterations find COCONUT's chain, loops refine the whole block."""

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

import latentweaver as lw

MARKERS = {"latent_token_id": 63, "start_token_id": 61, "end_token_id": 62}
PROMPT = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])
RAGGED = torch.tensor([[5, 6, 7, 61, 63, 63, 63, 62, 9, 0], [5, 6, 61, 63, 62, 9, 11, 12, 0, 0], [5, 6, 7, 8, 61, 63, 63, 62, 4, 0]])


@pytest.mark.parametrize("feedback", ["hidden", "projected"])
def test_jacobi_equals_coconut_after_as_many_iterations_as_thoughts(base: PreTrainedModel, feedback: str) -> None:
    torch.manual_seed(0)
    chain = lw.continuous_thought(base, feedback=feedback, **MARKERS)
    block = lw.latent_block(base, feedback=feedback, num_thoughts=3, **MARKERS)
    block.feedback = chain.feedback
    exact = chain(RAGGED).logits
    for iterations in range(5):
        block.iterations = iterations
        error = float((block(RAGGED).logits - exact).detach().abs().max())
        assert (error < 1e-4) == (iterations >= 3)
    thought, expected = block.begin(PROMPT), chain.begin(PROMPT)
    for _ in range(3):
        thought, expected = block.think(thought), chain.think(expected)
    torch.testing.assert_close(block.read(thought).logits, chain.read(expected).logits, rtol=1e-4, atol=1e-4)


def test_gradients_equal_coconuts(base: PreTrainedModel) -> None:
    gradients = []
    for model in (lw.continuous_thought(base, **MARKERS), lw.latent_block(base, num_steps=3, **MARKERS)):
        base.zero_grad()
        model.answer_loss(RAGGED, None, torch.where(RAGGED > 60, -100, RAGGED)).backward()
        gradients.append([p.grad.clone() for p in base.parameters()])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_no_iterations_are_pause_tokens(base: PreTrainedModel) -> None:
    block = lw.latent_block(base, **MARKERS)
    block.iterations = 0
    torch.testing.assert_close(
        block(RAGGED).logits, lw.continuous_thought(base, feedback="pause", **MARKERS)(RAGGED).logits, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("refine", ["jacobi", "loop"])
def test_verbs_equal_training_batches(base: PreTrainedModel, refine: str) -> None:
    model = lw.latent_block(base, refine=refine, num_thoughts=4, **MARKERS)
    ids = torch.cat([PROMPT, torch.tensor([[61, 63, 63, 63, 63, 62]] * 2)], 1)
    thought = model.begin(PROMPT)
    assert thought.state.shape == (2, 4, 32)
    for iterations in range(4):
        model.iterations = iterations
        torch.testing.assert_close(model.read(thought).logits, model(ids).logits[:, -1:], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.block(thought), model.trace(ids).hidden[:, 6:10], rtol=1e-4, atol=1e-4)
        thought = model.think(thought)


def test_the_loop_adds_the_columns_own_state(base: PreTrainedModel) -> None:
    model = lw.latent_block(base, refine="loop", num_thoughts=2, **MARKERS)
    embed = base.get_input_embeddings()
    prompt, latents = embed(torch.tensor([[5, 6, 61]])), embed(torch.tensor([[63, 63]]))
    hidden = base.base_model(inputs_embeds=torch.cat([prompt, latents], 1)).last_hidden_state[:, 3:]
    hidden = base.base_model(inputs_embeds=torch.cat([prompt, latents + hidden], 1)).last_hidden_state[:, 3:]
    torch.testing.assert_close(model.block(model.think(model.begin(torch.tensor([[5, 6]])))), hidden, rtol=1e-4, atol=1e-4)


def test_is_a_reasoner_with_every_tool(base: PreTrainedModel, tmp_path) -> None:
    model = lw.latent_block(base, num_thoughts=3, num_steps=2, **MARKERS)
    assert isinstance(model, lw.Reasoner)
    thought = model.begin(PROMPT)
    assert model.think(thought).same_as(model.think(thought))
    settled = lw.think_until(model, model.begin(PROMPT), lw.halting.StateChange(1e-3), 8)
    assert settled.step.max() <= 4  # exact after three: the fourth changes nothing
    written = model.generate(PROMPT, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert written.shape == (2, 9)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(again) is type(model)
    assert torch.equal(again.generate(PROMPT, max_new_tokens=4, do_sample=False, eos_token_id=None), written)


def test_bad_input(base: PreTrainedModel) -> None:
    with pytest.raises(lw.InputError, match="refine must be"):
        lw.latent_block(base, refine="polish", **MARKERS)
    with pytest.raises(lw.InputError, match="num_thoughts must be at least 1"):
        lw.latent_block(base, num_thoughts=0, **MARKERS)
    with pytest.raises(lw.InputError, match="latent_token_id must be given"):
        lw.latent_block(base).begin(PROMPT)
    with pytest.raises(lw.InputError, match="a block feeds back"):
        lw.latent_block(base, feedback="pause", **MARKERS)
    model = lw.latent_block(base, **MARKERS)
    with pytest.raises(lw.InputError, match="no block to refine"):
        model.think(model.begin(RAGGED))
    with pytest.raises(lw.InputError, match="context has 48"):
        lw.latent_block(base, num_thoughts=60, **MARKERS).begin(PROMPT)
