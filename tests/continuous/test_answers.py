"""Answers of many prompts at once equal each prompt's alone, and stepwise thinking inside a batch equals it alone."""

import pytest
import torch
from transformers import PreTrainedModel

import latentweaver as lw
from latentweaver.errors import InputError
from latentweaver.evaluate.answers import Says, answers, seconds_per_answer
from latentweaver.models.latent_block import latent_block

START, END, LATENT, STOP = 61, 62, 63, 7
IDS = {"latent_token_id": LATENT, "start_token_id": START, "end_token_id": END}


def ragged(thoughts: bool = True) -> list[list[int]]:
    """Prompts of different lengths with different numbers of thoughts, one of them with none."""
    generator = torch.Generator().manual_seed(0)
    lengths = [(5, 3), (9, 1), (4, 2), (7, 0), (6, 4)]
    questions = [torch.randint(8, 60, (length,), generator=generator).tolist() for length, _ in lengths]
    return [[*q, START, *[LATENT] * n * thoughts, END] for q, (_, n) in zip(questions, lengths, strict=True)]


@pytest.mark.parametrize("make", [lw.continuous_thought, latent_block])
def test_together_equals_alone_equals_generate(base: PreTrainedModel, make) -> None:
    model, prompts = make(base, **IDS).eval(), ragged()
    together = answers(model, prompts, STOP, 6, LATENT)
    assert together == [answers(model, [prompt], STOP, 6, LATENT)[0] for prompt in prompts]
    assert together == answers(model, prompts, STOP, 6, LATENT, batch_size=2)
    for prompt, said in zip(prompts, together, strict=True):
        ids = torch.tensor([prompt])
        written = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=STOP, pad_token_id=0)[0, len(prompt) :].tolist()
        assert list(said.tokens) == written
        assert said.thoughts == prompt.count(LATENT)
        assert said.cost == len(written) + prompt.count(LATENT)


def test_an_answer_ends_with_its_end(base: PreTrainedModel) -> None:
    model, prompts = lw.continuous_thought(base, **IDS).eval(), ragged()
    first = answers(model, prompts, STOP, 6, LATENT)
    end = first[0].tokens[2]
    cut = answers(model, prompts, end, 6, LATENT)
    for whole, said in zip(first, cut, strict=True):
        place = whole.tokens.index(end) + 1 if end in whole.tokens else 6
        assert said.tokens == whole.tokens[:place]


def test_soft_thinking_stops_row_by_row_at_the_token_that_says_so(base: PreTrainedModel) -> None:
    model = lw.continuous_thought(base, feedback="soft").eval()
    prompts = [prompt[:-2] for prompt in ragged(thoughts=False)]
    counts = []
    for prompt in prompts:
        thought = model.think(model.begin(torch.tensor([prompt])))
        said = [int(model.read(thought).logits.argmax())]
        for _ in range(7):
            thought = model.think(thought)
            said.append(int(model.read(thought).logits.argmax()))
        counts.append(said)
    mark = counts[0][2]
    together = answers(model, prompts, STOP, 4, halting=Says(mark), most=8)
    for said, each in zip(together, counts, strict=True):
        assert said.thoughts == (each.index(mark) + 1 if mark in each else 8)
        if mark in each:
            assert said.tokens[0] == mark


def test_bad_input(base: PreTrainedModel) -> None:
    model = lw.continuous_thought(base, **IDS)
    with pytest.raises(InputError, match="limit"):
        answers(model, ragged(), STOP, 0, LATENT)
    with pytest.raises(InputError, match="positions"):
        answers(model, [[1] * 40], STOP, 20)


def test_the_clock_runs(base: PreTrainedModel) -> None:
    assert seconds_per_answer(lw.continuous_thought(base, **IDS).eval(), ragged()[:2], STOP, 2, LATENT) > 0
