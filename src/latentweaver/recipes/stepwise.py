"""What the recipes of problems with steps share: one method or another, on the same problems, for as many updates.

A recipe says where its problems come from (`training_items`, `test_items`); `method` says what becomes of their steps.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from latentweaver.checkpoints.formats import LLAMA_FAMILY
from latentweaver.checkpoints.retrofit import retrofit
from latentweaver.errors import InputError
from latentweaver.evaluate.answers import Said, answers
from latentweaver.models.decoder import context_of
from latentweaver.recipes.methods import METHODS, Lesson, MethodName
from latentweaver.recipes.wording import answer_in, examples, word_tokenizer, words_of
from latentweaver.training import ranks
from latentweaver.training.curriculum import Example, Markers, Staged
from latentweaver.training.depth import DepthSampler
from latentweaver.training.epochs import Epochs
from latentweaver.training.loop import Settings, train

MARKERS = ("<|latent|>", "<|start-latent|>", "<|end-latent|>")


@dataclass(frozen=True)
class Stepwise(ABC):
    """Problems in words and one of `methods.METHODS`.

    Attributes:
        method: what becomes of the steps.
        base: a pretrained decoder to begin with, by name or folder; None for one from nothing, a word a token.
        own_words: give a pretrained decoder the task's own vocabulary, a word a token, in place of its own.
        width, layers, heads: the decoder's shape, from nothing.
        loops: how often the decoder's middle is applied to every token, before thoughts come into it: 1 for the decoder as it is,
            more for recurrent depth.
        loop_layers: how many layers are its middle.
        epochs: passes over the training problems.
        warm_epochs: epochs before the curriculum moves: COCONUT begins GSM8K from a model that has learned the steps in words.
        epochs_per_stage: epochs before the next step goes.
        max_latent_stage: the last stage with steps left.
        thoughts_per_step: thoughts in place of each step.
        iterations: how often "pccot" refines its block.
        block: thoughts in place of each step in "lotus".
        removed_per_epoch: tokens that "icot" removes with each epoch.
        lead: tokens of each answer that only lead up to it, for "codi" and "pccot"; None for what the task says.
        limit: tokens of an answer at most, steps in words among them.
        evaluate_items: test problems of each look during training.
        window: so many batches' problems are sorted by length and then shared out, so that a batch has rows of like length. Where problems
            are of several kinds, a batch is then mostly of one kind: leave it at 1 there.
        grid: rows are padded to multiples of this, so that batches come in few shapes (see `record`).
        batch_size: problems to a batch.
        lr, weight_decay, warmup, cooldown, clip, seed, precision, compile, record, workers, device, accumulate, evaluate_every, checkpoint_every, log_every: see
            `training.Settings`.
    """

    method: MethodName = "coconut"
    base: str | None = None
    own_words: bool = False
    width: int = 256
    layers: int = 4
    heads: int = 4
    loops: int = 1
    loop_layers: int = 4
    epochs: int = 50
    warm_epochs: int = 0
    epochs_per_stage: int = 5
    max_latent_stage: int = 6
    thoughts_per_step: int = 1
    iterations: int = 3
    block: int = 7
    removed_per_epoch: int = 8
    lead: int | None = None
    limit: int = 128
    batch_size: int = 128
    lr: float = 1e-4
    weight_decay: float = 0.01
    warmup: int = 0
    cooldown: float = 0.0
    clip: float = 1.0
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "fp32"
    compile: bool = False
    record: bool = False
    window: int = 1
    grid: int = 1
    workers: int = 0
    device: str | None = None
    accumulate: int = 1
    evaluate_items: int = 200
    evaluate_every: int = 500
    checkpoint_every: int = 500
    log_every: int = 20

    name = "stepwise"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}; got {self.method!r}")
        for field in (
            "epochs",
            "epochs_per_stage",
            "max_latent_stage",
            "thoughts_per_step",
            "iterations",
            "block",
            "limit",
            "evaluate_items",
            "loops",
            "loop_layers",
            "window",
            "grid",
        ):
            if getattr(self, field) < 1:
                raise InputError(f"{field} must be at least 1, got {getattr(self, field)}")
        last = self.still + self.epochs_per_stage * (self.max_latent_stage + 1)
        if self.epochs <= last:
            raise InputError(
                f"the curriculum reaches its last stage after {last} epochs (its first epochs + epochs_per_stage * (max_latent_stage + 1)), "
                f"so epochs must be above that; got {self.epochs}"
            )

    @property
    def still(self) -> int:
        """Epochs before the curriculum moves."""
        return self.warm_epochs

    # Where problems come from: the recipes of this kind say ----------------------------------------------------------

    @abstractmethod
    def training_items(self) -> list[Any]:
        """The training problems."""

    @abstractmethod
    def test_items(self) -> list[Any]:
        """The test problems."""

    def likeness(self) -> dict[str, Any]:
        """The fields that say what problems are drawn, so that a trained model can be asked more of them."""
        return {}

    def floors(self, items: list[Any]) -> dict[str, float]:
        """How far shortcuts get on such problems, by their names, beyond what `comparing.floors_of` knows."""
        return {}

    # What is made of them --------------------------------------------------------------------------------------------

    @cached_property
    def items(self) -> list[Any]:
        """The training problems, drawn or read once."""
        return self.training_items()

    @property
    def updates(self) -> int:
        """Updates in all."""
        return self.epochs * (len(self.items) // self.batch_size) // self.accumulate

    @property
    def leads(self) -> int:
        """Tokens of an answer that only lead up to it: the mark."""
        return 1 if self.lead is None else self.lead

    def own_tokenizer(self) -> Any:
        """A tokenizer of the task's words, for a decoder from nothing."""
        return word_tokenizer(words_of(self.items), MARKERS)

    def stand_ins(self) -> dict[str, str]:
        """Words that lend their meaning to words of the task which a pretrained decoder does not know (`own_words`)."""
        return {}

    def batch(self, examples: list[Any], epoch: int, rng: random.Random) -> Any:
        """A training batch of an epoch."""
        return self.lesson.batch(examples, epoch, rng)

    def stream(self) -> Epochs:
        """The training batches."""
        known = examples(self.items, self.tokenizer)
        return Epochs(known, self.batch_size, self.batch, self.seed, self.window, _length)

    @cached_property
    def parts(self) -> tuple[Any, Any]:
        """The decoder, from nothing or pretrained, and its tokenizer with the markers."""
        import torch

        torch.manual_seed(self.seed)
        if self.base is not None:
            from latentweaver.checkpoints.bases import load_decoder, reworded
            from latentweaver.models.continuous_thought import add_markers

            decoder, tokenizer = load_decoder(self.base)
            if self.own_words:
                own = self.own_tokenizer()
                reworded(decoder, tokenizer, own, self.stand_ins())
                return self.looped(decoder), own
            add_markers(decoder, tokenizer)
            return self.looped(decoder), tokenizer
        from transformers import AutoModelForCausalLM, LlamaConfig

        tokenizer = self.own_tokenizer()
        shape = {"hidden_size": self.width, "num_hidden_layers": self.layers, "num_attention_heads": self.heads}
        ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        inner = {"intermediate_size": 8 * self.width // 3, "max_position_embeddings": 1024, "tie_word_embeddings": True}
        decoder = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(tokenizer), **shape, **inner, **ends))
        return self.looped(decoder), tokenizer

    def looped(self, decoder: Any) -> Any:
        """The decoder with its middle applied `loops` times.

        One that is to be compiled is made of our blocks, too, which compute the same; but not to be taught from the states after
        each layer, of which ours says those after each step.
        """
        ours = self.compile and decoder.config.model_type in LLAMA_FAMILY and METHODS[self.method].learns != "taught"
        if self.loops == 1 and not ours:
            return decoder
        total = decoder.config.num_hidden_layers
        if self.loop_layers > total:
            raise InputError(f"loop_layers must be at most the decoder's {total} layers, got {self.loop_layers}")
        before = (total - self.loop_layers) // 2
        parts = {"prelude": before, "core": self.loop_layers, "coda": total - before - self.loop_layers}
        if self.loops == 1:
            return retrofit(decoder, **parts, injection="none")
        return retrofit(decoder, **parts, num_steps=self.loops, memory=0.5)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self.parts[1]

    @cached_property
    def lesson(self) -> Lesson:
        """How batches are made."""
        tokenizer = self.tokenizer
        markers = Markers(*tokenizer.convert_tokens_to_ids(list(MARKERS)))
        staged = Staged(markers, self.thoughts_per_step, self.epochs_per_stage, self.max_latent_stage)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        return Lesson(METHODS[self.method], staged, markers, self.still, self.removed_per_epoch, self.leads, self.block, pad, self.grid)

    def model(self) -> Any:
        """A fresh model."""
        model = self.lesson.model(self.parts[0], self.iterations)
        asked = {"thoughts": self.lesson.thoughts, "limit": self.limit, "problems": self.likeness()}
        model.config.task = {"name": self.name, "method": self.method, **asked}
        return model

    def check_room(self) -> None:
        """Make sure that the decoder has positions for the longest problem with its thoughts.

        Raises:
            InputError: if it has not.
        """
        asked = examples(self.items, self.tokenizer)
        thinking = max(len(self.lesson.prompt(each, self.epochs)) + len(each.answer) for each in asked)
        written = max(len(each.question) + 2 + sum(map(len, each.steps)) + len(each.answer) for each in asked)
        limit = context_of(self.parts[0].config)
        if max(thinking, written) > limit:
            raise InputError(
                f"the longest problem needs {max(thinking, written)} positions with its {self.lesson.thoughts} thoughts, the decoder has {limit}; "
                "give fewer thoughts_per_step, a smaller block, or shorter problems"
            )

    def run(self, folder: str | Path, resume: bool = False, report: Callable[[dict[str, Any]], None] | None = None) -> Path:
        """Train, and save the model with its tokenizer in `folder`/model."""
        folder, lesson, tokenizer, model = Path(folder), self.lesson, self.tokenizer, self.model()
        self.check_room()
        stream = self.stream()
        tests = self.test_items()[: self.evaluate_items]
        now = _Now()

        def measure(model: Any) -> dict[str, float]:
            epoch = now.update * self.accumulate // stream.per_epoch
            prompts = [lesson.prompt(example, epoch) for example in examples(tests, tokenizer)]
            right = graded(model, tokenizer, tests, prompts, self.limit)[0]
            return {"accuracy": sum(right) / len(right)}

        train(model, lesson.objective(), now, stream, Settings.of(self), folder, resume, measure, report)
        if ranks.rank() == 0:
            model.save_pretrained(folder / "model")
            tokenizer.save_pretrained(folder / "model")
        return folder / "model"


