"""The search task as a recipe, and the picture of the frontier: what `read` says after each thought."""

import io
import json
import random
import shutil

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

import latentweaver as lw
from latentweaver import recipes
from latentweaver.cli import main
from latentweaver.commands.search import task_of
from latentweaver.console import Frontier
from latentweaver.evaluate.frontier import classes_of, frontier_split, search_accuracy
from latentweaver.tasks.graph_search import GraphSearch, Question, SearchStream, likeness
from latentweaver.tasks.graphs import Graph, GraphMaker, permuted, shortcut_floors
from latentweaver.tasks.token_batch import IGNORED

TASK = GraphSearch(GraphMaker(nodes=9, hops=(2, 2), edges=10), names=9)


class Searcher:
    """A breadth-first search as a reasoner; blind, it gives every node the same logit."""

    def __init__(self, blind: bool = False) -> None:
        self.blind = blind

    def begin(self, input_ids: torch.Tensor, attention_mask=None, initial_state=None, generator=None, *, after=None) -> lw.Thought:
        if after is not None:  # [A], or a node of a path
            answered = bool((input_ids == TASK.answer).all())
            state = (
                after.anchor["candidates"] * after.state
                if answered
                else torch.nn.functional.one_hot(input_ids, 9).float() @ after.anchor["edges"]
            )
            return after.branch(state)
        batch = torch.arange(len(input_ids))[:, None]
        edges = torch.zeros(len(input_ids), 9, 9)
        edges[batch, input_ids[:, 0:30:3], input_ids[:, 1:30:3]] = 1
        root = torch.nn.functional.one_hot(input_ids[:, -1:], 9).float()
        candidates = torch.nn.functional.one_hot(input_ids[:, 31:33], 9).sum(1, keepdim=True).float()
        return lw.Thought.start(root @ edges, anchor={"edges": edges, "candidates": candidates})

    def think(self, thought: lw.Thought) -> lw.Thought:
        return thought.advance((thought.state + thought.state @ thought.anchor["edges"]).clamp(max=1))

    def read(self, thought: lw.Thought) -> lw.Readout:
        return lw.Readout(thought.state * (0 if self.blind else 20))


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    rng = random.Random(0)
    return [permuted(TASK.maker.draw(rng), rng, 9) for _ in range(40)]


def test_classes() -> None:
    graph = Graph(8, ((0, 2), (2, 4), (4, 6), (1, 3), (3, 5), (0, 5), (0, 7), (7, 6)), root=0, other=1, target=6, distractor=3)
    kinds = {0: "reached", 2: "frontier", 5: "frontier", 7: "optimal", 4: "beyond", 6: "beyond", 1: "unreachable", 3: "unreachable"}
    assert classes_of(graph, 0) == kinds
    later = classes_of(graph, 1)
    assert later[6] == "optimal"
    assert later[4] == "frontier"
    assert later[2] == "reached"


def test_a_search_shows_its_frontier(graphs: list[Graph]) -> None:
    for split in frontier_split(Searcher(), TASK, graphs):
        assert sum(split.probability.values()) == pytest.approx(1, abs=0.01)
        assert sum(split.share.values()) == pytest.approx(1)
        assert split.probability["unreachable"] < 1e-6
        assert split.auc == 1.0
    first = frontier_split(Searcher(), TASK, graphs)[0].probability
    assert first["optimal"] + first["frontier"] == pytest.approx(1, abs=1e-4)


def test_a_blind_model_shows_the_shares(graphs: list[Graph]) -> None:
    for split in frontier_split(Searcher(blind=True), TASK, graphs):
        assert split.auc == 0.5
        for kind, share in split.share.items():
            assert split.probability[kind] == pytest.approx(share, abs=0.05)  # nodes without a fact have no class


def test_accuracy(graphs: list[Graph]) -> None:
    assert all(search_accuracy(Searcher(), TASK, graphs))
    assert sum(search_accuracy(Searcher(blind=True), TASK, graphs)) < 15
    assert not all(search_accuracy(Searcher(), TASK, graphs, "none"))


