"""Search in a graph, written in symbols: which of two nodes can be reached from the root?

    3 7 | 0 3 | 7 5 | ... [Q] 5 9 [R] 0 <thoughts> -> the next node, or [A] 5

The task of "Reasoning by superposition" (arXiv 2505.12514). Every node is a token; identities are drawn anew for every sample,
so nothing can be learned by heart and nothing leaks from the numbering. One token of a sample is supervised:

    stage k < hops     k thoughts, then a node at depth k + 1 on a shortest path: "where could you be by now?"
    the last stage     as many thoughts as hops, then [A], then the candidate

The two candidates are equally far from their roots, so neither in-degree nor depth tells them apart (`graphs.shortcut_floors`).

Methods on the same samples: "thoughts" (continuous, or pause tokens if the model feeds those back), "cot" (the path as text) and
"none" (the answer at once). `warm_up` asks for children of many nodes in one sequence: the edge-copying circuit is the
bottleneck of all of them, and dense one-hop questions are the cheap cure.
"""

from __future__ import annotations

import random
import re
import string
from dataclasses import dataclass, field
from typing import Literal

from latentweaver.errors import InputError
from latentweaver.tasks.graphs import Edge, Graph, GraphMaker, distances, permuted
from latentweaver.tasks.token_batch import IGNORED, Row, TokenBatch

Method = Literal["thoughts", "cot", "none"]

LETTERS = string.ascii_lowercase
"""What nodes are called in text: node 0 is a."""


@dataclass(frozen=True)
class GraphSearch:
    """The task.

    Attributes:
        maker: what the graphs are like.
        names: how many nodes have a token; at least as many as a graph has.
    """

    maker: GraphMaker = field(default_factory=lambda: GraphMaker(nodes=12, hops=(3, 3), edges=14, matched=True))
    names: int = 12

    def __post_init__(self) -> None:
        if self.maker.hops[0] != self.maker.hops[1]:
            raise InputError(f"all graphs need the same number of hops, got {self.maker.hops}")
        if not self.maker.nodes <= self.names <= len(LETTERS):
            raise InputError(f"names must be {self.maker.nodes}, the number of nodes, to {len(LETTERS)}, got {self.names}")

    @property
    def hops(self) -> int:
        return self.maker.hops[0]

    # the tokens after the nodes
    @property
    def separator(self) -> int:
        return self.names

    @property
    def question(self) -> int:
        return self.names + 1

    @property
    def root(self) -> int:
        return self.names + 2

    @property
    def answer(self) -> int:
        return self.names + 3

    @property
    def latent(self) -> int:
        return self.names + 4

    @property
    def vocabulary(self) -> int:
        return self.names + 5

    @property
    def characters(self) -> dict[str, int]:
        """A character for every token: `ab|bc|...?cf@a***=` is a prompt with three thoughts before the answer."""
        return {character: token for token, character in enumerate([*LETTERS[: self.names], *"|?@=*"])}

    def draw(self, rng: random.Random) -> Graph:
        """A graph with identities drawn anew."""
        return permuted(self.maker.draw(rng), rng, self.names)

    def edges(self, graph: Graph, rng: random.Random) -> list[int]:
        """The edges as tokens, in random order; some stand there twice, so that all graphs are equally long."""
        edges = list(graph.edges)
        edges += rng.choices(edges, k=self.maker.edges - len(edges))
        rng.shuffle(edges)
        return [token for a, b in edges for token in (a, b, self.separator)]

    def prompt(self, graph: Graph, rng: random.Random) -> list[int]:
        """The graph and the question, up to the root's name."""
        candidates = [graph.target, graph.distractor]
        rng.shuffle(candidates)
        return [*self.edges(graph, rng), self.question, *candidates, self.root, graph.root]

    def ask(self, question: Question) -> list[int]:
        """The prompt of a question that somebody wrote: no more than its edges, root and candidates."""
        edges = [question.edges[place % len(question.edges)] for place in range(max(self.maker.edges, len(question.edges)))]
        tokens = [token for a, b in edges for token in (a, b, self.separator)]
        return [*tokens, self.question, *question.candidates, self.root, question.root]

    def sample(self, graph: Graph, method: Method, stage: int, rng: random.Random) -> Row:
        """Tokens and labels of a training sample. `stage` is at most `hops`, and matters to "thoughts" only."""
        path = rng.choice(graph.shortest_paths())
        prompt = self.prompt(graph, rng)
        if method == "cot":
            said = [*path[1:], self.answer, graph.target]
            return prompt + said, [IGNORED] * len(prompt) + said
        if method == "none" or stage == self.hops:
            prompt = prompt + [self.latent] * (stage if method == "thoughts" else 0) + [self.answer]
            said = graph.target
        else:
            prompt = prompt + [self.latent] * stage
            said = path[stage + 1]
        return [*prompt, said], [*[IGNORED] * len(prompt), said]

    def warm_up(self, graph: Graph, rng: random.Random, questions: int = 8) -> Row:
        """One-hop questions about one graph, many in one sequence: `3 7 | 0 3 | ... [R] 0 [R] 3 [R]`, then 3 and 7 are asked for.

        What is asked for, a random child, stands in the labels only: the input goes on with the next question, so nothing can be
        copied from it.
        """
        ids = self.edges(graph, rng)
        labels, child = [IGNORED] * len(ids), IGNORED
        parents = [node for node in range(graph.nodes) if graph.children[node]]
        for parent in rng.choices(parents, k=questions):
            ids += [self.root, parent]
            labels += [child, IGNORED]
            child = rng.choice(graph.children[parent])
        return [*ids, self.root], [*labels, child]


