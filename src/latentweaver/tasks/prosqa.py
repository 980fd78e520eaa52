"""ProsQA: is Sally a hilpus or a sterpus? Graph search in words (COCONUT, arXiv 2412.06769).

    Every gerpus is a terpus. Bob is a yerpus. ... Is Sally a hilpus or sterpus?     Sally is a sterpus.

`load` reads the published files (github facebookresearch/coconut, folder data/; MIT) from a path the user gives. `ProsQA` draws
new ones that match them: nodes, edges, lengths and numbers of shortest paths, names (see `graphs`). In the published
files an edge always goes from a lower to a higher node number, which no sentence shows, so drawn ones have their
nodes permuted unless asked not to.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from latentweaver.errors import InputError
from latentweaver.tasks.graphs import Graph, GraphMaker, permuted

ENTITIES = (
    "Alex", "Bob", "Carol", "Davis", "Eva", "Fae", "Gabriel", "Jack", "Max", "Oliver", "Polly", "Rex", "Sally", "Sam", "Stella",
    "Tom", "Wren",
)  # fmt: skip
CONCEPTS = (
    "bompus", "boompus", "brimpus", "chorpus", "dumpus", "felpus", "fompus", "gerpus", "gorpus", "grimpus", "gwompus", "hilpus", "impus",
    "jelpus", "jompus", "kerpus", "lempus", "lorpus", "numpus", "quimpus", "rempus", "rompus", "rorpus", "scrompus",
    "shumpus", "sterpus", "storpus", "terpus", "timpus", "tumpus", "vumpus", "wumpus", "worpus", "yerpus", "yimpus", "yumpus",
    "zhorpus", "zumpus",
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """A question of ProsQA.

    Attributes:
        question: the facts, in random order, and the question.
        steps: one shortest path from root to target, a sentence each.
        answer: "Sally is a sterpus."
        graph: what the facts say.
        names: the name of each node.
    """

    question: str
    steps: tuple[str, ...]
    answer: str
    graph: Graph
    names: tuple[str, ...]

    @property
    def facts(self) -> tuple[str, ...]:
        """The question's facts, in the order of the graph's edges."""
        return tuple(sentence(self.names[a], self.names[b]) for a, b in self.graph.edges)

    def record(self) -> dict[str, Any]:
        """The item as a row of the published files."""
        graph = self.graph
        return {
            "question": self.question,
            "answer": self.answer,
            "steps": list(self.steps),
            "idx_to_symbol": list(self.names),
            "edges": [list(edge) for edge in graph.edges],
            "root": graph.root,
            "target": graph.target,
            "neg_target": graph.distractor,
        }


def load(path: str | Path) -> list[Item]:
    """The items of a published file.

    Raises:
        InputError: if the file is missing or not in ProsQA's form.
    """
    path = Path(path)
    try:
        rows = json.loads(path.read_text())
        return [_item(row) for row in rows]
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}; ProsQA's files are in data/ of github.com/facebookresearch/coconut"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not in ProsQA's form: {type(error).__name__} {error}") from error


def _item(row: dict[str, Any]) -> Item:
    edges = tuple((int(a), int(b)) for a, b in row["edges"])
    # the second root is the other of the first two nodes
    graph = Graph(len(row["idx_to_symbol"]), edges, row["root"], 1 - row["root"], row["target"], row["neg_target"])
    return Item(row["question"], tuple(row["steps"]), row["answer"], graph, tuple(row["idx_to_symbol"]))


def sentence(subject: str, concept: str) -> str:
    """ "Sally is a gerpus." or "Every gerpus is a terpus.": entities have capital letters."""
    return f"{subject} is a {concept}." if subject[0].isupper() else f"Every {subject} is a {concept}."


@dataclass(frozen=True)
class ProsQA:
    """Draws items like the published ones.

    Attributes:
        maker: what the graphs are like.
        permute: whether node numbers are drawn at random, instead of telling what comes before what.
        unseen: questions that are never drawn: those of the published files, so that these stay a test.
    """

    maker: GraphMaker = field(default_factory=GraphMaker)
    permute: bool = True
    unseen: frozenset[str] = frozenset()

    @classmethod
    def beside(cls, *paths: str | Path, **fields: Any) -> ProsQA:
        """A generator that draws no question of these published files."""
        return cls(unseen=frozenset(item.question for path in paths for item in load(path)), **fields)

    def draw(self, rng: random.Random) -> Item:
        """An item."""
        while True:
            graph = self.maker.draw(rng)
            entities = sum(not parents for parents in graph.parents)
            if entities > len(ENTITIES) or graph.nodes - entities > len(CONCEPTS):
                continue
            item = self.worded(permuted(graph, rng) if self.permute else graph, rng)
            if item.question not in self.unseen:
                return item

    def worded(self, graph: Graph, rng: random.Random) -> Item:
        """A graph in words, names and order drawn: nodes without parents are somebody, the others something."""
        entities = sum(not parents for parents in graph.parents)
        people, things = iter(rng.sample(ENTITIES, entities)), iter(rng.sample(CONCEPTS, graph.nodes - entities))
        names = tuple(next(things) if graph.parents[node] else next(people) for node in range(graph.nodes))
        facts = [sentence(names[a], names[b]) for a, b in graph.edges]
        rng.shuffle(facts)
        candidates = [names[graph.target], names[graph.distractor]]
        rng.shuffle(candidates)
        path = rng.choice(graph.shortest_paths())
        return Item(
            question=f"{' '.join(facts)} Is {names[graph.root]} a {candidates[0]} or {candidates[1]}?",
            steps=tuple(sentence(names[a], names[b]) for a, b in pairwise(path)),
            answer=sentence(names[graph.root], names[graph.target]),
            graph=graph,
            names=names,
        )
