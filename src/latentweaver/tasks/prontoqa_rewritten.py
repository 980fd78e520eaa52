"""ProntoQA's problems of five steps rewritten: with other names, and so that deduction and shortcut part.

In COCONUT's split the kind that a name is found to be is one that something is said to be, and the kind of the fact that contradicts
is not: one look tells them apart (`prontoqa.SHORTCUTS`). Two rewritings tell which of the two a model goes by:

    decoyed     a chain of kinds leads to the other kind as well, of which nobody is the first: only deduction answers
    severed     one link of the name's chain is told of a kind that nothing is: nothing can be deduced, and the shortcut still answers
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from latentweaver.errors import InputError
from latentweaver.tasks.prontoqa import Fact, facts_of
from latentweaver.tasks.stepwise import SteppedProblem

KINDS = (
    "brimpus", "dumpus", "gorpus", "grimpus", "impus", "jompus", "lempus", "lorpus", "numpus", "rompus", "shumpus", "sterpus",
    "tumpus", "vumpus", "wumpus", "yumpus", "zumpus",
)  # fmt: skip
PEOPLE = ("alex", "fae", "max", "polly", "rex", "sally", "sam", "stella", "wren")
PROPERTIES = (
    "aggressive", "amenable", "angry", "bitter", "blue", "bright", "brown", "cold", "discordant", "dull", "earthy", "fast", "feisty",
    "floral", "fruity", "happy", "hot", "kind", "large", "liquid", "loud", "luminous", "mean", "melodic", "metallic", "moderate",
    "muffled", "nervous", "opaque", "orange", "overcast", "rainy", "red", "shy", "slow", "small", "snowy", "sour", "spicy", "sunny",
    "sweet", "temperate", "transparent", "windy", "wooden",
)  # fmt: skip
"""What the published files speak of."""

ASKED = "True or false:"


def renamed(problem: SteppedProblem, rng: random.Random) -> SteppedProblem:
    """The same problem about other kinds, somebody else and other properties, its facts in another order."""
    words = {word for fact in facts_of(problem.question)[0] for word in (fact.subject, fact.predicate)}
    become: dict[str, str] = {}
    for pool in (KINDS, PEOPLE, PROPERTIES):
        here = sorted(words.intersection(pool))
        become |= dict(zip(here, rng.sample(pool, len(here)), strict=True))
    question, *steps = (_worded(text, become) for text in (problem.question, *problem.steps))
    told, asked = _sentences(question)
    return SteppedProblem(_in_order(told, asked, rng), tuple(steps), problem.answer)


def decoyed(problem: SteppedProblem, rng: random.Random, decoys: int = 4) -> SteppedProblem:
    """The same problem where so many kinds, one after another, lead to the other kind as well.

    The first is a kind that nothing depends on, the following are kinds that the problem does not name. One of the two kinds that the right
    kind is said to be is said of the other instead, the last but one has a property, too, and as many facts as came to it are left
    out: properties of kinds that nothing depends on. So nothing tells the two kinds apart as far as one looks back; with four leading to the
    other as to the right one, nothing does but the name.

    Args:
        decoys: 1 to 4.

    Raises:
        InputError: a problem that is not of five steps, or whose facts are not those of COCONUT's split; `decoys` outside of that.
    """
    if not 1 <= decoys <= 4:
        raise InputError(f"decoys must lie in [1, 4], got {decoys}")
    form = _Form.of(problem)
    told, right, before = dict(form.told), form.chain[-1], form.chain[-2]
    (side,), moved = form.leaves[before], rng.choice(form.leaves[right])
    decoy = [side, *rng.sample(form.unnamed, decoys - 1), form.other]
    idle = {leaf for leaves in form.leaves.values() for leaf in leaves if leaf != side}
    properties = [fact for fact in told if fact.subject in idle]
    if len(properties) < 4:
        raise _unlike(problem)
    properties = rng.sample(properties, 4)
    for fact in (Fact(before, side, True), Fact(right, moved, True), *properties[1:decoys]):
        del told[fact]
    new = [Fact(form.other, moved, True), *(Fact(kind, following, True) for kind, following in pairwise(decoy))]
    if not any(fact.subject == decoy[-2] for fact in told):
        del told[properties[0]]
        new.append(replace(properties[0], subject=decoy[-2]))
    told |= {fact: _written(fact, rng) for fact in new}
    return replace(problem, question=_in_order(list(told.values()), form.asked, rng))


def severed(problem: SteppedProblem, rng: random.Random) -> SteppedProblem:
    """The same problem where the link from the third kind of the name's chain to the fourth is told of a kind that nothing is.

    Neither fact about the property can be deduced of the name then. `answer` is that of the problem, which the shortcut still gives.

    Raises:
        InputError: a problem that is not of five steps, or whose facts are not those of COCONUT's split.
    """
    form = _Form.of(problem)
    link = Fact(form.chain[2], form.chain[3], True)
    instead = replace(link, subject=rng.choice(form.unnamed))
    told = [_written(instead, rng) if fact == link else sentence for fact, sentence in form.told.items()]
    return replace(problem, question=f"{' '.join(told)} {form.asked}")


@dataclass(frozen=True)
class _Form:
    """The parts of a problem of five steps.

    Attributes:
        told: its facts, and how each is told.
        asked: what is asked, in words.
        chain: the five kinds that the name is found to be.
        leaves: what each of them is said to be besides: one kind, and two for the last.
        other: the kind of the fact that contradicts.
        unnamed: the kinds that the problem does not name.
    """

    told: dict[Fact, str]
    asked: str
    chain: tuple[str, ...]
    leaves: dict[str, list[str]]
    other: str
    unnamed: list[str]

    @classmethod
    def of(cls, problem: SteppedProblem) -> _Form:
        facts, asked = facts_of(problem.question)
        told, sentence = _sentences(problem.question)
        chain = tuple(facts_of(f"{step.split('.')[0]}. {sentence}")[0][0].predicate for step in problem.steps[:-1])
        leaves = {
            kind: [f.predicate for f in facts if f.subject == kind and f.predicate in KINDS and f.predicate not in chain] for kind in chain
        }
        others = [fact.subject for fact in facts if fact.predicate == asked.predicate and fact.subject not in chain]
        named = {word for fact in facts for word in (fact.subject, fact.predicate)}
        unnamed = [kind for kind in KINDS if kind not in named]
        if [len(kinds) for kinds in leaves.values()] != [1, 1, 1, 1, 2] or len(others) != 1 or len(unnamed) < 3:
            raise _unlike(problem)
        return cls(dict(zip(facts, told, strict=True)), sentence, chain, leaves, others[0], unnamed)


def _unlike(problem: SteppedProblem) -> InputError:
    return InputError(f"{problem.question!r} is not a problem of five steps of ProntoQA in COCONUT's split")


def _sentences(question: str) -> tuple[list[str], str]:
    """What is told, a sentence each, and what is asked."""
    told, mark, asked = question.rpartition(ASKED)
    return [f"{sentence.strip()}." for sentence in told.split(".") if sentence.strip()], f"{mark}{asked}"


def _in_order(told: list[str], asked: str, rng: random.Random) -> str:
    """A question, its facts in an order that is drawn: those about the name come last, as in the published files."""
    name = asked.removeprefix(ASKED).split()[0]
    about = [sentence for sentence in told if sentence.startswith(f"{name} ")]
    rest = [sentence for sentence in told if sentence not in about]
    rng.shuffle(rest)
    rng.shuffle(about)
    return " ".join([*rest, *about, asked])


def _written(fact: Fact, rng: random.Random) -> str:
    """A fact about a kind in one of the three ways in which the published files tell it."""
    is_kind = fact.predicate in KINDS
    said = f"{_article(fact.predicate)} {fact.predicate}" if is_kind else fact.predicate
    no = "" if fact.holds else "not "
    every = rng.choice(("Each", "Every", None))
    if every is None:
        return f"{fact.subject.capitalize()}es are {no}{fact.predicate + 'es' if is_kind else said}."
    return f"{every} {fact.subject} is {no}{said}."


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _worded(text: str, become: Mapping[str, str]) -> str:
    """A text with words in place of words, in the singular or plural that it has."""

    def word(found: re.Match[str]) -> str:
        article, whole = found[1], found[2]
        stem = whole[:-2] if whole.endswith("puses") else whole
        new = become.get(stem.lower())
        if new is None:
            return found[0]
        new += whole[len(stem) :]
        lead = f"{_article(new)} " if article else ""
        return lead + (new.capitalize() if whole[0].isupper() else new)

    return re.sub(r"\b(?:(an?) )?(\w+)", word, text)
