"""The product of a matrix with one row, on a GPU: what decoding one text consists of, and bound by reading the weights.

A library's product is made for tensor cores, whose tiles one row cannot fill. Here every program reads its rows of the matrix
once, in order, sixteen bytes a thread, multiplies them with x in float32, and adds up. For two rows and more the library is as
fast or faster, and beginning to read while the kernel before is still ending gains nothing (benchmarks/results/decoding_gpu.md).

Needs Triton, which PyTorch brings along on CUDA.
"""

from __future__ import annotations

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from jaxtyping import Float
from torch import Tensor

TILE, BLOCK, WARPS = 2, 2048, 8
"""Rows and columns of the matrix that a program holds at once, and its warps: the fastest of eight on an H100."""


@triton.jit
def _one_row(x, weight, bias, y, out, WIDTH: tl.constexpr, BIAS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    column = tl.arange(0, BLOCK)
    there = row < out
    begin = weight + row.to(tl.int64)[:, None] * WIDTH + column[None, :]
    sums = tl.zeros((TILE, BLOCK), tl.float32)
    for start in range(0, WIDTH, BLOCK):
        inside = (start + column < WIDTH)[None, :]
        w = tl.load(begin + start, mask=there[:, None] & inside, other=0.0, eviction_policy="evict_first")
        v = tl.load(x + start + column[None, :], mask=inside, other=0.0, eviction_policy="evict_last")
        sums += w.to(tl.float32) * v.to(tl.float32)
    total = tl.sum(sums, 1)
    if BIAS:
        total += tl.load(bias + row, mask=there, other=0.0).to(tl.float32)
    tl.store(y + row, total.to(y.dtype.element_ty), mask=there)


@torch.library.custom_op("latentweaver::one_row", mutates_args=())
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b for one row x `[..., width]`, weight `[out, width]`; summed in float32."""
    out, width = weight.shape
    x = x.contiguous()
    y = x.new_empty((*x.shape[:-1], out))
    with torch.cuda.device_of(x):
        _one_row[((out + TILE - 1) // TILE,)](  # pyright: ignore[reportIndexIssue]
            x, weight, weight if bias is None else bias, y, out,
            WIDTH=width, BIAS=bias is not None, TILE=TILE, BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
    return y


@linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Float[Tensor, "... out"]:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))
