"""What the model would have said after each step.

A lens turns a Thought into logits. The model's own coda is the honest one (`coda_lens`, what `read` gives); the plain head
(`head_lens`: the final norm and the head on the bare state, nostalgebraist's logit lens) shows what it says without the coda; a tuned lens
(`tuned.py`) is trained for each step.

What may surprise: a lens judges the point of the cycle that it looks at. Between the layers of one step the rank of the same token
may swing by orders of magnitude (arXiv 2507.02199), so a verdict "not decodable" says where it was looked for;
`block_effect` measures it. And a token's rank falls for many reasons: a control token's rank belongs beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.inspect.recorder import positions_of
from latentweaver.thought import Reasoner, Thought

Lens = Callable[[Thought], Float[Tensor, "batch sequence vocabulary"]]


def coda_lens(model: Reasoner) -> Lens:
    """The model's own readout."""
    return lambda thought: model.read(thought).logits


def head_lens(model: Any, norm: Callable[[Tensor], Tensor] | None = None) -> Lens:
    """The output embedding on the bare state, after the final norm where the model names one (`parts()["norm"]`) or `norm` is given.

    Raises:
        InputError: if the model has no output embedding.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if head is None:
        raise InputError(f"{type(model).__name__} names no output embedding; use its own coda (coda_lens)")
    if norm is None:
        norm = model.parts().get("norm") if hasattr(model, "parts") else None
    return lambda thought: head(thought.state if norm is None else norm(thought.state)).float()


@dataclass(frozen=True)
class Flips:
    """When an answer changed.

    Attributes:
        steps: after which steps the likeliest token was another than before.
        answers: the likeliest token after each step, `[steps + 1]`.
        margin: log p of the first minus that of the second, nats, `[steps + 1]`.
        advantage: log p of the final answer minus that of its strongest rival: negative until it leads, `[steps + 1]`.
        last: the last flip, None if the answer never changed; `lead` is how many steps before the end it came.
        score: by how much the final answer trailed at worst in the last quarter of the steps (below 0: it led throughout).
        unstable: whether the answer changed in the last quarter of the steps.
    """

    steps: tuple[int, ...]
    answers: Int[ndarray, "steps+1"]
    margin: Float[ndarray, "steps+1"]
    advantage: Float[ndarray, "steps+1"]
    last: int | None
    lead: int
    score: float
    unstable: bool


def find_flips(logprobs: Float[ndarray, "steps+1 vocabulary"]) -> Flips:
    """When the likeliest token changed, from the log-probabilities after each step, step 0 first.

    Raises:
        InputError: another shape, a vocabulary of one, or NaN.
    """
    p = np.asarray(logprobs, np.float64)
    if p.ndim != 2 or p.shape[1] < 2 or not len(p):
        raise InputError(f"log-probabilities must be [steps + 1, vocabulary] of at least 2 tokens, got {p.shape}")
    if np.isnan(p).any():
        raise InputError(f"log-probabilities are NaN from step {int(np.isnan(p).any(-1).argmax())} on")
    answers = p.argmax(-1)
    two = np.partition(p, -2, axis=-1)
    rivals = p.copy()
    rivals[:, answers[-1]] = -np.inf
    return _flips(answers, two[:, -1] - two[:, -2], p[:, answers[-1]] - rivals.max(-1))


def alarm_threshold(scores: Sequence[float], rate: float = 0.05) -> float:
    """The score above which at most `rate` of runs like these raise an alarm: the conformal quantile of `Flips.score` on stable ones.

    Raises:
        InputError: fewer scores than the rate can be told with.
    """
    rank = math.ceil((len(scores) + 1) * (1 - rate))
    if rank > len(scores):
        raise InputError(f"{len(scores)} runs cannot set a rate of {rate}; at least {math.ceil(1 / rate) - 1} are needed")
    return float(np.sort(scores)[rank - 1])


@dataclass(frozen=True)
class LensReading:
    """What a lens says after each step; arrays `[rows, steps + 1, tokens]`.

    Attributes:
        steps: the step of each, `[steps + 1]`; positions: of the tokens, `[tokens]`.
        top_ids, top_logprobs: the likeliest tokens, best first, `[rows, steps + 1, tokens, k]`.
        answers: what the model itself says in the end, `[rows, tokens]` (its own readout, not the lens).
        answer_logprob, answer_rank: of that answer under the lens; rank 0 is the likeliest.
        advantage: log p of the answer minus that of its strongest rival.
        control_rank, control_logprob: of the control token; None without one.
        pair_difference: log p of the first of `pair` minus that of the second; None without one.
        entropy: nats.
        kl_step: KL(p_t || p_(t-1)), NaN at step 0.
        kl_final: KL(final readout || lens), nats.
    """

    steps: Int[ndarray, "steps+1"]
    positions: Int[ndarray, "tokens"]
    top_ids: Int[ndarray, "rows steps+1 tokens k"]
    top_logprobs: Float[ndarray, "rows steps+1 tokens k"]
    answers: Int[ndarray, "rows tokens"]
    answer_logprob: ndarray
    answer_rank: ndarray
    advantage: ndarray
    entropy: ndarray
    kl_step: ndarray
    kl_final: ndarray
    control_rank: ndarray | None = None
    control_logprob: ndarray | None = None
    pair: tuple[int, int] | None = None
    pair_difference: ndarray | None = field(default=None)

    def flips(self, row: int = 0, token: int = -1) -> Flips:
        """When the answer of one token changed. `advantage` is towards the lens's own last word."""
        answers, logprobs = self.top_ids[row, :, token, 0], self.top_logprobs[row, :, token]
        margin = logprobs[:, 0] - logprobs[:, 1]
        if answers[-1] == self.answers[row, token]:
            return _flips(answers, margin, self.advantage[row, :, token])
        return _flips(answers, margin, np.where(answers == answers[-1], margin, -margin))

    def decodable(self, row: int = 0, token: int = -1) -> Int[ndarray, "steps+1"]:
        """The likeliest token after each step, -1 where the lens should abstain: it is no surer of it than of the control token."""
        sure = self.top_logprobs[row, :, token, 0]
        out = self.top_ids[row, :, token, 0].copy()
        if self.control_logprob is not None:
            out[sure <= self.control_logprob[row, :, token]] = -1
        return out