def _length(example: Example) -> tuple[int, int]:
    return len(example.question), sum(map(len, example.steps))


class _Now(DepthSampler):
    """Thoughts are counted by the batch, not by the depth; this one remembers which update is being made."""

    seed = 0
    update = 0

    def __call__(self, update: int) -> tuple[int, int]:
        self.update = update
        return (0, 1)


def graded(
    model: Any, tokenizer: Any, items: list[Any], prompts: list[list[int]], limit: int, **options: Any
) -> tuple[list[bool], list[Said]]:
    """Which problems are answered rightly from these prompts, and what was said."""
    said = answers(model, prompts, tokenizer.eos_token_id, limit, model.config.latent_token_id, **options)
    written = tokenizer.batch_decode([list(each.tokens) for each in said], skip_special_tokens=True)
    wanted = tokenizer.batch_decode([example.answer for example in examples(items, tokenizer)], skip_special_tokens=True)
    return [answer_in(text) == answer_in(right) for text, right in zip(written, wanted, strict=True)], said


def prompts_for(model: Any, tokenizer: Any, items: list[Any]) -> list[list[int]]:
    """The prompts a trained model answers: the question, and as many latent tokens as it learned with between its markers.

    Raises:
        InputError: if the model was not trained by a recipe of problems with steps.
    """
    task = getattr(model.config, "task", None) or {}
    if "thoughts" not in task:
        raise InputError("this model was not trained by a recipe of problems with steps (lw train prosqa-coconut and its siblings)")
    config, asked = model.config, examples(items, tokenizer)
    if config.start_token_id is None:
        return [example.question for example in asked]
    thinking = [config.start_token_id, *[config.latent_token_id] * task["thoughts"], config.end_token_id]
    return [[*example.question, *thinking] for example in asked]
