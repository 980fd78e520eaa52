"""How far one gets on problems in words without following their steps: what an accuracy has to be above to speak of steps.

Who takes at most so many steps is right on problems that need no more, and guesses the others, but for two kinds.

Arrows that are followed d times round all n places are followed d mod n times, and half of the problems are such a round; where that is more
than the steps there are, as many of these are taken as are odd or even like d, as if two pointed at each other.

Of swaps that all move the thing which is asked for (`size` 0), none need be followed: it is what the one had who is in the first swap and
not in the second. Where others are among them, that look leaves the answer to chance, and they have to be followed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from latentweaver.errors import InputError

STEPS = {"one step at most": 1, "two steps at most": 2}
LOOK = "a look at the first two swaps"


class Asked(NamedTuple):
    """A problem: the name of its task, its question, the answer, and by how many steps in a row that is known."""

    task: str
    question: str
    answer: str
    steps: int


def shortcut_floors(problems: Sequence[Asked]) -> dict[str, float]:
    """The accuracy that every shortcut can expect on some problems: a guess among answers of the right kind, few steps, and, where
    there are swaps, the look at the first two of them with a guess of all that is no swaps.

    Raises:
        InputError: no problem at all, or one of a task that is unknown here.
    """
    if not problems:
        raise InputError("no problems were given, so shortcuts have no accuracy")

    def mean(chances: list[float]) -> float:
        return sum(chances) / len(chances)

    found = {"a guess": mean([1 / choices(each) for each in problems])}
    if any(each.task == "swaps" for each in problems):
        found[LOOK] = mean([look(each) if each.task == "swaps" else 1 / choices(each) for each in problems])
    return found | {name: mean([chance(each, most) for each in problems]) for name, most in STEPS.items()}


def choices(problem: Asked) -> int:
    """Among how many answers of the right kind a guess has to choose.

    Raises:
        InputError: a task that is unknown here.
    """
    told = {"swaps": r" has (\w+)", "arrows": r"(\w+) points to", "homes": r" lives in (\w+)"}
    fixed = {"sums": 10, "counters": 10, "logic": 2}
    if problem.task in fixed:
        return fixed[problem.task]
    if problem.task not in told:
        raise InputError(f"no shortcuts are known for {problem.task!r}; there are {', '.join([*told, *fixed])}")
    return len(set(re.findall(told[problem.task], problem.question)))


def chance(problem: Asked, most: int) -> float:
    """The chance of being right with at most `most` steps."""
    if problem.task == "arrows":
        return float(arrived(problem.question, problem.steps, most) == problem.answer)
    if problem.task == "swaps" and all_move(problem):
        return look(problem)
    return 1.0 if problem.steps <= most else 1 / choices(problem)


def all_move(problem: Asked) -> bool:
    """Whether all swaps move the thing that is asked for."""
    return len(_swaps(problem.question)) == problem.steps


def look(problem: Asked) -> float:
    """The chance of being right on swaps by a look at the first two."""
    things = moved(problem.question)
    return (problem.answer in things) / len(things)


def moved(question: str) -> list[str]:
    """What the one had who is in the first swap and not in the second: two things where both swaps are of the same two people."""
    has = dict(re.findall(r"(\w+) has (\w+)\.", question))
    swaps = _swaps(question)
    asked = set(re.findall(r"What does (\w+) have", question))
    return [has[name] for name in sorted(swaps[0] - (swaps[1] if len(swaps) > 1 else asked) or swaps[0])]


def _swaps(question: str) -> list[set[str]]:
    return [set(pair) for pair in re.findall(r"(\w+) and (\w+) swap", question)]


def arrived(question: str, steps: int, most: int) -> str:
    """Where one stands that follows at most `most` arrows, wherever that may be."""
    points = dict(re.findall(r"(\w+) points to (\w+)\.", question))
    (here,) = re.findall(r"Start at (\w+)", question)
    around = steps % len(points)
    for _ in range(steps if steps <= most else around if around <= most else most - (steps - most) % 2):
        here = points[here]
    return here