@torch.no_grad()
def read_steps(
    model: Reasoner,
    input_ids: Int[Tensor, "batch sequence"],
    attention_mask: Tensor | None = None,
    *,
    steps: int,
    tokens: int | slice | Sequence[int] | None = -1,
    lens: Lens | None = None,
    answers: Int[Tensor, "batch tokens"] | None = None,
    control: int | None = None,
    pair: tuple[int, int] | None = None,
    top: int = 5,
    **begin: Any,
) -> LensReading:
    """Think, and read through a lens after every step, step 0 included.

    Args:
        model: any reasoner.
        steps: how many to think.
        tokens: positions to read; the last one by default, None for all.
        lens: from Thought to logits; the model's own coda if None.
        answers: tokens whose rank is followed; the model's own final ones if None.
        control: a token that has nothing to do with it ("the"), to hold ranks against.
        pair: two tokens whose log-probabilities are subtracted.
        top: how many likeliest tokens to keep.

    Raises:
        InputError: steps below 1, or positions outside the sequence.
    """
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    lens = lens or coda_lens(model)
    thought = model.begin(input_ids, **({} if attention_mask is None else {"attention_mask": attention_mask}), **begin)
    where = positions_of(tokens, thought.state.shape[1])
    run = [thought]
    for _ in range(steps):
        run.append(model.think(run[-1]))
    last = _at(model.read(run[-1]).logits, where, thought)
    answer = last.argmax(-1) if answers is None else answers.to(last.device)
    rows: dict[str, list[Tensor]] = {}
    before: Tensor | None = None
    for thought in run:
        p = _at(lens(thought), where, thought)
        own = p.gather(-1, answer[..., None])
        best = p.topk(min(max(top, 2), p.shape[-1]))
        rival = torch.where(best.indices[..., 0] == answer, best.values[..., 1], best.values[..., 0])
        said = {
            "top_ids": best.indices,
            "top_logprobs": best.values,
            "answer_logprob": own[..., 0],
            "answer_rank": (p > own).sum(-1),
            "advantage": own[..., 0] - rival,
            "entropy": -(p.exp() * p.clamp(min=-1e4)).sum(-1),
            "kl_step": torch.full_like(own[..., 0], torch.nan) if before is None else _kl(p, before),
            "kl_final": _kl(last, p),
        }
        if control is not None:
            said |= {"control_rank": (p > p[..., control, None]).sum(-1), "control_logprob": p[..., control]}
        if pair is not None:
            said["pair_difference"] = p[..., pair[0]] - p[..., pair[1]]
        for name, value in said.items():
            rows.setdefault(name, []).append(value.cpu())
        before = p
    got = {name: torch.stack(values, 1).numpy() for name, values in rows.items()}
    return LensReading(steps=np.arange(steps + 1), positions=where.numpy(), answers=answer.cpu().numpy(), pair=pair, **got)


def block_effect(ranks: Float[ndarray, "steps blocks"]) -> float:
    """How much the verdict depends on which block of the step is read: the share of the variance of log(1 + rank), less each step's mean,
    that the block alone explains. Near 1: a sawtooth, and only one point of the cycle may be compared with itself."""
    y = np.log1p(np.asarray(ranks, np.float64))
    if y.ndim != 2 or y.shape[1] < 2:
        raise InputError(f"ranks must be [steps, blocks] with at least 2 blocks, got {y.shape}")
    y = y - y.mean(1, keepdims=True)
    whole = float((y**2).sum())
    return float(len(y) * (y.mean(0) ** 2).sum() / whole) if whole > 0 else 0.0


def _flips(answers: ndarray, margin: ndarray, advantage: ndarray) -> Flips:
    changed = np.flatnonzero(answers[1:] != answers[:-1]) + 1
    total = len(answers) - 1
    last = int(changed[-1]) if len(changed) else None
    late = math.ceil(0.75 * total)
    return Flips(
        steps=tuple(changed.tolist()),
        answers=answers,
        margin=margin,
        advantage=advantage,
        last=last,
        lead=total - last if last is not None else total,
        score=float(-advantage[late:].min()),
        unstable=last is not None and last > late,
    )


def _at(logits: Tensor, where: Tensor, thought: Thought) -> Float[Tensor, "rows tokens vocabulary"]:
    shift = thought.state.shape[1] - logits.shape[1]
    return logits[:, (where - shift).to(logits.device)].float().log_softmax(-1)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q).clamp(-1e4, 1e4)).sum(-1)
