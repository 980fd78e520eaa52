"""Does a thought hold a search frontier? What `read` says about the nodes of a graph, thought by thought.

After t thoughts a model trained on `tasks.graph_search` is asked for a node t + 1 edges from the root. Every node of the graph
belongs to one class then, and the probability that `read` gives it is summed by class:

    optimal       t + 1 edges away, on a shortest path to the target
    frontier      t + 1 edges away, on none
    reached       fewer edges away
    beyond        more edges away
    unreachable   not reached from the root at all

A thought that had settled for one path would give "optimal" everything or nothing; a breadth-first search in superposition keeps
the whole frontier alive until the candidates decide (arXiv 2505.12514). The shares of the classes among the nodes are given
beside the probabilities: they are what a model that knows nothing would show.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentweaver.tasks.graph_search import GraphSearch, Method
from latentweaver.tasks.graphs import Graph
from latentweaver.thought import Thought

CLASSES = ("optimal", "frontier", "reached", "beyond", "unreachable")


@dataclass(frozen=True)
class Split:
    """How the probability over nodes splits after a number of thoughts, averaged over graphs.

    Attributes:
        thoughts: how many thoughts were had.
        probability: summed probability of each class.
        share: the class's share of the nodes.
        auc: probability that a node at the asked distance has a higher logit than an unreachable one of the same graph.
    """

    thoughts: int
    probability: dict[str, float]
    share: dict[str, float]
    auc: float


def classes_of(graph: Graph, thoughts: int) -> dict[int, str]:
    """The class of every node after that many thoughts."""
    asked = thoughts + 1
    optimal = {path[asked] for path in graph.shortest_paths() if asked < len(path)}
    classes = {}
    for node in {node for edge in graph.edges for node in edge}:
        distance = graph.distance.get(node)
        if distance is None:
            classes[node] = "unreachable"
        elif distance == asked:
            classes[node] = "optimal" if node in optimal else "frontier"
        else:
            classes[node] = "reached" if distance < asked else "beyond"
    return classes


@torch.no_grad()
def frontier_split(model: Any, task: GraphSearch, graphs: list[Graph], seed: int = 0, device: str | torch.device = "cpu") -> list[Split]:
    """One split for every number of thoughts from 0 to hops - 1. `model` is any reasoner of the task's tokens, on `device`."""
    rng = random.Random(seed)
    thought = model.begin(torch.tensor([task.prompt(graph, rng) for graph in graphs], device=device))
    splits = []
    for count in range(task.hops):
        thought = model.think(thought) if count else thought
        splits.append(_split(model.read(thought).logits[:, -1, : task.names].cpu(), graphs, count))
    return splits


def _split(logits: Tensor, graphs: list[Graph], thoughts: int) -> Split:
    probability: dict[str, float] = dict.fromkeys(CLASSES, 0.0)
    share, wins, pairs = dict(probability), 0.0, 0
    for row, graph in enumerate(graphs):
        classes = classes_of(graph, thoughts)
        probs = logits[row].softmax(-1)
        for node, kind in classes.items():
            probability[kind] += float(probs[node]) / len(graphs)
            share[kind] += 1 / len(classes) / len(graphs)
        asked = [float(logits[row, node]) for node, kind in classes.items() if kind in ("optimal", "frontier")]
        never = [float(logits[row, node]) for node, kind in classes.items() if kind == "unreachable"]
        wins += sum((a > b) + 0.5 * (a == b) for a in asked for b in never)
        pairs += len(asked) * len(never)
    return Split(thoughts, probability, share, wins / max(pairs, 1))


@torch.no_grad()
def search_accuracy(
    model: Any, task: GraphSearch, graphs: list[Graph], method: Method = "thoughts", seed: int = 0, device: str | torch.device = "cpu"
) -> list[bool]:
    """Which of the graphs' questions the model answers rightly, all nodes allowed as answers.

    With "thoughts" it has as many thoughts as the task has hops, with "none" it answers at once, and with "cot" it first writes
    its path, greedily.
    """
    rng = random.Random(seed)
    prompts = torch.tensor([task.prompt(graph, rng) for graph in graphs], device=device)
    thought: Thought = model.begin(prompts)
    for _ in range(task.hops):
        if method == "thoughts":
            thought = model.think(thought)
        elif method == "cot":
            said = model.read(thought).logits[:, -1, : task.names].argmax(-1, keepdim=True)
            thought = model.begin(said, after=thought)
    thought = model.begin(torch.full((len(graphs), 1), task.answer, device=device), after=thought)
    answers = model.read(thought).logits[:, -1, : task.names].argmax(-1).tolist()
    return [answer == graph.target for answer, graph in zip(answers, graphs, strict=True)]
