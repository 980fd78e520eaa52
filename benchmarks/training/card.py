"""What benchmarks that train arm after arm on one device share: giving its memory back, and its name."""

from __future__ import annotations

import gc
import os
import platform

import torch


def forget(device: str) -> None:
    """Give back what nobody holds any longer, recordings of updates among it."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def machine(device: str) -> str:
    """The device's name, and how many cores are beside it."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} CPU cores"
