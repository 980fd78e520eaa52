"""A probe after each step, with its controls beside it: a table that says from which step on something can be read.

For a label with two values the number is an AUROC, for one with more the accuracy; both on groups that the probe was not trained on,
with a 95 % interval over groups. Beside it the same probe on labels dealt anew, on a bag of the text's words, on its length alone,
and on the states of an untrained model. For two values also the recall at 1 % false alarms: trained on one half of the groups, its
threshold set on a quarter, and both rates measured on the last quarter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from latentweaver.errors import InputError
from latentweaver.inspect.probes import Alarm, auroc, bag_of_words, calibrated_recall, cross_scores, deal, group_folds, leaks, predictions
from latentweaver.inspect.separability import bootstrap


@dataclass(frozen=True)
class Reading:
    """A number and its 95 % interval over groups."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class StepReading:
    """What a probe reads after one step, and what its controls read."""

    step: int
    probe: Reading
    shuffled: Reading
    untrained: Reading | None
    alarm: Alarm | None


@dataclass(frozen=True)
class ProbeTable:
    """A probe after each step.

    Attributes:
        metric: "AUROC" for two classes, "accuracy" for more.
        classes: the labels, in order; of two, the second is what the probe says yes to.
        rows: one for each step.
        text, length: a bag of the text's words and its number of words, which need no looking inside; None without texts.
        chance: 0.5 for an AUROC, the share of the commonest label for an accuracy.
        items, groups: how many.
        leaking: groups on both sides of a split, or with states that are copies of another group's at the last step.
    """

    metric: Literal["AUROC", "accuracy"]
    classes: tuple[str, ...]
    rows: tuple[StepReading, ...]
    text: Reading | None
    length: Reading | None
    chance: float
    items: int
    groups: int
    leaking: int

    @property
    def readable_from(self) -> int | None:
        """The first step from which on the probe stays above every control: its interval begins above where theirs end."""
        good = [row.probe.low > max(self.chance, *(one.high for one in self._controls(row))) for row in self.rows]
        if not good[-1]:
            return None
        last_bad = max((i for i, one in enumerate(good) if not one), default=-1)
        return self.rows[last_bad + 1].step

    def _controls(self, row: StepReading) -> list[Reading]:
        return [one for one in (row.shuffled, row.untrained, self.text, self.length) if one is not None]

    def columns(self) -> list[list[str]]:
        """The table as text, its head first."""
        lines = [["step", self.metric, "labels dealt anew", "untrained model", "text only", "length only", "recall at 1 %", "false alarms"]]
        for row in self.rows:
            alarm = row.alarm
            recall = "-" if alarm is None else f"{alarm.recall:.2f} [{alarm.low:.2f}, {alarm.high:.2f}]"
            seen = "-" if alarm is None else f"{alarm.false_alarms:.3f}"
            controls = [row.shuffled, row.untrained, self.text, self.length]
            lines.append([str(row.step), str(row.probe), *("-" if one is None else str(one) for one in controls), recall, seen])
        kept = [i for i in range(len(lines[0])) if any(line[i] != "-" for line in lines[1:])]
        return [[line[i] for i in kept] for line in lines]

    def __str__(self) -> str:
        lines = self.columns()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines)

    def to_json(self, path: str | Path | None = None, **notes: Any) -> str:
        """The table as JSON, with whatever else should be remembered; written to `path` if given."""
        text = json.dumps({**notes, **asdict(self), "readable_from": self.readable_from}, indent=1)
        if path is not None:
            Path(path).write_text(text + "\n")
        return text


