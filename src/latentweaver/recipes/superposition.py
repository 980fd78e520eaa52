"""`superposition`: a two-layer decoder that searches a graph in continuous thoughts, trained from nothing.

After "Reasoning by superposition" (arXiv 2505.12514), at a size for one CPU thread. What makes it learn in minutes is the
warm-up: one-hop questions, eight to a sequence. Without them the model sits on a plateau, because copying a child given its
parent is the bottleneck of every method here. After it, one token of a sample is supervised, and thoughts come in stages.

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
from latentweaver.recipes.saving import one_a_character
from latentweaver.tasks.graph_search import GraphSearch, Method, SearchStream, likeness
from latentweaver.tasks.graphs import Graph, GraphMaker
from latentweaver.training import ranks
from latentweaver.training.depth import Fixed
from latentweaver.training.latent_objectives import Answer
from latentweaver.training.loop import Settings, train

GRAPHS = ("nodes", "hops", "edges", "parents", "matched", "names")
"""The fields that say what the graphs are like."""


@dataclass(frozen=True)
class Superposition:
    """The recipe.

    Attributes:
        method: "thoughts", "cot" or "none".
        feedback: what is fed back in place of thoughts: "hidden", or "pause" for the control.
        curriculum: "staged" for one stage after another, 10 % of the samples from earlier ones; "none" for the last stage alone.
        last: share of the updates that the last stage has; the others have as many each of what is left.
        nodes, hops, edges, parents, matched: what the graphs are like; see `tasks.graphs.GraphMaker`.
        names: how many nodes have a token; more than `nodes` leaves room for larger graphs after training.
        graphs: training graphs; identities and order are drawn anew every time one is shown.
        test_graphs: graphs that occur in no training sample, under no other names either.
        base: the decoder's kind, "gpt2" (learned positions) or "llama" (rotary ones).
        initializer_range: spread of the first weights.
        final_norm: the first weights of the final norm. With 1, as is usual, a thought is twenty times as long as a token's
            embedding, drowns what the layers write, and cannot be searched from.
        width, layers, heads: the decoder's shape.
        warm_up: updates of one-hop questions.
        updates: updates after those.
        batch_size: questions to an update.
        lr, weight_decay, warmup, cooldown, seed, device, evaluate_every, checkpoint_every: see `training.Settings`.
    """

    method: Method = "thoughts"
    feedback: str = "hidden"
    curriculum: Literal["staged", "none"] = "staged"
    last: float = 0.4
    nodes: int = 11
    hops: int = 3
    edges: int = 14
    parents: float = 1.5
    matched: bool = True
    names: int = 14
    graphs: int = 10_000
    test_graphs: int = 1000
    base: Literal["gpt2", "llama"] = "llama"
    initializer_range: float = 0.05
    final_norm: float = 0.1
    width: int = 96
    layers: int = 2
    heads: int = 4
    warm_up: int = 700
    updates: int = 2400
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 20
    cooldown: float = 0.25
    seed: int = 0
    device: str | None = None
    evaluate_every: int = 250
    checkpoint_every: int = 100

    @property
    def task(self) -> GraphSearch:
        """The task."""
        hops = (self.hops, self.hops)
        maker = GraphMaker(nodes=self.nodes, hops=hops, edges=self.edges, parents=self.parents, matched=self.matched)
        return GraphSearch(maker, self.names)

    def model(self) -> Any:
        """A fresh model."""
        import torch
        from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

        from latentweaver.models.continuous_thought import continuous_thought

        torch.manual_seed(self.seed)
        positions = 3 * self.edges + 32  # the edges, and eight questions of the warm-up or the question with its thoughts
        common: dict[str, Any] = {
            "vocab_size": self.task.vocabulary,
            "tie_word_embeddings": True,
            "initializer_range": self.initializer_range,
            "bos_token_id": None,
            "eos_token_id": None,
        }
        if self.base == "gpt2":
            shape: dict[str, Any] = {"n_embd": self.width, "n_layer": self.layers, "n_head": self.heads, "n_positions": positions}
            config: Any = GPT2Config(**common, **shape, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
        else:
            shape = {"hidden_size": self.width, "num_hidden_layers": self.layers, "num_attention_heads": self.heads}
            config = LlamaConfig(**common, **shape, intermediate_size=8 * self.width // 3, max_position_embeddings=2 * positions)
        base = AutoModelForCausalLM.from_config(config)
        torch.nn.init.constant_((base.model.norm if self.base == "llama" else base.transformer.ln_f).weight, self.final_norm)
        return continuous_thought(base, latent_token_id=self.task.latent, num_steps=self.hops, feedback=self.feedback)

    def held_out(self) -> list[Graph]:
        """The test graphs, no two of them alike but for names."""
        rng = random.Random(1)
        return list({likeness(graph): graph for graph in (self.task.draw(rng) for _ in range(self.test_graphs))}.values())

    def pool(self) -> list[Graph]:
        """The training graphs: none is a test graph, whatever its nodes are called."""
        rng, held_out, learned = random.Random(2), set(map(likeness, self.held_out())), []
        while len(learned) < self.graphs:
            graph = self.task.maker.draw(rng)
            if likeness(graph) not in held_out:
                learned.append(graph)
        return learned

    def run(self, folder: str | Path, resume: bool = False, report: Callable[[dict[str, Any]], None] | None = None) -> Path:
        """Train, and save the model in `folder`/model."""
        folder, task, held_out = Path(folder), self.task, self.held_out()
        before = (1 - self.last) * self.updates
        begins = tuple(int(before * stage / self.hops) for stage in range(self.hops + 1))
        stages = begins if self.curriculum == "staged" else (0,) * (self.hops + 1)
        earlier = 0.1 if self.curriculum == "staged" else 0.0
        stream = SearchStream(task, self.pool(), self.method, self.batch_size, self.warm_up, stages=stages, earlier=earlier, seed=self.seed)
        settings = Settings.of(self, updates=self.warm_up + self.updates, attention="eager")  # the fastest for sequences this short

        def measure(model: Any) -> dict[str, float]:
            right = search_accuracy(model, task, held_out, self.method, device=model.device)
            return {"accuracy": sum(right) / len(right)}

        model = self.model()
        train(model, Answer(), Fixed(0, 1), stream, settings, folder, resume, measure, report)
        model.config.task = {"name": "graph_search", **{field: getattr(self, field) for field in GRAPHS}}
        if ranks.rank() == 0:
            model.save_pretrained(folder / "model")
            one_a_character(task.characters, unk_token="|", pad_token="|").save_pretrained(folder / "model")
        return folder / "model"
