"""The operations a transformer block is made of, in plain torch, with a faster way for few rows on a CPU.

Outside of `native()` every function here is the plain torch expression that its last line shows, bit for bit. Inside (which
`generate` enters by itself) a call about at most `ROWS` tokens on a CPU goes to `few_rows.c`, compiled once on this machine
and kept in the user's cache: the same numbers up to rounding, two to three times as fast. Without a C compiler, or on a
processor without AVX2, nothing changes but the speed. LATENTWEAVER_NATIVE=0 forbids it.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from latentweaver.kernels import whole_blocks
from latentweaver.kernels.library import library

ROWS = 16
"""Tokens up to which the native way is faster: the rows of one decoding step."""

_TYPES = {torch.float32: 0, torch.bfloat16: 1}
_PLAIN = (Tensor, torch.nn.Parameter)


class _Local(threading.local):
    """What `native()` sets, for its own thread."""

    library: Any = None
    threads: int = 1
    blocks: dict[int, Any] = {}  # replaced, never changed in place


_local = _Local()


@contextlib.contextmanager
def native(device: torch.device | str = "cpu") -> Iterator[None]:
    """Use the compiled operations within this block, in this thread, where there are any; implies `torch.no_grad`."""
    before, blocks = _local.library, _local.blocks
    _local.blocks = {}
    _local.library, _local.threads = library() if torch.device(device).type == "cpu" else None, torch.get_num_threads()
    try:
        with torch.no_grad():
            yield
    finally:
        _local.library, _local.blocks = before, blocks


_one_row = False  # a plain global, since torch.compile sees of a thread's own values only those of the class


@contextlib.contextmanager
def one_row_on_gpu() -> Iterator[None]:
    """Use our own product for one row (`kernels.gpu`) within this block, on a GPU."""
    global _one_row
    importlib.import_module("latentweaver.kernels.gpu")  # which makes the operation known
    _one_row, before = True, _one_row
    try:
        yield
    finally:
        _one_row = before


def _fits(x: Tensor, *others: Tensor | None) -> Any:
    """The compiled library, if it can take these: CPU tensors in one piece, all of one type; else None."""
    if _local.library is None or x.dtype not in _TYPES or not _plain(x, x.dtype):
        return None
    for other in others:
        if other is not None and not _plain(other, x.dtype):
            return None
    return _local.library


def _plain(x: Tensor, dtype: torch.dtype) -> bool:
    return x.dtype is dtype and x.is_contiguous() and x.is_cpu and type(x) in _PLAIN


def linear(
    x: Float[Tensor, "... width"],
    weight: Float[Tensor, "out width"],
    bias: Float[Tensor, "out"] | None = None,
    scale: Float[Tensor, "out"] | None = None,
) -> Float[Tensor, "... out"]:
    """x W^T + b; with a `scale`, W is its rows times 8-bit whole numbers."""
    out, width = weight.shape
    fast = _fits(x, bias) if x.numel() <= ROWS * width else None
    if fast and _plain(weight, x.dtype if scale is None else torch.int8) and (scale is None or _plain(scale, torch.float32)):
        y = x.new_empty((*x.shape[:-1], out))
        fast.linear(
            _TYPES[x.dtype], weight.data_ptr(), _pointer(scale), x.data_ptr(), _pointer(bias), y.data_ptr(),
            x.numel() // width, width, out, _local.threads,
        )  # fmt: skip
        return y
    if _one_row and scale is None and x.is_cuda and x.numel() == width:
        return torch.ops.latentweaver.one_row(x, weight, bias)
    if scale is not None:
        weight = weight.to(x.dtype) * scale[:, None].to(x.dtype)
    if _local.library is not None and x.dtype in _TYPES and _plain(x, x.dtype) and _plain(weight, x.dtype):
        return _many_rows(x.view(-1, width), weight, bias).view(*x.shape[:-1], out)
    return F.linear(x, weight, bias)


def _many_rows(x: Float[Tensor, "rows width"], weight: Float[Tensor, "out width"], bias: Tensor | None) -> Float[Tensor, "rows out"]:
    """x W^T + b by oneDNN, with rows of zeros below up to one of a few numbers of rows.

    oneDNN makes code for every number of rows that it meets, and keeps it: half a megabyte for each length of prompt, and the
    time to make it.
    """
    rows = x.shape[0]
    unit = 16 if rows <= 64 else 32 if rows <= 512 else 128
    if rows % unit:
        x = torch.cat([x, x.new_zeros((unit - rows % unit, x.shape[1]))])
    return (_onednn if x.dtype is torch.float32 else F.linear)(x, weight, bias)[:rows]


def _onednn(x: Float[Tensor, "rows width"], weight: Float[Tensor, "out width"], bias: Tensor | None) -> Float[Tensor, "rows out"]:
    """oneDNN by name: in float32 torch calls a BLAS that uses half of the vectors of some processors (AMD's Zen 5: 2.2 times as slow)."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def rms_norm(
    x: Float[Tensor, "... width"], weight: Float[Tensor, "width"], eps: float, residual: Float[Tensor, "... width"] | None = None
) -> Float[Tensor, "... width"]:
    """(x + residual) / rms(x + residual) * weight, normalised in float32 at least and cast back before the product."""
    if fast := _fits(x, weight, residual):
        width = x.shape[-1]
        y = torch.empty_like(x)
        fast.rms_norm(
            _TYPES[x.dtype], x.data_ptr(), _pointer(residual), weight.data_ptr(), y.data_ptr(), x.numel() // width, width, eps,
            _local.threads,
        )  # fmt: skip
        return y
    if residual is not None:
        x = x + residual
    wide = x if x.dtype is torch.float64 else x.float()
    return F.rms_norm(wide, (x.shape[-1],), None, eps).to(x.dtype) * weight