@dataclass(frozen=True)
class Question:
    """A graph and a question as somebody wrote them; which candidate is right is not in it.

    Attributes:
        edges: (from, to).
        root: where the search begins.
        candidates: the two nodes of which one can be reached.
    """

    edges: tuple[Edge, ...]
    root: int
    candidates: tuple[int, int]

    @classmethod
    def parse(cls, text: str, names: int) -> Question:
        """Read `a>b b>c d>e from a: c or e`, nodes called by the first `names` letters.

        Raises:
            InputError: if the text is written otherwise, or has a node that the model has no name for.
        """
        form = f"a graph is written as: a>b b>c d>e from a: c or e (nodes are letters from a to {LETTERS[names - 1]})"
        match = re.fullmatch(r"((?:[a-z]>[a-z][\s,]+)+)from\s+([a-z])\s*:\s*([a-z])\s+or\s+([a-z])\s*\??", text.strip())
        if match is None:
            raise InputError(f"{form}; got {text!r}")
        written, *nodes = match.groups()
        edges = tuple((LETTERS.index(edge[0]), LETTERS.index(edge[2])) for edge in re.split(r"[\s,]+", written.strip(" ,\n\t")))
        root, first, second = map(LETTERS.index, nodes)
        unknown = sorted({LETTERS[node] for node in (*sum(edges, ()), root, first, second) if node >= names})
        if unknown:
            raise InputError(f"{form}; got {', '.join(unknown)}")
        return cls(edges, root, (first, second))

    @classmethod
    def of(cls, graph: Graph, rng: random.Random) -> Question:
        """The question of a graph, its edges and candidates in random order."""
        candidates = [graph.target, graph.distractor]
        rng.shuffle(candidates)
        return cls(tuple(rng.sample(graph.edges, len(graph.edges))), graph.root, (candidates[0], candidates[1]))

    def __str__(self) -> str:
        edges = " ".join(f"{LETTERS[a]}>{LETTERS[b]}" for a, b in self.edges)
        return f"{edges} from {LETTERS[self.root]}: {LETTERS[self.candidates[0]]} or {LETTERS[self.candidates[1]]}"

    @property
    def distance(self) -> dict[int, int]:
        """Edges from the root to every node that it reaches, itself included."""
        children: list[list[int]] = [[] for _ in range(len(LETTERS))]
        for a, b in self.edges:
            children[a].append(b)
        return distances(children, self.root)


@dataclass(frozen=True)
class SearchStream:
    """Training batches: batch i depends on (seed, i) alone.

    Attributes:
        task: the task.
        graphs: a pool of graphs to draw from; identities, order and candidates are drawn anew every time.
        method: "thoughts", "cot" or "none".
        batch_size: samples in a batch.
        warm_up: so many batches of one-hop questions come first; of half the size, for they are longer.
        stages: after the warm-up, stage s begins at batch `stages[s]`.
        earlier: share of the samples that are from an earlier stage.
        seed: another seed, other samples.
    """

    task: GraphSearch
    graphs: list[Graph]
    method: Method
    batch_size: int = 128
    warm_up: int = 0
    stages: tuple[int, ...] = (0,)
    earlier: float = 0.1
    seed: int = 0

    def stage(self, index: int) -> int:
        """The stage of the batch with that number after the warm-up."""
        return max(stage for stage, begin in enumerate(self.stages) if index >= begin)

    def __getitem__(self, index: int) -> TokenBatch:
        rng, task = random.Random(f"{self.seed} {index}"), self.task
        if index < self.warm_up:
            return TokenBatch.of([task.warm_up(self._graph(rng), rng) for _ in range(self.batch_size // 2)])
        stage, rows = self.stage(index - self.warm_up), []
        for _ in range(self.batch_size):
            graph = self._graph(rng)
            now = rng.randrange(stage) if stage and rng.random() < self.earlier else stage
            rows.append(task.sample(graph, self.method, now, rng))
        return TokenBatch.of(rows, task.latent)

    def _graph(self, rng: random.Random) -> Graph:
        return permuted(rng.choice(self.graphs), rng, self.task.names)


def likeness(graph: Graph, rounds: int = 4) -> int:
    """A number that is the same for any two graphs that differ only in the names of their nodes.

    Colours of nodes, refined by the colours of their neighbours (Weisfeiler and Leman 1968), with root and candidates coloured at
    first. Graphs that share no likeness are different questions; the converse does not hold, so a test set chosen by it is at
    least as new as it claims to be.
    """
    roles = {graph.root: 1, graph.target: 2, graph.distractor: 2}
    colours = {node: roles.get(node, 0) for edge in graph.edges for node in edge}  # names that no edge has are no nodes

    def around(lists: list[list[int]], node: int) -> tuple[int, ...]:
        return tuple(sorted(colours[other] for other in lists[node]))

    for _ in range(rounds):
        colours = {node: hash((colour, around(graph.children, node), around(graph.parents, node))) for node, colour in colours.items()}
    return hash(tuple(sorted(colours.values())))
