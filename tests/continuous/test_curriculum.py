"""The curriculum, case by case as the original makes it, and the batch layout."""

import json
import random
from pathlib import Path

import pytest
import torch

import latentweaver as lw
from latentweaver.tasks.token_batch import TokenBatch
from latentweaver.training.curriculum import ARMS, Example, Internalised, Markers, Staged, Written

FIXTURES = Path(__file__).parents[1] / "fixtures"
SCHEDULE = json.loads((FIXTURES / "coconut_schedule.json").read_text())
MARKERS = Markers(latent=63, start=61, end=62)
RNG = random.Random(0)


def examples(notes: dict) -> list[Example]:
    return [Example(e["question_tokenized"], e["steps_tokenized"], e["answer_tokenized"]) for e in notes["examples"]]


@pytest.mark.parametrize("case", SCHEDULE["cases"], ids=lambda case: f"{case['config']}-{case['epoch']}")
def test_equals_the_original(case: dict) -> None:
    staged = Staged(MARKERS, case["c_thought"], case["epochs_per_stage"], case["max_latent_stage"], case["pad_latent_to_max"])
    assert staged.stage(case["epoch"]) == case["scheduled_stage"]
    for example, train, prompt in zip(examples(SCHEDULE), case["train"], case["eval_input_ids"], strict=True):
        assert staged.row(example, case["epoch"], RNG) == (train["input_ids"], train["labels"])
        assert staged.prompt(example, case["epoch"]) == prompt


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_batches_equal_the_original(kind: str) -> None:
    from safetensors import safe_open

    notes = json.loads((FIXTURES / f"coconut_tiny_{kind}.json").read_text())
    with safe_open(FIXTURES / f"coconut_tiny_{kind}.safetensors", "pt") as file:
        for case in notes["cases"]:
            batch = TokenBatch.of([(row["input_ids"], row["labels"]) for row in case["rows"]], MARKERS.latent)
            for name in ("input_ids", "attention_mask", "labels"):
                assert torch.equal(getattr(batch, name), file.get_tensor(f"{case['name']}.{name}"))


EXAMPLE = Example([1, 2], [[3, 4], [5, 6], [7]], [8, 0])


def test_uniform_stages_mix_all_of_them() -> None:
    staged = Staged(MARKERS, uniform_prob=1.0)
    rng = random.Random(0)
    counts = [staged.row(EXAMPLE, 0, rng)[0].count(63) for _ in range(400)]
    assert all(70 < counts.count(stage) < 130 for stage in range(4))


def test_arms() -> None:
    staged = Staged(MARKERS, max_latent_stage=2)
    made = {name: arm.schedule(staged) for name, arm in ARMS.items()}
    assert made["coconut"].row(EXAMPLE, 5, RNG)[0] == [1, 2, 61, 63, 62, 5, 6, 7, 8, 0]
    assert made["pause"] == made["pause-multipass"] == staged
    assert made["no-thoughts"].row(EXAMPLE, 5, RNG) == ([1, 2, 5, 6, 7, 8, 0], [-100, -100, 5, 6, 7, 8, 0])
    assert made["no-curriculum"].row(EXAMPLE, 0, RNG)[0] == [1, 2, 61, 63, 63, 62, 8, 0]
    assert made["cot"].row(EXAMPLE, 0, RNG) == ([1, 2, 3, 4, 5, 6, 7, 8, 0], [-100, -100, 3, 4, 5, 6, 7, 8, 0])
    assert made["no-cot"].row(EXAMPLE, 9, RNG)[0] == [1, 2, 8, 0]
    assert {arm.feedback for arm in ARMS.values()} == {"hidden", "pause"}


def test_internalisation_removes_from_the_left_and_never_the_answer() -> None:
    plain = Internalised(removed_per_epoch=2, smoothing=float("inf"))
    assert plain.row(EXAMPLE, 0, RNG)[0] == [1, 2, 3, 4, 5, 6, 7, 8, 0]
    assert plain.row(EXAMPLE, 1, RNG)[0] == [1, 2, 5, 6, 7, 8, 0]
    assert plain.row(EXAMPLE, 9, RNG)[0] == [1, 2, 8, 0]
    assert Internalised(2, float("inf"), all_gone=3).row(EXAMPLE, 2, RNG)[0] == [1, 2, 8, 0]
    rng = random.Random(0)
    extra = [9 - len(Internalised(2, 0.5).row(EXAMPLE, 0, rng)[0]) for _ in range(2000)]
    assert 0.55 < sum(e > 0 for e in extra) / 2000 < 0.66  # exp(-0.5) = 0.61


def test_bad_fields_are_named() -> None:
    with pytest.raises(lw.InputError, match="epochs_per_stage must be at least 1"):
        Staged(MARKERS, epochs_per_stage=0)
    with pytest.raises(lw.InputError, match="uniform_prob must lie"):
        Staged(MARKERS, uniform_prob=2)


def test_written_prompts_are_the_question() -> None:
    assert Written(steps=True).prompt(EXAMPLE, 3) == [1, 2]
    assert Internalised().prompt(EXAMPLE, 3) == [1, 2]