def rotate(
    x: Float[Tensor, "batch sequence heads head"],
    cos: Float[Tensor, "#batch sequence 1 head"],
    sin: Float[Tensor, "#batch sequence 1 head"],
    layout: str,
) -> Float[Tensor, "batch sequence heads head"]:
    """Rotary position embedding (arXiv 2104.09864, eq. 34) with the tables of `RotaryTable`."""
    batch, sequence, heads, width = x.shape
    if fast := _fits(x, cos, sin):
        y = torch.empty_like(x)
        fast.rotate(
            _TYPES[x.dtype], x.data_ptr(), cos.data_ptr(), sin.data_ptr(), y.data_ptr(), batch * sequence, heads, width,
            layout == "half", cos.numel() // width, _local.threads,
        )  # fmt: skip
        return y
    partner = x.roll(width // 2, -1) if layout == "half" else x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return x * cos + partner * sin


def swiglu(gate_up: Float[Tensor, "... 2*width"]) -> Float[Tensor, "... width"]:
    """silu(gate) * up, the two side by side in `gate_up`."""
    if fast := _fits(gate_up):
        width = gate_up.shape[-1] // 2
        y = gate_up.new_empty((*gate_up.shape[:-1], width))
        fast.swiglu(_TYPES[gate_up.dtype], gate_up.data_ptr(), y.data_ptr(), y.numel() // width, width, _local.threads)
        return y
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


def attend_one(
    q: Float[Tensor, "batch heads 1 head"],
    k: Float[Tensor, "batch groups length head"],
    v: Float[Tensor, "batch groups length head"],
    mask: Any,
    scaling: float,
) -> Float[Tensor, "batch 1 heads head"] | None:
    """softmax(q k^T * scaling) v for one query a row; None where there is no fast way."""
    fast = _local.library
    if (
        fast is None
        or q.shape[2] != 1
        or q.dtype not in _TYPES
        or not _plain(q, q.dtype)
        or k.dtype is not q.dtype
        or v.dtype is not q.dtype
    ):
        return None
    batch, heads, _, width = q.shape
    groups, length = k.shape[1:3]
    strides = k.stride()
    if strides[2:] != (width, 1) or v.stride() != strides:
        return None
    if mask is not None and not (isinstance(mask, Tensor) and _plain(mask, torch.bool) and mask.shape == (batch, 1, 1, length)):
        return None
    y = torch.empty((batch, 1, heads, width), dtype=q.dtype)
    fast.attend(
        _TYPES[q.dtype], q.data_ptr(), k.data_ptr(), v.data_ptr(), _pointer(mask), y.data_ptr(),
        batch, heads, groups, length, width, strides[0], strides[1], scaling,
    )  # fmt: skip
    return y


def run_blocks(
    blocks: Sequence[Any], x: Float[Tensor, "batch 1 width"], rotary: tuple[Tensor, Tensor], mask: Any, cache: Any, slots: Sequence[int]
) -> Float[Tensor, "batch 1 width"] | None:
    """Blocks of `models.blocks`, one after another, for one new position a row; None where that cannot be done in one call.

    The cache must have a `length`, and a method `places(slots, like)` that gives the memory of each slot's keys and values (see
    `whole_blocks.point`), to the last position of which is written here. `blocks` must be the same object at every call.
    """
    fast = _local.library
    if fast is None or x.shape[1] != 1 or x.shape[0] > ROWS or x.dtype not in _TYPES:
        return None
    if id(blocks) not in _local.blocks:
        _local.blocks[id(blocks)] = blocks, whole_blocks.describe(blocks, x.dtype)  # `blocks`, so that no other object takes its number
    layers = _local.blocks[id(blocks)][1]
    if layers is None or not whole_blocks.usable(x, mask, rotary, cache.length):
        return None
    weights = layers[0].weights.contents
    places = cache.places(slots, x.new_empty((1, weights.groups, 1, weights.head)))
    strides = whole_blocks.point(layers, places) if places[0][0].dtype is x.dtype else None
    if strides is None:
        return None
    cos, sin = rotary
    y = torch.empty_like(x)
    fast.stack(
        _TYPES[x.dtype], layers, len(layers), x.data_ptr(), cos.data_ptr(), sin.data_ptr(), cos.shape[0], *strides, cache.length,
        _pointer(mask), y.data_ptr(), x.shape[0], _local.threads,
    )  # fmt: skip
    return y


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
