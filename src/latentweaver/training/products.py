"""Float32 products of matrices at the processor's own width.

torch multiplies float32 matrices on a CPU with MKL, which takes its AVX2 path on AMD's processors; oneDNN, which torch also brings,
takes AVX-512 where there is one (106 against 240 GFLOP/s on one thread of an AMD EPYC of 2024). torch hands float32 products to oneDNN
once it is allowed to round their factors to bfloat16. That is a permission, which oneDNN uses only where the processor has units
for it: so it is given only where a trial shows that nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def wide_products() -> Iterator[bool]:
    """Within this block float32 products on the CPU go to oneDNN, if they stay as exact as they were; yields whether they do."""
    settings = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]  # made at run time
    before = settings.fp32_precision
    wanted = _error()
    settings.fp32_precision = "bf16"
    exact = _error() < 4 * wanted  # another order of summation; rounding the factors would be 4,000 times as far off
    if not exact:
        settings.fp32_precision = before
    try:
        yield exact
    finally:
        settings.fp32_precision = before


def _error() -> float:
    """The largest error of some products in each of the layouts that training uses: x W^T, g W, g^T x."""
    generator = torch.Generator().manual_seed(0)
    x, g, w = (torch.randn(shape, generator=generator) for shape in ((256, 512), (256, 384), (384, 512)))
    pairs = ((x, w.t()), (g, w), (g.t(), x))
    return max(float(((a @ b).double() - a.double() @ b.double()).abs().max()) for a, b in pairs)
