"""ProsQA: search in a graph of words, by every method and with every control (COCONUT, arXiv 2412.06769).

Trained on generated graphs, which match the published ones but for the order of node numbers, and never on a question of the files
given as `valid` and `test`. A graph gets other names and another order every time it is shown. Tested on the items of `test`, or on
generated ones without it.

A decoder from nothing reads a fact as three tokens ("gerpus", "is a", "terpus"), and can begin with facts: `facts_epochs` epochs in which
sixteen of a problem's facts, said again in another order, stand for its steps. That is what a pretrained decoder brings to this task,
to say what follows a name, and it is the same for all methods.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latentweaver.recipes import wording
from latentweaver.recipes.stepwise import MARKERS, Stepwise
from latentweaver.recipes.wording import word_tokenizer
from latentweaver.tasks import prosqa
from latentweaver.tasks.graphs import GraphMaker
from latentweaver.training.epochs import Epochs

FACTS = 16
"""Facts of a problem that are said again in an epoch of facts."""


@dataclass(frozen=True)
class ProsQA(Stepwise):
    """The recipe; fields that all problems in words share are in `Stepwise`. The defaults are the paper's schedule.

    Attributes:
        problems: generated training items (the paper has 17,886).
        nodes, hops: what the graphs are like; see `tasks.graphs.GraphMaker`.
        valid, test: published files; none of their questions is trained on.
        test_problems: generated test items, where `test` is not given.
        facts_epochs: epochs of facts at the beginning, before `warm_epochs`.
    """

    problems: int = 17_886
    nodes: int = 28
    hops: tuple[int, int] = (3, 6)
    valid: Path | None = None
    test: Path | None = None
    test_problems: int = 500
    facts_epochs: int = 0
    block: int = 4  # a step of three tokens, and the line's end
    removed_per_epoch: int = 4

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

    def own_tokenizer(self) -> Any:
        """Of every name there is, and the few words between them."""
        words = {*prosqa.ENTITIES, *prosqa.CONCEPTS, "Is", "a", "or"}
        return word_tokenizer(words, MARKERS, phrases=["is a"], silent=["Every", "."])

    def stream(self) -> Epochs:
        """Batches of problems whose names and order are drawn when they are shown."""
        return Epochs(self.items, self.batch_size, self.batch, self.seed, self.window, lambda item: len(item.graph.edges))

    def batch(self, examples: list[prosqa.Item], epoch: int, rng: random.Random) -> Any:
        """A training batch of an epoch, from problems."""
        task = prosqa.ProsQA()
        shown = [task.worded(item.graph, rng) for item in examples]
        if epoch >= self.facts_epochs:
            return self.lesson.batch(wording.examples(shown, self.tokenizer), epoch, rng)
        said = [replace(item, steps=tuple(rng.sample(item.facts, min(FACTS, len(item.facts))))) for item in shown]
        return self.lesson.written(wording.examples(said, self.tokenizer))

    @property
    def leads(self) -> int:
        """What stands before the answer's last name."""
        before = f"{wording.MARK} {prosqa.ENTITIES[0]} is a"
        return len(self.tokenizer(before, add_special_tokens=False)["input_ids"]) if self.lead is None else self.lead

    @property
    def still(self) -> int:
        return self.facts_epochs + self.warm_epochs
