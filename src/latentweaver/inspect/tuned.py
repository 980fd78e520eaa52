"""A tuned lens, one for each step: an affine map that takes the state after t steps to where the model will end, then its own coda.

    lens_t(x) = read(x + W_t x + b_t),   trained to minimise KL(p_T || lens_t) on the model's own final readout p_T

after Belrose et al., arXiv 2303.08112, with steps in place of layers. It starts as the coda lens (W = 0, b = 0) and can only come
closer. What may surprise: what a tuned lens reads is what a trained map makes of the state; that it can be read is no
proof that the model uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from latentweaver.errors import InputError
from latentweaver.thought import Reasoner, Thought


class TunedLens(nn.Module):
    """Call it with a Thought to get logits `[batch, sequence, vocabulary]`; `translate` gives the state alone.

    Args:
        model: whose coda reads the translated state.
        steps: for steps 0 to `steps`; the last one is the identity.
        width: of the state.
        decode: another way from a Thought to logits than the model's own `read`.
    """

    def __init__(self, model: Reasoner, steps: int, width: int, decode: Callable[[Thought], Tensor] | None = None) -> None:
        super().__init__()
        self.steps = steps
        self._decode = [decode or (lambda thought: model.read(thought).logits)]  # in a list: not a module of the lens
        self.weight = nn.Parameter(torch.zeros(steps, width, width))
        self.bias = nn.Parameter(torch.zeros(steps, width))

    def translate(self, state: Float[Tensor, "batch sequence width"], step: int) -> Float[Tensor, "batch sequence width"]:
        if step >= self.steps:
            return state
        return state + (state.to(self.weight) @ self.weight[step].T + self.bias[step]).to(state)

    def forward(self, thought: Thought) -> Float[Tensor, "batch sequence vocabulary"]:
        return self._decode[0](thought.branch(self.translate(thought.state, int(thought.step.max()))))


def tune_lens(
    model: Reasoner,
    batches: Sequence[Int[Tensor, "batch sequence"]],
    steps: int,
    epochs: int = 20,
    lr: float = 1e-2,
    decode: Callable[[Thought], Tensor] | None = None,
) -> TunedLens:
    """Train a lens for each step on the model's own runs; the model's weights stay as they are.

    Args:
        batches: inputs to think about; hold some back to judge the lens by (`lens_divergence`).
        steps: where thinking ends.
        epochs: passes over the batches.
        lr: Adam's learning rate.

    Raises:
        InputError: no batches, or steps below 1.
    """
    if not len(batches) or steps < 1:
        raise InputError(f"a lens needs at least one batch and one step, got {len(batches)} and {steps}")
    runs = [_run(model, batch, steps) for batch in batches]
    lens = TunedLens(model, steps, runs[0][0].state.shape[-1], decode).to(runs[0][0].state.device)
    optimiser = torch.optim.Adam(lens.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * len(runs))
    for _ in range(epochs):
        for run in runs:
            with torch.no_grad():
                target = lens(run[-1]).log_softmax(-1)
            loss = torch.stack([_kl(target, lens(thought).log_softmax(-1)) for thought in run[:-1]]).mean()
            gradients = torch.autograd.grad(loss, list(lens.parameters()))
            for parameter, gradient in zip(lens.parameters(), gradients, strict=True):
                parameter.grad = gradient
            optimiser.step()
            schedule.step()
    return lens.requires_grad_(False)


@torch.no_grad()
def lens_divergence(
    model: Reasoner, lens: Callable[[Thought], Tensor], batches: Sequence[Int[Tensor, "batch sequence"]], steps: int
) -> Float[Tensor, "steps+1"]:
    """Mean KL(final readout || lens) in nats after each step: how far the lens is from the model's last word."""
    out = torch.zeros(steps + 1)
    for batch in batches:
        run = _run(model, batch, steps)
        target = model.read(run[-1]).logits.float().log_softmax(-1)
        out += torch.stack([_kl(target, lens(thought).float().log_softmax(-1)).cpu() for thought in run])
    return out / len(batches)


@torch.no_grad()
def _run(model: Reasoner, batch: Tensor, steps: int) -> list[Thought]:
    run = [model.begin(batch)]
    for _ in range(steps):
        run.append(model.think(run[-1]))
    return run


def _kl(p: Tensor, q: Tensor) -> Float[Tensor, ""]:
    return (p.exp() * (p - q)).sum(-1).mean()
