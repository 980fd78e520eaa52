"""Arrays into text that a page carries: as exact as fits.

    blob, index = pack({"speed": Array(speed, "log"), "tokens": [{"text": "What"}]}, exact=False)

An array is stored as it is ("exact": float32 or whole numbers), or in 16 bits: 65,533 levels between the smallest and largest
value of each token, evenly spaced or ("log") with even ratios; zero, NaN and infinity have codes of their own, so that NaN stays NaN and
never becomes 0. What is no array goes along as JSON. The bytes of equal significance are put together (neighbours in time resemble one another) and everything is deflated and
written in base64; the page undoes it with the browser's own DecompressionStream.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

ZERO, NAN, INFINITE = 0, 65535, 65534
LEVELS = 65532
Rounding = Literal["linear", "log", "whole"]


@dataclass(frozen=True)
class Array:
    """Something to pack.

    Attributes:
        values: its first axis is the token.
        how: "linear" or "log" (values of at least 0) for what may be rounded; "whole" for whole numbers of at least 0, or NaN,
            which may not.
    """

    values: ndarray
    how: Rounding = "linear"


def pack(content: dict[str, Any], exact: bool) -> tuple[str, dict[str, dict[str, Any]]]:
    """Arrays, and plain data, as base64 of deflated bytes, and where each of them lies: its kind, shape and offset.

    Kinds: "f4"; "u1", "u2", "u4" (whole numbers plus one, 0 for NaN); "linear" and "log" are u2 codes after a table of float32 lows and highs for each token; "json" is text of that many bytes.
    """
    parts: list[bytes] = []
    index: dict[str, dict[str, Any]] = {}
    offset = 0
    for name, array in content.items():
        if not isinstance(array, Array):
            parts.append(json.dumps(array, separators=(",", ":")).encode())
            index[name] = {"kind": "json", "shape": [len(parts[-1])], "offset": offset}
            offset += len(parts[-1])
            continue
        values = np.asarray(array.values)
        if array.how == "whole":
            codes = np.where(np.isnan(values), 0, values + 1)  # 0 is NaN
            most = codes.max(initial=0)
            number = np.dtype("<u1" if most < 2**8 else "<u2" if most < 2**16 else "<u4")
            kind, data = number.str[1:], _shuffled(codes.astype(number))
        elif exact:
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
                kind, data = "f4", _shuffled(values.astype("<f4"))
        else:
            low, high, codes = encode(values, array.how == "log")
            kind, data = array.how, np.stack([low, high], 1).astype("<f4").tobytes() + _shuffled(codes)
        index[name] = {"kind": kind, "shape": list(values.shape), "offset": offset}
        parts.append(data)
        offset += len(data)
    return base64.b64encode(zlib.compress(b"".join(parts))).decode(), index


def encode(values: ndarray, logarithmic: bool) -> tuple[Float[ndarray, "tokens"], Float[ndarray, "tokens"], ndarray]:
    """Lows, highs and 16-bit codes. A code c in 1 .. 65533 stands for low + (c - 1) / 65532 (high - low), or its exponential."""
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.log(flat) if logarithmic else flat
    there = np.isfinite(scale)
    low = np.where(there, scale, np.inf).min(1, initial=np.inf)
    high = np.where(there, scale, -np.inf).max(1, initial=-np.inf)
    low, high = (np.where(np.isfinite(edge), edge, 0).astype("<f4").astype(np.float64) for edge in (low, high))
    span = np.where(high > low, high - low, 1)
    codes = np.clip(np.rint((np.where(there, scale, 0) - low[:, None]) / span[:, None] * LEVELS), 0, LEVELS) + 1
    codes = np.where(np.isnan(flat), NAN, np.where(np.isinf(flat), INFINITE, codes))
    if logarithmic:
        codes = np.where(flat == 0, ZERO, codes)
    return low, high, codes.reshape(values.shape).astype("<u2")


def _shuffled(values: ndarray) -> bytes:
    """All first bytes, then all second bytes, ...: what resembles its neighbours stands beside them."""
    raw = np.ascontiguousarray(values)
    return np.ascontiguousarray(raw.reshape(-1, 1).view(np.uint8).T).tobytes()
