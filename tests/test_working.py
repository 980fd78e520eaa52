"""Weights made once an update: the same model, the same gradients, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import latentweaver as lw
from latentweaver.training import working
from latentweaver.training.low_rank import add_low_rank

IDS = torch.arange(24).view(2, 12)


def gradients(model: lw.RecurrentDepthForCausalLM) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(IDS, labels=IDS, num_steps=(1, 3)).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("low_rank", [False, True])
def test_gradients_come_back_as_without(tiny: Callable[..., lw.RecurrentDepthForCausalLM], low_rank: bool) -> None:
    model = tiny(attention_bias="qk", initial_state="zeros")
    if low_rank:
        add_low_rank(model, {model.model.core: 2, model.model.coda: 3})
        with torch.no_grad():
            model.model.core[0].attention.q_proj.up.normal_()
    plain, said = gradients(model), model(IDS, num_steps=2).logits
    working.make(model, torch.float32)
    assert model.model.core[0].attention.joined is not None and model.model.core[0].mlp.down_proj.working is not None
    assert model.model.core[0].attention.q_proj.working is None, "its rows are in the joined matrix"
    made = gradients(model)
    assert torch.allclose(model(IDS, num_steps=2).logits, said, atol=1e-5)
    working.drop(model)
    assert made.keys() == plain.keys()
    assert all(torch.allclose(made[name], plain[name], atol=1e-5) for name in plain)
    assert model.model.core[0].attention.joined is None and model.model.core[0].mlp.down_proj.working is None


class TestScaledInjection:
    def growing(self, tiny: Callable[..., lw.RecurrentDepthForCausalLM], injection: str) -> lw.RecurrentDepthForCausalLM:
        model = tiny(injection=injection, block="pre", norm_before_coda=False, initial_state="zeros")
        model.model.injection.start_transparent(1.0)
        with torch.no_grad():
            model.model.injection.weight.mul_(1.5)
        return model

    @torch.no_grad()
    def test_keeps_a_state_bounded_that_would_grow_for_ever(self, tiny: Callable[..., lw.RecurrentDepthForCausalLM]) -> None:
        lengths = {}
        for injection in ("linear", "scaled"):
            model = self.growing(tiny, injection)
            thought, found = model.begin(IDS), []
            for _ in range(300):
                thought = model.think(thought)
                found.append(float(thought.state.norm(dim=-1).max()))
            lengths[injection] = found
        assert not lengths["linear"][-1] < 1e30
        assert lengths["scaled"][-1] < 3 * lengths["scaled"][5]

    @torch.no_grad()
    def test_is_the_linear_one_at_one_step_from_zeros(self, tiny: Callable[..., lw.RecurrentDepthForCausalLM]) -> None:
        linear, scaled = (self.growing(tiny, injection) for injection in ("linear", "scaled"))
        scaled.load_state_dict(linear.state_dict())
        assert torch.equal(linear(IDS, num_steps=1).logits, scaled(IDS, num_steps=1).logits)
        assert not torch.equal(linear(IDS, num_steps=2).logits, scaled(IDS, num_steps=2).logits)

    def test_its_gradient_is_a_number_at_a_state_of_zeros(self, tiny: Callable[..., lw.RecurrentDepthForCausalLM]) -> None:
        found = gradients(self.growing(tiny, "scaled"))
        assert all(bool(torch.isfinite(gradient).all()) for gradient in found.values())
