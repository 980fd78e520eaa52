"""Transformer blocks, one after another, in one call of `few_rows.c`, where nothing about them is out of the ordinary.

At a few rows a block of a small model takes a fifth of a millisecond to read its weights, and longer to make twenty calls. So
blocks that are just what `models/blocks.py` defines (no adapter on their layers, no hooks, one type of numbers) are described
once by the addresses of their weights and then run as one call. The description is kept for the duration of a `native()`
block, within which the weights must stay where they are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_PLACEMENTS = {"pre": 0, "peri": 1, "sandwich": 2}


class _Matrix(ctypes.Structure):
    _fields_ = [
        ("w", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("in_", ctypes.c_long),
        ("out", ctypes.c_long),
    ]


class _Weights(ctypes.Structure):
    """`Weights` of `few_rows.c`."""

    _fields_ = [
        *[(name, _Matrix) for name in ("q", "k", "v", "o", "gate_up", "down")],
        *[(name, ctypes.c_void_p) for name in ("attention_norm", "attention_post_norm", "mlp_norm", "mlp_post_norm", "q_norm", "k_norm")],
        *[(name, ctypes.c_long) for name in ("heads", "groups", "head")],
        *[(name, ctypes.c_float) for name in ("eps", "scaling")],
        *[(name, ctypes.c_int) for name in ("placement", "half")],
    ]


class _Layer(ctypes.Structure):
    """`Layer` of `few_rows.c`."""

    _fields_ = [("weights", ctypes.POINTER(_Weights)), ("keys", ctypes.c_void_p), ("values", ctypes.c_void_p)]


def describe(blocks: Iterable[Any], dtype: torch.dtype) -> Any:
    """An array of `_Layer`, in order, with the places of keys and values left open; None if anything is out of the ordinary."""
    found = []
    for block in blocks:
        weights = _described(block, dtype)
        if weights is None or (found and (weights.groups, weights.head) != (found[0].groups, found[0].head)):
            return None
        found.append(weights)
    return (_Layer * len(found))(*(_Layer(ctypes.pointer(weights)) for weights in found)) if found else None


def point(layers: Any, places: Sequence[tuple[Tensor, int]]) -> tuple[int, int] | None:
    """Say where the keys and values of each layer lie, and give their strides from row to row and from head to head.

    Args:
        layers: what `describe` made.
        places: for each a tensor `[layers, 2, batch, heads, capacity, head]` and the number of the layer in it.

    Returns:
        None if their layout is not the one that the call takes.
    """
    strides, dtype = places[0][0].stride(), places[0][0].dtype
    if strides[4:] != (layers[0].weights.contents.head, 1):
        return None
    for layer, (bank, number) in zip(layers, places, strict=True):
        if bank.stride() != strides or bank.dtype is not dtype:
            return None
        layer.keys = bank.data_ptr() + number * strides[0] * bank.element_size()
        layer.values = layer.keys + strides[1] * bank.element_size()
    return strides[2], strides[3]


def _described(block: Any, dtype: torch.dtype) -> _Weights | None:
    """The addresses of a block's weights, or None if anything about it is out of the ordinary."""
    ordinary = {"Linear", "Int8Linear", "RMSNorm", "Attention", "GatedMLP", "Block", "SiLU", "SiLUActivation"}
    for module in block.modules():
        if type(module).__name__ not in ordinary or module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            return None
    if nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks:
        return None
    for tensor in block.parameters():
        if not (tensor.is_cpu and tensor.is_contiguous() and type(tensor) is nn.Parameter and tensor.dtype in (dtype, torch.int8)):
            return None
    if any(name.endswith(".scale") and not (scale.is_cpu and scale.dtype is torch.float32) for name, scale in block.named_buffers()):
        return None
    attention, mlp = block.attention, block.mlp
    if not mlp.swiglu:
        return None
    weights = _Weights(
        q=_matrix(attention.q_proj), k=_matrix(attention.k_proj), v=_matrix(attention.v_proj), o=_matrix(attention.o_proj),
        gate_up=_matrix(mlp.gate_up_proj), down=_matrix(mlp.down_proj),
        heads=attention.q_proj.out_features // attention.head_dim, groups=attention.k_proj.out_features // attention.head_dim,
        head=attention.head_dim, eps=block.mlp_norm.eps, scaling=attention.scaling,
        placement=_PLACEMENTS[block.placement], half=attention.rope_layout == "half",
    )  # fmt: skip
    norms = [(block, name) for name in ("attention_norm", "attention_post_norm", "mlp_norm", "mlp_post_norm")]
    for owner, name in [*norms, (attention, "q_norm"), (attention, "k_norm")]:
        if (norm := getattr(owner, name, None)) is not None:
            setattr(weights, name, norm.weight.data_ptr())
    return weights


def _matrix(layer: Any) -> _Matrix:
    scale, bias = getattr(layer, "scale", None), layer.bias
    return _Matrix(
        layer.weight.data_ptr(),
        None if scale is None else scale.data_ptr(),
        None if bias is None else bias.data_ptr(),
        layer.in_features,
        layer.out_features,
    )


def usable(x: Tensor, mask: Any, rotary: tuple[Tensor, Tensor], length: int) -> bool:
    """Whether the inputs are what the call takes: one new position a row, and a mask of one row each if there is one."""
    if mask is not None and not (isinstance(mask, Tensor) and mask.dtype is torch.bool and mask.shape == (x.shape[0], 1, 1, length)):
        return False
    return all(t.is_contiguous() and type(t) is Tensor and t.dtype is x.dtype for t in (x, *rotary)) and (
        mask is None or mask.is_contiguous()
    )
