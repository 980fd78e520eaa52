"""Compiling `few_rows.c` on the machine it runs on, once, and calling it through ctypes.

The result is kept in the user's cache under a name made of the source, the compiler's flags and the processor's features, so
that a home directory shared by different machines holds one for each. OpenMP's functions are left for the copy that torch
has already loaded: two copies would keep two teams of threads, each in the other's way.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

_FLAGS = ["-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-fPIC"]
_SOURCE = Path(__file__).with_name("few_rows.c")
_SIGNATURES = {
    "linear": "ipppppllli",
    "rms_norm": "ippppllfi",
    "rotate": "ipppplllili",
    "swiglu": "ipplli",
    "attend": "ippppplllllllf",
    "stack": "iplpppllllppli",
}
"""Arguments of each function: i int, l long, f float, p pointer."""

_KINDS = {"i": ctypes.c_int, "l": ctypes.c_long, "f": ctypes.c_float, "p": ctypes.c_void_p}

log = logging.getLogger(__name__)


@functools.cache
def library() -> Any:
    """The compiled functions, or None where there cannot be any (the reason is logged at level INFO)."""
    try:
        return _load(_compiled())
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        log.info("no native operations, generation is slower for it: %s", str(error).strip().split("\n")[0])
        return None


def _compiled() -> Path:
    if os.environ.get("LATENTWEAVER_NATIVE") == "0":
        raise RuntimeError("LATENTWEAVER_NATIVE=0")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if platform.system() != "Linux" or platform.machine() != "x86_64" or compiler is None:
        raise RuntimeError("they need Linux on x86-64 and a C compiler")
    features = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    name = hashlib.sha256("\n".join([_SOURCE.read_text(), *_FLAGS, features]).encode()).hexdigest()[:16]
    path = _folder() / f"few_rows-{name}.so"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            compiled, linked = Path(scratch, "few_rows.o"), Path(scratch, "few_rows.so")
            _run(compiler, *_FLAGS, "-fopenmp", "-c", str(_SOURCE), "-o", str(compiled))
            _run(compiler, "-shared", str(compiled), "-o", str(linked), "-lm")
            linked.replace(path)
    return path


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr or done.returncode}")


def _folder() -> Path:
    from latentweaver.folders import cache_folder

    return cache_folder() / "native"


def _load(path: Path) -> Any:
    functions = ctypes.CDLL(str(path))
    for name, arguments in _SIGNATURES.items():
        function = getattr(functions, name)
        function.argtypes, function.restype = [_KINDS[kind] for kind in arguments], None
    return functions
