"""Does a concept become separable as the model thinks?

Task decodability (Han et al., arXiv 2412.12276, section 4): for every state, the majority vote of its k = 10 nearest neighbours
among all the others (leave-one-out) names its task; the share of right names. Beside it, the silhouette and a linear probe tested
on groups it has not seen; intervals by bootstrap, and what shuffled labels reach.

What the paper leaves open: the distance (Euclidean here) and ties of the vote (the smallest label). Predicting on the training
points themselves, as a public reimplementation does, inflates the number; so does a bootstrap that draws the same state twice
and lets it be its own neighbour, so the bootstrap here draws from the verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from latentweaver.errors import InputError
from latentweaver.inspect.trajectory import Trajectory


@dataclass(frozen=True)
class Decodability:
    """Task decodability of one set of states.

    Attributes:
        value: the share of states whose neighbours name their task.
        interval: 95 % bootstrap interval of it.
        by_task: the same for each label, in the order of `tasks`.
        tasks: the labels, sorted.
        predicted: what each state was taken for, `[items]`.
        null: mean and 95th percentile with labels shuffled; `p` is the share of shuffles that do as well.
        p: one-sided, at least 1 / (permutations + 1).
    """

    value: float
    interval: tuple[float, float]
    by_task: tuple[float, ...]
    tasks: tuple[int, ...]
    predicted: Int[ndarray, "items"]
    null: tuple[float, float]
    p: float


@dataclass(frozen=True)
class Separability:
    """How separable labels are at one step.

    Attributes:
        step: which one.
        decodability: by neighbours.
        silhouette: mean silhouette coefficient (Rousseeuw 1987), -1 to 1.
        probe: accuracy of a linear probe on groups that it was not trained on, and `probe_interval`.
    """

    step: int
    decodability: Decodability
    silhouette: float
    probe: float
    probe_interval: tuple[float, float]


def task_decodability(
    states: Float[ndarray, "items width"],
    labels: Int[ndarray, "items"],
    k: int = 10,
    groups: ndarray | None = None,
    permutations: int = 200,
    draws: int = 1000,
    seed: int = 0,
) -> Decodability:
    """The metric of arXiv 2412.12276, exactly, with an interval and a null.

    Args:
        states: one for each item.
        labels: whole numbers; the task of each item.
        k: neighbours that vote.
        groups: items that belong together (a prompt's tokens). They may not vote for one another, are drawn together in the
            bootstrap and shuffled together in the null.
        permutations: shuffles of the null; 0 for none.
        draws: of the bootstrap.

    Raises:
        InputError: shapes that do not fit, states that are not finite, fewer than two tasks, too few neighbours.
    """
    x, y = _checked(states, labels)
    names, y = np.unique(y, return_inverse=True)
    neighbours = _neighbours(x, k, groups)
    predicted = _vote(y[neighbours], len(names))
    right = predicted == y
    clusters = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    shuffled = np.array(
        [np.mean(_vote(fake[neighbours], len(names)) == fake) for fake in (_shuffled(y, clusters, rng) for _ in range(permutations))]
    )
    value = float(right.mean())
    return Decodability(
        value=value,
        interval=bootstrap(right.astype(float), clusters, draws, rng),
        by_task=tuple(float(right[y == task].mean()) for task in range(len(names))),
        tasks=tuple(names.tolist()),
        predicted=names[predicted],
        null=(float(shuffled.mean()), float(np.quantile(shuffled, 0.95))) if permutations else (math.nan, math.nan),
        p=float((1 + (shuffled >= value).sum()) / (permutations + 1)) if permutations else math.nan,
    )


def separability_by_step(
    states: Trajectory | Float[ndarray, "steps items width"],
    labels: Sequence[int] | Int[ndarray, "items"],
    groups: Sequence[int] | ndarray | None = None,
    steps: Sequence[int] | None = None,
    token: int = -1,
    k: int = 10,
    permutations: int = 200,
    seed: int = 0,
) -> list[Separability]:
    """How separable the labels are after each step.

    Args:
        states: one state per item and step; or a recording, whose rows are the items, looked at in one `token`.
        labels: one for each item.
        groups: prompts or templates that items share; the probe is tested on groups that it has not seen. Each item its own if None.
        steps: which kept steps to look at; all if None.
    """
    from sklearn.metrics import silhouette_score

    from latentweaver.inspect.probes import predictions

    if isinstance(states, Trajectory):
        if states.states is None:
            raise InputError("this recording kept no states; record with 'states' in keep")
        numbers = states.steps[: int(states.taken.min())]
        array = np.swapaxes(np.asarray(states.states[:, : len(numbers), token]), 0, 1)
    else:
        array = np.asarray(states)
        if array.ndim != 3:
            raise InputError(f"states must be [steps, items, width], got {array.shape}")
        numbers = np.arange(len(array))
    group = np.arange(array.shape[1]) if groups is None else np.asarray(groups)
    y = np.asarray(labels)
    out = []
    for index in range(len(array)) if steps is None else steps:
        x = array[index].astype(np.float64)
        decoded = task_decodability(x, y, k, None if groups is None else group, permutations, seed=seed)
        right = (predictions(x, y, group, seed=seed).argmax(-1) == np.unique(y, return_inverse=True)[1]).astype(float)
        spread = bool((x != x[0]).any())
        out.append(
            Separability(
                step=int(numbers[index]),
                decodability=decoded,
                silhouette=float(silhouette_score(x, y)) if spread else 0.0,
                probe=float(right.mean()),
                probe_interval=bootstrap(right, np.unique(group, return_inverse=True)[1], 1000, np.random.default_rng(seed)),
            )
        )
    return out


def bootstrap(
    values: Float[ndarray, "items"], clusters: Int[ndarray, "items"], draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """95 % percentile interval of the mean, drawing whole clusters (numbered from 0)."""
    count = int(clusters.max()) + 1
    sums = np.bincount(clusters, values, count)
    sizes = np.bincount(clusters, minlength=count)
    picks = rng.integers(count, size=(draws, count))
    means = sums[picks].sum(-1) / sizes[picks].sum(-1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def _checked(states: ndarray, labels: ndarray) -> tuple[ndarray, ndarray]:
    x, y = np.asarray(states, dtype=np.float64), np.asarray(labels)
    if x.ndim != 2 or y.shape != (len(x),):
        raise InputError(f"states must be [items, width] and labels [items], got {x.shape} and {y.shape}")
    if not np.isfinite(x).all():
        raise InputError("states are not finite")
    if len(np.unique(y)) < 2:
        raise InputError("one task only: there is nothing to tell apart")
    return x, y


def _neighbours(x: ndarray, k: int, groups: ndarray | None) -> Int[ndarray, "items k"]:
    """The k nearest of the others, nearer first and earlier first among equals; of other groups only, if given."""
    group = np.arange(len(x)) if groups is None else np.asarray(groups)
    out = []
    for start in range(0, len(x), 256):
        square = ((x[start : start + 256, None] - x[None]) ** 2).sum(-1)
        square[group[start : start + 256, None] == group[None]] = np.inf
        nearest = np.argsort(square, axis=-1, kind="stable")[:, :k]
        if nearest.shape[1] < k or not np.isfinite(np.take_along_axis(square, nearest, -1)).all():
            raise InputError(f"{k} neighbours are more than there are others to choose from")
        out.append(nearest)
    return np.concatenate(out)


def _vote(votes: Int[ndarray, "items k"], tasks: int) -> Int[ndarray, "items"]:
    counts = (votes[..., None] == np.arange(tasks)).sum(1)
    return counts.argmax(-1)  # the first of equals: the smallest label


def _shuffled(y: ndarray, clusters: ndarray, rng: np.random.Generator) -> ndarray:
    """Labels dealt anew, each cluster keeping one label if it had one."""
    first = np.zeros(int(clusters.max()) + 1, y.dtype)
    first[clusters] = y
    if (first[clusters] == y).all():
        return rng.permutation(first)[clusters]
    return rng.permutation(y)
