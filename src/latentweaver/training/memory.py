"""Memory that stays with the process while it trains on a CPU.

An update allocates its activations, a gigabyte for a model of 50 M parameters, and frees them on the way back. The C library gives large
pieces back to the operating system at once, which then clears a page at a time when the next update asks for them again: 250,000 page
faults an update, 8 % of its time. Here the pieces are kept for the next update.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

MMAP_MAX, TRIM_THRESHOLD = -4, -1
"""Parameters of glibc's `mallopt`: how many pieces may come from the system one by one, and from how many free bytes memory is given back."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within this block freed memory is kept for what is allocated next; at its end it goes back. Nothing happens but with glibc."""
    library = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    if library is not None:
        library.mallopt(MMAP_MAX, 0)
        library.mallopt(TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        if library is not None:
            library.mallopt(MMAP_MAX, 65536)  # glibc's own values
            library.mallopt(TRIM_THRESHOLD, 128 * 1024)
            library.malloc_trim(0)
