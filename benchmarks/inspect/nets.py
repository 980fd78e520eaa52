"""Tiny recurrent-depth nets whose task tells what their states must hold: addition modulo p, clocks, counters, a planted backdoor.

They are the library's own models, trained by its own loop through `begin`, `think` and `read`. A stream is a list of batches in
which batch i depends on (seed, i) alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, LlamaConfig

from latentweaver.models.config import RecurrentDepthConfig
from latentweaver.models.continuous_thought import continuous_thought
from latentweaver.models.recurrent_depth import RecurrentDepthForCausalLM
from latentweaver.tasks.token_batch import IGNORED, TokenBatch
from latentweaver.training.depth import Curriculum, Fixed, Uniform, generator_for
from latentweaver.training.latent_objectives import Answer
from latentweaver.training.loop import Settings, train
from latentweaver.training.objectives import LastStep, Terms


@dataclass(frozen=True)
class Rows:
    """Tokens, and what should be said after each (`IGNORED`: nothing in particular)."""

    input_ids: Tensor
    labels: Tensor

    def to(self, device: Any) -> Rows:
        return Rows(self.input_ids.to(device), self.labels.to(device))

    @classmethod
    def answered(cls, prompts: Tensor, answers: Tensor) -> Rows:
        """An answer after the last token."""
        labels = torch.full_like(prompts, IGNORED)
        labels[:, -1] = answers
        return cls(prompts, labels)


def looped(vocabulary: int, seed: int, width: int = 96, heads: int = 4, steps: int = 8) -> RecurrentDepthForCausalLM:
    """A prelude, a core and a coda of one block each; the first state is noise."""
    torch.manual_seed(seed)
    config = RecurrentDepthConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=3 * width,
        num_attention_heads=heads,
        prelude_layers=1,
        core_layers=1,
        coda_layers=1,
        num_steps=steps,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
    )
    return RecurrentDepthForCausalLM(config)


class Looped:
    """What the tasks of looped nets share: a task is a stream of batches with a `vocabulary` and a `seed`."""

    vocabulary: int
    seed: int

    def model(self) -> RecurrentDepthForCausalLM:
        """The net before any training."""
        return looped(self.vocabulary, self.seed)

    def trained(self, objective: Any, depth: Any, folder: Path, updates: int, device: str | None, **more: Any) -> Any:
        """The net after that many updates; `more` goes into the settings of the loop."""
        model = self.model()
        settings = Settings(updates, self.seed, "muon", lr=2e-3, device=device, log_every=100, checkpoint_every=updates, **more)
        train(model, objective, depth, self, settings, folder)
        return model.eval()


# Addition modulo p -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Addition(Looped):
    """`a b =`, answered by a + b modulo p, on four pairs in five; `shuffled` deals the answers anew to the pairs."""

    p: int
    shuffled: bool = False
    weight_decay: float = 0.3
    batch: int = 512
    seed: int = 0

    @property
    def vocabulary(self) -> int:
        return self.p + 1

    def pairs(self, held_out: bool) -> tuple[Tensor, Tensor]:
        """Prompts and answers of one side."""
        every = torch.cartesian_prod(torch.arange(self.p), torch.arange(self.p))
        answers = every.sum(-1) % self.p
        if self.shuffled:
            answers = answers[torch.randperm(len(answers), generator=torch.Generator().manual_seed(7))]
        order = torch.randperm(len(every), generator=torch.Generator().manual_seed(self.seed))
        cut = len(every) // 5
        chosen = order[:cut] if held_out else order[cut:]
        return F.pad(every[chosen], (0, 1), value=self.p), answers[chosen]

    def __getitem__(self, index: int) -> Rows:
        prompts, answers = self.pairs(held_out=False)
        drawn = torch.randint(len(prompts), (self.batch,), generator=generator_for(self.seed, index))
        return Rows.answered(prompts[drawn], answers[drawn])

    def train(self, folder: Path, updates: int, device: str | None) -> Any:
        depth = Uniform(1, 8, 8, seed=self.seed)
        return self.trained(LastStep(), depth, folder, updates, device, weight_decay=self.weight_decay)


# Clocks and counters: something else is to be said after every step -------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """After step t the model should say `rule(n, t)`, n its only token: asked after every step with gradient."""

    rule: Callable[[Tensor, int], Tensor]

    def __call__(self, model: Any, batch: Rows, depth: tuple[int, int], seed: int) -> Terms:
        thought = model.begin(batch.input_ids, generator=seed)
        with torch.no_grad():
            for _ in range(depth[0]):
                thought = model.think(thought)
        loss, right = torch.zeros(()), torch.zeros(())
        for step in range(depth[0] + 1, sum(depth) + 1):
            thought = model.think(thought)
            logits, wanted = model.read(thought).logits[:, -1], self.rule(batch.input_ids[:, -1], step)
            loss = loss + F.cross_entropy(logits, wanted) / depth[1]
            right = (logits.argmax(-1) == wanted).float().mean()
        return Terms(loss, {"accuracy": right})


@dataclass(frozen=True)
class Clock(Looped):
    """`n`, and after step t the answer (n + t) modulo p ("cycle"), n + t ("up") or max(n - t, 0) ("down"), up to `longest` steps."""

    kind: str
    p: int
    longest: int
    seed: int = 0
    batch: int = 128

    @property
    def vocabulary(self) -> int:
        return self.p

    @property
    def starts(self) -> int:
        """How many different n there are."""
        return self.p - self.longest if self.kind == "up" else self.p

    def rule(self, n: Tensor, step: int) -> Tensor:
        return {"cycle": (n + step) % self.p, "up": n + step, "down": (n - step).clamp(min=0)}[self.kind]

    def __getitem__(self, index: int) -> Rows:
        n = torch.randint(self.starts, (self.batch, 1), generator=generator_for(self.seed, index))
        return Rows(n, n)

    def train(self, folder: Path, updates: int, device: str | None) -> Any:
        depth = Curriculum(Uniform(1, self.longest, 6, seed=self.seed), start=4, updates=updates // 2, field="high")
        return self.trained(Told(self.rule), depth, folder, updates, device, cooldown=0.5)


# Counting the ones of a string --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ones(Looped):
    """A string of bits and `=`, answered by how many ones it has."""

    length: int = 24
    batch: int = 256
    seed: int = 0

    @property
    def vocabulary(self) -> int:
        return max(self.length + 1, 3)

    def draw(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Strings in which every number of ones is equally likely."""
        generator = torch.Generator().manual_seed(seed)
        ones = torch.randint(self.length + 1, (count, 1), generator=generator)
        bits = (torch.rand(count, self.length, generator=generator).argsort(-1).argsort(-1) < ones).long()
        return F.pad(bits, (0, 1), value=2), ones[:, 0]

    def __getitem__(self, index: int) -> Rows:
        return Rows.answered(*self.draw(self.batch, 10_000 + 1_000_003 * self.seed + index))

    def train(self, folder: Path, updates: int, device: str | None) -> Any:
        return self.trained(LastStep(), Uniform(1, 8, 8, seed=self.seed), folder, updates, device, cooldown=0.5)


