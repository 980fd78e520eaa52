"""A path in its principal components, beside the picture that chance would have drawn.

The principal components of a random walk are cosines (Karhunen and Loeve): drawn in pairs they make beautiful closed curves, with
6 / (pi k)^2 of the variance in the k-th. So a portrait comes with ghosts, random walks whose steps are as long as the path's own, and says
whether the path's spectrum of variances is among theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from latentweaver.errors import InputError


@dataclass(frozen=True)
class Portrait:
    """What is drawn, and its null.

    Attributes:
        points: coordinates of the states on the components, mean taken off, `[steps + 1, components]`.
        explained: the share of the variance along each, `[components]`.
        components: unit vectors, `[components, width]`.
        turns: how often the path winds round its mean in each plane (1-2, 3-4, ...), `[planes]`.
        ghost: one random walk with the same step lengths, on its own components, `[steps + 1, components]`.
        ghost_explained: 2.5th, 50th and 97.5th percentile over the ghosts, `[3, components]`.
        ghost_turns: the same for the turns, `[3, planes]`.
        like_a_walk: whether the first three shares all lie among the ghosts': then the picture shows nothing.
    """

    points: Float[ndarray, "steps+1 components"]
    explained: Float[ndarray, "components"]
    components: Float[ndarray, "components width"]
    turns: Float[ndarray, "planes"]
    ghost: Float[ndarray, "steps+1 components"]
    ghost_explained: Float[ndarray, "3 components"]
    ghost_turns: Float[ndarray, "3 planes"]
    like_a_walk: bool

    def caption(self) -> str:
        """What must be written beside the picture."""
        shares = ", ".join(f"{share:.1%}" for share in self.explained[:3])
        return f"components hold {shares} of the variance" + ("; indistinguishable from a random walk" if self.like_a_walk else "")


def draw_portrait(states: Float[ndarray, "steps+1 width"], components: int = 6, ghosts: int = 100, seed: int = 0) -> Portrait:
    """Principal components of one path and of `ghosts` random walks with its step lengths.

    Raises:
        InputError: fewer than 4 states, states that are not finite, or another shape.
    """
    x = np.asarray(states, np.float64)
    if x.ndim != 2 or len(x) < 4 or not np.isfinite(x).all():
        raise InputError(f"a portrait needs a path [steps + 1, width] of at least 4 finite states, got {list(x.shape)}")
    points, explained, vectors = _principal(x, components)
    count = len(explained)
    lengths = np.linalg.norm(np.diff(x, axis=0), axis=-1)
    rng = np.random.default_rng(seed)
    # directions of a walk in many dimensions are as good as orthogonal: more than 256 change nothing
    width = min(x.shape[1], 256)
    drawn, shares, turns = points, [], []
    for _ in range(ghosts):
        steps = rng.normal(size=(len(lengths), width))
        steps *= (lengths / np.linalg.norm(steps, axis=-1))[:, None]
        drawn, share, _ = _principal(np.concatenate([np.zeros((1, width)), steps.cumsum(0)]), components)
        shares.append(np.pad(share, (0, max(0, count - len(share))))[:count])
        turns.append(_turns(np.pad(drawn, ((0, 0), (0, max(0, count - drawn.shape[1]))))[:, :count]))
    band = np.quantile(shares, [0.025, 0.5, 0.975], axis=0)
    first = np.array(shares)[:, :3]
    inside = (first.min(0) <= explained[:3]) & (explained[:3] <= first.max(0))
    return Portrait(
        points, explained, vectors, _turns(points), drawn, band, np.quantile(turns, [0.025, 0.5, 0.975], axis=0), bool(inside.all())
    )


def _principal(x: ndarray, components: int) -> tuple[ndarray, ndarray, ndarray]:
    centred = x - x.mean(0)
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    count = min(components, len(values))
    total = float((values**2).sum()) or 1.0
    return left[:, :count] * values[:count], values[:count] ** 2 / total, right[:count]


def _turns(points: ndarray) -> Float[ndarray, "planes"]:
    planes = points.shape[1] // 2
    angle = np.arctan2(points[:, 1 : 2 * planes : 2], points[:, 0 : 2 * planes : 2])
    return np.abs(np.unwrap(angle, axis=0)[-1] - np.unwrap(angle, axis=0)[0]) / (2 * np.pi)
