"""Texts with a label and a group, and the states that a model has after each step at the end of each text.

    {"text": "Paris is in France.", "label": true, "group": "capitals"}

A group is the prompt or template that a text comes from: what shares one must not be on both sides of a split. Left out, equal texts
are a group.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from latentweaver.errors import InputError
from latentweaver.inspect.recorder import record
from latentweaver.tasks.problem import Task, draw
from latentweaver.thought import Reasoner


@dataclass(frozen=True)
class Labelled:
    """A text, what is true of it, and where it comes from."""

    text: str
    label: Any
    group: str


def read_labelled(path: str | Path) -> list[Labelled]:
    """The items of a JSON-lines file.

    Raises:
        InputError: a file that cannot be read, or a line without a text and a label; the message has its number.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    items = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(fields, dict) or not isinstance(fields.get("text"), str) or not fields["text"] or "label" not in fields:
            raise InputError(
                f'{path}, line {number} must be {{"text": "...", "label": ..., "group": "..."}} with a text in it, got {line[:80]!r}'
            )
        if not isinstance(fields["label"], bool | int | str):
            raise InputError(f"{path}, line {number}: a label is a whole number, a text, true or false, got {fields['label']!r}")
        items.append(Labelled(fields["text"], fields["label"], str(fields.get("group", fields["text"]))))
    if not items:
        raise InputError(f"{path} holds no items")
    if len(kinds := {type(item.label).__name__ for item in items}) > 1:
        raise InputError(f"the labels of {path} are of several kinds: {', '.join(sorted(kinds))}")
    return items


def known_on_the_way(task: Task, depth: int, count: int, seed: int = 0) -> list[Labelled]:
    """Problems cut off where a value that takes `depth` steps to work out has become known; the label is that value.

    One place of each problem, drawn from the task's hints on the test side, the value never being shown in the text.

    Raises:
        InputError: a task without hints, or a depth that it does not have.
    """
    rng = random.Random(f"known on the way {task.name} {depth} {seed}")
    low, high = task.difficulties
    items: list[Labelled] = []
    for _ in range(20 * count):
        if len(items) == count:
            break
        problem = draw(task, "test", min(max(depth + 1, low), high), rng)
        if not problem.hints:
            raise InputError(f"{task.name} says nothing about values on the way to its answer; write texts and labels to a file")
        places = [hint for hint in problem.hints if hint.depth == depth and hint.place < len(problem.prompt) - 1]
        if places:
            hint = rng.choice(places)
            items.append(Labelled(problem.prompt[: hint.place + 1], hint.value, problem.prompt))
    if len(items) < count:
        raise InputError(f"{task.name} has too few values that are {depth} deep; difficulties are {low} to {high}")
    return items


@torch.no_grad()
def states_after(
    model: Reasoner, encode: Callable[[str], Sequence[int]], texts: Sequence[str], steps: Sequence[int], batch_size: int = 32
) -> Float[ndarray, "steps texts width"]:
    """The state of each text's last token after each of `steps` (0: before any thinking).

    Args:
        model: any reasoner.
        encode: from a text to its tokens.
        texts: none of them empty.
        steps: which steps, in rising order.
        batch_size: texts that are thought about together, padded on the left.

    Raises:
        InputError: no texts or steps, or a text without tokens.
    """
    if not len(texts) or not len(steps) or min(steps) < 0 or list(steps) != sorted(set(steps)):
        raise InputError(f"need texts, and steps from 0 in rising order; got {len(texts)} texts and steps {list(steps)}")
    tokens = [list(encode(text)) for text in texts]
    if empty := [text for text, ids in zip(texts, tokens, strict=True) if not ids]:
        raise InputError(f"{empty[0]!r} has no tokens")
    order = sorted(range(len(texts)), key=lambda index: len(tokens[index]))
    device = next(model.parameters()).device if isinstance(model, torch.nn.Module) else torch.device("cpu")
    out: ndarray | None = None
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        longest = max(len(tokens[row]) for row in rows)
        ids, mask = torch.zeros(2, len(rows), longest, dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, longest - len(tokens[row]) :] = torch.tensor(tokens[row])
            mask[place, longest - len(tokens[row]) :] = 1
        found = record(model, ids.to(device), mask.to(device), steps=max(1, *steps), tokens=-1).states
        assert found is not None, "states are what record keeps by default"
        if out is None:
            out = np.empty((len(steps), len(texts), found.shape[-1]))
        out[:, rows] = found[:, list(steps), 0].swapaxes(0, 1)
    assert out is not None, "there is at least one text"
    return out
