"""Statements that depend on earlier ones: sums, homes, logic, counters. As in `tasks.chains`, in an order that can be evaluated,
those that matter among others that do not, none deeper than the difficulty."""

from __future__ import annotations

import random
from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from latentweaver.tasks.worded.writing import DIGITS, NAMES, Text, Worded, WordedProblem


class Known(NamedTuple):
    """A name whose value is determined: its value, by so many steps in a row."""

    name: str
    value: str
    depth: int


class Dependent(Worded):
    """A task whose every statement gives a value to a new name, freely or from one or two earlier ones."""

    opening: str
    fresh = 0.15  # share of the statements beside the chain that give a value of their own
    apart = False  # whether what does not matter depends on nothing that does, and is as much at least

    @abstractmethod
    def give(self, rng: random.Random, text: Text, name: str) -> Known:
        """Write a statement that gives a name a value of its own."""

    @abstractmethod
    def derive(self, rng: random.Random, text: Text, name: str, first: Known, second: Known | None, needed: bool) -> Known:
        """Write a statement that gives a name a value that depends on `first`, and on `second` if the task wants one.

        Where `first` is `needed`, the value must not be known before that of `first` is.
        """

    @abstractmethod
    def question(self, name: str) -> str:
        """The question after the value of a name."""

    def draw(self, rng: random.Random, difficulty: int, size: float) -> WordedProblem:
        count = self.count(difficulty, size, (difficulty + 1) * (2 if self.apart else 1))
        on_chain = set(rng.sample(range(count), difficulty + 1))
        text, known, last = Text(self.opening), [], None
        for index, name in enumerate(rng.sample(NAMES, count)):
            matters = index in on_chain
            limit = last.depth if matters and last else difficulty - 1
            if matters:
                first = last
            else:
                first = (
                    known[-1 if rng.random() < 0.5 else int(rng.random() * len(known))] if known and rng.random() >= self.fresh else None
                )
            if first is None or first.depth > limit:
                new = self.give(rng, text, name)
            else:
                second = known[int(rng.random() * len(known))] if known else first
                new = self.derive(rng, text, name, first, second if second is not first and second.depth <= limit else None, matters)
            if not (matters and self.apart):
                known.append(new)
            last = new if matters else last
            text.think(f" {name} {new.value}.", matters)
        assert last is not None
        text.say(f" {self.question(last.name)}")
        return text.problem("", last.value, difficulty)


def mention(text: Text, before: str, known: Known) -> None:
    """Write a name that was given before; after it, its value can be known by looking it up."""
    text.say(f"{before} {known.name}", known.value, known.depth + 1)


def truth(value: bool) -> str:
    """The word for a truth value."""
    return "true" if value else "false"


@dataclass(frozen=True)
class Sums(Dependent):
    """Last digits of sums of an earlier number and a digit, or of two earlier ones."""

    statements: int = 50

    name = "sums"
    answers = tuple(DIGITS)
    opening = "Last digits only."

    def give(self, rng: random.Random, text: Text, name: str) -> Known:
        value = DIGITS[int(rng.random() * 10)]
        text.say(f" {name} is {value}")
        text.say(".", value, 0)
        return Known(name, value, 0)

    def derive(self, rng: random.Random, text: Text, name: str, first: Known, second: Known | None, needed: bool) -> Known:
        mention(text, f" {name} is", first)
        if second is not None and rng.random() < 0.4:
            mention(text, " plus", second)
            added, depth = DIGITS.index(second.value), max(first.depth, second.depth) + 1
        else:
            added, depth = int(rng.random() * 10), first.depth + 1
            text.say(f" plus {DIGITS[added]}")
        value = DIGITS[(DIGITS.index(first.value) + added) % 10]
        text.say(".", value, depth)
        return Known(name, value, depth)

    def question(self, name: str) -> str:
        return f"What is {name}?"


