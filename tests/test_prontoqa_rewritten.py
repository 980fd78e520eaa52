"""ProntoQA's problems rewritten: who deduces and who takes the shortcut is told apart by them."""

from __future__ import annotations

import json
import random
import re
from itertools import pairwise

import pytest

from latentweaver import recipes
from latentweaver.errors import InputError
from latentweaver.recipes.wording import examples
from latentweaver.tasks.prontoqa import facts_of, shortcut_floors
from latentweaver.tasks.prontoqa_rewritten import KINDS, PEOPLE, PROPERTIES, decoyed, renamed, severed
from latentweaver.tasks.stepwise import SteppedProblem


def problem() -> SteppedProblem:
    """A problem of the form that all of COCONUT's split have: 25 facts, five steps, a decision between vumpus and tumpus."""
    chain, people = ["lorpus", "impus", "gorpus", "yumpus", "vumpus"], "Sally"
    leaves = {"lorpus": ["wumpus"], "impus": ["dumpus"], "gorpus": ["lempus"], "yumpus": ["rompus"], "vumpus": ["brimpus", "zumpus"]}
    links = [f"Each {a} is {'an' if b[0] == 'i' else 'a'} {b}." for a, b in pairwise(chain)]
    told = [*links, *(f"{a.capitalize()}es are {b}es." for a, others in leaves.items() for b in others)]
    told += ["Every shumpus is a grimpus.", "Vumpuses are not hot.", "Tumpuses are hot."]
    properties = ["kind", "mean", "not red", "shy", "small", "not loud", "sour", "windy", "not slow", "happy"]
    speaks = ["lorpus", "impus", "gorpus", "yumpus", "wumpus", "dumpus", "lempus", "rompus", "brimpus", "shumpus"]
    told += [f"Every {kind} is {word}." for kind, word in zip(speaks, properties, strict=True)]
    told += [f"{people} is a shumpus.", f"{people} is a lorpus."]
    at = [f"{people} is {'an' if kind[0] == 'i' else 'a'} {kind}." for kind in chain]
    steps = [f"{here} {link}" for here, link in zip(at, [*links, "Vumpuses are not hot."], strict=True)]
    return SteppedProblem(f"{' '.join(told)} True or false: {people} is hot.", (*steps, f"{people} is not hot."), "False")


def deduced(question: str) -> set[str]:
    """The answers that follow from what is told."""
    facts, asked = facts_of(question)
    known = {asked.subject}
    while new := {fact.predicate for fact in facts if fact.subject in known and fact.predicate in KINDS} - known:
        known |= new
    return {str(fact.holds == asked.holds) for fact in facts if fact.subject in known and fact.predicate == asked.predicate}


def floors(question: str, answer: str) -> list[float]:
    return list(shortcut_floors([(question, answer)]).values())[1:]


