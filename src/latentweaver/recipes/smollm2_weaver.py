"""`smollm2-weaver`: SmolLM2-135M with its four middle layers made recurrent, trained on problems in words that need many steps.

What is trained: a low-rank product on every matrix of some layers, their norms, and the injection. The rest is the base's, so the
result travels as a delta. As for `weaver-chains`, every value that a text determines is asked for where it becomes known, once
there were as many steps as it is deep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from latentweaver.errors import InputError
from latentweaver.evaluate.worded import accuracy_in_words
from latentweaver.tasks.worded import WORDED
from latentweaver.tasks.worded.stream import WordedStream
from latentweaver.training import ranks
from latentweaver.training.depth import Curriculum, Uniform
from latentweaver.training.loop import Settings, train
from latentweaver.training.solvable import Solvable

BASE = "smollm2-135m"
"""The retrofit that is trained: 14 layers of prelude, 4 of core, 12 of coda (`checkpoints.names`)."""


@dataclass(frozen=True)
class SmolLM2Weaver:
    """The recipe of `smollm2-weaver`.

    Attributes:
        tasks: names of the tasks in the mixture.
        difficulty: the highest difficulty to train on.
        lengths: lengths of rows; each batch has one.
        tokens: tokens of a batch.
        written: share of the problems answered by writing the way down.
        hints: whether values are supervised where they become known, or answers alone.
        solvable_only: whether a value is asked for only once there were as many steps as it is deep.
        answer_weight: weight of a label of the reply beside one of a hint.
        rank: of the low-rank products on the matrices of the core.
        prelude_rank, coda_rank: of those on the matrices of prelude and coda; 0 for none.
        injection: how the state is put back in; "scaled" keeps it bounded.
        memory: how loud the last state is beside the anchor at the start.
        low_steps, high_steps: bounds of the number of steps of an update, drawn uniformly.
        backprop: how many of them have gradients.
        warm_steps, warm, rise: the upper bound is `warm_steps` for the first `warm` share of the updates, then rises over `rise` of them.
        updates, lr, weight_decay, optimiser, warmup, cooldown, seed, precision, compile, attention, workers, device: see `training.Settings`.
        evaluate_every, checkpoint_every, log_every: updates between these.
        evaluate_problems: problems of each look; 0 for no looks.
    """

    tasks: tuple[str, ...] = tuple(WORDED)
    difficulty: int = 16
    lengths: tuple[int, ...] = (128, 256)
    tokens: int = 32768
    written: float = 0.2
    hints: bool = True
    solvable_only: bool = True
    answer_weight: float = 4.0
    rank: int = 128
    prelude_rank: int = 16
    coda_rank: int = 0
    injection: Literal["scaled", "linear"] = "scaled"
    memory: float = 0.5
    low_steps: int = 1
    high_steps: int = 20
    backprop: int = 4
    warm_steps: int = 3
    warm: float = 0.3
    rise: float = 0.3
    updates: int = 950
    lr: float = 1e-3
    weight_decay: float = 0.0
    optimiser: Literal["adamw", "muon"] = "adamw"
    warmup: int = 50
    cooldown: float = 0.4
    seed: int = 0
    precision: Literal["bf16", "bf16-stream", "fp32"] = "bf16-stream"
    compile: bool | Literal["steps"] = False
    attention: str | None = None
    workers: int = 0
    device: str | None = None
    evaluate_every: int = 1_000_000
    evaluate_problems: int = 64
    checkpoint_every: int = 1_000_000
    log_every: int = 20

    def __post_init__(self) -> None:
        if not self.tasks or not set(self.tasks) <= set(WORDED):
            raise InputError(f"tasks must be some of {', '.join(WORDED)}; got {', '.join(self.tasks) or 'none'}")
        if not self.lengths or min(self.lengths) < 96 or self.tokens < max(self.lengths):
            raise InputError(f"lengths must be at least 96 and a batch's tokens at least one row; got {self.lengths} and {self.tokens}")

    def model(self) -> Any:
        """The base, with what is trained added to it."""
        import torch

        from latentweaver.checkpoints.loading import load
        from latentweaver.training.low_rank import add_low_rank

        model = load(BASE, dtype="float32", device="cpu")
        inner = model.model
        model.config.injection = self.injection
        ranks = {inner.prelude: self.prelude_rank, inner.core: self.rank, inner.coda: self.coda_rank}
        with torch.no_grad():
            inner.injection.start_transparent(self.memory)
        add_low_rank(model, {part: rank for part, rank in ranks.items() if rank}, self.seed)
        for name, parameter in model.named_parameters():
            if self.is_new(name):
                parameter.requires_grad_(True)
        model.config.num_steps = self.high_steps
        return model

    def is_new(self, name: str) -> bool:
        """Whether a parameter is trained whole: the injection, the last norm, and the norms of the parts that have products."""
        frozen = [part for part, rank in (("prelude", self.prelude_rank), ("coda", self.coda_rank)) if not rank]
        return "injection" in name or ("norm" in name and not any(f".{part}." in name for part in frozen))

    def tokenizer(self) -> Any:
        """The base's tokenizer."""
        from latentweaver.checkpoints.loading import load_tokenizer

        return load_tokenizer(BASE)

    def depths(self) -> Any:
        """How many steps each update takes."""
        return Curriculum(
            Uniform(self.low_steps, self.high_steps, self.backprop, seed=self.seed),
            start=min(self.warm_steps, self.high_steps),
            updates=max(int(self.rise * self.updates), 1),
            field="high",
            hold=int(self.warm * self.updates),
        )

    def settings(self) -> Settings:
        """How the loop is set."""
        return Settings.of(self)

    def stream(self, tokenizer: Any) -> WordedStream:
        """The training batches."""
        tasks = [WORDED[name]() for name in self.tasks]
        return WordedStream(tasks, tokenizer, self.difficulty, self.lengths, self.tokens, self.written, self.seed, "train", self.hints)

    def train(self, model: Any, tokenizer: Any, folder: Path, resume: bool, report: Callable[[dict[str, Any]], None] | None) -> None:
        """Train `model` in place."""
        train(
            model,
            Solvable(self.solvable_only, self.answer_weight, self.compile == "steps"),
            self.depths(),
            self.stream(tokenizer),
            self.settings(),
            folder,
            resume,
            (lambda model: self.measure(model, tokenizer)) if self.evaluate_problems else None,
            report,
        )

    def run(self, folder: str | Path, resume: bool = False, report: Callable[[dict[str, Any]], None] | None = None) -> Path:
        """Train, and save the delta in `folder`/model."""
        model, tokenizer = self.model(), self.tokenizer()
        self.train(model, tokenizer, Path(folder), resume, report)
        return self.save(model, Path(folder) / "model")

    def save(self, model: Any, folder: Path) -> Path:
        """Write what was trained as a delta; of several processes the first does."""
        from latentweaver.checkpoints.delta import save_delta
        from latentweaver.checkpoints.loading import load
        from latentweaver.training.low_rank import products

        if ranks.rank() == 0:
            base = load(BASE, dtype="float32", device="cpu")
            new = {name: parameter for name, parameter in model.named_parameters() if self.is_new(name)}
            config = {"num_steps": self.high_steps, "injection": self.injection}
            save_delta(folder, products(model), new, BASE, dict(base.named_parameters()), config, plain_text=True)
        return folder

    def measure(self, model: Any, tokenizer: Any) -> dict[str, float]:
        """A quick look during training: each task at its deepest, with enough steps and with one."""
        result = {}
        for name in self.tasks:
            steps = [1, self.high_steps] if self.high_steps > 1 else [1]
            for difficulty in (4, self.difficulty):
                table = accuracy_in_words(model, tokenizer, WORDED[name](), steps, [difficulty], self.evaluate_problems, seed=1)
                result |= {f"{name}_{cell.difficulty}_at_{cell.steps}": cell.accuracy for cell in table.cells}
        return result


@dataclass(frozen=True)
class SmolLM2NoLoop(SmolLM2Weaver):
    """The control of `SmolLM2Weaver`: the same base, data and optimiser, each layer applied once. There is no later step in which a
    value could be found, so every value is asked for at once, and every layer has a product, so that all of them can help."""

    prelude_rank: int = 32
    coda_rank: int = 32
    low_steps: int = 1
    high_steps: int = 1
    backprop: int = 1
    solvable_only: bool = False
