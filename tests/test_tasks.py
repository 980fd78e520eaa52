"""Tasks: the generator against an independent judge, difficulty as promised, and no overlap between train and test."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentweaver import tasks
from latentweaver.errors import InputError
from latentweaver.tasks.batches import IGNORED, Stream, collate
from latentweaver.tasks.chains import evaluate
from latentweaver.tasks.characters import END, Characters

CHAINS = tasks.Chains()


@given(seed=st.integers(0, 2**32), difficulty=st.integers(1, 51), size=st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_a_chain_has_the_answer_and_the_depth_it_says(seed: int, difficulty: int, size: float) -> None:
    problem = CHAINS.draw(random.Random(seed), difficulty, size)
    assert evaluate(problem.prompt) == (problem.answer, difficulty)
    assert max(hint.depth for hint in problem.hints) == difficulty + 1
    assert CHAINS.judge(problem, problem.answer + " ")
    assert not CHAINS.judge(problem, str((int(problem.answer) + 1) % 10))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_every_hint_is_true_and_known_from_the_text_before_it(seed: int) -> None:
    rng = random.Random(seed)
    problem = CHAINS.draw(rng, rng.randint(1, 16), rng.random())
    for place, value, depth in problem.hints:
        before = problem.prompt[: place + 1]
        if before.endswith(" "):
            name = before.rstrip().rsplit(" ", 1)[-1][0]
            assert evaluate(f"{before}?{name}=") == (value, depth)
        else:
            whole = before[: before.rindex(" ") + 1]
            assert evaluate(f"{whole}?{before[-1]}=") == (value, depth - 1)


def test_answers_alone_are_not_guessable() -> None:
    rng = random.Random(0)
    answers = [CHAINS.draw(rng, 8, rng.random()).answer for _ in range(3000)]
    assert max(answers.count(digit) for digit in "0123456789") < 0.13 * len(answers)


@pytest.mark.parametrize("name", sorted(tasks.TASKS))
def test_train_and_test_never_overlap(name: str) -> None:
    task = tasks.task(name)
    rng, low = random.Random(0), task.difficulties[0]
    sides = {
        split: {
            task.essence(tasks.draw(task, split, rng.randint(low, min(low + 2, task.difficulties[1])), rng, size=0.1)) for _ in range(150)
        }
        for split in ("train", "test")
    }
    assert not sides["train"] & sides["test"]


@pytest.mark.parametrize("name", sorted(tasks.TASKS))
def test_every_task_judges_its_own_answers_and_speaks_its_characters(name: str) -> None:
    task = tasks.task(name)
    low, high = task.difficulties
    characters = Characters(task.characters)
    for seed in range(30):
        problem = tasks.draw(task, "train", min(low + seed % 4, high), seed)
        assert task.judge(problem, problem.answer)
        assert characters.decode(characters.encode(problem.prompt + problem.answer)) == problem.prompt + problem.answer
        assert problem.difficulty == min(low + seed % 4, high)


def test_a_renamed_problem_is_on_the_same_side() -> None:
    one = tasks.Problem("a=3 b=a+4 ?b=", "7", 1)
    other = tasks.Problem("X=3 q=X+4 ?q=", "7", 1)
    assert CHAINS.essence(one) == CHAINS.essence(other)
    assert tasks.split_of(CHAINS, one) == tasks.split_of(CHAINS, other)


def test_the_same_seed_draws_the_same_problem() -> None:
    assert tasks.draw(CHAINS, "test", 5, 3) == tasks.draw(CHAINS, "test", 5, 3)
    assert tasks.draw(CHAINS, "test", 5, 3) != tasks.draw(CHAINS, "test", 5, 4)


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(InputError, match="difficulties 1 to 51, got 52"):
        tasks.draw(CHAINS, "train", 52, 0)
    with pytest.raises(InputError, match="validation"):
        tasks.draw(CHAINS, "validation", 5, 0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="chains"):
        tasks.task("chess")
    with pytest.raises(InputError, match="'-'"):
        Characters(CHAINS.characters).encode("a-b")


def test_labels_stand_where_they_should_be_said() -> None:
    characters = Characters(CHAINS.characters)
    problem = tasks.Problem("a=3 ?a=", "3", 0, (tasks.Hint(3, "3", 0),))
    batch = collate([problem], characters, multiple=4)
    three, end = characters.ids["3"], characters.ids[END]
    assert batch.input_ids.shape == (1, 8)
    assert batch.labels.tolist() == [[IGNORED] * 3 + [three] + [IGNORED] * 2 + [three, end]]
    assert batch.depth.tolist() == [[0] * 6 + [1, 0]]
    assert batch.is_answer.tolist() == [[False] * 6 + [True, True]]
    assert (collate([problem], characters, hints=False).labels != IGNORED).sum() == 2


def test_a_batch_depends_on_its_number_alone() -> None:
    stream = Stream(CHAINS, (1, 4), batch_size=3, seed=5)
    first, again = stream[7], Stream(CHAINS, (1, 4), batch_size=3, seed=5)[7]
    assert first.input_ids.equal(again.input_ids)
    assert not first.input_ids.equal(stream[8].input_ids)
