"""A tiny model with random weights, the same request answered alone, and requests drawn at random."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from latentweaver import halting
from latentweaver.models.config import RecurrentDepthConfig
from latentweaver.models.recurrent_depth import RecurrentDepthForCausalLM
from latentweaver.runtime.request import Request

VOCABULARY = 97
MAX_STEPS = 9


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


def tiny(**fields: Any) -> RecurrentDepthForCausalLM:
    """A model whose answers are varied: weights large enough that tokens and depths differ."""
    torch.manual_seed(0)
    config = RecurrentDepthConfig(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "prelude_layers": 1,
            "core_layers": 2,
            "coda_layers": 1,
            "num_steps": 4,
            "max_position_embeddings": 256,
            "initializer_range": 0.15,
            **fields,
        }
    )
    return RecurrentDepthForCausalLM(config).eval()


@pytest.fixture(scope="session")
def model() -> RecurrentDepthForCausalLM:
    return tiny()


def alone(model: RecurrentDepthForCausalLM, request: Request, policy: str = "full") -> tuple[list[int], list[int]]:
    """Tokens and steps of `model.generate` on this request by itself."""
    ids = torch.tensor([list(request.prompt)])
    generator = None if request.seed is None else torch.Generator().manual_seed(request.seed)
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=request.max_new_tokens,
        num_steps=request.num_steps,
        halting=request.halting,
        min_steps=request.min_steps,
        warm_start=request.warm_start,
        initial_state=request.initial_state,
        generator=generator,
        cache_policy=policy,
        return_dict_in_generate=True,
        pad_token_id=0,
        **request.sampling,
    )
    return out.sequences[0, ids.shape[1] :].tolist(), out.steps[0].tolist()


steps = st.integers(1, MAX_STEPS)
rules = st.one_of(
    st.none(),
    st.none(),
    st.builds(halting.StateChange, st.sampled_from([0.02, 0.1, 0.3])),
    st.builds(halting.Acceleration, st.sampled_from([0.1, 0.3])),
    st.builds(halting.Cosine, st.just(0.01)),
    st.builds(halting.KL, st.sampled_from([0.01, 0.1])),
    st.builds(halting.EntropyChange, st.just(0.05)),
    st.builds(halting.ArgmaxStability, st.just(2)),
    st.builds(halting.Fixed, steps),
)
samplings = st.sampled_from(
    [
        {},
        {},
        {"do_sample": True, "temperature": 0.8, "top_p": 0.9},
        {"repetition_penalty": 1.3},
        {"eos_token_id": [3, 5, 7, 9, 11]},
        {"min_new_tokens": 4, "eos_token_id": [3, 5, 7, 9, 11, 40, 64]},
    ]
)


@st.composite
def requests(draw: st.DrawFn, longest: int = 24) -> Request:
    """Any request: every kind of dial, rule, first state and sampling. What is sampled is seeded, so that it repeats."""
    sampling = draw(samplings)
    seeds = st.integers(0, 2**40)
    schedules = st.one_of(steps, st.tuples(steps, steps).map(lambda pair: f"first:{pair[0]},{pair[1]}"), st.none())
    return Request(
        prompt=draw(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=longest)),
        max_new_tokens=draw(st.integers(1, 10)),
        num_steps=draw(schedules),
        halting=draw(rules),
        min_steps=draw(st.integers(1, 3)),
        warm_start=draw(st.booleans()),
        initial_state=draw(st.sampled_from([None, "zeros", "input"])),
        seed=draw(seeds if sampling.get("do_sample") else st.one_of(st.none(), seeds)),
        sampling=sampling,
    )