@dataclass(frozen=True)
class Homes(Dependent):
    """Who lives where, if all that is said is who lives with whom."""

    statements: int = 50

    name = "homes"
    answers = ("Paris", "London", "Rome", "Berlin", "Tokyo", "Madrid", "Cairo", "Moscow")
    opening = "Homes."
    fresh = 0.25
    apart = True

    @property
    def difficulties(self) -> tuple[int, int]:  # type: ignore[override]
        return 1, self.statements // 2 - 1

    def give(self, rng: random.Random, text: Text, name: str) -> Known:
        value = rng.choice(self.answers)
        text.say(f" {name} lives in {value}")
        text.say(".", value, 0)
        return Known(name, value, 0)

    def derive(self, rng: random.Random, text: Text, name: str, first: Known, second: Known | None, needed: bool) -> Known:
        mention(text, f" {name} lives with", first)
        text.say(".", first.value, first.depth + 1)
        return Known(name, first.value, first.depth + 1)

    def question(self, name: str) -> str:
        return f"Where does {name} live?"


@dataclass(frozen=True)
class Logic(Dependent):
    """Truth values joined by and, or, not."""

    statements: int = 50

    name = "logic"
    answers = ("true", "false")
    opening = "Logic."
    fresh = 0.3

    def give(self, rng: random.Random, text: Text, name: str) -> Known:
        value = rng.choice(self.answers)
        text.say(f" {name} is {value}")
        text.say(".", value, 0)
        return Known(name, value, 0)

    def derive(self, rng: random.Random, text: Text, name: str, first: Known, second: Known | None, needed: bool) -> Known:
        """Either operand may settle "and" (by being false) or "or" (by being true); beside a `needed` one the other does not."""
        negated = second is None or rng.random() < 0.4
        operands = [first._replace(value=truth((first.value == "true") != negated))]
        joined = ""
        if second is not None:
            joined = rng.choice(("and", "or")) if not needed else "and" if second.value == "true" else "or"
            operands.append(second)
        told = [(first, " not" if negated else ""), (second, "")]
        if second is not None and rng.random() < 0.5:
            told.reverse()
        text.say(f" {name} is")
        for at, (operand, sign) in enumerate(told):
            if operand is not None:
                mention(text, f" {joined}{sign}" if at else sign, operand)
        settling = [operand for operand in operands if operand.value == truth(joined == "or")] if joined else operands
        known = Known(
            name,
            (settling or operands)[0].value,
            1 + (min if settling else max)(operand.depth for operand in settling or operands),
        )
        text.say(".", known.value, known.depth)
        return known

    def question(self, name: str) -> str:
        return f"What is {name}?"


@dataclass(frozen=True)
class Counters(Worded):
    """Several counters, each with its own sequence of operations; only last digits are kept."""

    statements: int = 50

    name = "counters"
    answers = tuple(DIGITS)

    def draw(self, rng: random.Random, difficulty: int, size: float) -> WordedProblem:
        count = self.count(difficulty, size, difficulty + 1)
        on_chain = sorted(rng.sample(range(count), difficulty + 1))
        others = count - difficulty - 1
        names = rng.sample(NAMES, 1 + -(-others // max(difficulty + 1, 2)))
        state: dict[str, tuple[int, int]] = {}
        text, chained = Text("Last digits only."), set(on_chain)
        for index in range(count):
            name = names[0] if index in chained else rng.choice(names[1:])
            if name not in state:
                value, depth = int(rng.random() * 10), 0
                text.say(f" {name} starts at {DIGITS[value]}")
            else:
                before, depth = state[name][0], state[name][1] + 1
                text.say(f" {name}", DIGITS[before], depth)
                operand = 1 + int(rng.random() * 9)
                kind = rng.random()
                if kind < 0.4:
                    value, verb = (before + operand) % 10, "adds"
                elif kind < 0.8:
                    value, verb = (before - operand) % 10, "subtracts"
                else:
                    operand = rng.choice((3, 7, 9))  # those that can be undone, so that nothing is forgotten
                    value, verb = before * operand % 10, "multiplies"
                text.say(f" {verb} {DIGITS[operand]}")
            text.say(".", DIGITS[value], depth)
            text.think(f" {name} {DIGITS[value]}.", index in chained)
            state[name] = value, depth
        text.say(f" What is {names[0]}?")
        return text.problem("", DIGITS[state[names[0]][0]], difficulty)
