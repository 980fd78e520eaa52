"""How far shortcuts get on problems in words: on problems made by hand, and on drawn ones of which it is known."""

from __future__ import annotations

import pytest

from latentweaver.errors import InputError
from latentweaver.recipes.word_problems import WordProblems
from latentweaver.tasks.problem import draw
from latentweaver.tasks.worded import WORDED
from latentweaver.tasks.worded.shortcuts import LOOK, Asked, arrived, chance, choices, look, moved, shortcut_floors

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


def test_the_recipe_prints_them() -> None:
    tasks = ("sums", "homes", "counters", "swaps", "arrows")
    recipe = WordProblems(tasks=tasks, test_problems=60, difficulty=2, size=0.0)
    floors = recipe.floors(recipe.test_items())
    assert list(floors) == ["a guess", LOOK, "one step at most", "two steps at most"]
    assert floors["a guess"] < floors["one step at most"] < floors["two steps at most"]
    assert floors["two steps at most"] > 0.95  # all but two swaps of the same two people
