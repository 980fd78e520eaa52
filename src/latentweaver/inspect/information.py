"""How many bits about a label a thought carries, from below.

    I(Y; X) >= H(Y) - CE,   CE = mean of -log2 q(y | x) on items whose groups the probe q has not seen

(the variational bound of Barber and Agakov 2003; with a limited probe, the usable information of Xu et al., arXiv 2002.10689). It is
a lower bound: what a linear probe cannot read is not counted, and too few items lower it further. How much lower, `calibrate_bits`
measures on channels of the same size whose information is known exactly.

Beside it belongs what a written chain of thought spends on the same: the bits of its tokens (`token_bits`), and what a bag of its words says
about the label (`bits_about(bag_of_words(chains), ...)`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from latentweaver.errors import InputError
from latentweaver.inspect.probes import group_folds
from latentweaver.inspect.separability import bootstrap


@dataclass(frozen=True)
class Information:
    """A lower bound on the bits about a label.

    Attributes:
        bits: the bound; negative if the probe does worse than knowing only how common each label is.
        low, high: 95 % bootstrap interval over groups.
        entropy: H(Y) in bits, the most there is.
        accuracy: of the probe, on unseen groups.
        items, classes: how many.
    """

    bits: float
    low: float
    high: float
    entropy: float
    accuracy: float
    items: int
    classes: int


@dataclass(frozen=True)
class Calibration:
    """What the estimator says of channels whose information is known, `[channels]` each; bias = mean of estimate - true, worst = the largest."""

    true: Float[ndarray, "channels"]
    estimated: Float[ndarray, "channels"]
    bias: float
    worst: float


def bits_about(
    states: Float[ndarray, "items width"],
    labels: Sequence[int] | ndarray,
    groups: Sequence[object] | ndarray | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Information:
    """Bits about the label in the states, from below.

    Args:
        states: one for each item.
        labels: the class of each item.
        groups: the prompt or template of each; every item its own if None.

    Raises:
        InputError: shapes that do not fit, states that are not finite, or a single class.
    """
    x, y = np.asarray(states, dtype=np.float64), np.asarray(labels)
    if x.ndim != 2 or y.shape != (len(x),):
        raise InputError(f"states must be [items, width] and labels [items], got {x.shape} and {y.shape}")
    if not np.isfinite(x).all():
        raise InputError("states are not finite")
    names, y = np.unique(y, return_inverse=True)
    if len(names) < 2:
        raise InputError("one class only: there is nothing to know")
    group = np.arange(len(x)) if groups is None else np.asarray(groups)
    share = np.bincount(y) / len(y)
    q = np.tile(share, (len(y), 1))
    for train, test in group_folds(y, group, folds, seed):
        q[test] = _probabilities(x[train], y[train], group[train], x[test], len(names), seed)
    gain = np.log2(q[np.arange(len(y)), y]) - np.log2(share[y])
    low, high = bootstrap(gain, np.unique(group, return_inverse=True)[1], 1000, np.random.default_rng(seed))
    entropy = float(-(share * np.log2(share)).sum())
    return Information(float(gain.mean()), low, high, entropy, float((q.argmax(-1) == y).mean()), len(y), len(names))


def channel(
    bits: float, classes: int, items: int, width: int, seed: int = 0, spread: float = 0.05
) -> tuple[Float[ndarray, "items width"], Int[ndarray, "items"]]:
    """States that carry exactly `bits` about uniform labels: a symmetric channel sends each label, or with some probability another one, as
    one of `classes` far-apart points of the space.

    I = log2 K - h(e) - e log2(K - 1), for K classes and error probability e.

    Raises:
        InputError: bits outside [0, log2 classes], or a width too small for that many points.
    """
    if not 0 <= bits <= math.log2(classes) + 1e-12 or width < classes:
        raise InputError(
            f"a channel of {classes} classes carries 0 to {math.log2(classes):.2f} bits in at least {classes} dimensions; got {bits} in {width}"
        )
    low, high = 0.0, 1 - 1 / classes
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _symmetric(middle, classes) > bits else (low, middle)
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=items)
    sent = np.where(rng.random(items) < low, (labels + rng.integers(1, classes, size=items)) % classes, labels)
    points = np.linalg.qr(rng.normal(size=(width, classes)))[0].T
    return points[sent] + spread * rng.normal(size=(items, width)) / math.sqrt(width), labels


def blurred_channel(
    bits: float, classes: int, items: int, width: int, seed: int = 0
) -> tuple[Float[ndarray, "items width"], Int[ndarray, "items"]]:
    """States that carry `bits` about uniform labels: orthogonal points, one for each class, in normal noise of equal size in every direction.

    The noise that leaves so many bits is found by bisection, the bits of a noise from 20,000 draws (standard error below 0.01).

    Raises:
        InputError: bits outside 0 to log2 classes, both excluded, or a width too small for that many points.
    """
    if not 0 < bits < math.log2(classes) or width < classes:
        raise InputError(
            f"a blurred channel of {classes} classes carries between 0 and {math.log2(classes):.2f} bits in at least {classes} dimensions; got {bits} in {width}"
        )
    trial = np.random.default_rng(0).normal(size=(20_000, classes))

    def known(noise: float) -> float:
        away = trial / noise
        away[:, 0] += 1 / noise**2  # the log-likelihood of each class, if the first was sent
        return math.log2(classes) - float(np.log2(np.exp(away - away[:, :1]).sum(-1)).mean())

    low, high = 1e-2, 1e2
    for _ in range(50):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if known(middle) > bits else (low, middle)
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=items)
    points = np.linalg.qr(rng.normal(size=(width, classes)))[0].T
    return points[labels] + low * rng.normal(size=(items, width)), labels


def calibrate_bits(classes: int, items: int, width: int, channels: int = 5, seed: int = 0) -> Calibration:
    """The bias of `bits_about` for this many classes, items and dimensions, on channels from no to all information.

    Channels of two kinds: `channel`, whose states say one thing clearly, and `blurred_channel`, whose classes overlap in every direction, as
    an estimate from few items likes least.
    """
    true = np.linspace(0, math.log2(classes), channels)
    inner = true[1:-1]
    drawn = [channel(bits, classes, items, width, seed + i) for i, bits in enumerate(true)]
    drawn += [blurred_channel(bits, classes, items, width, seed + i) for i, bits in enumerate(inner)]
    estimated, true = np.array([bits_about(*one, seed=seed).bits for one in drawn]), np.concatenate([true, inner])
    off = estimated - true
    return Calibration(true, estimated, float(off.mean()), float(off[np.abs(off).argmax()]))


def token_bits(logprobs: Float[ndarray, "tokens"]) -> float:
    """The bits that a chain of tokens spends: the sum of -log2 p, from natural log-probabilities."""
    return float(-np.asarray(logprobs, dtype=np.float64).sum() / math.log(2))


def _symmetric(error: float, classes: int) -> float:
    h = 0.0 if error in (0.0, 1.0) else -error * math.log2(error) - (1 - error) * math.log2(1 - error)
    return math.log2(classes) - h - error * math.log2(max(1, classes - 1))


def _probabilities(x: ndarray, y: ndarray, group: ndarray, fresh: ndarray, classes: int, seed: int) -> Float[ndarray, "fresh classes"]:
    """A linear probe's probabilities; how much it is held back is chosen on groups of the training items set aside."""
    fit, check = group_folds(y, group, 4, seed)[0]

    def cross_entropy(strength: float) -> float:
        q = _softmax_probe(x[fit], y[fit], x[check], classes, strength)
        return float(-np.log(q[np.arange(len(check)), y[check]]).mean())

    strength = min((1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0), key=cross_entropy)
    return _softmax_probe(x, y, fresh, classes, strength)


def _softmax_probe(x: ndarray, y: ndarray, fresh: ndarray, classes: int, strength: float) -> ndarray:
    from sklearn.linear_model import LogisticRegression

    centre, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    share = (np.bincount(y, minlength=classes) + 0.5) / (len(y) + 0.5 * classes)
    q = np.tile(share, (len(fresh), 1))
    present = np.unique(y)
    if len(present) > 1:
        model = LogisticRegression(C=strength, max_iter=500).fit((x - centre) / scale, y)
        q[:, present] = model.predict_proba((fresh - centre) / scale)
    floor = 1 / (len(y) + classes)  # never surer than the number of items allows
    return (1 - floor) * q / q.sum(-1, keepdims=True) + floor * share
