"""Matrix products with few rows on a GPU: what decoding one text consists of, and bound by reading the weights.

A library's product of a matrix with one to eight rows is made for tensor cores, whose tiles such a product cannot fill. Here
every program reads its rows of the matrix once, in order, sixteen bytes a thread, and multiplies them with all rows of x in
float32; enough programs run side by side that the memory is never idle. The sum of a row does not depend on how many rows
there are, so a token has the same products alone and in a wavefront.

Needs Triton, which PyTorch brings along on CUDA. Which tile is fastest was measured by benchmarks/decoding_gpu.py.
"""

from __future__ import annotations

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from jaxtyping import Float
from torch import Tensor

TILES: dict[int, tuple[int, int, int, int]] = {1: (4, 1024, 4, 1), 2: (2, 1024, 4, 1), 4: (2, 1024, 4, 1), 8: (1, 1024, 4, 1)}
"""For up to so many rows of x: rows and columns of the matrix that a program holds at once, its warps, and loads in flight."""


@triton.jit
def _few_rows(x, weight, bias, y, out, WIDTH: tl.constexpr, ROWS: tl.constexpr, BIAS: tl.constexpr,
              TILE: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr):  # fmt: skip
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    column = tl.arange(0, BLOCK)
    there = row < out
    begin = weight + row.to(tl.int64)[:, None] * WIDTH
    sums = ()
    for _ in tl.static_range(ROWS):
        sums = sums + (tl.zeros((TILE, BLOCK), tl.float32),)  # noqa: RUF005
    for start in tl.range(0, WIDTH, BLOCK, num_stages=STAGES):
        inside = start + column < WIDTH
        mask = there[:, None] & inside[None, :]
        w = tl.load(begin + (start + column)[None, :], mask=mask, other=0.0, eviction_policy="evict_first").to(tl.float32)
        more = ()
        for i in tl.static_range(ROWS):
            v = tl.load(x + i * WIDTH + start + column[None, :], mask=inside[None, :], other=0.0, eviction_policy="evict_last")
            more = more + (sums[i] + w * v.to(tl.float32),)  # noqa: RUF005
        sums = more
    for i in tl.static_range(ROWS):
        total = tl.sum(sums[i], 1)
        if BIAS:
            total += tl.load(bias + row, mask=there, other=0.0).to(tl.float32)
        tl.store(y + i * out + row, total.to(y.dtype.element_ty), mask=there)


@torch.library.custom_op("latentweaver::few_rows", mutates_args=())
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b for at most `GPU_ROWS` rows of x `[..., width]`, weight `[out, width]`; summed in float32."""
    out, width = weight.shape
    x = x.contiguous()
    rows = x.numel() // width
    tile, block, warps, stages = TILES[min(most for most in TILES if rows <= most)]
    y = x.new_empty((*x.shape[:-1], out))
    with torch.cuda.device_of(x):
        _few_rows[((out + tile - 1) // tile,)](  # pyright: ignore[reportIndexIssue]
            x, weight, weight if bias is None else bias, y, out,
            WIDTH=width, ROWS=rows, BIAS=bias is not None, TILE=tile, BLOCK=block, STAGES=stages, num_warps=warps,
        )  # fmt: skip
    return y


@linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Float[Tensor, "... out"]:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))
