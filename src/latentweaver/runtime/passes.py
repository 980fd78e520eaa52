"""The three verbs for tokens of many requests at once: each pass takes rows of different requests, at different steps.

A row is one position. What a request is at (its `Front`: a whole prompt in stretches, or one token) says which of its positions come
next; here they are gathered into one table, go through the model with a cache that knows each row's slot and step (`Pass`), and
are handed back. Who takes part, and what becomes of the answer, is the engine's business.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentweaver.halting import View
from latentweaver.runtime.cache import Policy
from latentweaver.runtime.rows import Rows, Table, gather, table_of, thought_of
from latentweaver.runtime.running import Running, Stretch, front_of
from latentweaver.runtime.slots import Pass, Slots
from latentweaver.thought import Readout, Thought


class RowReasoner(Protocol):
    """What the engine needs of a language model: the three verbs, on rows `[rows, 1]` whose cache is a `Pass`.

    `begin` takes each row's position, and a seed for each row as `generator`; `think` must not mind that rows are at different
    steps; `read` gives logits for some `rows` only. transformers' `GenerationMixin` beside it gives the logits processors.
    """

    config: Any
    device: Any

    def new_slots(self, *, slots: int, capacity: int, max_steps: int, policy: str | Policy) -> Slots: ...

    def begin(
        self, input_ids: Int[Tensor, "rows 1"], *, position_ids: Tensor, initial_state: Any, generator: Any, cache: Any
    ) -> Thought: ...

    def think(self, thought: Thought) -> Thought: ...

    def read(self, thought: Thought, *, rows: Int[Tensor, "some"]) -> Readout: ...


class Passes:
    """Runs a model on the fronts of running requests, and keeps in them what comes of it."""

    def __init__(self, model: RowReasoner, slots: Slots) -> None:
        self.model, self.slots = model, slots
        self._rest: dict[str, Any] = {}  # what of a Thought's anchor is the same for every row

    def begin(self, new: list[Running]) -> None:
        """Prelude and first state of the next stretch of each; what their rules remember, once all of a front has begun."""
        for state, group in grouped(new, lambda running: running.request.initial_state):
            stretches = [front_of(running).next for running in group]
            cache = Pass(self.slots, [stretch.span(running.slot) for running, stretch in zip(group, stretches, strict=True)])
            ids = torch.cat([running.ids[s.start : s.start + s.count] for running, s in zip(group, stretches, strict=True)])
            seeds = torch.tensor([running.noise for running, s in zip(group, stretches, strict=True) for _ in range(s.count)])
            thought = self.model.begin(
                ids[:, None],
                position_ids=cache.position[:, None],
                initial_state=state,
                generator=seeds.to(ids.device),
                cache=cache,
            )
            table, self._rest = table_of(thought)
            if any(running.state is not None for running in group):
                table["state"] = table["state"].clone()
            row = 0
            for running, stretch in zip(group, stretches, strict=True):
                stretch.rows = Rows(table, row, row + stretch.count)
                if running.state is not None:
                    table["state"][row] = running.state
                row += stretch.count
        for rule, group in grouped((r for r in new if r.rule), lambda r: (r.rule, r if r.reading_prompt else None)):
            rule = rule[0]
            assert rule is not None
            if not group[0].reading_prompt:
                memory = rule.start(self._thought(group))
                for row, running in enumerate(group):
                    front_of(running).memory = Rows(memory, row, row + 1)
                continue
            front = front_of(group[0])
            front.first.append(_rows(front.next).table["state"][slice(*_rows(front.next)[1:])])
            if len(front.first) == len(front.stretches):
                thought = self._thought(group)
                first = Thought(torch.cat(front.first).transpose(0, 1), torch.zeros_like(thought.step), thought.anchor)
                front.memory, front.first = Rows(rule.start(first), 0, 1), []

    def think(self, thinking: list[Running]) -> list[Running]:
        """One step for the next stretch of each; those of which every stretch has now had it."""
        stretches = [front_of(running).next for running in thinking]
        spans = [stretch.span(running.slot) for running, stretch in zip(thinking, stretches, strict=True)]
        for span in spans:
            self.slots.open(span)
        cache = Pass(self.slots, spans)
        table = gather([_rows(stretch) for stretch in stretches])
        thought = self.model.think(thought_of(table, self._rest, cache.steps, cache))
        table = {**table, "state": thought.state}
        row = 0
        for stretch in stretches:
            stretch.rows, stretch.step = Rows(table, row, row + stretch.count), stretch.step + 1
            row += stretch.count
        return [running for running in thinking if front_of(running).advance()]

    def halt(self, stepped: list[Running]) -> list[tuple[Running, str]]:
        """Mark the fronts that have been thought about enough; those whose rule broke, and what it said."""
        broken: list[tuple[Running, str]] = []
        ruled: list[Running] = []
        for running in stepped:
            front = front_of(running)
            if front.step >= front.limit:
                front.halted = True
            elif running.rule is not None:
                ruled.append(running)
        # a prompt is measured as a whole; tokens together where rule and kind of memory are the same
        for _, group in grouped(ruled, lambda r: (r.rule, r if r.reading_prompt else frozenset(_memory(r).table))):
            rule = group[0].rule
            assert rule is not None
            view = View(self.model, self._thought(group), lambda thought, group=group: self._readout(group))  # type: ignore[arg-type]
            try:
                value, memory = rule.measure(gather([_memory(running) for running in group]), view)
                enough = rule.enough(rule.of_row(value)).tolist()
            except (ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
                broken += [(running, f"{type(rule).__name__}: {error}") for running in group]
                continue
            for row, running in enumerate(group):
                front = front_of(running)
                front.memory = Rows(memory, row, row + 1)
                if enough[row] and front.step >= running.least(running.place):
                    front.halted = True
                    if "readout" in view.__dict__:
                        front.logits = view.readout.logits[row, -1]
        return broken

    def read(self, reading: list[Running]) -> list[tuple[Running, Tensor]]:
        """Read the next stretch of each; logits `[vocabulary]` of those that have been read to their end."""
        done = [running for running in reading if front_of(running).logits is not None]
        rest = [running for running in reading if front_of(running).logits is None]
        if rest:
            stretches = [(running, front_of(running).next) for running in rest]
            ended = [running for running in rest if front_of(running).advance()]
            logits = self._read_rows(stretches, [front_of(running).stretches[-1] for running in ended]).logits[:, 0]
            for row, running in enumerate(ended):
                front_of(running).logits = logits[row]
            done += ended
        return [(running, _logits(running)) for running in done]

    def _readout(self, group: list[Running]) -> Readout:
        """What each of the group would say now, after its last position; for rules that look at it."""
        stretches = [(running, stretch) for running in group for stretch in front_of(running).stretches]
        return self._read_rows(stretches, [front_of(running).stretches[-1] for running in group])

    def _read_rows(self, stretches: list[tuple[Running, Stretch]], ends: list[Stretch]) -> Readout:
        """The coda for all rows of the stretches, the head for the last row of each of `ends`."""
        spans = [stretch.span(running.slot) for running, stretch in stretches]
        last: dict[int, int] = {}
        row = 0
        for _, stretch in stretches:
            row += stretch.count
            last[id(stretch)] = row - 1
        span_of = {id(stretch): span.last() for (_, stretch), span in zip(stretches, spans, strict=True)}
        cache = Pass(self.slots, spans, [span_of[id(stretch)] for stretch in ends])
        table = gather([_rows(stretch) for _, stretch in stretches])
        rows = torch.tensor([last[id(stretch)] for stretch in ends], dtype=torch.long, device=cache.slot.device)
        return self.model.read(thought_of(table, self._rest, cache.steps, cache), rows=rows)

    def _thought(self, group: list[Running]) -> Thought:
        """The Thought of tokens as rows `[rows, 1, width]`, or of one whole prompt `[1, positions, width]`."""
        stretches = [stretch for running in group for stretch in front_of(running).stretches]
        table: Table = gather([_rows(stretch) for stretch in stretches])
        steps = torch.tensor([stretch.step for stretch in stretches for _ in range(stretch.count)])
        if group[0].reading_prompt:
            thought = thought_of({name: tensor.transpose(0, 1) for name, tensor in table.items()}, self._rest, steps)
            return Thought(thought.state, steps[None], thought.anchor)
        return thought_of(table, self._rest, steps)


def grouped(running: Iterable[Running], key: Callable[[Running], Hashable]) -> Iterable[tuple[Any, list[Running]]]:
    groups: dict[Hashable, list[Running]] = {}
    for one in running:
        groups.setdefault(key(one), []).append(one)
    return groups.items()


def _rows(stretch: Stretch) -> Rows:
    assert stretch.rows is not None
    return stretch.rows


def _memory(running: Running) -> Rows:
    memory = front_of(running).memory
    assert memory is not None
    return memory


def _logits(running: Running) -> Float[Tensor, "vocabulary"]:
    logits = front_of(running).logits
    assert logits is not None
    return logits
