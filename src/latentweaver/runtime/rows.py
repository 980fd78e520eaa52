"""Rows of many requests put together for one call of the model, and taken apart without copying.

A `Table` is a set of named tensors whose first dimension is the rows; `Rows` is a stretch of one. Requests keep their stretch
of the table that the last call returned; as long as nobody joins or leaves, gathering them again is that same table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentweaver.thought import Thought

Table = dict[str, Tensor]


class Rows(NamedTuple):
    """Rows `start` up to `stop` of a table."""

    table: Table
    start: int
    stop: int

    def part(self, start: int, stop: int) -> Rows:
        """Rows of these rows."""
        return Rows(self.table, self.start + start, self.start + stop)


def gather(stretches: Sequence[Rows]) -> Table:
    """One table of all these rows, in this order. Tables must have the same names."""
    runs: list[Rows] = []
    for rows in stretches:
        if runs and runs[-1].table is rows.table and runs[-1].stop == rows.start:
            runs[-1] = Rows(rows.table, runs[-1].start, rows.stop)
        else:
            runs.append(rows)
    if len(runs) == 1:
        (table, start, stop) = runs[0]
        whole = start == 0 and all(len(tensor) == stop for tensor in table.values())
        return table if whole else {name: tensor[start:stop] for name, tensor in table.items()}
    return {name: torch.cat([run.table[name][run.start : run.stop] for run in runs]) for name in runs[0].table}


def table_of(thought: Thought) -> tuple[Table, dict[str, Any]]:
    """A Thought's tensors as a table, and what of its anchor is no tensor. What all rows shared is repeated for each."""
    count = thought.state.shape[0]
    tensors = {"state": thought.state}
    rest: dict[str, Any] = {}
    for name, value in thought.anchor.items():
        if isinstance(value, Tensor):
            tensors[f"anchor.{name}"] = value if len(value) == count else value.expand(count, *value.shape[1:])
        else:
            rest[name] = value
    return tensors, rest


def thought_of(table: Table, rest: dict[str, Any], steps: Tensor, cache: Any = None) -> Thought:
    """The Thought back from its table; `steps` `[rows]` are those that each row has had."""
    anchor = {name.removeprefix("anchor."): tensor for name, tensor in table.items() if name.startswith("anchor.")}
    return Thought(state=table["state"], step=steps[:, None], anchor={**rest, **anchor}, cache=cache)