class TestRewriting:
    def test_a_problem_of_the_split_is_answered_by_any_look(self) -> None:
        assert len(facts_of(problem().question)[0]) == 25
        assert deduced(problem().question) == {"False"}
        assert floors(problem().question, "False") == [1.0, 1.0, 1.0]

    def test_other_names_leave_the_deduction_as_it_is(self) -> None:
        orders = set()
        for seed in range(40):
            new = renamed(problem(), random.Random(seed))
            facts, asked = facts_of(new.question)
            words = {word for fact in facts for word in (fact.subject, fact.predicate)}
            assert words <= {*KINDS, *PEOPLE, *PROPERTIES}
            assert len(words) == 14 + 1 + 11
            assert [fact.subject for fact in facts[-2:]] == [asked.subject] * 2
            assert deduced(new.question) == {new.answer} == {"False"}
            told = set(re.findall(r"[^.]+\.", new.question.replace(". ", ".")))
            assert all(step.split(". ")[1].rstrip(".") + "." in told for step in new.steps[:-1])
            assert not re.search(r"\ba [aeiou]\w+pus\b|\ban [^aeiou\W]\w+pus\b", new.question + " ".join(new.steps))
            orders.add(tuple(fact.holds for fact in facts))
        assert len(orders) > 30

    @pytest.mark.parametrize("decoys", [1, 2, 3, 4])
    def test_decoys_leave_only_deduction(self, decoys: int) -> None:
        for seed in range(30):
            new = decoyed(problem(), random.Random(seed), decoys)
            facts, _ = facts_of(new.question)
            assert deduced(new.question) == {"False"}
            assert floors(new.question, "False") == [0.5, 0.5, 0.5 if decoys == 4 else 1.0]
            assert len(facts) == len(set(facts)) == 25
            assert (new.steps, new.answer) == (problem().steps, problem().answer)
            parent = {fact.predicate: fact.subject for fact in facts if fact.predicate in KINDS}
            said = [
                [sum(fact.subject == kind for fact in facts) for kind in pair]
                for pair in (("vumpus", "tumpus"), ("yumpus", parent["tumpus"]))
            ]
            assert said == [[2, 2], [2, 2]]

    def test_a_severed_chain_leaves_only_the_shortcut(self) -> None:
        for seed in range(10):
            new = severed(problem(), random.Random(seed))
            assert deduced(new.question) == set()
            assert floors(new.question, "False") == [1.0, 1.0, 1.0]
            assert len(facts_of(new.question)[0]) == 25

    def test_bad_input(self) -> None:
        short = SteppedProblem(
            "Each lorpus is hot. Max is a lorpus. True or false: Max is hot.", ("Max is a lorpus.", "Max is hot."), "True"
        )
        for rewrite in (decoyed, severed):
            with pytest.raises(InputError, match="not a problem of five steps"):
                rewrite(short, random.Random(0))
        with pytest.raises(InputError, match=r"decoys must lie in \[1, 4\], got 5"):
            decoyed(problem(), random.Random(0), 5)


class TestRecipe:
    @pytest.fixture
    def files(self, tmp_path):
        row = {"question": problem().question, "steps": list(problem().steps), "answer": "False"}
        (tmp_path / "rows.json").write_text(json.dumps([row] * 8))
        return {"train": tmp_path / "rows.json", "test": tmp_path / "rows.json", "width": 16, "layers": 1, "heads": 2, "batch_size": 4}

    def test_names_are_drawn_each_time_for_every_method_alike(self, files) -> None:
        shown = {}
        for method in ("cot", "no-cot"):
            recipe = recipes.RECIPES[f"prontoqa-{method}"](**files, renamed=True)
            shown[method] = [recipe.stream()[index].input_ids for index in range(4)]
            length = len(examples(recipe.items[:1], recipe.tokenizer)[0].question)
            assert length == 3 * 25 + 8
            rows = [tuple(row[:length].tolist()) for batch in shown[method] for row in batch]
            assert len(set(rows)) == len(rows)
            assert recipe.tokenizer.unk_token_id not in {token for row in rows for token in row}
            shown[method] = rows
        assert shown["cot"] == shown["no-cot"]
        plain = recipes.RECIPES["prontoqa-cot"](**files)
        assert len({tuple(row.tolist()) for index in range(4) for row in plain.stream()[index].input_ids}) == 1

    def test_batches_of_renamed_problems_are_of_like_length_too(self, files) -> None:
        rows = json.loads(files["train"].read_text())
        for row in rows[::2]:
            row["question"] = row["question"].replace("Every lorpus is kind. ", "")
        files["train"].write_text(json.dumps(rows))
        lengths = {
            window: [
                len(set(recipe.stream()[index].attention_mask.sum(1).tolist()))
                for recipe in [recipes.RECIPES["prontoqa-no-cot"](**files, renamed=True, window=window)]
                for index in range(8)
            ]
            for window in (1, 2)
        }
        assert max(lengths[1]) == 2, "shuffled, some batches hold both"
        assert set(lengths[2]) == {1}

    def test_decoys_come_into_training_and_test(self, files) -> None:
        recipe = recipes.RECIPES["prontoqa-cot"](**files, decoys=4)
        for items in (recipe.items, recipe.test_items()):
            assert list(recipe.floors(items).values())[1:] == [0.5, 0.5, 0.5]
        assert recipe.model().config.task["problems"] == {"decoys": 4}

    def test_kinds_begin_as_nouns_of_their_own(self, files) -> None:
        nouns = recipes.RECIPES["prontoqa-cot"](**files).stand_ins()
        assert len({nouns[kind] for kind in KINDS}) == len(KINDS)
        assert nouns["max"] == "Max"
