"""What `stepwise_arms.py` trains on and asks, for ProsQA and ProntoQA: training problems, the published test, and sets unlike both."""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import random
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from latentweaver.recipes import RECIPES
from latentweaver.tasks import stepwise
from latentweaver.tasks.graphs import Graph, GraphMaker
from latentweaver.tasks.prontoqa_rewritten import decoyed, severed
from latentweaver.tasks.prosqa import ProsQA, load


@dataclass(frozen=True)
class Task:
    """What differs from task to task.

    Attributes:
        step: tokens of a step.
        items: the training problems.
        sets: the published problems, as `test`, and others.
        asked: problems answered at once.
        unlike: the set whose answers are ablated besides the test's.
        fields: of the recipe, from the options.
    """

    step: int
    items: Callable[[Any, argparse.Namespace], list[Any]]
    sets: Callable[[Any], dict[str, list[Any]]]
    asked: int
    unlike: str | None
    fields: Callable[[argparse.Namespace], dict[str, Any]]


def drawn(recipe: Any, jobs: int) -> list[Any]:
    """The training problems, by several processes."""
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        parts = pool.starmap(_part, [(recipe.nodes, recipe.hops, recipe.problems // jobs + 1, part) for part in range(jobs)])
    return [item for part in parts for item in part][: recipe.problems]


def _part(nodes: int, hops: tuple[int, int], count: int, part: int) -> list[Any]:
    torch.set_num_threads(1)
    task, rng = ProsQA(GraphMaker(nodes=nodes, hops=hops)), random.Random(f"prosqa train {part}")
    return [task.draw(rng) for _ in range(count)]


def keep_graphs(path: Path, jobs: int) -> None:
    """Draw ProsQA's training graphs into a file (.json.gz)."""
    items = drawn(RECIPES["prosqa-cot"](), jobs)
    with gzip.open(path, "wt") as file:
        json.dump([astuple(item.graph) for item in items], file)


def read(path: Path) -> list[Any]:
    """The problems of graphs drawn beforehand."""
    task, rng = ProsQA(), random.Random("prosqa train")
    rows = json.loads(gzip.decompress(path.read_bytes()))
    return [task.worded(Graph(nodes, tuple((a, b) for a, b in edges), *rest), rng) for nodes, edges, *rest in rows]


def graphs(recipe: Any, options: argparse.Namespace) -> list[Any]:
    """ProsQA's training problems, but for the largest."""
    items = read(options.graphs)[: recipe.problems] if options.graphs else drawn(recipe, options.jobs)
    return [item for item in items if len(item.graph.edges) <= options.edges]


def beside_graphs(recipe: Any) -> dict[str, list[Any]]:
    """The published problems, and graphs unlike those of training: longer paths, more edges."""
    low, high = recipe.hops
    sets = {"test": load(recipe.test), "valid": load(recipe.valid)} if recipe.test else {"test": recipe.test_items()[:40]}
    for label, maker in {
        "longer": GraphMaker(nodes=recipe.nodes + 6, hops=(high + 1, high + 2)),
        "denser": GraphMaker(nodes=recipe.nodes, hops=(low, high), parents=2.0),
    }.items():
        rng = random.Random(label)
        sets[label] = [ProsQA(maker).draw(rng) for _ in range(300 if recipe.test else 20)]
    return sets


def beside_deductions(recipe: Any) -> dict[str, list[Any]]:
    """The published problems, the same with one to four kinds that lead to the other kind as well, and with their chain severed."""
    tests = stepwise.load(recipe.test)
    rewritten: dict[str, Callable[[Any, random.Random], Any]] = {"decoyed": decoyed}
    rewritten |= {f"decoys {decoys}": partial(decoyed, decoys=decoys) for decoys in (1, 2, 3)} | {"severed": severed}
    sets = {"test": tests}
    for label, rewrite in rewritten.items():
        rng = random.Random(label)
        sets[label] = [rewrite(item, rng) for item in tests[: len(tests) if label == "decoyed" else 400]]
    return sets


TASKS = {
    "prosqa": Task(3, graphs, beside_graphs, 256, None, lambda options: {"test": options.test, "valid": options.valid}),
    "prontoqa": Task(
        step=7,
        items=lambda recipe, options: recipe.items,
        sets=beside_deductions,
        asked=400,
        unlike="decoyed",
        fields=lambda options: {"train": options.train, "test": options.test, "renamed": True},
    ),
}
