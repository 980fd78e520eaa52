"""How far one gets on `word_problems.py`'s problems without following their steps: what an accuracy there has to be above to speak of steps.

Who takes at most so many steps is right on sums and counters that need no more, and guesses a digit on others. Arrows that are followed n times
among four places are followed n mod 4 times, since half of the problems are one round of all four; where that is more than the steps there
are, the start is said if n is even and where it points if n is odd, as if two pointed at each other. Of swaps, all of which move the thing
that is asked for, none need be followed: it is what the one had who is in the first swap and not in the second.
"""

from __future__ import annotations

import re

DIGIT = 0.1
"""The chance of a digit that is guessed."""


def chance(kind: str, question: str, answer: str, hops: int, most: int) -> float:
    """The chance of being right with at most `most` steps on a problem whose answer is `hops` steps away."""
    if kind == "swaps":
        things = moved(question)
        return (answer in things) / len(things)
    if kind == "arrows":
        return float(arrived(question, hops, most) == answer)
    return 1.0 if hops <= most else DIGIT


def moved(question: str) -> list[str]:
    """What the thing that is asked for was at first: two candidates where the first two swaps are of the same two people."""
    has = dict(re.findall(r"(\w+) has (\w+)\.", question))
    swaps = [set(pair) for pair in re.findall(r"(\w+) and (\w+) swap", question)]
    asked = re.findall(r"What does (\w+) have", question)
    return [has[name] for name in sorted(swaps[0] - (swaps[1] if len(swaps) > 1 else set(asked)) or swaps[0])]


def arrived(question: str, hops: int, most: int) -> str:
    """Where one stands that follows at most `most` arrows, wherever that may be."""
    points = dict(re.findall(r"(\w+) points to (\w+)\.", question))
    (here,) = re.findall(r"Start at (\w+)", question)
    for _ in range(hops % 4 if hops % 4 <= most else hops % 2):
        here = points[here]
    return here
