"""Probes that cannot cheat.

A probe reads a label out of a state. Split by token instead of by prompt, it reaches AUROC 1.0 on labels drawn at random, because
tokens of one prompt are nearly copies; so here whole groups (prompts, templates) are held out, intervals are over groups, and
beside every number stand the ones that say what it is worth:

    shuffled     the same with labels dealt anew to the groups: should be 0.5
    text         a bag of words of the prompt: what needs no looking inside
    untrained    the states of a model with random weights, where given

A monitor needs more than AUROC: a threshold with at most 1 % false alarms, chosen on a calibration set of its own, its recall
there, and a flag for states unlike any that the probe was trained on (squared Mahalanobis distance beyond what 99 % of known states
keep), for which the score says nothing. No probe is a defence against a model trained to hide.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from latentweaver.errors import InputError
from latentweaver.inspect.separability import bootstrap

Splitter = Callable[[Int[ndarray, "items"], ndarray, int, int], list[tuple[ndarray, ndarray]]]


class LeakWarning(UserWarning):
    """Items of one group are on both sides of a split: what the probe reaches there is not to be believed."""


@dataclass(frozen=True)
class Score:
    """An AUROC with its 95 % bootstrap interval over groups."""

    auroc: float
    low: float
    high: float


@dataclass(frozen=True)
class ProbeReport:
    """What a probe reaches, and what its controls reach.

    Attributes:
        probe: on groups that were not trained on.
        shuffled: with labels dealt anew to the groups.
        text: a bag of words of the prompts; None without texts.
        length: the number of words alone; None without texts.
        untrained: on an untrained model's states; None without them.
        alarm: recall at 1 % false alarms, see `calibrated_recall`; None without enough negatives.
        items, groups: how many.
        leaking: groups that are on both sides of some split, or whose states are copies of another group's.
        scores: log-odds of each item, from a probe that did not see its group, `[items]`.
    """

    probe: Score
    shuffled: Score
    text: Score | None
    length: Score | None
    untrained: Score | None
    alarm: Alarm | None
    items: int
    groups: int
    leaking: int
    scores: Float[ndarray, "items"] = field(repr=False)


def probe(
    states: Float[ndarray, "items width"],
    labels: Sequence[int] | ndarray,
    groups: Sequence[object] | ndarray,
    texts: Sequence[str] | None = None,
    untrained: Float[ndarray, "items width"] | None = None,
    folds: int = 5,
    split: Splitter | None = None,
    seed: int = 0,
) -> ProbeReport:
    """Train and test a probe of a yes-or-no label, with its controls.

    Args:
        states: one for each item.
        labels: 0 or 1 for each item.
        groups: the prompt or template that each item comes from.
        texts: the prompt of each item, for the text-only control.
        untrained: the states of the same items in a model with random weights.
        folds: into how many parts the groups are split.
        split: another way to split, (labels, groups, folds, seed) to [(train, test)]; warned about if groups are on both sides.

    Raises:
        InputError: shapes that do not fit, labels other than 0 and 1, one label only, or too few groups.
    """
    x, y, group = _checked(states, labels, groups)
    splits = (split or group_folds)(y, group, folds, seed)
    leaking = leaks(splits, group, x)
    if leaking:
        warnings.warn(
            f"{leaking} groups are on both sides of a split, or are copies of one another: the probe may know the answers", LeakWarning, 2
        )
    rng = np.random.default_rng(seed)

    def score(features: ndarray, target: ndarray) -> tuple[Score, ndarray]:
        logits = cross_scores(features, target, splits)
        return auroc(target, logits, group), logits

    result, scores = score(x, y)
    fake = np.mean([score(x, deal(y, group, rng))[0].auroc for _ in range(3)])
    shuffled = score(x, deal(y, group, rng))[0]
    shuffled = Score(float((3 * fake + shuffled.auroc) / 4), shuffled.low, shuffled.high)
    words = None if texts is None else bag_of_words(texts)
    return ProbeReport(
        probe=result,
        shuffled=shuffled,
        text=None if words is None else score(words, y)[0],
        length=None if texts is None else score(np.array([[len(text.split())] for text in texts], float), y)[0],
        untrained=None if untrained is None else score(np.asarray(untrained, np.float64), y)[0],
        alarm=calibrated_recall(x, y, group, seed=seed),
        items=len(y),
        groups=len(np.unique(group)),
        leaking=leaking,
        scores=scores,
    )


def probe_by_step(
    states: Float[ndarray, "steps items width"],
    labels: Sequence[int] | ndarray,
    groups: Sequence[object] | ndarray,
    folds: int = 5,
    seed: int = 0,
) -> dict[str, list[Score]]:
    """AUROC after each step ("step"), and of poolings over all steps: "mean", "last", "max" (the highest score) and "early"
    (the first quarter's mean state); each pooling is a list of one."""
    x = np.asarray(states, np.float64)
    if x.ndim != 3:
        raise InputError(f"states must be [steps, items, width], got {x.shape}")
    _, y, group = _checked(x[0], labels, groups)
    splits = group_folds(y, group, folds, seed)
    logits = [cross_scores(step, y, splits) for step in x]
    pools = {
        "mean": cross_scores(x.mean(0), y, splits),
        "last": logits[-1],
        "max": np.max([_standardised(one) for one in logits], 0),
        "early": cross_scores(x[: max(1, len(x) // 4)].mean(0), y, splits),
    }
    return {"step": [auroc(y, one, group) for one in logits]} | {name: [auroc(y, one, group)] for name, one in pools.items()}


@dataclass(frozen=True)
class Monitor:
    """A trained probe that knows its false alarms and its limits.

    Attributes:
        weights, bias: log-odds = weights . state + bias.
        threshold: above it the alarm goes off.
        centre, precision: mean and inverse covariance of the known states, in the directions `basis`.
        limit: squared Mahalanobis distance that 99 % of known states keep.
    """

    weights: Float[ndarray, "width"]
    bias: float
    threshold: float
    centre: Float[ndarray, "width"]
    basis: Float[ndarray, "directions width"]
    precision: Float[ndarray, "directions directions"]
    limit: float

    def scores(self, states: Float[ndarray, "items width"]) -> Float[ndarray, "items"]:
        return np.asarray(states, np.float64) @ self.weights + self.bias

    def alarms(self, states: Float[ndarray, "items width"]) -> Bool[ndarray, "items"]:
        return self.scores(states) > self.threshold

    def abstains(self, states: Float[ndarray, "items width"]) -> Bool[ndarray, "items"]:
        """Whether a state is unlike what the probe was trained on, so that its score says nothing."""
        return _distance(np.asarray(states, np.float64), self.centre, self.basis, self.precision) > self.limit


def train_monitor(
    states: Float[ndarray, "items width"],
    labels: Sequence[int] | ndarray,
    calibration_negatives: Float[ndarray, "negatives width"],
    false_alarms: float = 0.01,
) -> Monitor:
    """A logistic probe whose threshold lets through `false_alarms` of the calibration set's negatives, states it was not trained on.

    The threshold is the conformal quantile, the ceil((n + 1)(1 - a))-th smallest score, which keeps the rate at or below a on average.

    Raises:
        InputError: fewer negatives than the rate can be told with (1 / false_alarms), or shapes that do not fit.
    """
    x, y, _ = _checked(states, labels, np.arange(len(states)))
    negatives = np.asarray(calibration_negatives, np.float64)
    if negatives.ndim != 2 or negatives.shape[1] != x.shape[1]:
        raise InputError(f"calibration_negatives must be [negatives, {x.shape[1]}], got {negatives.shape}")
    rank = math.ceil((len(negatives) + 1) * (1 - false_alarms))
    if rank > len(negatives):
        raise InputError(
            f"{len(negatives)} negatives cannot set a rate of {false_alarms}; at least {math.ceil(1 / false_alarms)} are needed"
        )
    weights, bias = _fit(x, y)
    # fewer directions than a tenth of the items, so that the covariance is known well
    count = max(1, min(32, x.shape[1], len(x) // 10))
    centre = x.mean(0)
    basis = np.linalg.svd(x - centre, full_matrices=False)[2][:count]
    inside = (x - centre) @ basis.T
    precision = np.linalg.pinv(np.cov(inside, rowvar=False).reshape(count, count))
    # the limit comes from states that the mean and covariance were not fitted to
    known = _distance(negatives, centre, basis, precision)
    return Monitor(
        weights, bias, float(np.sort(negatives @ weights + bias)[rank - 1]), centre, basis, precision, float(np.quantile(known, 0.99))
    )


@dataclass(frozen=True)
class Alarm:
    """What an alarm with at most `rate` false alarms is worth on groups that it has not seen.

    Attributes:
        recall: the share of positives that raise it, and its 95 % bootstrap interval over groups.
        false_alarms: the share of negatives that do.
        abstains: the share of items too unlike the training states for their score to mean anything.
        calibration: how many negatives set the threshold.
    """

    recall: float
    low: float
    high: float
    false_alarms: float
    abstains: float
    calibration: int


def calibrated_recall(
    states: Float[ndarray, "items width"], labels: Int[ndarray, "items"], groups: ndarray, rate: float = 0.01, seed: int = 0
) -> Alarm | None:
    """Train on half of the groups, set the threshold on the negatives of a quarter, and measure on the last quarter.

    None where a quarter holds too few negatives to set a rate of 1 in 1 / rate, or one side lacks a label.
    """
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    half, quarter = len(names) // 2, len(names) // 4
    train, calibration, test = (np.isin(groups, part) for part in (names[:half], names[half : half + quarter], names[half + quarter :]))
    negatives = states[calibration & (labels == 0)]
    yes, no = test & (labels == 1), test & (labels == 0)
    enough = math.ceil((len(negatives) + 1) * (1 - rate)) <= len(negatives)
    if not enough or len(np.unique(labels[train])) < 2 or not yes.any() or not no.any():
        return None
    monitor = train_monitor(states[train], labels[train], negatives, rate)
    caught = monitor.alarms(states[yes]).astype(float)
    low, high = bootstrap(caught, np.unique(groups[yes], return_inverse=True)[1], 1000, np.random.default_rng(seed))
    return Alarm(
        float(caught.mean()),
        low,
        high,
        float(monitor.alarms(states[no]).mean()),
        float(monitor.abstains(states[test]).mean()),
        len(negatives),
    )


def group_folds(labels: Int[ndarray, "items"], groups: ndarray, folds: int = 5, seed: int = 0) -> list[tuple[ndarray, ndarray]]:
    """(train, test) items, whole groups on one side, labels spread evenly over the folds."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(folds, len(np.unique(groups)))
    if folds < 2:
        raise InputError("a probe needs at least 2 groups, one to train on and one to test on")
    return list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels, groups))


def random_folds(labels: Int[ndarray, "items"], groups: ndarray, folds: int = 5, seed: int = 0) -> list[tuple[ndarray, ndarray]]:
    """(train, test) items at random, groups torn apart: wrong for anything but showing how wrong it is."""
    order = np.array_split(np.random.default_rng(seed).permutation(len(labels)), folds)
    return [(np.concatenate([part for j, part in enumerate(order) if j != i]), order[i]) for i in range(folds)]


def leaks(splits: list[tuple[ndarray, ndarray]], groups: ndarray, states: Float[ndarray, "items width"]) -> int:
    """How many groups are on both sides of a split, by name or because a state is a copy of one in another group."""
    found: set[object] = set()
    copies = np.unique(states, axis=0, return_inverse=True)[1].ravel()
    for train, test in splits:
        found |= set(groups[train].tolist()) & set(groups[test].tolist())
        found |= set(groups[test][np.isin(copies[test], copies[train])].tolist())
    return len(found)


def cross_scores(
    features: Float[ndarray, "items width"], labels: ndarray, splits: list[tuple[ndarray, ndarray]]
) -> Float[ndarray, "items"]:
    """Log-odds of every item from a logistic probe that was not trained on its fold, standardised fold by fold."""
    out = np.zeros(len(labels))
    for train, test in splits:
        if len(np.unique(labels[train])) < 2:
            continue
        weights, bias = _fit(features[train], labels[train])
        fitted = features[train] @ weights + bias
        out[test] = (features[test] @ weights + bias - fitted.mean()) / (fitted.std() or 1.0)
    return out


def predictions(
    states: Float[ndarray, "items width"], labels: ndarray, groups: ndarray, folds: int = 5, seed: int = 0
) -> Float[ndarray, "items classes"]:
    """Probabilities of each class for every item, from a linear probe that has not seen its group."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names, y = np.unique(labels, return_inverse=True)
    counts = np.bincount(y)
    out = np.tile(counts / counts.sum(), (len(y), 1))
    for train, test in group_folds(y, groups, folds, seed):
        present = np.unique(y[train])
        if len(present) < 2:
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        model.fit(states[train], y[train])
        out[test] = 0
        out[np.ix_(test, present)] = model.predict_proba(states[test])
    return out[:, : len(names)]


def auroc(labels: ndarray, scores: Float[ndarray, "items"], groups: ndarray, draws: int = 500, seed: int = 0) -> Score:
    """Area under the ROC curve, by ranks (Mann-Whitney), with an interval from drawing whole groups."""
    value = _auroc(labels, scores)
    number = np.unique(groups, return_inverse=True)[1]
    members = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        items = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        if 0 < labels[items].sum() < len(items):
            drawn.append(_auroc(labels[items], scores[items]))
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (math.nan, math.nan)
    return Score(value, float(low), float(high))


def bag_of_words(texts: Sequence[str], most: int = 2000) -> Float[ndarray, "texts words"]:
    """Which of the `most` commonest words and word pairs each text has."""
    from sklearn.feature_extraction.text import CountVectorizer

    try:
        counts: Any = CountVectorizer(binary=True, ngram_range=(1, 2), max_features=most, token_pattern=r"\S+").fit_transform(texts)
    except ValueError:  # no words at all
        return np.zeros((len(texts), 1))
    return counts.toarray().astype(np.float64)


def _auroc(labels: ndarray, scores: ndarray) -> float:
    positive = int(labels.sum())
    negative = len(labels) - positive
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # equal scores share the mean of their ranks
    return float((ranks[labels == 1].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _fit(x: ndarray, y: ndarray) -> tuple[ndarray, float]:
    """Logistic regression on standardised features, as weights on the raw ones."""
    from sklearn.linear_model import LogisticRegression

    centre, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    model = LogisticRegression(C=0.1, max_iter=500, class_weight="balanced").fit((x - centre) / scale, y)
    weights = model.coef_[0] / scale
    return weights, float(model.intercept_[0] - centre @ weights)


def _standardised(x: ndarray) -> ndarray:
    return (x - x.mean()) / (x.std() or 1.0)


def _distance(x: ndarray, centre: ndarray, basis: ndarray, precision: ndarray) -> Float[ndarray, "items"]:
    """Squared Mahalanobis distance in the known directions, plus what lies outside them, in units of the smallest known variance."""
    away = x - centre
    inside = away @ basis.T
    outside = np.maximum((away**2).sum(-1) - (inside**2).sum(-1), 0)
    smallest = np.linalg.eigvalsh(precision).max()
    return np.einsum("ni,ij,nj->n", inside, precision, inside) + outside * smallest / max(1, x.shape[1] - len(basis))


def deal(y: Int[ndarray, "items"], group: ndarray, rng: np.random.Generator) -> Int[ndarray, "items"]:
    """Labels dealt anew: to whole groups where a group has one label, else to items."""
    names, number = np.unique(group, return_inverse=True)
    first = np.zeros(len(names), y.dtype)
    first[number] = y
    return rng.permutation(first)[number] if (first[number] == y).all() else rng.permutation(y)


def _checked(states: ndarray, labels: Sequence[int] | ndarray, groups: Sequence[object] | ndarray) -> tuple[ndarray, ndarray, ndarray]:
    x, y, group = np.asarray(states, dtype=np.float64), np.asarray(labels), np.asarray(groups)
    if x.ndim != 2 or y.shape != (len(x),) or group.shape != (len(x),):
        raise InputError(f"states must be [items, width], labels and groups [items]; got {x.shape}, {y.shape} and {group.shape}")
    if not np.isfinite(x).all():
        raise InputError(f"{int((~np.isfinite(x).all(-1)).sum())} states are not finite")
    if set(np.unique(y).tolist()) != {0, 1}:
        raise InputError(f"labels must be 0 and 1, and both there; got {np.unique(y)[:5].tolist()}")
    return x, y.astype(np.int64), group
