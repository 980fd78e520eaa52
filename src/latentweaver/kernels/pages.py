"""A model's weights in large pages of memory (Linux), where a CPU reads them faster.

A token of a model of half a gigabyte passes 130,000 pages of 4 kB: each has to be looked up, and no processor fetches ahead
across the end of one. In pages of 2 MB the same weights are read up to 1.9 times as fast (benchmarks/README.md). The system
gives such pages to memory that asks for them before it is first written. So the weights are copied into one such piece of
memory, which is given back when the last of them is gone. Nothing else about them changes.
"""

from __future__ import annotations

import contextlib
import mmap
import sys
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

PAGE = 2 * 2**20
"""Bytes of a large page, on x86-64 and most of 64-bit ARM."""

_ALIGNED = 64  # a line of the cache

Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def in_large_pages(model: Module) -> Module:
    """`model`, its CPU tensors moved into large pages; as it is where that would take more than half of the memory that is free.

    Where the system has no large pages to give, the copy lies in ordinary ones.
    """
    every = (*model.parameters(), *model.buffers())
    tensors = [tensor for tensor in every if tensor.is_cpu and tensor.is_contiguous() and tensor.numel()]
    sizes = {_place(tensor): -(-tensor.nbytes // _ALIGNED) * _ALIGNED for tensor in tensors}  # what is shared stays shared
    whole = sum(sizes.values())
    if sys.platform != "linux" or whole < PAGE or whole > _free_memory() / 2:
        return model
    memory = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # of systems that have none
        memory.madvise(mmap.MADV_HUGEPAGE)
    moved: dict[object, Tensor] = {}
    at = 0
    for tensor in tensors:
        place = _place(tensor)
        if place not in moved:  # each a storage of its own: some of torch's tools take a common one for an alias
            flat = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=at)
            moved[place] = flat.view(tensor.shape).copy_(tensor)
            at += sizes[place]
        tensor.data = moved[place]
    return model


def _place(tensor: Tensor) -> object:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _free_memory() -> int:
    """Bytes that can be had without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
