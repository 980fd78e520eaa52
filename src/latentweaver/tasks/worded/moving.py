"""Something moves: things that are swapped, and a walk along arrows."""

from __future__ import annotations

import random
from dataclasses import dataclass

from latentweaver.tasks.worded.writing import NAMES, Text, Worded, WordedProblem


@dataclass(frozen=True)
class Swaps(Worded):
    """People swap what they have; the difficulty is how often the thing asked for changed hands.

    Attributes:
        people: the most people; each has another thing at first.
    """

    statements: int = 50
    people: int = 8

    name = "swaps"
    answers = ("red", "blue", "green", "yellow", "black", "white", "gold", "silver")

    @property
    def difficulties(self) -> tuple[int, int]:  # type: ignore[override]
        return 1, self.statements - self.people

    def draw(self, rng: random.Random, difficulty: int, size: float) -> WordedProblem:
        people = rng.randint(4, self.people)
        names, things = rng.sample(NAMES, people), rng.sample(self.answers, people)
        count = self.count(difficulty, size, people + difficulty) - people
        on_chain = set(rng.sample(range(count), difficulty))
        text = Text("Swaps.")
        has = {}
        for name, thing in zip(names, things, strict=True):
            text.say(f" {name} has {thing}")
            text.say(".", thing, 0)
            has[name] = thing, 0
        holder = rng.choice(names)
        for index in range(count):
            if index in on_chain:
                one, other = holder, rng.choice([name for name in names if name != holder])
                holder = other
            else:
                one, other = rng.sample([name for name in names if name != holder], 2)
            if rng.random() < 0.5:
                one, other = other, one
            text.say(f" {one}", has[one][0], has[one][1] + 1)
            text.say(f" and {other}", has[other][0], has[other][1] + 1)
            has[one], has[other] = (has[other][0], has[other][1] + 1), (has[one][0], has[one][1] + 1)
            text.say(" swap", *has[one])
            text.say(".", *has[other])
            text.think(f" {one} {has[one][0]}. {other} {has[other][0]}.", index in on_chain)
        text.say(f" What does {holder} have?")
        return text.problem("", has[holder][0], difficulty)


@dataclass(frozen=True)
class Arrows(Worded):
    """Everybody points to somebody; the difficulty is the number of arrows to follow."""

    statements: int = 50

    name = "arrows"
    answers = ()

    @property
    def difficulties(self) -> tuple[int, int]:  # type: ignore[override]
        return 1, self.statements - 4

    def draw(self, rng: random.Random, difficulty: int, size: float) -> WordedProblem:
        people = min(max(4, self.count(difficulty, size, difficulty + 4) - difficulty), 40)
        names = rng.sample(NAMES, people)
        place = {name: at for at, name in enumerate(names)}
        around = [rng.choice([other for other in range(people) if other != at]) for at in range(people)]
        if rng.random() < 0.5:  # one long round, in which no place is met twice
            order = rng.sample(range(people), people)
            around = [0] * people
            for one, other in zip(order, order[1:] + order[:1], strict=True):
                around[one] = other
        text = Text("Arrows.")
        for name in names:
            text.say(f" {name} points to {names[around[place[name]]]}.")
        here = rng.choice(names)
        text.say(f" Start at {here}.", here, 0)
        for depth in range(1, difficulty + 1):
            here = names[around[place[here]]]
            text.say(" Step.", here, depth)
            text.think(f" {here}.")
        text.say(" Where?")
        return text.problem("", here, difficulty)