SMALL = {"nodes": 7, "names": 9, "hops": 2, "edges": 8, "graphs": 20, "test_graphs": 8, "width": 16, "batch_size": 8}
SHORT = {"warm_up": 3, "updates": 6, "checkpoint_every": 4, "device": "cpu"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The model of a run that is far too short."""
    return recipes.train("superposition", tmp_path_factory.mktemp("run"), **SMALL, **SHORT)


@pytest.mark.parametrize("fields", [{"method": "none"}, {"method": "cot"}, {"feedback": "pause"}, {"curriculum": "none"}, {"base": "gpt2"}])
def test_every_control_runs(tmp_path, fields) -> None:
    lines = []
    recipes.train("superposition", tmp_path, report=lines.append, **SMALL, **SHORT, **fields)
    assert 0 <= lines[-1]["accuracy"] <= 1


def test_the_model_of_the_recipe_is_a_reasoner(trained) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(trained)
    assert isinstance(model, lw.Reasoner)
    assert model.config.num_steps == 2


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(trained, tmp_path) -> None:
    class Stop(Exception):
        pass

    def stop(line):
        raise Stop

    with pytest.raises(Stop):
        recipes.train("superposition", tmp_path, report=stop, **SMALL, **{**SHORT, "evaluate_every": 5})
    again = recipes.train("superposition", tmp_path, resume=True, **SMALL, **SHORT)
    expected, given = lw.load(trained).state_dict(), lw.load(again).state_dict()
    assert all(torch.equal(expected[name], given[name]) for name in expected)


def test_likeness_is_blind_to_names_and_to_nothing_else(graphs: list[Graph]) -> None:
    rng = random.Random(3)
    assert all(likeness(graph) == likeness(permuted(graph, rng, 12)) for graph in graphs)
    chain = Graph(6, ((0, 2), (2, 3), (1, 4), (4, 5)), root=0, other=1, target=3, distractor=5)
    longer = Graph(6, ((0, 2), (2, 3), (1, 4), (4, 5), (0, 3)), root=0, other=1, target=3, distractor=5)
    elsewhere = Graph(6, ((0, 2), (2, 3), (1, 4), (4, 5)), root=2, other=1, target=3, distractor=5)
    assert len({likeness(chain), likeness(longer), likeness(elsewhere)}) == 3


def test_no_test_graph_is_learned_under_other_names() -> None:
    recipe = recipes.Superposition(nodes=9, names=9, edges=12, parents=1.5, matched=False, graphs=300, test_graphs=60)
    held_out = [likeness(graph) for graph in recipe.held_out()]
    assert len(set(held_out)) == len(held_out)
    assert not set(held_out) & set(map(likeness, recipe.pool()))


def test_the_warm_up_asks_for_children_and_never_shows_them(graphs: list[Graph]) -> None:
    rng = random.Random(5)
    for graph in graphs:
        ids, labels = TASK.warm_up(graph, rng, questions=8)
        asked = [place for place, label in enumerate(labels) if label != IGNORED]
        assert len(asked) == 8
        for place in asked:
            assert labels[place] in graph.children[ids[place - 1]]
            assert ids[place] == ids[place - 2] == TASK.root
        edges = {tuple(ids[at : at + 2]) for at in range(0, 30, 3)}
        assert edges == set(graph.edges)


def test_stages_grow_and_earlier_ones_stay(graphs: list[Graph]) -> None:
    stream = SearchStream(TASK, graphs, "thoughts", batch_size=200, warm_up=2, stages=(0, 1, 2), earlier=0.25, seed=4)
    assert not (stream[1].input_ids == TASK.latent).any()
    for index, stage in ((2, 0), (3, 1), (4, 2), (9, 2)):
        batch = stream[index]
        thoughts = (batch.input_ids == TASK.latent).sum(-1)
        assert int(thoughts.max()) == stage
        assert bool(((batch.labels != IGNORED).sum(-1) == 1).all())
        if stage:
            assert 0.1 < float((thoughts < stage).float().mean()) < 0.4
    assert torch.equal(stream[3].input_ids, SearchStream(TASK, graphs, "thoughts", 200, 2, (0, 1, 2), 0.25, 4)[3].input_ids)


def test_a_written_question_is_the_graph_it_was_written_from(graphs: list[Graph]) -> None:
    for graph in graphs:
        question = Question.of(graph, random.Random(1))
        assert Question.parse(str(question), names=9) == question
        assert set(question.edges) == set(graph.edges)
        assert set(question.candidates) == {graph.target, graph.distractor}
        assert question.distance == graph.distance
        prompt = TASK.ask(question)
        assert len(prompt) == len(TASK.prompt(graph, random.Random(0)))
        assert {tuple(prompt[at : at + 2]) for at in range(0, 30, 3)} == set(graph.edges)


@pytest.mark.parametrize(
    "text", ["", "hello", "a>b", "a>b from a: b", "a>b from a: b or z", "a>bc from a: b or c", "from a: b or c", "A>b from a: b or c"]
)
def test_what_is_no_question_is_said_to_be_none(text: str) -> None:
    with pytest.raises(lw.InputError, match="a graph is written as"):
        Question.parse(text, names=9)


QUESTION = "a>b a>c b>d e>f f>g from a: d or g"


def test_thinking_shows_the_frontier(trained, capsys) -> None:
    main(["think", QUESTION, "--model", str(trained), "--steps", "2", "--device", "cpu"])
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert "1 edge" in lines[0] and "2 edges" in lines[0] and "never" in lines[0]
    assert "a>b a>c" in lines[1] and "b>d" in lines[1] and "e>f f>g" in lines[1]
    assert [line.split("  ")[0] for line in lines[2:4]] == ["at once", "after 1"]
    model, task = lw.load(trained, device="cpu"), GraphSearch(GraphMaker(nodes=7, hops=(2, 2), edges=8), names=9)
    thought = model.begin(torch.tensor([task.ask(Question.parse(QUESTION, 9))]))
    shown = dict(zip("abcdefghi", model.read(thought).logits[0, -1, :9].softmax(-1).tolist(), strict=True))
    assert f"b {100 * shown['b']:3.0f} " in lines[2]
    assert "after 2 thoughts" in lines[4]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_letter_stays_with_its_number_in_a_wide_frontier(width: int) -> None:
    question = Question.parse("a>b a>c a>d a>e a>f b>g c>h d>i e>j f>k l>m m>n from a: k or n", 14)
    view = Frontier("abcdefghijklmn", question.edges, question.root, question.distance)
    view.add("at once", [node / 100 for node in range(14)])
    out = io.StringIO()
    Console(file=out, width=width).print(view.table(width))
    lines = out.getvalue().splitlines()
    shown = " ".join(lines[next(i for i, line in enumerate(lines) if "at once" in line) :])
    for node, letter in enumerate("bcdefghijklmn", start=1):
        assert f"{letter} {node:>3} " in shown
    assert max(map(len, lines)) <= width


def test_a_search_takes_a_number_of_thoughts(trained, capsys) -> None:
    for steps, said in (("auto", "takes a number of thoughts"), ("200", "positions")):
        with pytest.raises(SystemExit) as stop:
            main(["think", QUESTION, "--model", str(trained), "--steps", steps, "--device", "cpu"])
        assert stop.value.code == 2
        assert said in capsys.readouterr().err


def test_info_says_what_it_is(trained, capsys) -> None:
    main(["info", str(trained)])
    out = capsys.readouterr().out
    assert "2 thoughts by default" in out and "llama, 2 layers of width 16" in out
    assert f"{sum(each.numel() for each in lw.load(trained, device='cpu').parameters()):,}" in out


BROKEN = {
    "is missing base.model.norm.weight": lambda tensors: tensors.pop("base.model.norm.weight"),
    "does not have: extra": lambda tensors: tensors.update(extra=torch.ones(2)),
    r"wrong shape: base.model.norm.weight \(expected \[16\], got \[7\]": lambda tensors: tensors.update(
        {"base.model.norm.weight": torch.ones(7)}
    ),
    "NaN or infinite values in base.model.norm.weight": lambda tensors: tensors["base.model.norm.weight"].fill_(torch.nan),
}


@pytest.mark.parametrize("said", BROKEN)
def test_a_broken_checkpoint_is_refused_by_name(trained, tmp_path, said) -> None:
    shutil.copytree(trained, tmp_path / "model")
    tensors = load_file(tmp_path / "model/model.safetensors")
    BROKEN[said](tensors)
    save_file(tensors, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(lw.CheckpointError, match=said):
        lw.load(tmp_path / "model")


def test_a_nonsensical_decoder_is_refused_in_one_line(trained, tmp_path) -> None:
    shutil.copytree(trained, tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    config["text_config"]["model_type"] = "nonsense"
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    with pytest.raises(lw.CheckpointError, match=r"does not describe a continuous_thought: [^\n]{1,80}nonsense[^\n]{0,40}$"):
        lw.load(tmp_path / "model")


@pytest.fixture(scope="module")
def shipped():
    """weaver-graphs, its task, and graphs of another seed than its recipe's."""
    model = lw.load("weaver-graphs", device="cpu")
    task = task_of(model)
    rng = random.Random(11)
    return model, task, [task.draw(rng) for _ in range(150)]


def test_the_shipped_model_finds_the_way(shipped) -> None:
    model, task, graphs = shipped
    right = search_accuracy(model, task, graphs)
    assert sum(right) > 0.93 * len(right)
    floors = shortcut_floors(graphs)
    assert max(floors["lower in-degree"], floors["more ancestors"]) < 0.62  # nothing but a search tells


def test_its_thoughts_hold_the_frontier(shipped) -> None:
    for split in frontier_split(*shipped):
        assert split.probability["optimal"] + split.probability["frontier"] > 0.8
        assert split.share["optimal"] + split.share["frontier"] < 0.25
        assert split.auc > 0.95


def test_without_its_own_thoughts_it_is_lost(shipped) -> None:
    """Thoughts of another problem, one place further in the batch, are worth no more than none."""
    model, task, graphs = shipped
    rng = random.Random(0)
    thought = model.begin(torch.tensor([task.prompt(graph, rng) for graph in graphs]))
    for _ in range(task.hops):
        thought = model.think(thought.branch(thought.state.roll(1, 0)))
    said = model.read(model.begin(torch.full((len(graphs), 1), task.answer), after=thought)).logits[:, -1, : task.names].argmax(-1)
    assert sum(answer == graph.target for answer, graph in zip(said.tolist(), graphs, strict=True)) < 0.6 * len(graphs)


def test_it_answers_text_with_thoughts_written_into_it() -> None:
    tokenizer, model = lw.load_tokenizer("weaver-graphs"), lw.load("weaver-graphs", device="cpu")
    task = task_of(model)
    question = Question.parse("a>b a>c b>d c>e e>f g>h h>i from a: f or i", task.names)
    text = tokenizer.decode(task.ask(question))
    assert text.startswith("ab|ac|bd|ce|ef|gh|hi|ab|") and text.endswith("?fi@a")
    ids = tokenizer(text + "***=", return_tensors="pt").input_ids
    assert tokenizer.decode(model.generate(ids, max_new_tokens=1, do_sample=False)[0, -1:]) == "f"
