"""Weights in 8 bits, for generation: a quarter of the memory to read for each token, which is what bounds it.

Every row of a matrix is stored as whole numbers from -127 to 127 and one scale (absolute maximum, round to nearest); sums stay
in floating point. The embedding is stored the same way, so that a head that shares its matrix goes on sharing it. Norms and
biases stay as they are. Not for training.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from latentweaver import kernels
from latentweaver.kernels.pages import in_large_pages


def rows_to_int8(weight: Float[Tensor, "rows width"]) -> tuple[Int[Tensor, "rows width"], Float[Tensor, "rows"]]:
    """8-bit whole numbers, and the scale of each row, float32."""
    weight = weight.detach().float()
    scale = weight.abs().amax(1).clamp(min=1e-12) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


class Int8Linear(nn.Module):
    """x W^T + b with W = diag(scale) times 8-bit whole numbers."""

    scale: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight, scale = rows_to_int8(layer.weight)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", scale)  # float32 whatever the model's precision
        self.bias = layer.bias

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... out"]:
        return kernels.linear(x, self.weight, self.bias, self.scale)


class Int8Embedding(nn.Module):
    """Rows of 8-bit whole numbers, each times its scale; the scale's precision is that of what comes out."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = table.num_embeddings, table.embedding_dim
        weight, scale = rows_to_int8(table.weight)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale.to(table.weight.dtype), requires_grad=False)

    def forward(self, ids: Int[Tensor, "..."]) -> Float[Tensor, "... width"]:
        scale = self.scale[ids][..., None]
        return self.weight[ids].to(scale.dtype) * scale


@torch.no_grad()
def quantize(model: nn.Module) -> nn.Module:
    """Replace every linear layer and embedding of `model` by its 8-bit form, in place; returns the model."""
    shared: dict[int, nn.Parameter] = {}  # what a matrix became, for the other module that uses it
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and child.out_features > 2:
                small = Int8Linear(child)
            elif isinstance(child, nn.Embedding):
                small = Int8Embedding(child)
            else:
                continue
            small.weight = shared.setdefault(id(child.weight), small.weight)
            setattr(parent, name, small)
    config = getattr(model, "config", None)
    if config is not None:
        config.int8 = True
    return in_large_pages(model)
