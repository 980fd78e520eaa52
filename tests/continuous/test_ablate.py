"""Ablations find thoughts that matter and say so of thoughts that do not; paired tests agree with their definitions."""

import random

import pytest
import torch
from transformers import PreTrainedModel

import latentweaver as lw
from latentweaver.errors import InputError
from latentweaver.evaluate.ablate import ABLATIONS, ablate, cut_to
from latentweaver.evaluate.answers import answers, write
from latentweaver.evaluate.paired import bootstrap, difference, mcnemar
from latentweaver.models.latent_block import latent_block

START, END, LATENT = 61, 62, 63
IDS = {"latent_token_id": LATENT, "start_token_id": START, "end_token_id": END}
PROMPTS = [[9, 11, 30 + i, START] for i in range(8)]


def effects_of(model, thoughts: int, judge=lambda i, tokens: True, **options):
    return {effect.name: effect for effect in ablate(model, PROMPTS, judge, thoughts, 0, 3, **options)}


@pytest.mark.parametrize("make", [lw.continuous_thought, latent_block])
def test_feeding_the_models_own_thoughts_changes_nothing(base: PreTrainedModel, make) -> None:
    model = make(base, **IDS).eval()
    begun = model.begin(torch.tensor(PROMPTS))
    thought = begun
    for _ in range(3):
        thought = model.think(thought)
    fed = model.feed(begun, model.thoughts(begun, 3))
    torch.testing.assert_close(model.read(fed).logits, model.read(thought).logits)
    assert model.thoughts(begun, 3).shape[1] == (3 if make is lw.continuous_thought else model.config.num_thoughts)


def test_as_they_are_is_the_answer_of_the_prompt_with_latents(base: PreTrainedModel) -> None:
    model = lw.continuous_thought(base, **IDS).eval()
    plain = answers(model, [[*prompt, LATENT, LATENT, LATENT, END] for prompt in PROMPTS], 0, 3, LATENT)
    effects = effects_of(model, 3, judge=lambda i, tokens: tokens == list(plain[i].tokens))
    assert effects["as they are"].accuracy == 1
    for name, effect in effects.items():  # with that judge an answer is right where it has not changed
        assert effect.changed == pytest.approx(1 - effect.accuracy), name
        assert effect.difference.mean == pytest.approx(effect.accuracy - 1)
        assert effect.accuracy_interval[0] <= effect.accuracy <= effect.accuracy_interval[1]
    assert max(effect.changed for effect in effects.values()) > 0


def test_cutting_is_thinking_less(base: PreTrainedModel) -> None:
    model = lw.continuous_thought(base, **IDS).eval()
    plain = answers(model, [[*prompt, LATENT, END] for prompt in PROMPTS], 0, 3, LATENT)
    none = answers(model, [[*prompt, END] for prompt in PROMPTS], 0, 3, LATENT)
    for count, wanted in ((1, plain), (0, none)):
        effects = effects_of(
            model, 3, judge=lambda i, tokens, wanted=wanted: tokens == list(wanted[i].tokens), ablations={"cut": cut_to(count)}
        )
        assert effects["cut"].accuracy == 1


def test_thoughts_that_are_not_used_can_be_anything(base: PreTrainedModel) -> None:
    model = lw.continuous_thought(base, **IDS, feedback="pause").eval()
    for effect in effects_of(model, 3).values():
        assert effect.changed == 0
        assert effect.p_value == 1


def test_ablations_do_what_they_are_called() -> None:
    thoughts, generator = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(1)), torch.Generator().manual_seed(0)
    other = ABLATIONS["swapped"](thoughts, generator)
    assert sorted(map(str, other.tolist())) == sorted(map(str, thoughts.tolist()))
    assert not any(torch.equal(a, b) for a, b in zip(other, thoughts, strict=True))
    shuffled = ABLATIONS["permuted"](thoughts, generator)
    for mine, theirs in zip(shuffled, thoughts, strict=True):
        assert not torch.equal(mine, theirs)
        assert sorted(map(str, mine.tolist())) == sorted(map(str, theirs.tolist()))
    noise = ABLATIONS["noised"](torch.randn(4000, 1, 3) * torch.tensor([1.0, 10, 100]), generator)
    torch.testing.assert_close(noise.std(0)[0], 2**0.5 * torch.tensor([1.0, 10, 100]), rtol=0.1, atol=0)
    assert ABLATIONS["zeroed"](thoughts, generator).abs().sum() == 0
    torch.testing.assert_close(ABLATIONS["mean"](thoughts, generator)[3], thoughts.mean(0))


def test_bad_input(base: PreTrainedModel) -> None:
    with pytest.raises(InputError, match="at least two"):
        ablate(lw.continuous_thought(base, **IDS), PROMPTS[:1], lambda i, tokens: True, 2, 0, 3)
    with pytest.raises(InputError, match="no thoughts"):
        ablate(torch.nn.Linear(1, 1), PROMPTS, lambda i, tokens: True, 2, 0, 3)


def test_writing_closes_the_thought_first(base: PreTrainedModel) -> None:
    model = lw.continuous_thought(base, **IDS).eval()
    thought = model.think(model.begin(torch.tensor(PROMPTS)))
    assert write(model, thought, 0, 3) == write(model, model.close(thought), 0, 3)


class TestPaired:
    def test_mcnemar_is_the_exact_binomial_test(self) -> None:
        from scipy.stats import binomtest

        rng = random.Random(0)
        for _ in range(20):
            a, b = ([rng.random() < share for _ in range(40)] for share in (0.7, 0.5))
            first, second = (sum(x > y for x, y in zip(*pair, strict=True)) for pair in ((a, b), (b, a)))
            expected = binomtest(first, first + second).pvalue if first + second else 1.0
            assert mcnemar(a, b) == pytest.approx(expected)

    def test_equal_runs_do_not_differ(self) -> None:
        runs = [[True, False, True]] * 3
        assert mcnemar(runs[0], runs[0]) == 1
        assert difference(runs, runs).high == 0

    def test_the_interval_covers_as_often_as_it_says(self) -> None:
        rng = random.Random(1)
        covered = 0
        for trial in range(100):
            found = bootstrap([[rng.random() < 0.6 for _ in range(80)]], resamples=200, seed=trial)
            covered += found.low <= 0.6 <= found.high
        assert 88 <= covered <= 100

    def test_pairing_makes_a_difference_narrow(self) -> None:
        rng = random.Random(2)
        a = [[rng.random() < 0.5 for _ in range(200)]]
        b = [[x and rng.random() < 0.95 for x in a[0]]]
        found = difference(a, b)
        assert found.low > 0
        assert found.high - found.low < bootstrap(a).high - bootstrap(a).low

    def test_unequal_problems_are_refused(self) -> None:
        with pytest.raises(InputError, match="same problems"):
            mcnemar([True], [True, False])
        with pytest.raises(InputError, match="same seeds"):
            difference([[True]], [[True], [False]])
        with pytest.raises(InputError, match="at least one"):
            bootstrap([])
