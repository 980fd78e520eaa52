"""`superposition`: a two-layer decoder that searches a graph in continuous thoughts, trained from nothing.

After "Reasoning by superposition" (arXiv 2505.12514), at a size for one CPU thread: graphs of 12 nodes, three hops, both candidates
equally deep, so that no shortcut beats a coin. What is meant to make it learn: one-hop questions first, about a growing number of
edges (without them the model sat on a plateau: copying a child given its parent is the bottleneck), then samples with any number
of thoughts in every batch. The recipe has not been run to its end yet: in a shortened run of one seed accuracy went between 0.61
and 0.74 over 1,000 updates, its controls were not trained, and no weights are shipped.

The controls differ in one field: method="none" (the answer at once), method="cot" (the path in words), feedback="pause" (a
learned token in place of each thought), curriculum="none" (only the last stage, from the beginning).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from latentweaver.evaluate.frontier import search_accuracy
from latentweaver.tasks.graph_search import GraphSearch, Method, SearchStream
from latentweaver.tasks.graphs import Graph, GraphMaker, permuted
from latentweaver.training.depth import Fixed
from latentweaver.training.latent_objectives import Answer
from latentweaver.training.loop import Settings, train


@dataclass(frozen=True)
class Superposition:
    """The recipe.

    Attributes:
        method: "thoughts", "cot" or "none".
        feedback: what is fed back in place of thoughts: "hidden", or "pause" for the control.
        curriculum: "mixed" for all stages in every batch, equally often; "staged" for one after another, 40 % of the updates
            without thoughts and 10 % of the samples from earlier stages; "none" for the last stage alone.
        nodes, hops, edges: what the graphs are like.
        graphs: training graphs; identities and order are drawn anew every time one is shown.
        test_graphs: graphs that occur in no training sample.
        width, layers, heads: the decoder's shape.
        warm_up: updates of one-hop questions.
        updates: updates after those.
        batch_size, lr, weight_decay, seed, device: see `training.Settings`.
    """

    method: Method = "thoughts"
    feedback: str = "hidden"
    curriculum: Literal["mixed", "staged", "none"] = "mixed"
    nodes: int = 12
    hops: int = 3
    edges: int = 14
    graphs: int = 20_000
    test_graphs: int = 500
    width: int = 96
    layers: int = 2
    heads: int = 4
    warm_up: int = 840
    updates: int = 2400
    batch_size: int = 64
    lr: float = 2e-3
    weight_decay: float = 0.01
    seed: int = 0
    device: str | None = None
    evaluate_every: int = 300

    @property
    def task(self) -> GraphSearch:
        """The task."""
        return GraphSearch(GraphMaker(nodes=self.nodes, hops=(self.hops, self.hops), edges=self.edges, matched=True), self.nodes)

    def model(self) -> Any:
        """A fresh model."""
        import torch
        from transformers import AutoModelForCausalLM, LlamaConfig

        from latentweaver.models.continuous_thought import continuous_thought

        torch.manual_seed(self.seed)
        config = LlamaConfig(
            vocab_size=self.task.vocabulary,
            hidden_size=self.width,
            intermediate_size=8 * self.width // 3,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=2 * (3 * self.edges + self.hops + 6),
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
        )
        base = AutoModelForCausalLM.from_config(config)
        return continuous_thought(base, latent_token_id=self.task.latent, num_steps=self.hops, feedback=self.feedback)

    def pool(self) -> tuple[list[Graph], list[Graph]]:
        """Training graphs, and test graphs that are none of them."""
        rng, task = random.Random(1), self.task
        learned = [task.maker.draw(rng) for _ in range(self.graphs)]
        known, held_out = set(map(_essence, learned)), []
        while len(held_out) < self.test_graphs:
            graph = task.maker.draw(rng)
            if _essence(graph) not in known:
                held_out.append(permuted(graph, rng, task.names))
        return learned, held_out

    def run(self, folder: str | Path, resume: bool = False, report: Callable[[dict[str, Any]], None] | None = None) -> Path:
        """Train, and save the model in `folder`/model."""
        folder, task, (learned, held_out) = Path(folder), self.task, self.pool()
        without = 2 * self.updates // 5
        begins = (0, *(without + (self.updates - without) * stage // self.hops for stage in range(self.hops)))
        stages = begins if self.curriculum == "staged" else (0,) * (self.hops + 1)
        earlier = {"mixed": self.hops / (self.hops + 1), "staged": 0.1, "none": 0.0}[self.curriculum]
        stream = SearchStream(task, learned, self.method, self.batch_size, self.warm_up, stages=stages, earlier=earlier, seed=self.seed)
        settings = Settings(
            updates=self.warm_up + self.updates,
            seed=self.seed,
            lr=self.lr,
            weight_decay=self.weight_decay,
            warmup=50,
            cooldown=0.185,
            evaluate_every=self.evaluate_every,
            device=self.device,
        )

        def measure(model: Any) -> dict[str, float]:
            right = search_accuracy(model, task, held_out, self.method)
            return {"accuracy": sum(right) / len(right)}

        model = self.model()
        train(model, Answer(), Fixed(0, 1), stream, settings, folder, resume, measure, report)
        model.save_pretrained(folder / "model")
        return folder / "model"


def _essence(graph: Graph) -> Any:
    return frozenset(graph.edges), graph.root, graph.target, graph.distractor
