"""ProsQA: search in a graph of words, by every method and with every control (COCONUT, arXiv 2412.06769).

Trained on generated graphs, which match the published ones but for the order of node numbers, and never on a question of the files
given as `valid` and `test`. A graph gets other names and another order every time it is shown. Tested on the items of `test`, or on
generated ones without it.

A decoder from nothing reads a fact as three tokens ("gerpus", "terpus", "."), and can begin with facts: `facts_epochs` epochs in which
facts of a problem are said again in another order, and what follows each name is asked. That is what a pretrained decoder brings to this
task, and it is the same for all methods. A pretrained one can be given the same tokens (`own_words`); a name begins as a common noun then.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from latentweaver.recipes import wording
from latentweaver.recipes.stepwise import MARKERS, Stepwise
from latentweaver.recipes.wording import word_tokenizer
from latentweaver.tasks import prosqa
from latentweaver.tasks.graphs import GraphMaker
from latentweaver.tasks.token_batch import IGNORED, Row, TokenBatch
from latentweaver.training.curriculum import Example
from latentweaver.training.epochs import Epochs

FACTS = 24
"""Facts of a problem that are said again in an epoch of facts, at most."""


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
    block: int = 3  # the tokens of a step
    removed_per_epoch: int = 3

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
        return word_tokenizer({*prosqa.ENTITIES, *prosqa.CONCEPTS, "Is"}, MARKERS, silent=["Every", "is", "a", "or", "\n"])

    def stand_ins(self) -> dict[str, str]:
        """The word that a pretrained decoder takes each of ours for at first."""
        return dict(zip(prosqa.CONCEPTS, wording.NOUNS, strict=True))

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
        return TokenBatch.of([_asked(example) for example in wording.examples(said, self.tokenizer)], pad=self.lesson.pad, grid=self.grid)

    @property
    def leads(self) -> int:
        """What stands before the answer's last name."""
        before = f"{wording.MARK} {prosqa.ENTITIES[0]} is a"
        return len(self.tokenizer(before, add_special_tokens=False)["input_ids"]) if self.lead is None else self.lead

    @property
    def still(self) -> int:
        return self.facts_epochs + self.warm_epochs


def _asked(example: Example) -> Row:
    """A question and facts of it, of which what follows the name is asked."""
    labels = [[IGNORED, fact[1], *[IGNORED] * (len(fact) - 2)] for fact in example.steps]
    return [*example.question, *chain(*example.steps)], [*[IGNORED] * len(example.question), *chain(*labels)]
