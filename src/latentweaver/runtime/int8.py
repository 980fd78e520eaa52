"""Weights in 8 bits, for generation: a quarter of the memory to read for each token, which is what bounds it.

Every row of a matrix is stored as whole numbers from -127 to 127 and one scale (absolute maximum, round to nearest); sums stay
in floating point. The embedding is left as it is. Not for training.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentweaver import kernels


class Int8Linear(nn.Module):
    """x W^T + b with W = diag(scale) times 8-bit whole numbers."""

    scale: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=1e-12) / 127
        self.weight = nn.Parameter((weight / scale[:, None]).round().to(torch.int8), requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = layer.bias

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... out"]:
        return kernels.linear(x, self.weight, self.bias, self.scale)


@torch.no_grad()
def quantize(model: nn.Module) -> nn.Module:
    """Replace every linear layer of `model` by its 8-bit form, in place; returns the model."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and child.out_features > 2:
                setattr(parent, name, Int8Linear(child))
    return model
