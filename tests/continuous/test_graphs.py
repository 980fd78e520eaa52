"""Graphs that must be searched, ProsQA in words, and the same search in symbols."""

import json
import random
from dataclasses import replace
from statistics import mean, pstdev

import pytest

import latentweaver as lw
from latentweaver.tasks import prosqa
from latentweaver.tasks.graph_search import GraphSearch, SearchStream
from latentweaver.tasks.graphs import Graph, GraphMaker, distances, permuted, shortcut_floors
from latentweaver.tasks.prosqa import ProsQA

#   0 -> 2 -> 4 -> 6      1 -> 3 -> 5      0 -> 5 as well, 7 -> 4 from outside
GRAPH = Graph(8, ((0, 2), (2, 4), (4, 6), (1, 3), (3, 5), (0, 5), (0, 4), (7, 4)), root=0, other=1, target=6, distractor=3)


class TestGraph:
    def test_search(self) -> None:
        assert GRAPH.distance == {0: 0, 2: 1, 5: 1, 4: 1, 6: 2}
        assert GRAPH.hops == 2
        assert GRAPH.frontier(1) == {2, 4, 5}
        assert GRAPH.shortest_paths() == [[0, 4, 6]]
        assert distances(GRAPH.children, 7) == {7: 0, 4: 1, 6: 2}

    def test_permuting_changes_names_only(self) -> None:
        other = permuted(GRAPH, random.Random(0), names=12)
        assert other.hops == 2
        assert len(other.shortest_paths()) == 1
        assert sorted(len(c) for c in other.children if c) == sorted(len(c) for c in GRAPH.children if c)
        assert {permuted(GRAPH, random.Random(seed)).root for seed in range(40)} == set(range(8))

    def test_shortcuts_by_hand(self) -> None:
        assert shortcut_floors([GRAPH]) == {
            "lower in-degree": 0.5,  # 6 and 3 have one parent each
            "more ancestors": 1.0,
            "root within 3 hops": 1.0,
            "root within 4 hops": 1.0,
            "root within 5 hops": 1.0,
        }
        assert shortcut_floors([replace(GRAPH, distractor=5)])["lower in-degree"] == 1.0

    def test_questions_have_one_right_answer(self) -> None:
        rng = random.Random(3)
        for maker in (GraphMaker(), GraphMaker(nodes=10, hops=(2, 3), edges=12, matched=True)):
            for _ in range(40):
                graph = maker.draw(rng)
                reached = distances(graph.children, graph.other)
                assert graph.distractor in reached
                assert graph.target not in reached
                assert graph.distractor not in graph.distance
                assert not graph.children[graph.target]
                assert maker.hops[0] <= graph.hops <= maker.hops[1]
                assert len(graph.edges) <= maker.edges
                if maker.matched:
                    assert reached[graph.distractor] == graph.hops
                assert all(a < b for a, b in graph.edges)
                assert all(graph.children[node] or graph.parents[node] for node in range(2, graph.nodes))

    def test_bad_fields(self) -> None:
        with pytest.raises(lw.InputError, match="nodes must be at least 5"):
            GraphMaker(nodes=4)
        with pytest.raises(lw.InputError, match="hops must be"):
            GraphMaker(hops=(4, 3))
        with pytest.raises(lw.InputError, match="no graph of"):
            GraphMaker(nodes=9, hops=(3, 3), edges=2).draw(random.Random(0), tries=50)


