"""Do the thoughts matter? Answers with the thoughts as they are, and with something else in their place.

    swapped     those of another problem
    permuted    its own, in another order
    noised      with Gaussian noise as large as the thoughts' own spread
    zeroed      nothing
    mean        the mean over problems, thought by thought: what is said whatever the question
    cut to k    only the first k of them

All thoughts of a problem are replaced at once, by `feed`, which puts given states where `think` would have put the model's own.
An answer that survives all of this does not come from the thoughts (as COCONUT's on ProsQA does: 97.0 % and 97.5 % with
transplanted thoughts, in bmarti44/research-pipeline).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.evaluate.answers import write
from latentweaver.evaluate.intervals import wilson
from latentweaver.evaluate.paired import Interval, difference, mcnemar
from latentweaver.tasks.token_batch import TokenBatch
from latentweaver.thought import Thought

Thoughts = Float[Tensor, "problems thoughts width"]


def swapped(thoughts: Thoughts, generator: torch.Generator) -> Thoughts:
    """Every problem gets the thoughts of another one."""
    order = torch.randperm(len(thoughts), generator=generator)
    return thoughts[order[(torch.argsort(order) + 1) % len(order)]]


def permuted(thoughts: Thoughts, generator: torch.Generator) -> Thoughts:
    """Every problem's thoughts in an order that is not theirs."""
    count = thoughts.shape[1]
    if count < 2:
        return thoughts
    orders = []
    for _ in range(len(thoughts)):
        order = torch.randperm(count, generator=generator)
        while bool((order == torch.arange(count)).all()):
            order = torch.randperm(count, generator=generator)
        orders.append(order)
    return thoughts.gather(1, torch.stack(orders).to(thoughts.device)[..., None].expand_as(thoughts))


def noised(thoughts: Thoughts, generator: torch.Generator) -> Thoughts:
    """Gaussian noise with the standard deviation that the thoughts have over problems, in every dimension."""
    noise = torch.randn(thoughts.shape, generator=generator).to(thoughts)
    return thoughts + noise * thoughts.std(0, correction=0, keepdim=True)


def zeroed(thoughts: Thoughts, generator: torch.Generator) -> Thoughts:
    """Zeros."""
    return torch.zeros_like(thoughts)


def mean(thoughts: Thoughts, generator: torch.Generator) -> Thoughts:
    """The mean over problems."""
    return thoughts.mean(0, keepdim=True).expand_as(thoughts)


def cut_to(count: int) -> Callable[[Thoughts, torch.Generator], Thoughts]:
    """Only the first `count` thoughts."""
    return lambda thoughts, generator: thoughts[:, :count]


ABLATIONS: dict[str, Callable[[Thoughts, torch.Generator], Thoughts]] = {
    "swapped": swapped,
    "permuted": permuted,
    "noised": noised,
    "zeroed": zeroed,
    "mean": mean,
}
"""What can stand in place of thoughts; `cut_to` makes more."""


AS_THEY_ARE = "as they are"


@dataclass(frozen=True)
class Effect:
    """What an ablation did to the answers.

    Attributes:
        name: the ablation.
        accuracy, accuracy_interval: with it, and the 95 % Wilson interval.
        difference: accuracy with it minus accuracy without, problems resampled.
        changed, changed_interval: share of answers that became another one, right or wrong.
        p_value: McNemar's, that the ablation changes nothing about being right.
        right: problem by problem.
    """

    name: str
    accuracy: float
    accuracy_interval: tuple[float, float]
    difference: Interval
    changed: float
    changed_interval: tuple[float, float]
    p_value: float
    right: tuple[bool, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, `right` as a string of 0 and 1."""
        return {**asdict(self), "right": "".join("01"[right] for right in self.right)}


@torch.no_grad()
def ablate(
    model: Any,
    prompts: list[list[int]],
    judge: Callable[[int, list[int]], bool],
    count: int,
    end: int,
    limit: int,
    ablations: dict[str, Callable[[Thoughts, torch.Generator], Thoughts]] = ABLATIONS,
    batch_size: int = 64,
    seed: int = 0,
) -> list[Effect]:
    """Accuracy and answers with each ablation, the untouched model first (as "as they are").

    Args:
        model: a reasoner with `thoughts` and `feed` (continuous thought and latent blocks have them).
        prompts: the questions, without latent tokens.
        judge: whether what was written for problem i is right.
        count: thoughts, or iterations for a block.
        end: the token that ends an answer.
        limit: tokens of an answer at most.
        ablations: what to put in place of thoughts.
        batch_size: problems at a time.
        seed: another seed, other partners, orders and noise.

    Raises:
        InputError: fewer than two problems, or a model without thoughts.
    """
    if len(prompts) < 2:
        raise InputError(f"thoughts are swapped between problems, so at least two are needed; got {len(prompts)}")
    if not hasattr(model, "feed"):
        raise InputError(f"{type(model).__name__} has no thoughts that could be replaced")
    groups = [slice(start, start + batch_size) for start in range(0, len(prompts), batch_size)]
    device, wanted = next(model.parameters()).device, {AS_THEY_ARE: lambda thoughts, generator: thoughts, **ablations}

    def begun(group: slice) -> Thought:
        batch = TokenBatch.of([(prompt, prompt) for prompt in prompts[group]]).to(device)
        return model.begin(batch.input_ids, batch.attention_mask)

    own = torch.cat([model.thoughts(begun(group), count) for group in groups])
    altered = {name: alter(own, torch.Generator().manual_seed(seed)) for name, alter in wanted.items()}
    written: dict[str, list[list[int]]] = {name: [] for name in wanted}
    for group in groups:
        thought = begun(group)
        for name, thoughts in altered.items():
            written[name] += write(model, model.feed(thought, thoughts[group]), end, limit)
    right = {name: [judge(i, tokens) for i, tokens in enumerate(said)] for name, said in written.items()}
    effects, total = [], len(prompts)
    for name, said in written.items():
        other = sum(a != b for a, b in zip(said, written[AS_THEY_ARE], strict=True))
        effects.append(
            Effect(
                name=name,
                accuracy=sum(right[name]) / total,
                accuracy_interval=wilson(sum(right[name]), total),
                difference=difference([right[name]], [right[AS_THEY_ARE]]),
                changed=other / total,
                changed_interval=wilson(other, total),
                p_value=mcnemar(right[name], right[AS_THEY_ARE]),
                right=tuple(right[name]),
            )
        )
    return effects
