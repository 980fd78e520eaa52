"""Recipes of problems with steps: every method trains, stops and goes on, answers; the table and the ablations read what they left."""

import json
import os
import random
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch

import latentweaver as lw
from latentweaver import recipes
from latentweaver.cli import main
from latentweaver.errors import InputError
from latentweaver.evaluate.answers import answers
from latentweaver.recipes import comparing
from latentweaver.recipes.comparing import Comparison, Result, compare, measure, softened
from latentweaver.recipes.methods import METHODS
from latentweaver.recipes.prosqa import ProsQA
from latentweaver.recipes.stepwise import prompts_for
from latentweaver.recipes.wording import answer_in, examples, word_tokenizer, words_of
from latentweaver.tasks import prontoqa, prosqa, stepwise
from latentweaver.tasks.problem import Problem
from latentweaver.tasks.stepwise import SteppedProblem
from latentweaver.tasks.worded import WORDED
from latentweaver.training.curriculum import Example
from latentweaver.training.epochs import Epochs

TINY = {"nodes": 8, "hops": (2, 3), "problems": 32, "test_problems": 6, "width": 16, "layers": 1, "heads": 2, "limit": 12}
SHORT = {"batch_size": 8, "epochs": 5, "epochs_per_stage": 1, "max_latent_stage": 2, "block": 2, "lr": 1e-3, "device": "cpu"}
FIELDS = {**TINY, **SHORT, "evaluate_items": 3, "checkpoint_every": 6}
FLAGS = [
    text for name, value in FIELDS.items() for text in (f"--{name.replace('_', '-')}", *map(str, value if name == "hops" else (value,)))
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every method, trained far too short to be good at anything: FOLDER/METHOD-0."""
    folder = tmp_path_factory.mktemp("runs")
    for method in METHODS:
        recipes.train(f"prosqa-{method}", folder / f"{method}-0", **FIELDS)
    return folder


def opened(folder):
    from latentweaver.checkpoints.loading import load, load_tokenizer

    return load(folder / "model", device="cpu"), load_tokenizer(folder / "model")


class TestMethods:
    @pytest.mark.parametrize("method", METHODS)
    def test_leaves_a_reasoner_that_answers(self, runs, method: str) -> None:
        model, tokenizer = opened(runs / f"{method}-0")
        assert isinstance(model, lw.Reasoner)
        items = ProsQA(**FIELDS).test_items()
        result = measure(model, tokenizer, items, method, 0)
        thoughts = model.config.task["thoughts"]
        assert thoughts == {"codi": 2, "pccot": 2, "lotus": 4}.get(method, 0 if method in ("no-thoughts", "icot", "cot", "no-cot") else 2)
        assert thoughts + 1 <= result.tokens <= thoughts + 12
        lines = [json.loads(text) for text in (runs / f"{method}-0" / "log.jsonl").read_text().splitlines()]
        assert lines[-1]["update"] == 20
        assert 0 <= lines[-1]["accuracy"] <= 1

    def test_what_thoughts_are_in_each(self, runs) -> None:
        kinds = {method: opened(runs / f"{method}-0")[0].config for method in METHODS}
        assert (kinds["coconut"].feedback, kinds["pause"].feedback, kinds["codi"].feedback) == ("hidden", "pause", "projected")
        assert kinds["pause-multipass"].pause_passes == "several"
        assert (kinds["pccot"].refine, kinds["lotus"].refine) == ("jacobi", "loop")
        assert kinds["cot"].latent_token_id is None

    def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(self, runs, tmp_path) -> None:
        class Stop(Exception):
            pass

        def stop(line):
            if line["update"] >= 7:
                raise Stop

        with pytest.raises(Stop):
            recipes.train("prosqa-coconut", tmp_path, report=stop, **FIELDS, log_every=1)
        recipes.train("prosqa-coconut", tmp_path, resume=True, **FIELDS)
        whole, resumed = (opened(folder)[0].state_dict() for folder in (runs / "coconut-0", tmp_path))
        assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())

    def test_the_curriculum_must_have_time_to_end(self) -> None:
        with pytest.raises(InputError, match="epochs must be above that; got 3"):
            ProsQA(**{**FIELDS, "epochs": 3})

    def test_prompts_of_the_last_epoch_are_those_of_the_trained_model(self, runs) -> None:
        for method in ("coconut", "codi", "lotus", "cot"):
            model, tokenizer = opened(runs / f"{method}-0")
            recipe = ProsQA(**FIELDS, method=method)
            items = recipe.test_items()
            learned = [recipe.lesson.prompt(example, recipe.epochs - 1) for example in examples(items, tokenizer)]
            assert prompts_for(model, tokenizer, items) == learned

    def test_begins_with_a_pretrained_decoder(self, runs, tmp_path) -> None:
        model, tokenizer = opened(runs / "cot-0")
        model.base.save_pretrained(tmp_path / "base")
        tokenizer.save_pretrained(tmp_path / "base")
        fresh = ProsQA(**FIELDS, base=str(tmp_path / "base")).model()
        assert torch.equal(fresh.get_input_embeddings().weight, model.get_input_embeddings().weight)

    def test_published_questions_are_not_trained_on(self, tmp_path) -> None:
        recipe = ProsQA(**FIELDS)
        first = recipe.items[0]
        (tmp_path / "test.json").write_text(json.dumps([first.record()]))
        aware = ProsQA(**FIELDS, test=tmp_path / "test.json")
        assert [item.question for item in aware.test_items()] == [first.question]
        assert first.question not in {item.question for item in aware.items}

    def test_other_tasks(self, tmp_path) -> None:
        rows = [
            {"question": f"Max is {i}. True or false: Max is not {i}.", "steps": [f"Max is {i}."], "answer": "False"} for i in range(16)
        ]
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        shape = {name: value for name, value in FIELDS.items() if name not in ("nodes", "hops", "problems", "test_problems")}
        for name, more in {
            "prontoqa-coconut": {"train": tmp_path / "rows.json", "test": tmp_path / "rows.json"},
            "words-codi": {"problems": 16, "test_problems": 4},
        }.items():
            lines = []
            recipes.train(name, tmp_path / name, report=lines.append, **shape, **more)
            assert "accuracy" in lines[-1]

    def test_prontoqa_is_read_as_facts_and_shows_its_shortcut(self, tmp_path, capsys, monkeypatch) -> None:
        monkeypatch.setenv("COLUMNS", "200")
        question = "Each lorpus is a wumpus. Wumpuses are not dull. Yumpuses are dull. Max is a lorpus. True or false: Max is not dull."
        row = {"question": question, "steps": ["Max is a lorpus. Each lorpus is a wumpus."], "answer": "True"}
        (tmp_path / "rows.json").write_text(json.dumps([row] * 8))
        files = {"train": tmp_path / "rows.json", "test": tmp_path / "rows.json"}
        recipe = recipes.STEPWISE["prontoqa"](**files, width=16, layers=1, heads=2)
        tokens = recipe.tokenizer.convert_ids_to_tokens(examples(recipe.items[:1], recipe.tokenizer)[0].question)
        assert tokens[:9] == ["lorpus", "is", "wumpus", "wumpus", "is not", "dull", "yumpus", "is", "dull"]
        facts, asked = prontoqa.facts_of(question)
        assert facts[1] == prontoqa.Fact("wumpus", "dull", False) == replace(asked, subject="wumpus")
        assert list(recipe.floors(recipe.test_items()).values()) == [0.0, 1.0, 0.5, 1.0]  # told last: of a yumpus, which nothing is
        assert prontoqa.shortcut_floors([(question, "False")])["the fact about a kind that something is said to be"] == 0.0
        with pytest.raises(InputError, match="'all is well so far' is not a sentence of ProntoQA"):
            prontoqa.facts_of("All is well so far. True or false: Max is dull.")
        shape = [f"--{name.replace('_', '-')}={value}" for name, value in SHORT.items() if name not in ("block", "epochs")]
        paths = [f"--{name}={path}" for name, path in files.items()]
        small = ["--width=16", "--layers=1", "--heads=2", "--limit=4", "--epochs=4", "--methods=no-cot", "--seeds=1", "--timed=0"]
        main(["compare", "prontoqa", f"--folder={tmp_path / 'runs'}", *paths, *shape, *small])
        assert "without searching, by the fact about a kind that something is said to be: 100.0" in capsys.readouterr().out

    def test_templates_of_word_problems_are_split(self) -> None:
        recipe, task = recipes.STEPWISE["words"](tasks=("homes",), problems=60, test_problems=60), WORDED["homes"]()
        learned, asked = ({task.essence(Problem(item.question, "", 1)) for item in side} for side in (recipe.items, recipe.test_items()))
        assert learned
        assert asked
        assert not learned & asked


class TestComparing:
    def test_reads_what_is_there_and_prints_the_table(self, runs, tmp_path, capsys, monkeypatch) -> None:
        monkeypatch.setenv("COLUMNS", "200")
        asked = ["--methods", "coconut,pause,cot,soft", "--seeds", "1", "--timed", "1", "--json", str(tmp_path / "table.json")]
        main(["compare", "prosqa", "--folder", str(runs), *asked, *FLAGS])
        shown, table = capsys.readouterr().out, json.loads((tmp_path / "table.json").read_text())
        lines = shown.splitlines()
        assert [line.split(":")[0] for line in lines[:4]] == ["coconut-0", "pause-0", "cot-0", "soft-0"]
        assert [line.split()[0] for line in lines[6:10]] == ["coconut", "pause", "cot", "soft"]
        assert "without searching, by lower in-degree" in shown
        assert "training" not in shown
        items = ProsQA(**FIELDS).test_items()
        for result, row in zip(table["results"], table["rows"], strict=True):
            assert row["mean"] == result["accuracy"] == result["right"].count("1") / len(items)
            assert row["seconds"] > 0

    def test_a_stop_loses_nothing_that_was_measured(self, runs, tmp_path, capsys, monkeypatch) -> None:
        """Stopped while the third answers: two are in the file, and shown; while the file is written: the one before is whole."""
        monkeypatch.setenv("COLUMNS", "200")
        file, real, replaced, measured = tmp_path / "table.json", comparing.measure, os.replace, []

        def stopped(model, tokenizer, items, method, seed, timed):
            if method == "cot":
                raise KeyboardInterrupt
            return real(model, tokenizer, items, method, seed, timed)

        def stopped_writing(beside, place):
            measured.append(json.loads(Path(beside).read_text()))  # what is written is whole before it takes the name
            if len(measured) == 2:
                raise KeyboardInterrupt
            replaced(beside, place)

        asked = ["compare", "prosqa", "--folder", str(runs), "--methods", "pause,coconut,cot", "--seeds", "1", "--timed", "0", *FLAGS]
        monkeypatch.setattr(comparing, "measure", stopped)
        with pytest.raises(SystemExit):
            main([*asked, "--json", str(file)])
        assert [row["method"] for row in json.loads(file.read_text())["rows"]] == ["pause", "coconut"]
        assert [line.partition(": accuracy ")[0] for line in capsys.readouterr().out.splitlines()] == ["pause-0", "coconut-0"]
        monkeypatch.setattr(os, "replace", stopped_writing)
        with pytest.raises(SystemExit):
            main([*asked, "--json", str(file.with_name("other.json"))])
        assert json.loads(file.with_name("other.json").read_text()) == measured[0]

    def test_trains_what_is_missing(self, tmp_path) -> None:
        names = []
        found = compare(ProsQA(**FIELDS), tmp_path, ["no-cot"], 2, 0, lambda name, line: names.append(name))
        assert set(names) == {"no-cot-0", "no-cot-1"}
        assert [result.seed for result in found.results] == [0, 1]
        assert (tmp_path / "no-cot-1" / "model" / "config.json").exists()

    def test_rows_are_tested_against_one_method(self) -> None:
        rng = random.Random(0)
        good = [tuple(rng.random() < 0.9 for _ in range(200)) for _ in range(3)]
        poor = [tuple(rng.random() < 0.6 for _ in range(200)) for _ in range(3)]
        results = [Result(name, seed, runs[seed], 3.0) for name, runs in (("coconut", good), ("cot", poor)) for seed in range(3)]
        first, second = Comparison(tuple(results)).rows()
        assert first.gain is None
        assert second.gain == pytest.approx(second.mean - first.mean)
        assert second.gain_high < 0
        assert max(second.p_values) < 1e-3
        assert first.low < first.mean < first.high
        assert [Result.of(result.as_dict()) for result in results] == results

    def test_soft_thinking_is_the_model_that_writes(self, runs) -> None:
        model = opened(runs / "cot-0")[0]
        soft = softened(model)
        assert soft.base is model.base
        assert soft.config.feedback == "soft"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["compare", "chess"], "unknown task 'chess'"),
            (["compare", "prosqa", "--methods", "magic"], "unknown method magic"),
            (["compare", "prosqa", "--seeds", "0"], "seeds must be at least 1"),
            (["compare", "prontoqa", "--methods", "cot"], "--test is needed"),
            (
                ["compare", "prosqa", "--methods", "magic", "--json", "nowhere/table.json"],
                "cannot write nowhere/table.json: there is no folder nowhere",
            ),
            (["compare", "prosqa", "--epochs", "three"], "epochs"),
            (["compare", "prosqa", "--test", "nowhere.json"], "cannot read nowhere.json"),
        ],
    )
    def test_bad_input_is_one_line(self, capsys, arguments: list[str], words: str) -> None:
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        error = capsys.readouterr().err.strip()
        assert words in error
        assert "\n" not in error


class TestAblating:
    @pytest.mark.parametrize("method", ["coconut", "codi", "pccot", "lotus", "no-curriculum"])
    def test_prints_and_writes_every_ablation(self, runs, tmp_path, capsys, method: str) -> None:
        main(["ablate", str(runs / f"{method}-0" / "model"), "--problems", "5", "--json", str(tmp_path / "a.json"), "--device", "cpu"])
        shown, effects = capsys.readouterr().out, json.loads((tmp_path / "a.json").read_text())
        names = [effect["name"] for effect in effects]
        assert names[:6] == ["as they are", "swapped", "permuted", "noised", "zeroed", "mean"]
        assert "cut to 1" in names
        assert all(name in shown for name in names)
        model, tokenizer = opened(runs / f"{method}-0")
        recipe = ProsQA(problems=32, nodes=8, hops=(2, 3))
        assert effects[0]["right"] == measure(model, tokenizer, recipe.test_items()[:5], method, 0).as_dict()["right"]

    @pytest.mark.parametrize(("method", "words"), [("cot", "no thoughts"), ("pause", "pause tokens")])
    def test_models_without_thoughts_say_so(self, runs, capsys, method: str, words: str) -> None:
        with pytest.raises(SystemExit):
            main(["ablate", str(runs / f"{method}-0" / "model")])
        assert words in capsys.readouterr().err

    def test_other_models_say_so(self, runs, capsys) -> None:
        with pytest.raises(SystemExit):
            main(["ablate", str(runs / "coconut-0" / "model"), "--task", "prontoqa"])
        assert "was not trained on prontoqa" in capsys.readouterr().err


class TestInside:
    """What looks inside reasoners works on a continuous thought: its states are the thoughts."""

    def test_record_label_and_lens(self, runs) -> None:
        model, tokenizer = opened(runs / "coconut-0")
        ids = torch.tensor([examples(ProsQA(**FIELDS).test_items()[:1], tokenizer)[0].question])
        trajectory = lw.record(model, ids, steps=12, keep=("states", "top"))
        own = model.thoughts(model.begin(ids), 13)
        torch.testing.assert_close(torch.as_tensor(trajectory.states).reshape(13, -1).float(), own[0], rtol=1e-4, atol=1e-4)
        assert [label.name for label in lw.inspect.label(trajectory)]
        reading = lw.inspect.read_steps(model, ids, steps=4)
        said = [int(model.read(thought).logits.argmax()) for thought in thoughts_after(model, ids, 4)]
        assert reading.top_ids[0, :, -1, 0].tolist() == said


def thoughts_after(model, ids, steps: int):
    """The Thoughts from step 0 to `steps`."""
    found = [model.begin(ids)]
    for _ in range(steps):
        found.append(model.think(found[-1]))
    return found


class TestData:
    def test_epochs_show_every_example_once_in_an_order_of_its_own(self) -> None:
        asked = [Example([i], [], [0]) for i in range(20)]
        stream = Epochs(asked, 5, lambda chosen, epoch, rng: (epoch, [example.question[0] for example in chosen]), seed=3)
        first, second = ([stream[i + 4 * epoch] for i in range(4)] for epoch in range(2))
        assert [epoch for epoch, _ in first + second] == [0] * 4 + [1] * 4
        orders = [[number for _, numbers in each for number in numbers] for each in (first, second)]
        assert sorted(orders[0]) == sorted(orders[1]) == list(range(20))
        assert orders[0] != orders[1]
        assert stream[2] == first[2]
        with pytest.raises(InputError, match="batch_size"):
            Epochs(asked, 21, lambda *about: None)

    def test_more_thoughts_than_positions(self, tmp_path) -> None:
        with pytest.raises(InputError, match=r"positions with its 1200 thoughts, the decoder has 1024"):
            recipes.train("prosqa-coconut", tmp_path, **{**FIELDS, "thoughts_per_step": 600})

    def test_batches_of_like_length(self) -> None:
        asked = [Example([0] * random.Random(i).randint(1, 30), [], [i]) for i in range(48)]
        stream = Epochs(asked, 4, lambda chosen, epoch, rng: chosen, window=6, length=lambda example: len(example.question))
        shown = [stream[i] for i in range(stream.per_epoch)]
        assert sorted(example.answer[0] for batch in shown for example in batch) == list(range(48))
        spread = [max(len(e.question) for e in batch) - min(len(e.question) for e in batch) for batch in shown]
        assert sum(spread) / len(spread) < 10  # 24 or so without
        lengths = [len(batch[0].question) for batch in shown[:6]]
        assert lengths != sorted(lengths)

    def test_a_fact_is_three_tokens_of_our_own(self) -> None:
        recipe = ProsQA(**{**FIELDS, "method": "cot"})
        item = recipe.items[0]
        example = examples([item], recipe.tokenizer)[0]
        assert recipe.tokenizer.unk_token_id not in [*example.question, *chain(*example.steps), *example.answer]
        assert len(example.question) == 3 * len(item.graph.edges) + len(["Is", "Sally", "gerpus", "terpus", "?"])
        names = [item.names[node] for node in (item.graph.root, item.graph.target)]
        assert recipe.tokenizer.convert_ids_to_tokens(example.answer) == ["###", *names, ".", "<end>"]
        assert recipe.leads == 2

    def test_a_problem_gets_other_names_whenever_it_is_shown(self) -> None:
        recipe = ProsQA(**{**FIELDS, "method": "cot", "problems": 8})
        stream = recipe.stream()
        shown = [{tuple(row.tolist()) for row in stream[i].input_ids} for i in (0, 1)]
        assert not shown[0] & shown[1]
        assert torch.equal(stream[0].input_ids, recipe.stream()[0].input_ids)

    @pytest.mark.parametrize("method", ["coconut", "codi", "lotus", "no-cot"])
    def test_facts_come_first_whatever_the_method(self, method: str, tmp_path) -> None:
        recipe = recipes.RECIPES[f"prosqa-{method}"](**{**FIELDS, "epochs": 6, "facts_epochs": 1})
        batch = recipe.stream()[0]
        for text, ids, labels in zip(recipe.tokenizer.batch_decode(batch.input_ids), batch.input_ids, batch.labels, strict=True):
            told, said = text.replace("<pad>", "").split("?")
            facts = [fact.split() for fact in said.split(".") if fact.strip()]
            assert facts
            assert all(" ".join(fact) in told for fact in facts)
            assert recipe.tokenizer.convert_ids_to_tokens(labels[labels >= 0]) == [child for _, child in facts]
            assert torch.equal(ids[labels >= 0], labels[labels >= 0])
        recipe.run(tmp_path)
        with pytest.raises(InputError, match="epochs must be above that"):
            replace(recipe, facts_epochs=3)

    def test_words_are_tokens_and_come_back(self) -> None:
        item = prosqa.ProsQA().draw(random.Random(0))
        tokenizer = word_tokenizer(words_of([item]), ["<|latent|>"])
        example = examples([item], tokenizer)[0]
        assert tokenizer.unk_token_id not in [*example.question, *chain(*example.steps), *example.answer]
        assert example.answer[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(example.answer, skip_special_tokens=True).replace(" .", ".") == f"### {item.answer}"
        assert len(tokenizer("<|latent|>")["input_ids"]) == 1

    @pytest.mark.parametrize(("text", "answer"), [("a\n### 1,234", "1234"), ("Bob  is\n", "Bob is"), ("# x # y ", "y"), ("", "")])
    def test_an_answer_is_what_follows_the_last_mark(self, text: str, answer: str) -> None:
        assert answer_in(text) == answer

    def test_bad_files(self, tmp_path) -> None:
        place = tmp_path / "x.json"
        for text, words in (("[]", "holds no problems"), ('[{"question": "q"}]', "is not a list"), ("{", "is not a list")):
            place.write_text(text)
            with pytest.raises(InputError, match=words):
                stepwise.load(place)
        place.write_text('[{"question": "q", "steps": ["s"], "answer": 3}]')
        assert stepwise.load(place) == [SteppedProblem("q", ("s",), "3")]

    def test_answers_of_a_trained_model_need_its_recipe(self, runs) -> None:
        model, tokenizer = opened(runs / "cot-0")
        model.config.task = None
        with pytest.raises(InputError, match="not trained by a recipe"):
            prompts_for(model, tokenizer, [])
        assert answers(model, [], 0, 1) == []
