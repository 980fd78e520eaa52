"""Depth-parallel decoding: tokens that are thought about at the same time, each some steps ahead of the next.

A token need not wait until its predecessor has been thought about to the end. After `draft_steps` steps the model is asked what
it would say now; that guess goes in as the next token while its predecessor thinks on, and so forth: a wavefront of
num_steps / draft_steps tokens at different steps, which share every pass through the core and so every reading of its
weights. Whenever a token says something else than what was guessed for it, all that stands on the guess is dropped and the new
one goes in. A token counts only when it has had all its steps, on tokens that had all theirs.

So nothing is approximate. A token at step t looks at its predecessors' keys of step t, as in sequential decoding, and these are
there, because predecessors are always further. Every token takes each of its steps once, on the same numbers, and the logits
handed out are those of sequential decoding, up to the rounding of matrix products with another number of rows. Guesses only
decide how soon they are known. (The wavefront is that of the diffusion-forcing sampler for these models, arXiv 2510.14961,
which instead keeps what was thought about a wrong guess and lets it be forgotten; it therefore writes other text than
sequential decoding.)

With guesses that hold, a token costs `draft_steps` passes instead of `num_steps`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.runtime.rows import Rows, gather, table_of, thought_of
from latentweaver.runtime.slots import Pass, Slots, Span
from latentweaver.runtime.thinking import think_for


@dataclass
class Speculated:
    """What guessing was worth.

    Attributes:
        passes: passes through the core after the prompt's; sequential decoding takes `num_steps` a token.
        rounds: how often guesses were checked: verifications, or beats of the wavefront.
        tokens: tokens whose full-depth logits were used, the prompt's left out.
        guessed: tokens that were put in as a guess.
    """

    passes: int = 0
    rounds: int = 0
    tokens: int = 0
    guessed: int = 0

    @property
    def accepted_length(self) -> float:
        """Tokens that a round brought on average."""
        return self.tokens / max(self.rounds, 1)

    @property
    def passes_per_token(self) -> float:
        """Passes through the core that a token took on average."""
        return self.passes / max(self.tokens, 1)


@dataclass
class Flight:
    """A token that is being thought about.

    Attributes:
        position: its place in the text.
        token: what it is, or is guessed to be.
        stage: how many times `draft_steps` steps it has had.
        row: where its tensors are; whoever moves the tokens on (`Beats`) keeps what it needs here.
    """

    position: int
    token: int
    stage: int = 0
    row: Any = field(default=None, repr=False)


class Beats:
    """Moves a wavefront on: one *beat* is `draft_steps` passes through the core and a look at what every token says now.

    Args:
        model: a recurrent-depth language model (one with `new_slots`).
        num_steps: steps for every token.
        draft_steps: steps before a token is asked for the first time; divides `num_steps`.
        capacity: the longest text.

    Raises:
        InputError: if the steps do not fit together.
    """

    def __init__(self, model: Any, num_steps: int, draft_steps: int, capacity: int) -> None:
        if not 1 <= draft_steps <= num_steps or num_steps % draft_steps:
            raise InputError(f"draft_steps must divide num_steps, got {draft_steps} and {num_steps}")
        if not hasattr(model, "new_slots"):
            raise InputError(f"{type(model).__name__} cannot think about one text's tokens at different steps (it has no new_slots)")
        self.model, self.num_steps, self.draft_steps = model, num_steps, draft_steps
        self.stages, self.longest = num_steps // draft_steps, capacity
        self.slots: Slots = model.new_slots(slots=1, capacity=self._places(), max_steps=num_steps)

    def _places(self) -> int:
        """Positions to have room for."""
        return self.longest

    def read(self, ids: Tensor, initial_state: Any, seed: Any) -> Float[Tensor, "vocabulary"]:
        """Think about the prompt, all its tokens together; logits of the token after it."""
        self.initial_state = initial_state if isinstance(initial_state, str) else None  # a tensor is the prompt's
        self.seed = seed
        length = ids.shape[1]
        cache = self.model.new_cache("full", length)
        thought = think_for(self.model, self.model.begin(ids, initial_state=initial_state, generator=seed, cache=cache), self.num_steps)
        logits = self.model.read(thought, logits_to_keep=1).logits[0, -1]
        planes = torch.cat([bank[:, :, :, :, :length] for bank in cache.banks if bank is not None])
        self.slots.keys[: len(planes), :, :, :length], self.slots.values[: len(planes), :, :, :length] = planes.unbind(1)
        return logits

    def beat(self, flights: list[Flight]) -> Float[Tensor, "flights vocabulary"]:
        """Take every token (they come in the order of the text) `draft_steps` steps on; what each says now."""
        rest: dict[str, Any] = {}
        for flight in flights:
            if flight.row is None:
                new = self.model.begin(
                    torch.tensor([[flight.token]], device=self.model.device),
                    position_ids=torch.tensor([[flight.position]], device=self.model.device),
                    initial_state=self.initial_state,
                    generator=self.seed,
                    cache=self._pass([flight], 0),
                )
                table, rest = table_of(new)
                flight.row = Rows(table, 0, 1)
        table = gather([flight.row for flight in flights])
        rest = rest or {"mask": None, "attention": {}}
        had = torch.tensor([flight.stage * self.draft_steps for flight in flights])
        thought = thought_of(table, rest, had)
        for step in range(self.draft_steps):
            thought = self.model.think(replace(thought, cache=self._pass(flights, step)))
        table = {**table, "state": thought.state}
        for row, flight in enumerate(flights):
            flight.row = Rows(table, row, row + 1)
        return self.model.read(thought).logits[:, 0]

    def _pass(self, flights: list[Flight], step: int) -> Pass:
        spans = [Span(0, flight.position, 1, flight.stage * self.draft_steps + step) for flight in flights]
        return Pass(self.slots, spans)


class Wavefront:
    """Gives the full-depth logits of one token after another, as `generation` asks for them, by way of guesses.

    Args:
        beats: what moves the tokens on.
        limit: the longest text; nothing is guessed beyond.
    """

    def __init__(self, beats: Beats, limit: int) -> None:
        self.beats = beats
        self.limit = limit
        self.flights: list[Flight] = []
        self.report = Speculated()

    def start(self, ids: Tensor, initial_state: Any, seed: Any) -> Float[Tensor, "vocabulary"]:
        """Read the prompt; logits of the token after it."""
        return self.beats.read(ids, initial_state, seed)

    def next(self, position: int, token: int) -> Float[Tensor, "vocabulary"]:
        """Logits of the token after `position`, where `token` stands; the text before is what earlier calls said."""
        self.report.tokens += 1
        first = self.flights[0] if self.flights else None
        if first is None or (first.position, first.token) != (position, token):
            self.flights = [Flight(position, token)]  # all that is in flight stands on another token
        while True:
            flights = self.flights
            logits = self.beats.beat(flights)
            self.report.rounds += 1
            self.report.passes += self.beats.draft_steps
            for flight in flights:
                flight.stage += 1
            arrived = flights[0].stage == self.beats.stages
            self.flights = self._with_guesses(flights, logits.argmax(-1).tolist())[arrived:]
            if arrived:
                return logits[0]

    def _with_guesses(self, flights: list[Flight], said: list[int]) -> list[Flight]:
        """The tokens in flight up to the first one that says something else than what follows it, and what it says."""
        for place, guess in enumerate(said):
            follower = flights[place + 1] if place + 1 < len(flights) else None
            if follower is None or follower.token != guess:
                kept, position = flights[: place + 1], flights[place].position + 1
                if position >= self.limit:
                    return kept
                self.report.guessed += 1
                return [*kept, Flight(position, guess)]
        return flights
