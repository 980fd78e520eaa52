"""ProsQA: search in a graph of words, by every method and with every control (COCONUT, arXiv 2412.06769).

Trained on generated items, which match the published ones but for the order of node numbers, and never on a question of the files
given as `valid` and `test`. Tested on the items of `test`, or on generated ones without it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentweaver.recipes.stepwise import Stepwise
from latentweaver.tasks import prosqa
from latentweaver.tasks.graphs import GraphMaker


@dataclass(frozen=True)
class ProsQA(Stepwise):
    """The recipe; fields that all problems in words share are in `Stepwise`. The defaults are the paper's schedule.

    Attributes:
        problems: generated training items (the paper has 17,886).
        nodes, hops: what the graphs are like; see `tasks.graphs.GraphMaker`.
        valid, test: published files; none of their questions is trained on.
        test_problems: generated test items, where `test` is not given.
    """

    problems: int = 17_886
    nodes: int = 28
    hops: tuple[int, int] = (3, 6)
    valid: Path | None = None
    test: Path | None = None
    test_problems: int = 500
    lead: int = 4  # "### Sally is a"

    name = "prosqa"

    def training_items(self) -> list[prosqa.Item]:
        """The training problems, the same for every method and seed."""
        files = [path for path in (self.valid, self.test) if path is not None]
        task = prosqa.ProsQA.beside(*files, maker=GraphMaker(nodes=self.nodes, hops=self.hops))
        rng = random.Random("prosqa train")
        return [task.draw(rng) for _ in range(self.problems)]

    def test_items(self) -> list[prosqa.Item]:
        """The published test problems, or generated ones."""
        if self.test is not None:
            return prosqa.load(self.test)
        task = prosqa.ProsQA(GraphMaker(nodes=self.nodes, hops=self.hops), unseen=frozenset(item.question for item in self.items))
        rng = random.Random("prosqa test")
        return [task.draw(rng) for _ in range(self.test_problems)]

    def likeness(self) -> dict[str, Any]:
        """Number and kind of the training graphs."""
        return {"problems": self.problems, "nodes": self.nodes, "hops": list(self.hops)}

    def words(self) -> set[str]:
        """Every name there is, and the few words between them."""
        return {*prosqa.ENTITIES, *prosqa.CONCEPTS, "Every", "is", "a", "Is", "or"}
