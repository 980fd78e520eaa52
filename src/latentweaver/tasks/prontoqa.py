"""ProntoQA's problems as facts, and how far one gets on them without deducing anything (arXiv 2210.01240).

    Each lorpus is a wumpus. Wumpuses are not dull. ... Max is a lorpus. ... True or false: Max is dull.

Two facts speak of the property that is asked about, and say the opposite of each other: one about a kind that the name is found to be after
some steps, one about another. Which of them holds is all that has to be found out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from latentweaver.errors import InputError

_FACT = re.compile(r"(?:(?:each|every) )?(\w+) (?:is|are) (not )?(?:an? )?(\w+)$")


@dataclass(frozen=True)
class Fact:
    """Something is, or is not, a kind or a property; both in the singular and in small letters."""

    subject: str
    predicate: str
    holds: bool


def facts_of(question: str) -> tuple[list[Fact], Fact]:
    """The facts of a question, and the statement that is to be judged.

    Raises:
        InputError: a sentence that is not of ProntoQA's form.
    """
    told, _, asked = question.lower().rpartition("true or false:")
    return [_fact(sentence) for sentence in told.split(".") if sentence.strip()], _fact(asked.strip(" ."))


def _fact(sentence: str) -> Fact:
    found = _FACT.match(sentence.strip())
    if found is None:
        raise InputError(f"{sentence.strip()!r} is not a sentence of ProntoQA, like 'Each lorpus is not a wumpus'")
    subject, no, predicate = found.groups()
    return Fact(_singular(subject), _singular(predicate), no is None)


def _singular(word: str) -> str:
    return word[:-2] if word.endswith("puses") else word


def shortcut_floors(problems: list[tuple[str, str]]) -> dict[str, float]:
    """The accuracy that every shortcut can expect on some questions with their answers; where a shortcut cannot decide, it guesses."""
    totals = dict.fromkeys(SHORTCUTS, 0.0)
    for question, answer in problems:
        facts, asked = facts_of(question)
        speaking = [fact for fact in facts if fact.predicate == asked.predicate]
        if not speaking:
            raise InputError(f"nothing in {question!r} speaks of {asked.predicate!r}")
        for name, rank in SHORTCUTS.items():
            ranks = [rank(facts, fact, asked.subject) for fact in speaking]
            believed = [fact for fact, each in zip(speaking, ranks, strict=True) if each == max(ranks)]
            true = sum(fact.holds == asked.holds for fact in believed) / len(believed)
            totals[name] += true if answer == "True" else 1 - true
    return {name: total / len(problems) for name, total in totals.items()}


def _leading(facts: list[Fact], kind: str, name: str) -> set[str]:
    """The kinds of which each is a `kind`."""
    found: set[str] = set()
    new = {kind}
    while new := {fact.subject for fact in facts if fact.predicate in new} - found - {name}:
        found |= new
    return found


SHORTCUTS: dict[str, Callable[[list[Fact], Fact, str], int]] = {
    "the fact told last": lambda facts, fact, name: facts.index(fact),
    "the fact about a kind that something is said to be": lambda facts, fact, name: any(other.predicate == fact.subject for other in facts),
    "the fact about the kind more is said of": lambda facts, fact, name: sum(other.subject == fact.subject for other in facts),
    "the fact about the kind more kinds lead to": lambda facts, fact, name: len(_leading(facts, fact.subject, name)),
}
"""How much each of the facts that speak of the property is believed, the name of the question given. None of them follows a step from the name."""