class TestProsQA:
    def test_statistics_are_those_of_the_published_rows(self) -> None:
        """The 800 published rows have 22.81 +- 1.98 nodes, 36.00 +- 5.75 edges, 3.77 hops (41, 44, 13, 2 %), 1.59 paths."""
        rng, make = random.Random(0), ProsQA()
        graphs = [make.draw(rng).graph for _ in range(1000)]
        assert mean(graph.nodes for graph in graphs) == pytest.approx(22.8, abs=0.6)
        assert pstdev([graph.nodes for graph in graphs]) == pytest.approx(1.98, abs=0.25)
        assert mean(len(graph.edges) for graph in graphs) == pytest.approx(36.0, abs=1.9)
        assert pstdev([len(graph.edges) for graph in graphs]) == pytest.approx(5.75, abs=0.5)
        assert mean(graph.hops for graph in graphs) == pytest.approx(3.77, abs=0.1)
        for hops, share in ((3, 0.41), (4, 0.44), (5, 0.13), (6, 0.02)):
            assert mean(graph.hops == hops for graph in graphs) == pytest.approx(share, abs=0.05)
        assert mean(len(graph.shortest_paths()) for graph in graphs) == pytest.approx(1.59, abs=0.15)
        assert mean(sum(not p for p in graph.parents) for graph in graphs) == pytest.approx(2.55, abs=0.35)
        floors = shortcut_floors(graphs)  # published: 66.4, 70.7, 70.4, 92.2, 98.8 %
        for name, published in zip(floors, (0.664, 0.707, 0.704, 0.922, 0.988), strict=True):
            assert floors[name] == pytest.approx(published, abs=0.06)

    def test_node_numbers_leak_the_order_unless_permuted(self) -> None:
        def forward(permute: bool) -> float:
            rng = random.Random(1)
            graphs = [ProsQA(permute=permute).draw(rng).graph for _ in range(60)]
            return mean(a < b for graph in graphs for a, b in graph.edges)

        assert forward(False) == 1.0
        assert forward(True) == pytest.approx(0.5, abs=0.05)

    def test_sentences(self) -> None:
        item = ProsQA().draw(random.Random(5))
        facts, question = item.question.rsplit(" Is ", 1)
        assert facts.count(".") == len(item.graph.edges)
        assert set(facts.rstrip(".").split(". ")) == {prosqa.sentence(item.names[a], item.names[b])[:-1] for a, b in item.graph.edges}
        root, target = item.names[item.graph.root], item.names[item.graph.target]
        assert question.startswith(f"{root} a ")
        assert item.answer == f"{root} is a {target}."
        assert item.steps[0].startswith(f"{root} is a ")
        assert item.steps[-1].endswith(f" is a {target}.")
        assert len(item.steps) == item.graph.hops
        assert all(item.names[node][0].isupper() != bool(item.graph.parents[node]) for node in range(item.graph.nodes))
        assert len(set(item.names)) == item.graph.nodes

    def test_written_and_read_back(self, tmp_path) -> None:
        rng = random.Random(2)
        items = [ProsQA(permute=False).draw(rng) for _ in range(3)]
        (tmp_path / "rows.json").write_text(json.dumps([item.record() for item in items]))
        assert prosqa.load(tmp_path / "rows.json") == items

    def test_published_questions_are_never_drawn(self, tmp_path) -> None:
        item = ProsQA().draw(random.Random(7))
        (tmp_path / "published.json").write_text(json.dumps([item.record()]))
        assert ProsQA.beside(tmp_path / "published.json").draw(random.Random(7)).question != item.question

    def test_bad_files(self, tmp_path) -> None:
        with pytest.raises(lw.InputError, match="cannot read"):
            prosqa.load(tmp_path / "nothing.json")
        (tmp_path / "broken.json").write_text('[{"question": "?"}]')
        with pytest.raises(lw.InputError, match="not in ProsQA's form"):
            prosqa.load(tmp_path / "broken.json")


class TestSymbols:
    task = GraphSearch(GraphMaker(nodes=9, hops=(2, 2), edges=10), names=9)

    def test_samples(self) -> None:
        rng = random.Random(0)
        graph = self.task.draw(rng)
        prompt = self.task.prompt(graph, rng)
        assert len(prompt) == 10 * 3 + 5
        assert {(prompt[i], prompt[i + 1]) for i in range(0, 30, 3)} == set(graph.edges)
        assert prompt[30] == self.task.question
        assert {prompt[31], prompt[32]} == {graph.target, graph.distractor}
        assert prompt[33:] == [self.task.root, graph.root]
        latent, answer = self.task.latent, self.task.answer
        for stage, tail in ((0, []), (1, [latent]), (2, [latent, latent, answer])):
            ids, labels = self.task.sample(graph, "thoughts", stage, rng)
            assert ids[35:-1] == tail
            assert [label for label in labels if label != -100] == [ids[-1]]
            assert ids[-1] in graph.frontier(stage + 1) if stage < 2 else ids[-1] == graph.target
        ids, labels = self.task.sample(graph, "cot", 0, rng)
        assert labels[35:] == ids[35:] == [ids[35], graph.target, answer, graph.target]
        assert self.task.sample(graph, "none", 0, rng)[0][35:] == [answer, graph.target]

    def test_warm_up_asks_for_children(self) -> None:
        rng = random.Random(0)
        graph = self.task.maker.draw(rng)
        ids, labels = self.task.warm_up(graph, rng, questions=6)
        edges = {(parent, child) for parent in range(graph.nodes) for child in graph.children[parent]}
        asked = [(ids[i - 1], labels[i]) for i in range(len(ids)) if labels[i] != -100]
        assert len(asked) == 6
        assert set(asked) <= edges
        assert all(ids[i] == self.task.root for i in range(len(ids)) if labels[i] != -100)

    def test_batches_depend_on_seed_and_number_alone(self) -> None:
        rng = random.Random(0)
        graphs = [self.task.maker.draw(rng) for _ in range(5)]
        stream = SearchStream(self.task, graphs, "thoughts", batch_size=64, warm_up=2, stages=(0, 2, 4), earlier=0.25)
        assert (stream[3].input_ids == stream[3].input_ids).all()
        assert (stream[0].input_ids != self.task.latent).all()
        assert (stream[2].input_ids != self.task.latent).all()
        counts = (stream[6].input_ids == self.task.latent).sum(-1).tolist()
        assert set(counts) == {0, 1, 2}
        assert counts.count(2) > 32
        first = (stream[6].input_ids == self.task.latent).int().argmax(-1)
        assert {int(place) for place, count in zip(first, counts, strict=True) if count} == {35}
