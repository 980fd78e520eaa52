"""How far shortcuts get on problems in words: on problems made by hand, and on drawn ones of which it is known."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from latentweaver.errors import InputError
from latentweaver.recipes.word_problems import WordProblems
from latentweaver.tasks.problem import draw
from latentweaver.tasks.worded import WORDED
from latentweaver.tasks.worded.shortcuts import LOOK, Asked, arrived, chance, choices, look, moved, shortcut_floors
from latentweaver.tasks.worded.writing import Text, WordedProblem

PEOPLE = "Swaps. Ann has red. Bob has blue. Cid has green. Dan has gold."
ROUND = "Arrows. Ann points to Bob. Bob points to Cid. Cid points to Dan. Dan points to Ann. Start at Ann. Where?"
LONGER = "Arrows. Ann points to Bob. Bob points to Cid. Cid points to Dan. Dan points to Eve. Eve points to Ann. Start at Ann. Where?"


def test_a_look_at_two_swaps_tells_what_moves_unless_both_are_of_the_same_people() -> None:
    told = Asked("swaps", f"{PEOPLE} Ann and Bob swap. Cid and Bob swap. Cid and Dan swap. What does Dan have?", "red", 3)
    assert moved(told.question) == ["red"] and look(told) == 1.0
    both = Asked("swaps", f"{PEOPLE} Ann and Bob swap. Bob and Ann swap. Ann and Dan swap. What does Dan have?", "red", 3)
    assert moved(both.question) == ["red", "blue"] and look(both) == 0.5
    assert moved(f"{PEOPLE} Ann and Bob swap. What does Bob have?") == ["red"]
    for steps in (1, 2, 5, 9):
        drawn = [draw(WORDED["swaps"](), "test", steps, seed, 0.0) for seed in range(40)]
        assert all(problem.answer in moved(problem.prompt) for problem in drawn)


def test_swaps_beside_the_chain_leave_the_look_to_chance() -> None:
    beside = f"{PEOPLE} Cid and Dan swap. Ann and Bob swap. Cid and Dan swap. Bob and Dan swap. Dan and Ann swap. What does Ann have?"
    asked = Asked("swaps", beside, "red", 3)
    assert look(asked) == 0.0
    assert [chance(asked, most) for most in (1, 2, 3)] == [0.25, 0.25, 1.0]
    drawn = [draw(WORDED["swaps"](), "test", 1 + seed % 6, seed, 0.2) for seed in range(200)]
    looks = [look(Asked("swaps", problem.prompt, problem.answer, problem.difficulty)) for problem in drawn]
    assert sum(looks) / len(looks) < 1 / 6


def test_arrows_round_four_places_are_followed_round() -> None:
    assert [arrived(ROUND, steps, 1) for steps in (1, 2, 3, 4, 5)] == ["Bob", "Ann", "Bob", "Ann", "Bob"]
    assert [arrived(ROUND, steps, 2) for steps in (2, 3, 4, 6)] == ["Cid", "Bob", "Ann", "Cid"]
    assert [arrived(LONGER, steps, 1) for steps in (4, 5, 6)] == ["Ann", "Ann", "Bob"]
    assert [arrived(LONGER, steps, 2) for steps in (3, 4, 7)] == ["Bob", "Cid", "Cid"]


def test_what_is_further_away_than_the_steps_taken_is_guessed() -> None:
    assert [chance(Asked("sums", "", "one", steps), 2) for steps in (1, 2, 3)] == [1, 1, 0.1]
    homes = "Homes. Ann lives in Rome. Bob lives in Cairo. Eve lives in Rome. Cid lives with Ann. Dan lives with Cid. Where does Dan live?"
    assert chance(Asked("homes", homes, "Rome", 2), 1) == 0.5  # among two places, Rome and Cairo
    assert chance(Asked("logic", "", "true", 3), 1) == 0.5
    assert choices(Asked("arrows", LONGER, "Ann", 5)) == 5


def test_floors_of_problems_made_by_hand() -> None:
    swaps = Asked("swaps", f"{PEOPLE} Ann and Bob swap. Cid and Bob swap. Cid and Dan swap. What does Dan have?", "red", 3)
    problems = [Asked("sums", "", "one", 1), Asked("counters", "", "two", 2), Asked("arrows", ROUND, "Dan", 3), swaps]
    floors = shortcut_floors(problems)
    assert floors == pytest.approx({"a guess": 0.175, LOOK: 0.3625, "one step at most": 0.525, "two steps at most": 0.75})
    assert LOOK not in shortcut_floors(problems[:3])
    with pytest.raises(InputError, match="no problem"):
        shortcut_floors([])
    with pytest.raises(InputError, match="'riddles'"):
        shortcut_floors([Asked("riddles", "", "", 1)])


@pytest.mark.parametrize("task", WORDED)
@pytest.mark.parametrize("size", [0.0, 0.3])
def test_a_problem_has_as_many_steps_as_its_answer_needs_and_each_ends_with_one_it_needs(task: str, size: float) -> None:
    given = task in ("sums", "homes", "logic", "counters")
    for seed in range(20):
        problem = WORDED[task]().draw(random.Random(seed), 4, size)
        assert isinstance(problem, WordedProblem)
        assert len(problem.steps) == 4 + given
        asked = re.findall(r"(?:What is|Where does|What does) (\w+)", problem.prompt)
        assert problem.steps[-1].rfind(f"{asked[0] if asked else ''} {problem.answer}.") >= 0
        if task == "counters":  # the counter that is asked for ends every step, and is nowhere else in it
            assert all(step.split(". ")[:-1] == [] or asked[0] not in " ".join(step.split(".")[:-2]) for step in problem.steps[:-1])
            assert all(step.split(".")[-2].split()[0] == asked[0] for step in problem.steps[:-1])
        if task == "swaps":  # what is asked for moves once in a step, in the last swap of it
            for step in problem.steps[:-1]:
                *beside, _, _ = re.findall(r"\w+ (\w+)\.", step)
                assert problem.answer not in beside and problem.answer in step
        if size == 0 and task != "homes":
            assert all(step.count(".") == (2 if task == "swaps" else 1) for step in problem.steps)


def test_steps_by_hand() -> None:
    text = Text("Last digits only.")
    for values, needed in ((" Ann one.", False), (" Bob two.", True), (" Ann four.", False), (" Bob six.", True), (" Ann nine.", False)):
        text.think(values, needed)
    problem = text.problem(" What is Bob?", "six", 1)
    assert problem.steps == (" Ann one. Bob two.", " Ann four. Bob six. Ann nine.")
    assert problem.thoughts == " Ann one. Bob two. Ann four. Bob six. Ann nine."


def test_the_recipe_teaches_no_short_way_unless_it_is_asked_to() -> None:
    recipe = WordProblems(tasks=("swaps", "arrows"), test_problems=200, difficulty=6)
    floors = recipe.floors(recipe.test_items())
    assert floors[LOOK] < floors["a guess"] + 0.05
    assert floors["two steps at most"] < 0.5 < replace(recipe, size=0.0).floors(replace(recipe, size=0.0).test_items())["two steps at most"]


def test_the_recipe_prints_them() -> None:
    tasks = ("sums", "homes", "counters", "swaps", "arrows")
    recipe = WordProblems(tasks=tasks, test_problems=60, difficulty=2, size=0.0)
    floors = recipe.floors(recipe.test_items())
    assert list(floors) == ["a guess", LOOK, "one step at most", "two steps at most"]
    assert floors["a guess"] < floors["one step at most"] < floors["two steps at most"]
    assert floors["two steps at most"] > 0.95  # all but two swaps of the same two people
