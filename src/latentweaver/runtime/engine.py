"""Continuous batching over depth: tokens of different requests, at different steps, share each pass through the core.

The weights of a recurrent core are the same at every step. So one matrix product can serve a token of one request at its
second step and a token of another at its ninth. A batch of fixed depth waits for its deepest row; here a token that has been
thought about enough leaves at once, is read out, and its successor enters the next pass beside the others still thinking
(continuous depth batching, arXiv 2608.09444).

    engine = Engine(model, slots=16)
    handle = engine.submit(Request(prompt=[...], num_steps=8))
    while not engine.idle:
        for event in engine.tick():
            print(event.token, event.steps)

A tick is one pass: admit who waits if a slot is free; begin (prelude) for positions that are new; one step of the core for
every position in flight; halt; read (coda and head) for those that halted, and choose their tokens. Everything is
synchronous and in the caller's thread.

Each request's answer is the one `model.generate` gives on its prompt alone, with the same cache policy, up to the rounding of
matrix products, whose order of summation may depend on how many rows they have. Prompts go through the same pass, in
chunks: all positions take step t, chunk after chunk, before any takes step t + 1, which is exact for every policy and rule.

A prompt that begins like one whose keys still lie in a slot takes them over, where that is exact: without a halting rule on
either side, from the same first state (the same seed, if it is noise), with the same number of steps for the prompt, and with a
policy that gives each of these steps keys of its own ("full" does; "shared" does for one step). Answers are taken over too,
as far as their tokens were thought about for as many steps as the prompt, and not from a warm start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.halting import View
from latentweaver.kernels import native
from latentweaver.runtime.cache import Policy
from latentweaver.runtime.request import Busy, Event, Handle, Reason, Request
from latentweaver.runtime.rows import Rows, Table, gather, table_of, thought_of
from latentweaver.runtime.running import Front, Running, Stretch, check
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


@dataclass
class Counts:
    """What an engine has done since it was made.

    Attributes:
        ticks: passes.
        thought: positions times steps that went through the core.
        tokens: tokens written.
        steps: steps that those tokens took.
        reused: positions of prompts whose keys were taken over.
        ended: requests, by how they ended.
    """

    ticks: int = 0
    thought: int = 0
    tokens: int = 0
    steps: int = 0
    reused: int = 0
    ended: dict[Reason, int] | None = None

    def __post_init__(self) -> None:
        self.ended = {"stop": 0, "length": 0, "cancelled": 0, "error": 0}


class Engine:
    """Answers many requests at once, one step of thought a tick.

    Args:
        model: see `RowReasoner`.
        slots: requests that run at once.
        capacity: most positions of a request, prompt and answer together; None for the model's context.
        max_steps: deepest dial that a request may ask for.
        policy: which steps' keys are kept, as in `LoopCache`.
        chunk: most positions of prompts in one pass.
        queue: requests that may wait for a slot.
        patience: ticks that a token which has been thought about enough may wait for others to be read with. Reading a few
            rows costs as much as reading many (the weights of prelude, coda and head are fetched either way).
        reuse: whether prompts take over keys of a common beginning.

    Raises:
        InputError: for sizes below 1 and unknown policies.
    """

    def __init__(
        self,
        model: RowReasoner,
        *,
        slots: int = 16,
        capacity: int | None = 1024,
        max_steps: int = 64,
        policy: str | Policy = "full",
        chunk: int = 256,
        queue: int = 256,
        patience: int = 0,
        reuse: bool = True,
    ) -> None:
        if chunk < 1 or queue < 1:
            raise InputError(f"chunk and queue must be at least 1, got {chunk} and {queue}")
        if not hasattr(model, "new_slots"):
            raise InputError(f"{type(model).__name__} cannot think about tokens at different steps in one pass (it has no new_slots)")
        context = model.config.max_position_embeddings
        self.model = model
        self.capacity = min(context, capacity or context)
        self.slots = model.new_slots(slots=slots, capacity=self.capacity, max_steps=max_steps, policy=policy)
        self.chunk, self.queue, self.patience, self.reuse = chunk, queue, patience, reuse
        self.waiting: deque[Running] = deque()
        self.running: list[Running] = []
        self.free = list(range(slots))  # the one given back longest ago comes first
        self.left: dict[int, Running] = {}  # who used a free slot last: its keys still lie there
        self.counts = Counts()
        self._rest: dict[str, Any] = {}

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.waiting or self.running)

    def submit(self, request: Request) -> Handle:
        """Queue a request.

        Raises:
            InputError: if it cannot be answered, naming the field.
            Busy: if the queue is full.
        """
        steps = check(request, self.model, self.capacity, self.slots.max_steps)  # first: what is wrong stays so when there is room
        if len(self.waiting) >= self.queue + len(self.free):
            raise Busy(f"{len(self.waiting)} requests are waiting already")
        handle = Handle(request)
        self.waiting.append(Running(self.model, handle, steps, self.slots.max_steps))
        return handle

    def tick(self) -> list[Event]:
        """One pass; what happened in it, in no particular order."""
        with native(self.model.device):
            return self._tick()

    def _tick(self) -> list[Event]:
        events = self._drop_cancelled()
        self._admit()
        chosen = self._choose()
        thinking = [running for running in chosen if not _front(running).halted]
        if thinking:
            self._begin([running for running in thinking if _front(running).next.rows is None])
            events += self._halt(self._think(thinking))
        reading = [running for running in chosen if running.handle.reason is None and _front(running).halted]
        if reading and self._due(reading):
            events += self._speak(self._read(reading))
        self.running = [running for running in self.running if running.handle.reason is None]
        self.counts.ticks += 1
        return events

    # Who takes part -------------------------------------------------------------------------------------------------

    def _drop_cancelled(self) -> list[Event]:
        gone = [running for running in (*self.waiting, *self.running) if running.handle.cancelled]
        self.waiting = deque(running for running in self.waiting if not running.handle.cancelled)
        self.running = [running for running in self.running if not running.handle.cancelled]
        return [self._end(running, "cancelled") for running in gone]

    def _end(self, running: Running, reason: Reason, error: str | None = None, event: Event | None = None) -> Event:
        """Note how a request ended, and give its slot back."""
        running.handle.reason, running.handle.error = reason, error
        running.front = running.state = None
        assert self.counts.ended is not None
        self.counts.ended[reason] += 1
        if running.slot >= 0:
            self.free.append(running.slot)
            self.left[running.slot] = running
        return event or Event(running.handle, reason=reason)

    def _admit(self) -> None:
        while self.waiting and self.free:
            running = self.waiting.popleft()
            source, known = self._known(running)
            slot = source.slot if source is not None and source.slot in self.free else self.free[0]
            self.free.remove(slot)
            self.left.pop(slot, None)
            if source is None:
                self.slots.clear(slot)
            else:
                self.slots.share(source.slot, slot, known, running.limit(0))
            running.slot, running.trusted, running.handle.reused = slot, known, known
            self.counts.reused += known
            running.front = Front(known, running.prompt, running.limit(0), self.chunk)
            self.running.append(running)

    def _known(self, running: Running) -> tuple[Running | None, int]:
        """Whose slot holds keys of the longest beginning of this prompt, and how many; the last position is always new."""
        best: tuple[Running | None, int] = (None, 0)
        if not self.reuse or running.origin is None or not self.slots.apart(running.limit(0)):
            return best
        for other in (*self.left.values(), *self.running):
            if other.origin == running.origin:
                end = min(other.trusted, running.prompt - 1)
                same = int((other.ids[:end] == running.ids[:end]).long().cumprod(0).sum())
                if same > best[1]:
                    best = (other, same)
        return best

    def _choose(self) -> list[Running]:
        """Who takes part in this pass: every token, and prompts in order of arrival as far as `chunk` goes."""
        chosen, room = [], self.chunk
        for running in self.running:
            if running.reading_prompt:
                count = _front(running).next.count
                if count > room:
                    continue
                room -= count
            chosen.append(running)
        return chosen

    def _due(self, reading: list[Running]) -> bool:
        """Whether those who have been thought about enough are read now: they are many, or have waited long enough."""
        if 2 * len(reading) >= len(self.running) or max(_front(running).waited for running in reading) >= self.patience:
            return True
        for running in reading:
            _front(running).waited += 1
        return False

    # The three verbs ------------------------------------------------------------------------------------------------

    def _begin(self, new: list[Running]) -> None:
        for state, group in _grouped(new, lambda running: running.request.initial_state):
            stretches = [_front(running).next for running in group]
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
        for rule, group in _grouped((r for r in new if r.rule), lambda r: (r.rule, r if r.reading_prompt else None)):
            rule = rule[0]
            assert rule is not None
            if not group[0].reading_prompt:
                memory = rule.start(self._thought(group))
                for row, running in enumerate(group):
                    _front(running).memory = Rows(memory, row, row + 1)
                continue
            front = _front(group[0])
            front.first.append(_rows(front.next).table["state"][slice(*_rows(front.next)[1:])])
            if len(front.first) == len(front.stretches):
                thought = self._thought(group)
                first = Thought(torch.cat(front.first).transpose(0, 1), torch.zeros_like(thought.step), thought.anchor)
                front.memory, front.first = Rows(rule.start(first), 0, 1), []

    def _think(self, thinking: list[Running]) -> list[Running]:
        """One step for the next stretch of each; those of which every stretch has now had it."""
        stretches = [_front(running).next for running in thinking]
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
        self.counts.thought += row
        return [running for running in thinking if _front(running).advance()]

    def _halt(self, stepped: list[Running]) -> list[Event]:
        """Mark the fronts that have been thought about enough; requests whose rule broke end here."""
        events: list[Event] = []
        ruled: list[Running] = []
        for running in stepped:
            front = _front(running)
            if front.step >= front.limit:
                front.halted = True
            elif running.rule is not None:
                ruled.append(running)
        # a prompt is measured as a whole; tokens together where rule and kind of memory are the same
        for _, group in _grouped(ruled, lambda r: (r.rule, r if r.reading_prompt else frozenset(_memory(r).table))):
            rule = group[0].rule
            assert rule is not None
            view = View(self.model, self._thought(group), lambda thought, group=group: self._readout(group))  # type: ignore[arg-type]
            try:
                value, memory = rule.measure(gather([_memory(running) for running in group]), view)
                enough = rule.enough(rule.of_row(value)).tolist()
            except (ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
                events += [self._end(running, "error", f"{type(rule).__name__}: {error}") for running in group]
                continue
            for row, running in enumerate(group):
                front = _front(running)
                front.memory = Rows(memory, row, row + 1)
                if enough[row] and front.step >= running.least(running.place):
                    front.halted = True
                    if "readout" in view.__dict__:
                        front.logits = view.readout.logits[row, -1]
        return events

    def _readout(self, group: list[Running]) -> Readout:
        """What each of the group would say now, after its last position; for rules that look at it."""
        stretches = [(running, stretch) for running in group for stretch in _front(running).stretches]
        return self._read_rows(stretches, [_front(running).stretches[-1] for running in group])

    def _read(self, reading: list[Running]) -> list[tuple[Running, Tensor]]:
        """Read the next stretch of each; logits `[vocabulary]` of those that have been read to their end."""
        done = [running for running in reading if _front(running).logits is not None]
        rest = [running for running in reading if _front(running).logits is None]
        if rest:
            stretches = [(running, _front(running).next) for running in rest]
            ended = [running for running in rest if _front(running).advance()]
            logits = self._read_rows(stretches, [_front(running).stretches[-1] for running in ended]).logits[:, 0]
            for row, running in enumerate(ended):
                _front(running).logits = logits[row]
            done += ended
        return [(running, _logits(running)) for running in done]

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

    def _speak(self, read: list[tuple[Running, Tensor]]) -> list[Event]:
        """Choose a token from the logits of each, and go on with it."""
        if not read:
            return []
        events = []
        likeliest = torch.stack([logits for _, logits in read]).argmax(-1).tolist()
        for (running, logits), token in zip(read, likeliest, strict=True):
            front = _front(running)
            self._close(running, front)
            try:
                event = running.speak(logits, token)
            except Exception as error:  # somebody's logits processor, or probabilities that are NaN: this request only
                events.append(self._end(running, "error", f"{type(error).__name__}: {error}"))
                continue
            self.counts.tokens += 1
            self.counts.steps += event.steps
            if event.reason is not None:
                event = self._end(running, event.reason, event=event)
            else:
                running.front = Front(front.end, front.end + 1, running.limit(running.place), 1)
            events.append(event)
        return events

    def _close(self, running: Running, front: Front) -> None:
        """The front's positions are complete: their keys stay, and the last one's state if it is wanted."""
        self.slots.close(running.slot, front.end, front.step)
        as_prompt = running.reading_prompt or (front.step == running.limit(0) and not running.request.warm_start)
        if as_prompt and running.trusted == front.stretches[0].start:
            running.trusted = front.end
        if running.request.warm_start:
            rows = _rows(front.stretches[-1])
            running.state = rows.table["state"][rows.stop - 1]

    def _thought(self, group: list[Running]) -> Thought:
        """The Thought of tokens as rows `[rows, 1, width]`, or of one whole prompt `[1, positions, width]`."""
        stretches = [stretch for running in group for stretch in _front(running).stretches]
        table: Table = gather([_rows(stretch) for stretch in stretches])
        steps = torch.tensor([stretch.step for stretch in stretches for _ in range(stretch.count)])
        if group[0].reading_prompt:
            thought = thought_of({name: tensor.transpose(0, 1) for name, tensor in table.items()}, self._rest, steps)
            return Thought(thought.state, steps[None], thought.anchor)
        return thought_of(table, self._rest, steps)


def _grouped(running: Iterable[Running], key: Callable[[Running], Hashable]) -> Iterable[tuple[Any, list[Running]]]:
    groups: dict[Hashable, list[Running]] = {}
    for one in running:
        groups.setdefault(key(one), []).append(one)
    return groups.items()


def _front(running: Running) -> Front:
    assert running.front is not None
    return running.front


def _rows(stretch: Stretch) -> Rows:
    assert stretch.rows is not None
    return stretch.rows


def _memory(running: Running) -> Rows:
    memory = _front(running).memory
    assert memory is not None
    return memory


def _logits(running: Running) -> Float[Tensor, "vocabulary"]:
    logits = _front(running).logits
    assert logits is not None
    return logits
