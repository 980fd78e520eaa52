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
from dataclasses import dataclass

import torch
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.kernels import native
from latentweaver.runtime.cache import Policy
from latentweaver.runtime.passes import Passes, RowReasoner
from latentweaver.runtime.request import Busy, Event, Handle, Reason, Request
from latentweaver.runtime.running import Front, Running, check, front_of


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
        self.passes = Passes(model, self.slots)
        self.chunk, self.queue, self.patience, self.reuse = chunk, queue, patience, reuse
        self.waiting: deque[Running] = deque()
        self.running: list[Running] = []
        self.free = list(range(slots))  # the one given back longest ago comes first
        self.left: dict[int, Running] = {}  # who used a free slot last: its keys still lie there
        self.counts = Counts()

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
        thinking = [running for running in chosen if not front_of(running).halted]
        if thinking:
            self.passes.begin([running for running in thinking if front_of(running).next.rows is None])
            self.counts.thought += sum(front_of(running).next.count for running in thinking)
            broken = self.passes.halt(self.passes.think(thinking))
            events += [self._end(running, "error", error) for running, error in broken]
        reading = [running for running in chosen if running.handle.reason is None and front_of(running).halted]
        if reading and self._due(reading):
            events += self._speak(self.passes.read(reading))
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
                count = front_of(running).next.count
                if count > room:
                    continue
                room -= count
            chosen.append(running)
        return chosen

    def _due(self, reading: list[Running]) -> bool:
        """Whether those who have been thought about enough are read now: they are many, or have waited long enough."""
        if 2 * len(reading) >= len(self.running) or max(front_of(running).waited for running in reading) >= self.patience:
            return True
        for running in reading:
            front_of(running).waited += 1
        return False

    def _speak(self, read: list[tuple[Running, Tensor]]) -> list[Event]:
        """Choose a token from the logits of each, and go on with it."""
        if not read:
            return []
        events = []
        likeliest = torch.stack([logits for _, logits in read]).argmax(-1).tolist()
        for (running, logits), token in zip(read, likeliest, strict=True):
            front = front_of(running)
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
            rows = front.stretches[-1].rows
            assert rows is not None
            running.state = rows.table["state"][rows.stop - 1]
