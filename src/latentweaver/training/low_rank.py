"""LoRA (arXiv 2106.09685): frozen matrices, each with a product of two thin ones added to it.

    W' = W + up down        up [out, rank], zero at first; down [rank, in]

The sum is formed in every forward pass rather than the thin products applied to every token: with 32,000 tokens to a batch it
costs a thousandth of the layer, and the layer stays one product.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from latentweaver.errors import InputError


class LowRankLinear(nn.Linear):
    """x (W + up down)^T + b, W and b frozen."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        nn.Module.__init__(self)
        self._plain = (linear,)  # in a tuple, so that it is no submodule: what `merge_low_rank` puts back
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, self.in_features, device=self.weight.device) / self.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(self.out_features, rank, device=self.weight.device))

    working: Tensor | None = None  # what an update uses in place of the sum (`training.working`)

    def matrix(self) -> Float[Tensor, "out width"]:
        """W + up down."""
        return self.weight + self.up @ self.down

    def forward(self, input: Float[Tensor, "... width"]) -> Float[Tensor, "... out"]:
        return F.linear(input, self.matrix() if self.working is None else self.working, self.bias)


def add_low_rank(model: nn.Module, ranks: Mapping[nn.Module, int], seed: int = 0) -> None:
    """Freeze `model`, and give every linear layer inside the parts that `ranks` names a product of that rank that can be trained.

    Raises:
        InputError: a rank below 1.
    """
    if wrong := [rank for rank in ranks.values() if rank < 1]:
        raise InputError(f"the rank must be at least 1, got {wrong[0]}")
    torch.manual_seed(seed)
    model.requires_grad_(False)
    for part, rank in ranks.items():
        for parent in list(part.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear) and not isinstance(child, LowRankLinear):
                    setattr(parent, name, LowRankLinear(child, rank))


def products(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """For the name of every matrix that has one its product: (up `[out, rank]`, down `[rank, in]`)."""
    return {
        f"{name}.weight": (module.up.detach(), module.down.detach())
        for name, module in model.named_modules()
        if isinstance(module, LowRankLinear)
    }


@torch.no_grad()
def merge_low_rank(model: nn.Module) -> nn.Module:
    """Add every product to its matrix for good; `model` has plain linear layers again, and is returned."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LowRankLinear):
                plain = child._plain[0]
                plain.weight = nn.Parameter(child.weight + child.up @ child.down, requires_grad=False)
                setattr(parent, name, plain)
    return model
