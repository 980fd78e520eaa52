"""What the engine keeps of a request that has a slot: its tokens, how it samples, and the positions it is thinking about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessorList

from latentweaver.errors import InputError
from latentweaver.halting import Fixed, HaltingRule
from latentweaver.runtime.generation import dial
from latentweaver.runtime.request import Event, Handle, Request
from latentweaver.runtime.rows import Rows
from latentweaver.runtime.schedule import Schedule, schedule
from latentweaver.runtime.slots import Span

_STATES = (None, "noise", "zeros", "input")


@dataclass
class Stretch:
    """Consecutive positions that go through the model together.

    Attributes:
        start: the first position.
        count: how many.
        step: steps they have had.
        rows: where their state and anchor are; None before `begin`.
    """

    start: int
    count: int
    step: int = 0
    rows: Rows | None = None

    def span(self, slot: int) -> Span:
        return Span(slot, self.start, self.count, self.step)


class Front:
    """The positions a request is thinking about: its prompt, in stretches, or one token.

    All positions take a step before any takes the next, and they halt together, as they do when a prompt is read alone.

    Attributes:
        stretches: the positions, in order.
        limit: steps at most.
        turn: which stretch is next.
        halted: thinking is over, reading comes next.
        waited: ticks since then.
        first: states before the first step, kept until a halting rule has seen all of them.
        memory: what the halting rule remembers.
        logits: of the last position, if the rule has already had it read out.
    """

    def __init__(self, start: int, end: int, limit: int, chunk: int) -> None:
        self.stretches = [Stretch(at, min(chunk, end - at)) for at in range(start, end, chunk)]
        self.end = end
        self.limit = limit
        self.turn = 0
        self.halted = False
        self.waited = 0
        self.first: list[Tensor] = []
        self.memory: Rows | None = None
        self.logits: Float[Tensor, "vocabulary"] | None = None

    @property
    def next(self) -> Stretch:
        return self.stretches[self.turn]

    @property
    def step(self) -> int:
        return self.stretches[-1].step

    def advance(self) -> bool:
        """The next stretch has had its turn; whether that was the last one, so that all stretches have."""
        self.turn = (self.turn + 1) % len(self.stretches)
        return self.turn == 0


class Running:
    """A request, everything about it settled; with a slot once the engine admits it.

    Args:
        model: the model, for its configuration and transformers' logits processors.
        handle: what its owner holds.
        steps: its schedule, as `check` gave it.
        max_steps: deepest dial allowed.

    Raises:
        InputError: naming the field of `sampling` that cannot be used.
    """

    def __init__(self, model: Any, handle: Handle, steps: Schedule, max_steps: int) -> None:
        request = handle.request
        self.handle, self.request, self.steps = handle, request, steps
        self.prompt = len(request.prompt)
        device = model.device
        self.ids: Int[Tensor, "prompt_and_answer"] = torch.zeros(self.prompt + request.max_new_tokens, dtype=torch.long, device=device)
        self.ids[: self.prompt] = torch.tensor(list(request.prompt))
        self.length = self.prompt
        self.rule: HaltingRule | None = None if isinstance(request.halting, Fixed) else request.halting
        self.most = request.halting.steps if isinstance(request.halting, Fixed) else max_steps
        self._settle_sampling(model, device)
        self.slot = -1
        self.front: Front | None = None
        self.state: Float[Tensor, "1 width"] | None = None  # of the last complete position, for a warm start
        self.trusted = 0  # positions that another request may take over as they are
        state = request.initial_state or getattr(model.config, "initial_state", None)
        self.origin = None if self.rule else (state, self.noise if state == "noise" else 0, self.limit(0))
        """What the keys of a prompt depend on beside its tokens; None if on the whole prompt (a halting rule)."""

    def limit(self, place: int) -> int:
        """Steps at most for the token at that place of the answer."""
        return min(self.steps(place), self.most)

    def least(self, place: int) -> int:
        """Steps at least, where a rule may halt."""
        return max(min(self.request.min_steps, self.limit(place)), self.rule.min_steps if self.rule else 1)

    @property
    def place(self) -> int:
        """Of the token that is being thought about, in the answer."""
        return self.length - self.prompt

    @property
    def reading_prompt(self) -> bool:
        return self.place == 0

    def _settle_sampling(self, model: Any, device: torch.device) -> None:
        request = self.request
        try:
            config, unknown = model._prepare_generation_config(None, **request.sampling)
            unknown.pop("output_attentions", None)
            unknown.pop("output_hidden_states", None)
            if unknown:
                raise InputError(f"sampling has no field {', '.join(sorted(unknown))}")
            if (config.num_beams or 1) > 1 or (config.num_return_sequences or 1) > 1:
                raise InputError("the engine writes one text a request: num_beams and num_return_sequences must be 1")
            config.max_length = len(self.ids)
            model._prepare_special_tokens(config, True, device=device, batch_size=1)
            self.processors: LogitsProcessorList = model._get_logits_processor(
                config,
                input_ids_seq_length=self.prompt,
                encoder_input_ids=self.ids[None, : self.prompt],
                logits_processor=LogitsProcessorList(request.processors),
                device=device,
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise error if isinstance(error, InputError) else InputError(f"sampling cannot be used: {error}") from error
        self.sampled = bool(config.do_sample)
        ends = config._eos_token_tensor
        self.ends = set() if ends is None else set(ends.tolist())
        self.generator = torch.Generator(device)
        if request.seed is None:
            self.noise = 0
            self.generator.seed()
        else:
            self.generator.manual_seed(request.seed)
            self.noise = int(torch.randint(2**62, (1,), generator=self.generator, device=device))

    @property
    def plain(self) -> bool:
        """Whether the next token is simply the likeliest."""
        return not (self.sampled or self.processors or self.request.logprobs is not None)

    def speak(self, logits: Float[Tensor, "vocabulary"], likeliest: int) -> Event:
        """Choose the next token from its logits, as `generate` would; `likeliest` is their argmax.

        Raises:
            Whatever a logits processor raises, and RuntimeError for probabilities that are none.
        """
        steps = 0 if self.front is None else self.front.step
        if self.plain:
            return self._say(likeliest, steps)
        scores = self.processors(self.ids[None, : self.length], logits[None])  # type: ignore[arg-type]
        token = int(torch.multinomial(scores.softmax(-1), 1, generator=self.generator) if self.sampled else scores.argmax(-1))
        if self.request.logprobs is None:
            return self._say(token, steps)
        log_probs = logits.log_softmax(-1)
        values, tokens = log_probs.topk(min(self.request.logprobs, len(log_probs)))
        return self._say(token, steps, float(log_probs[token]), tuple(zip(tokens.tolist(), values.tolist(), strict=True)))

    def _say(self, token: int, steps: int, logprob: float | None = None, likely: tuple[tuple[int, float], ...] = ()) -> Event:
        handle = self.handle
        self.ids[self.length] = token
        self.length += 1
        handle.tokens.append(token)
        handle.steps.append(steps)
        if token in self.ends:
            handle.reason = "stop"
        elif self.length == len(self.ids):
            handle.reason = "length"
        return Event(handle, token, steps, handle.reason, logprob, likely)


def check(request: Request, model: Any, capacity: int, max_steps: int) -> Schedule:
    """The request's schedule of steps, if all that can be seen at a glance is right.

    Args:
        request: what is asked.
        model: the model, for its configuration and its own dial.
        capacity: most positions of prompt and answer together.
        max_steps: deepest dial allowed.

    Raises:
        InputError: naming the field that cannot be used.
    """
    config = model.config
    if not len(request.prompt):
        raise InputError("the prompt is empty; give at least one token")
    vocabulary = config.vocab_size
    for token in request.prompt:
        if not 0 <= token < vocabulary:
            raise InputError(f"the prompt has token {token}, the vocabulary has {vocabulary}")
    if request.max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, got {request.max_new_tokens}")
    longest = len(request.prompt) + request.max_new_tokens
    room = min(capacity, config.max_position_embeddings)
    if longest > room:
        raise InputError(f"prompt and answer may take {longest} tokens, there is room for {room}; shorten one of them")
    if request.halting is not None and not isinstance(request.halting, HaltingRule):
        raise InputError(f"halting must be a HaltingRule, got {request.halting!r}")
    if request.min_steps < 1:
        raise InputError(f"min_steps must be at least 1, got {request.min_steps}")
    if request.initial_state not in _STATES:
        raise InputError(f"initial_state must be 'noise', 'zeros' or 'input', got {request.initial_state!r}")
    if request.seed is not None and not -(2**63) <= request.seed < 2**63:
        raise InputError(f"seed must fit 64 bits, got {request.seed}")
    if request.logprobs is not None and request.logprobs < 0:
        raise InputError(f"logprobs must not be negative, got {request.logprobs}")
    steps = schedule(dial(model, request.num_steps))
    for place in range(request.max_new_tokens):
        if steps(place) > max_steps:
            raise InputError(f"num_steps may be at most {max_steps} here, got {steps(place)}")
    return steps


def front_of(running: Running) -> Front:
    """What a request that has a slot is at."""
    assert running.front is not None
    return running.front