def probe_steps(
    states: Float[ndarray, "steps items width"],
    labels: Sequence[Any] | ndarray,
    groups: Sequence[object] | ndarray,
    steps: Sequence[int] | None = None,
    texts: Sequence[str] | None = None,
    untrained: Float[ndarray, "steps items width"] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> ProbeTable:
    """Train and test a probe after each step, with its controls.

    Args:
        states: one for each step and item.
        labels: what is true of each item.
        groups: the prompt or template that each comes from.
        steps: the number of each step; 0, 1, 2, ... if None.
        texts: of each item, for the text-only controls.
        untrained: the states of the same items in a model with random weights.
        folds: into how many parts the groups are split.

    Raises:
        InputError: shapes that do not fit, states that are not finite, a single label, or too few groups.
    """
    x = np.asarray(states, np.float64)
    steps = list(range(len(x))) if steps is None else list(steps)
    if x.ndim != 3 or len(steps) != len(x) or len(labels) != x.shape[1] or len(groups) != x.shape[1]:
        raise InputError(
            f"states must be [steps, items, width], with a number for each step and a label and group for each item; got {x.shape}, "
            f"{len(steps)} steps, {len(labels)} labels and {len(groups)} groups"
        )
    if not np.isfinite(x).all():
        raise InputError(f"states are not finite at step {steps[int((~np.isfinite(x).all((1, 2))).argmax())]}")
    names, y = np.unique(np.asarray(labels), return_inverse=True)
    if len(names) < 2:
        raise InputError(f"every item has the label {names[0]!r}: there is nothing to tell apart")
    group = np.unique(np.asarray([str(one) for one in groups]), return_inverse=True)[1]
    splits = group_folds(y, group, folds, seed)
    dealt = deal(y, group, np.random.default_rng(seed))
    two = len(names) == 2

    def read(features: ndarray, target: ndarray) -> Reading:
        return _auroc(features, target, group, splits) if two else _accuracy(features, target, group, folds, seed)

    rows = []
    for place, step in enumerate(steps):
        rows.append(
            StepReading(
                step=step,
                probe=read(x[place], y),
                shuffled=read(x[place], dealt),
                untrained=None if untrained is None else read(np.asarray(untrained[place], np.float64), y),
                alarm=calibrated_recall(x[place], y, group, seed=seed) if two else None,
            )
        )
    counted = None if texts is None else np.array([[len(text), len(text.split())] for text in texts], float)
    return ProbeTable(
        metric="AUROC" if two else "accuracy",
        classes=tuple(str(name) for name in names.tolist()),
        rows=tuple(rows),
        text=None if texts is None else read(bag_of_words(texts), y),
        length=None if counted is None else read(counted, y),
        chance=0.5 if two else float(np.bincount(y).max() / len(y)),
        items=len(y),
        groups=len(np.unique(group)),
        leaking=leaks(splits, group, x[-1]),
    )


def draw_probe_table(table: ProbeTable, path: str | Path, title: str = "") -> Path:
    """Draw a table: the probe over steps with its interval, and its controls. The suffix says what to write: .png or .svg.

    Raises:
        InputError: if the suffix is another, or matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise InputError(f"cannot write {path.name}: a plot is .png or .svg")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(7, 4))
    axis: Any = figure.subplots()
    places = [row.step for row in table.rows]
    curves = {"probe": [row.probe for row in table.rows], "labels dealt anew": [row.shuffled for row in table.rows]}
    if table.rows[0].untrained is not None:
        curves["untrained model"] = [row.untrained for row in table.rows if row.untrained is not None]
    for name, one in (("text only", table.text), ("length only", table.length)):
        if one is not None:
            curves[name] = [one] * len(places)
    colours = ("#0072b2", "#7f7f7f", "#d55e00", "#009e73", "#cc79a7")  # Okabe and Ito: told apart by everyone
    for (name, curve), colour, style in zip(curves.items(), colours, ("-", ":", "--", "-.", (0, (1, 3))), strict=False):
        axis.plot(places, [one.value for one in curve], color=colour, linestyle=style, label=name, marker="o" if name == "probe" else None)
        axis.fill_between(places, [one.low for one in curve], [one.high for one in curve], color=colour, alpha=0.15, linewidth=0)
    axis.axhline(table.chance, color="black", linewidth=0.5)
    axis.set(xlabel="step", ylabel=table.metric, ylim=(-0.02, 1.02), title=title)
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    figure.savefig(path, bbox_inches="tight", dpi=150)
    return path


def _auroc(features: ndarray, y: Int[ndarray, "items"], group: ndarray, splits: list[tuple[ndarray, ndarray]]) -> Reading:
    score = auroc(y, cross_scores(features, y, splits), group)
    return Reading(score.auroc, score.low, score.high)


def _accuracy(features: ndarray, y: Int[ndarray, "items"], group: ndarray, folds: int, seed: int) -> Reading:
    right = (predictions(features, y, group, folds, seed).argmax(-1) == y).astype(float)
    return Reading(float(right.mean()), *bootstrap(right, group, 1000, np.random.default_rng(seed)))
