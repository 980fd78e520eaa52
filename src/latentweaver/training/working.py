"""Weights as an update uses them, made once for all of its steps.

A looped matrix is used many times in an update. What its product needs first (rounding to bfloat16, adding the thin product of LoRA,
putting queries', keys' and values' matrices side by side) is done once here, and gradients come back through it once.

A layer takes part by three things: `matrix()`, its weight with everything added; `bias`; and `working`, None or what its forward uses in
place of `matrix()`. A module that applies several layers to one input names them in `joins`, and is given their rows as one `joined`
pair (weight, bias).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor | None]


def make(model: nn.Module, dtype: torch.dtype) -> None:
    """Give every layer of `model` that takes part its working weight in `dtype`, until `drop`."""
    done: set[int] = set()
    module: Any
    for module in model.modules():
        layers = [getattr(module, name) for name in getattr(module, "joins", ())]
        if layers and all(hasattr(layer, "working") for layer in layers):
            module.joined = _together(layers, dtype)
            done |= {id(layer) for layer in layers}
        elif hasattr(module, "working") and id(module) not in done:
            module.working = _cast(module.matrix(), dtype)


def drop(model: nn.Module) -> None:
    """Take the working weights away; after the backward, for activations may be computed again on the way back."""
    module: Any
    for module in model.modules():
        if hasattr(module, "working"):
            module.working = None
        if hasattr(module, "joined"):
            module.joined = None


def _cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight in `dtype`, and no parameter: set on a module, that would be one of its own."""
    return weight.view_as(weight) if weight.dtype is dtype else weight.to(dtype)


def _together(layers: list[Any], dtype: torch.dtype) -> Pair:
    weight = torch.cat([layer.matrix().to(dtype) for layer in layers])
    if all(layer.bias is None for layer in layers):
        return weight, None
    biases = [torch.zeros(len(layer.weight), device=weight.device) if layer.bias is None else layer.bias for layer in layers]
    return weight, torch.cat([bias.to(dtype) for bias in biases])
