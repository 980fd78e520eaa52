"""Random graphs that must be searched: the ones beneath ProsQA, at any size.

A graph has two roots. The target is the farthest leaf that only the first root reaches, the distractor a leaf that only the
second one reaches, so which of the two can be reached from the root is a question with one right answer.

How nodes are connected is Algorithm 1 of COCONUT (arXiv 2412.06769, appendix A.2): a new node draws Poisson(1.5) parents, with
some probability only among what the first root reaches, or only among what the second does; deep nodes are likelier parents.
The thresholds printed there do not give graphs with the published statistics. The ones here do, and were fitted to the 800
published rows, as was the rule that a node without parents is hardly ever chosen as one.

Also here: how far one gets without searching (`SHORTCUTS`). Any accuracy on such graphs is to be read against these.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from latentweaver.errors import InputError

Edge = tuple[int, int]


@dataclass(frozen=True)
class Graph:
    """A directed graph without cycles, and the question asked about it.

    Attributes:
        nodes: how many nodes it has; they are 0 to nodes - 1.
        edges: (from, to).
        root: where the search begins.
        other: the second root.
        target: the candidate that the root reaches.
        distractor: the candidate that it does not reach.
    """

    nodes: int
    edges: tuple[Edge, ...]
    root: int
    other: int
    target: int
    distractor: int

    @cached_property
    def children(self) -> list[list[int]]:
        lists: list[list[int]] = [[] for _ in range(self.nodes)]
        for a, b in self.edges:
            lists[a].append(b)
        return lists

    @cached_property
    def parents(self) -> list[list[int]]:
        lists: list[list[int]] = [[] for _ in range(self.nodes)]
        for a, b in self.edges:
            lists[b].append(a)
        return lists

    @cached_property
    def distance(self) -> dict[int, int]:
        """Edges from the root to every node that it reaches, itself included."""
        return distances(self.children, self.root)

    @property
    def hops(self) -> int:
        """Edges from the root to the target."""
        return self.distance[self.target]

    def frontier(self, hops: int) -> set[int]:
        """The nodes that are exactly so far from the root."""
        return {node for node, distance in self.distance.items() if distance == hops}

    def shortest_paths(self) -> list[list[int]]:
        """Every shortest path from the root to the target."""
        paths = [[self.target]]
        for hops in reversed(range(self.hops)):
            paths = [[node, *path] for path in paths for node in self.parents[path[0]] if self.distance.get(node) == hops]
        return paths

    def renamed(self, names: list[int]) -> Graph:
        """The same graph with node i called `names[i]`."""
        edges = tuple((names[a], names[b]) for a, b in self.edges)
        root, other, target, distractor = (names[node] for node in (self.root, self.other, self.target, self.distractor))
        return replace(self, nodes=max(names) + 1, edges=edges, root=root, other=other, target=target, distractor=distractor)


def distances(children: list[list[int]], root: int) -> dict[int, int]:
    """Breadth-first distance of every node that can be reached from `root`."""
    found, wave, hops = {root: 0}, [root], 0
    while wave:
        hops += 1
        wave = list(dict.fromkeys(child for node in wave for child in children[node] if child not in found))
        found.update((node, hops) for node in wave)
    return found


@dataclass(frozen=True)
class GraphMaker:
    """Draws graphs; the defaults give ProsQA's.

    Attributes:
        nodes: nodes to begin with; isolated ones are dropped.
        hops: the fewest and the most edges from the root to the target.
        edges: at most so many edges.
        matched: whether the distractor is as far from its root as the target from its own, so that depth tells nothing.
        first, second: with probability `first` a node's parents are ones that the second root does not reach; up to `second`,
            ones that the first does not.
        parents: mean number of parents.
        orphan_weight: how likely a node without parents is chosen as a parent, beside 1 for a root.
    """

    nodes: int = 28
    hops: tuple[int, int] = (3, 6)
    edges: int = 10_000
    matched: bool = False
    first: float = 0.35
    second: float = 0.80
    parents: float = 1.5
    orphan_weight: float = 1e-4

    def __post_init__(self) -> None:
        if self.nodes < 2 + self.hops[0]:
            raise InputError(f"nodes must be at least {2 + self.hops[0]} for {self.hops[0]} hops, got {self.nodes}")
        if not 1 <= self.hops[0] <= self.hops[1]:
            raise InputError(f"hops must be the fewest and the most, from 1, got {self.hops}")

    def draw(self, rng: random.Random, tries: int = 100_000) -> Graph:
        """A graph. Nodes are numbered so that an edge goes from a lower to a higher one: see `permuted`.

        Raises:
            InputError: if none of `tries` graphs had such a question.
        """
        for _ in range(tries):
            graph = self._attempt(rng)
            if graph is not None:
                return graph
        raise InputError(f"no graph of {self} in {tries} tries; allow more nodes, edges or hops")

    def _attempt(self, rng: random.Random) -> Graph | None:
        labels, depths, weights = [1, 2], [0, 0], [1.0, 1.0]
        parents: list[list[int]] = [[], []]
        stop = math.exp(-self.parents)
        for node in range(2, self.nodes):
            count, product = 0, rng.random()
            while product > stop:  # Knuth's draw from a Poisson distribution
                count += 1
                product *= rng.random()
            u = rng.random()
            barred = 2 if u <= self.first else 1 if u <= self.second else 0
            pool = [p for p in range(node) if not labels[p] & barred]
            chosen = _weighted_sample(rng, pool, [weights[p] for p in pool], count)
            label = 0
            for parent in chosen:
                label |= labels[parent]
            parents.append(chosen)
            labels.append(label)
            depths.append(min((depths[p] for p in chosen), default=-1) + 1)
            weights.append(depths[node] * 1.5 + 1 if chosen else self.orphan_weight)
        return self._question(rng, parents, labels)

    def _question(self, rng: random.Random, parents: list[list[int]], labels: list[int]) -> Graph | None:
        used = {0, 1} | {node for node, ps in enumerate(parents) if ps} | {p for ps in parents for p in ps}
        place = {node: number for number, node in enumerate(sorted(used))}
        edges = tuple((place[p], place[node]) for node, ps in enumerate(parents) for p in ps)
        if len(edges) > self.edges:
            return None
        whole = Graph(len(place), edges, 0, 1, 0, 0)
        leaves: dict[int, list[int]] = {1: [], 2: []}
        for node, number in place.items():
            if node > 1 and labels[node] in leaves and not whole.children[number]:
                leaves[labels[node]].append(number)
        if not leaves[1] or not leaves[2]:
            return None
        far = {label: distances(whole.children, label - 1) for label in (1, 2)}
        reach = {label: max(far[label][leaf] for leaf in leaves[label]) for label in (1, 2)}
        side = 1 if reach[1] > reach[2] or (reach[1] == reach[2] and rng.random() < 0.5) else 2
        if not self.hops[0] <= reach[side] <= self.hops[1]:
            return None
        distractors = [leaf for leaf in leaves[3 - side] if not self.matched or far[3 - side][leaf] == reach[side]]
        if not distractors:
            return None
        target = rng.choice([leaf for leaf in leaves[side] if far[side][leaf] == reach[side]])
        return replace(whole, root=side - 1, other=2 - side, target=target, distractor=rng.choice(distractors))


def permuted(graph: Graph, rng: random.Random, names: int | None = None) -> Graph:
    """The graph with its nodes renamed at random, out of `names` of them: their numbers no longer say what comes before what."""
    return graph.renamed(rng.sample(range(names or graph.nodes), graph.nodes))


def _weighted_sample(rng: random.Random, pool: list[int], weights: list[float], count: int) -> list[int]:
    """Up to `count` different ones, each drawn in proportion to its weight among those left (Efraimidis and Spirakis 2006)."""
    if count == 0:
        return []
    keys = [-math.log(1 - rng.random()) / weight for weight in weights]
    return [pool[i] for i in sorted(range(len(pool)), key=keys.__getitem__)[:count]]


# How far one gets without searching ------------------------------------------------------------------------------------


def _ancestors(graph: Graph, node: int, hops: int | None = None) -> dict[int, int]:
    found = distances(graph.parents, node)
    return {a: d for a, d in found.items() if d and (hops is None or d <= hops)}


def _prefer(graph: Graph, score: Callable[[int], float]) -> float:
    """Expected accuracy of choosing the candidate with the higher score, by a coin where both are equal."""
    right, wrong = score(graph.target), score(graph.distractor)
    return 0.5 if right == wrong else float(right > wrong)


SHORTCUTS: dict[str, Callable[[Graph], float]] = {
    "lower in-degree": lambda graph: _prefer(graph, lambda node: -len(graph.parents[node])),
    "more ancestors": lambda graph: _prefer(graph, lambda node: len(_ancestors(graph, node))),
    "root within 3 hops": lambda graph: _prefer(graph, lambda node: graph.root in _ancestors(graph, node, 3)),
    "root within 4 hops": lambda graph: _prefer(graph, lambda node: graph.root in _ancestors(graph, node, 4)),
    "root within 5 hops": lambda graph: _prefer(graph, lambda node: graph.root in _ancestors(graph, node, 5)),
}
"""Ways to choose a candidate without a search of full depth; each gives the expected accuracy on one graph."""


def shortcut_floors(graphs: list[Graph]) -> dict[str, float]:
    """The accuracy of every shortcut on these graphs."""
    return {name: sum(map(rule, graphs)) / len(graphs) for name, rule in SHORTCUTS.items()}
