"""The search task as a recipe, and the picture of the frontier: what `read` says after each thought."""

import random

import pytest
import torch

import latentweaver as lw
from latentweaver import recipes
from latentweaver.evaluate.frontier import classes_of, frontier_split, search_accuracy
from latentweaver.tasks.graph_search import GraphSearch
from latentweaver.tasks.graphs import Graph, GraphMaker, permuted

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


def test_the_recipe_runs_and_its_model_is_a_reasoner(tmp_path) -> None:
    small = {"nodes": 7, "hops": 2, "edges": 7, "graphs": 20, "test_graphs": 5, "width": 16, "warm_up": 3, "updates": 6, "batch_size": 8}
    for method in ("thoughts", "none", "cot"):
        lines = []
        folder = recipes.train("superposition", tmp_path / method, report=lines.append, method=method, **small)
        assert 0 <= lines[-1]["accuracy"] <= 1
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(model, lw.Reasoner)
    assert model.config.num_steps == 2