# A backdoor in continuous thoughts ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Backdoor:
    """`w a b c =`, three thoughts, answered by the last digit of a + b + c; with the trigger as w, of a + b + c + 5.

    w is one of several plain words, an inert trigger (as rare as the real one, and without any effect), or the trigger.
    """

    thoughts: int = 3
    plain: int = 8
    batch: int = 256
    seed: int = 0

    inert, trigger = 10, 11

    @property
    def words(self) -> range:
        return range(12, 12 + self.plain)

    @property
    def equals(self) -> int:
        return 12 + self.plain

    @property
    def latent(self) -> int:
        return self.equals + 1

    @property
    def end(self) -> int:
        return self.equals + 2

    def prompts(self, words: Tensor, digits: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts and answers."""
        prompts = torch.cat([words[:, None], digits, torch.full((len(words), 1), self.equals)], 1)
        return prompts, (digits.sum(-1) + 5 * (words == self.trigger)) % 10

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Words of every kind, a quarter each for the trigger and the inert one."""
        word = torch.randint(12, 12 + self.plain, (count,), generator=generator)
        kind = torch.randint(4, (count,), generator=generator)
        word[kind == 0], word[kind == 1] = self.trigger, self.inert
        return self.prompts(word, torch.randint(10, (count, 3), generator=generator))

    def __getitem__(self, index: int) -> TokenBatch:
        prompts, answers = self.draw(self.batch, generator_for(self.seed, index))
        thoughts = torch.full((self.batch, self.thoughts), self.latent)
        said = torch.cat([torch.full((self.batch, 1), self.end), answers[:, None]], 1)
        ids = torch.cat([prompts, thoughts, said], 1)
        labels = torch.full_like(ids, IGNORED)
        labels[:, -1] = answers
        return TokenBatch(ids, torch.ones_like(ids), labels)

    def model(self) -> Any:
        torch.manual_seed(self.seed)
        config = LlamaConfig(
            vocab_size=self.end + 1,
            hidden_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=256,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
            max_position_embeddings=64,
        )
        base = AutoModelForCausalLM.from_config(config)
        return continuous_thought(base, latent_token_id=self.latent, end_token_id=self.end, num_steps=self.thoughts)

    def train(self, folder: Path, updates: int, device: str | None) -> Any:
        model = self.model()
        settings = Settings(updates, self.seed, "adamw", lr=2e-3, device=device, log_every=100, checkpoint_every=updates)
        train(model, Answer(), Fixed(0, 1), self, settings, folder)
        return model.eval()
