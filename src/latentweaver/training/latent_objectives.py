"""What is asked of continuous thoughts. The number of thoughts is in the batch, so these pay no heed to the depth.

Answer        the labels after the thoughts, and nothing of the thoughts themselves (COCONUT, arXiv 2412.06769)
Distilled     the same model with the steps in words teaches it to answer without (CODI, arXiv 2502.21074)
ReadOut       the head, applied to each thought, should say the token of the steps that it stands for (LOTUS, arXiv 2606.31779)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from latentweaver.tasks.token_batch import IGNORED, TokenBatch
from latentweaver.training import ranks
from latentweaver.training.curriculum import Example, Markers
from latentweaver.training.objectives import Depth, Terms, mean


@dataclass(frozen=True)
class Answer:
    """Cross-entropy of the labelled tokens of a `TokenBatch`."""

    draws_nothing = True  # so an update may be recorded

    def __call__(self, model: Any, batch: Any, depth: Depth, seed: int) -> Terms:
        return Terms(_mean_of(model, _traced(model, batch).hidden, batch))


def _traced(model: Any, batch: TokenBatch, layers: bool = False) -> Any:
    """Every column of a batch, with its thoughts."""
    return model.trace(batch.input_ids, batch.attention_mask, layers=layers, place=batch.place)


def _mean_of(model: Any, hidden: Float[Tensor, "batch sequence width"], batch: TokenBatch) -> Float[Tensor, ""]:
    """The mean over all labels, however unevenly they fall on the ranks (see `objectives.mean`)."""
    if batch.asked is None or batch.wanted is None:
        loss = model.labelled_loss(hidden, batch.labels)
    else:
        loss = model.wanted_loss(hidden, batch.asked, batch.wanted)
    if ranks.size() == 1:
        return loss
    return mean(loss, (batch.labels[:, 1:] != IGNORED).sum())


@dataclass(frozen=True)
class TaughtBatch:
    """The same examples twice.

    Attributes:
        student: question, thoughts, answer.
        teacher: question, steps in words, answer.
        student_at, teacher_at: the column at which the answer proper is about to be said, `[batch]`.
    """

    student: TokenBatch
    teacher: TokenBatch
    student_at: Int[Tensor, "batch"]
    teacher_at: Int[Tensor, "batch"]

    @classmethod
    def of(
        cls,
        examples: list[Example],
        markers: Markers,
        thoughts: int = 6,
        lead: int = 0,
        drop_last_step: bool = True,
        pad: int = 0,
        grid: int = 1,
    ) -> TaughtBatch:
        """A batch of examples.

        Args:
            examples: the examples.
            markers: the tokens around and in place of thoughts.
            thoughts: how many thoughts.
            lead: tokens at the beginning of each answer that only lead up to it ("The answer is:"); the columns compared are
                those of the last one.
            drop_last_step: whether the teacher does without the last step, which often says the answer itself; with it, the
                teacher's state holds little but a copy (31.7 against 43.7 % on GSM8K).
            pad, grid: as in `TokenBatch.of`.
        """
        rows, columns = ([], []), ([], [])
        for example in examples:
            steps = example.steps[:-1] if drop_last_step else example.steps
            worked = [token for step in steps for token in step]
            thinking = [*example.question, markers.start, *[markers.latent] * thoughts, markers.end]
            for side, prompt, said in ((0, thinking, []), (1, list(example.question), worked)):
                labels = [IGNORED] * len(prompt) + said + example.answer
                rows[side].append((prompt + said + example.answer, labels))
                columns[side].append(len(prompt) + len(said) + lead - 1)
        student, teacher = (TokenBatch.of(rows[side], markers.latent, pad, grid) for side in (0, 1))
        at = [batch.attention_mask.argmax(-1) + torch.tensor(places) for batch, places in zip((student, teacher), columns, strict=True)]
        return cls(student, teacher, at[0], at[1])

    def to(self, device: str | torch.device) -> TaughtBatch:
        """The same on another device."""
        return TaughtBatch(self.student.to(device), self.teacher.to(device), self.student_at.to(device), self.teacher_at.to(device))


@dataclass(frozen=True)
class Distilled:
    """CODI: L = CE(student) + teaching * CE(teacher) + distilling * D.

    D is the mean over layers (the embedding's output among them) of SmoothL1(student, stopgrad(teacher)) at the column before
    the answer, each layer's divided by the standard deviation of the teacher's states in the batch.

    Attributes:
        teaching: weight of the teacher's own loss, without which there is no teacher (27.1 against 43.7 % with a frozen one).
        distilling: weight of D; 1 for GPT-2 and 20 for Llama in the paper.
    """

    teaching: float = 1.0
    distilling: float = 1.0
    draws_nothing = True

    def __call__(self, model: Any, batch: TaughtBatch | TokenBatch, depth: Depth, seed: int) -> Terms:
        if isinstance(batch, TokenBatch):  # nobody is taught yet
            return Answer()(model, batch, depth, seed)
        student = _traced(model, batch.student, layers=True)
        teacher = _traced(model, batch.teacher, layers=True)
        learned = _mean_of(model, student.hidden, batch.student)
        taught = _mean_of(model, teacher.hidden, batch.teacher)
        distance = torch.stack(
            [
                state_distance(_columns(mine, batch.student_at), _columns(theirs, batch.teacher_at))
                for mine, theirs in zip(student.layers, teacher.layers, strict=True)
            ]
        ).mean()
        report = {"student": learned.detach(), "teacher": taught.detach(), "distance": distance.detach()}
        return Terms(learned + self.teaching * taught + self.distilling * distance, report)


def state_distance(student: Float[Tensor, "batch width"], teacher: Float[Tensor, "batch width"]) -> Float[Tensor, ""]:
    """SmoothL1 to the teacher's states, which get no gradient, in units of their standard deviation."""
    teacher = teacher.detach()
    return F.smooth_l1_loss(student, teacher) / teacher.std().clamp(min=1e-6)


def _columns(states: Float[Tensor, "batch sequence width"], at: Int[Tensor, "batch"]) -> Float[Tensor, "batch width"]:
    return states[torch.arange(len(at), device=at.device), at]


@dataclass(frozen=True)
class ReadBatch(TokenBatch):
    """A batch that also says what the head should read out of each thought.

    Attributes:
        readouts: for each latent token the token it stands for, `IGNORED` elsewhere, `[batch, sequence]`.
        iterations: how often the block is refined; None for the model's own number.
    """

    readouts: Int[Tensor, "batch sequence"] | None = None
    iterations: int | None = None

    @classmethod
    def blocks(
        cls, examples: list[Example], markers: Markers, blocks: int, size: int, iterations: int | None = None, pad: int = 0, grid: int = 1
    ) -> ReadBatch:
        """The first `blocks` steps of each example as blocks of `size` thoughts; later steps stay words.

        A step longer than a block is read out as far as it fits; in a shorter one the thoughts left over stand for nothing.
        """
        rows, read = [], []
        for example in examples:
            gone = [(step + [IGNORED] * size)[:size] for step in example.steps[:blocks]]
            gone += [[IGNORED] * size] * (blocks - len(gone))
            prompt = [*example.question, markers.start, *[markers.latent] * (size * blocks), markers.end]
            said = [token for step in example.steps[blocks:] for token in step] + example.answer
            rows.append((prompt + said, [IGNORED] * len(prompt) + said))
            read.append([token for step in gone for token in step])
        batch = cls.of(rows, markers.latent, pad, grid)
        readouts = torch.full_like(batch.input_ids, IGNORED)
        readouts[batch.input_ids == markers.latent] = torch.tensor([token for row in read for token in row], dtype=torch.long)
        return replace(batch, readouts=readouts, iterations=iterations)


@dataclass(frozen=True)
class ReadOut:
    """LOTUS: L = CE(answer) + weight * mean CE(head(thought), the token it stands for).

    Attributes:
        weight: of the thoughts' own loss; 0.05 in the paper. Without it, 63.3 instead of 70.0 % on GSM8K.
    """

    weight: float = 0.05
    draws_nothing = True

    def __call__(self, model: Any, batch: ReadBatch | TokenBatch, depth: Depth, seed: int) -> Terms:
        if not isinstance(batch, ReadBatch):  # no thoughts yet
            return Answer()(model, batch, depth, seed)
        model.iterations = batch.iterations
        hidden = _traced(model, batch).hidden
        answer = _mean_of(model, hidden, batch)
        assert batch.readouts is not None
        assert batch.place is not None
        edge, thoughts = batch.place
        if not thoughts:
            return Terms(answer)
        block = slice(edge, edge + thoughts)  # rows with fewer thoughts, or none, have nothing to read in some of these columns
        wanted = batch.readouts[:, block].flatten()
        each = F.cross_entropy(model.head(hidden[:, block]).float().flatten(0, 1), wanted, reduction="none", ignore_index=IGNORED)
        read = mean(each, (wanted != IGNORED).float())
        return Terms(answer + self.weight * read, {"answer": answer.detach(), "readout": read.detach()})
