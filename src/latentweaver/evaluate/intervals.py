"""How sure a share is: Wilson's score interval (Wilson 1927), which stays inside [0, 1] and is honest at 0 and at 1."""

from __future__ import annotations

import math

from latentweaver.errors import InputError


def wilson(right: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The interval of a share of `right` in `count`; z = 1.96 for 95 %.

    centre = (p + z^2/2n) / (1 + z^2/n), half = z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n)

    Raises:
        InputError: a count below 1, or a share outside [0, 1].
    """
    if count < 1 or not 0 <= right <= count:
        raise InputError(f"need 0 <= right <= count and count at least 1, got {right} of {count}")
    share, square = right / count, z * z / count
    centre = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return max(0.0, centre - half), min(1.0, centre + half)
