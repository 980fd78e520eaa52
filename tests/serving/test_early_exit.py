"""What early exit rests on: looking at the answer after every step is cheap, and what is looked at is the answer."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from random import Random

import pytest
import torch

from latentweaver import halting
from latentweaver.checkpoints.loading import load, load_tokenizer
from latentweaver.runtime.engine import Engine
from latentweaver.runtime.request import Request
from latentweaver.tasks.chains import Chains

from .conftest import tiny


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"coda_layers": 2, "block": "pre", "qk_norm": True},
        {"coda_layers": 1, "block": "peri", "injection": "none", "norm_in_loop": True},
        {"coda_layers": 0, "norm_in_loop": True},
        {"coda_layers": 0},
    ],
)
@pytest.mark.parametrize("cached", [True, False])
def test_the_last_position_is_read_as_it_is_among_all(fields: dict, cached: bool) -> None:
    """Also of a padded batch, and of positions that follow others in the cache; the cache is left as it would have been."""
    model = tiny(**fields)
    ids = torch.randint(97, (2, 11), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    readouts, keys = [], []
    for keep in (0, 1):
        cache = model.new_cache() if cached else None
        with torch.no_grad():
            said = []
            for part in (slice(0, 6), slice(6, 11)) if cached else (slice(0, 11),):
                thought = model.begin(ids[:, part], mask[:, : part.stop], cache=cache)
                for _ in range(3):
                    thought = model.think(thought)
                said.append(model.read(thought, logits_to_keep=keep).logits[:, -1])
        readouts.append(torch.stack(said))
        keys.append(None if cache is None else cache.get_seq_length())
    torch.testing.assert_close(readouts[0], readouts[1], atol=2e-5, rtol=1e-4)
    assert keys[0] == keys[1]


def test_positions_that_nobody_reads_are_not_computed_to_the_end() -> None:
    """The last block's MLP, the larger part of it, sees the one position that the head will see."""
    model = tiny(coda_layers=2)
    seen: list[int] = []
    model.model.coda[-1].mlp.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-2]))
    ids = torch.arange(40)[None]
    with torch.no_grad():
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=1, num_steps=5, halting=halting.KL(1e-9))
    assert seen
    assert set(seen) == {1}


@pytest.mark.slow
def test_the_shipped_reasoner_stops_when_it_knows() -> None:
    """Chains of depth 1 to 16: every answer right, as with 17 steps for all, and each within three steps of being known."""
    model, tokenizer, task = load("weaver-chains").eval(), load_tokenizer("weaver-chains"), Chains()
    rng = Random(5)
    problems = [task.draw(rng, 1 + number % 16, 0.2) for number in range(16)]
    engine = Engine(model, slots=8, capacity=400, max_steps=17, policy="shared")
    handles = [engine.submit(Request(tokenizer(p.prompt).input_ids, 1, num_steps=17, halting=halting.Confidence())) for p in problems]
    while not engine.idle:
        engine.tick()
    assert [tokenizer.decode(handle.tokens) for handle in handles] == [problem.answer for problem in problems]
    for problem, handle in zip(problems, handles, strict=True):
        assert problem.difficulty + 1 <= handle.steps[0] <= problem.difficulty + 3
        ids = torch.tensor([handle.request.prompt])
        alone = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=1,
            num_steps=17,
            halting=halting.Confidence(),
            cache_policy="shared",
            return_dict_in_generate=True,
        )
        assert handle.steps == alone.steps[0].tolist()


def test_the_benchmark_says_what_happened() -> None:
    """Ratios and intervals of made-up measurements: half of the steps is a ratio of two."""
    path = Path(__file__).parents[2] / "benchmarks" / "early_exit.py"
    spec = importlib.util.spec_from_file_location("early_exit", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    base, rows = [(True, 20, 0.2, 0.2)] * 10, [(True, 10, 0.1, 0.1)] * 9 + [(False, 10, 0.1, 0.1)]
    summary = module._summary(rows, base)
    assert summary["fewer_steps"] == pytest.approx([2, 2, 2])
    assert summary["accuracy_difference"][0] == pytest.approx(-0.1)
    assert summary["mcnemar_p"] == 1
