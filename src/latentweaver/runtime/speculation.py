"""Speculation in depth: the model guesses its own next tokens with few steps and checks them with many.

A looped model is its own draft model: what it says after two steps is often what it says after thirty-two. Two ways to use that,
both of which hand out the full-depth logits of every token, so that greedy decoding, sampling, penalties and stopping give
what they would give without (up to the rounding of matrix products with another number of rows; for sampling this is exact
without a rule for accepting and rejecting, because a guess only decides which logits are computed ahead of time):

    draft_steps=2, draft_tokens=4     write four tokens with two steps each, then think about all of them together, fully: as
                                      many passes as for one token. Kept is what full depth would have written, too.
    draft_steps=4, wavefront=True     depth-parallel: see `wavefront`.

The first was published for Huginn (arXiv 2502.05171, section 6.4); the rule of keeping a prefix is that of speculative decoding
(arXiv 2211.17192).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.runtime.cache import LoopCache
from latentweaver.runtime.thinking import think_for
from latentweaver.runtime.wavefront import Beats, Speculated, Wavefront

OPTIONS = {"draft_steps", "draft_tokens", "wavefront", "beats"}
"""Keyword arguments of `generate` that are meant for this file."""


class DraftAndVerify:
    """Gives the full-depth logits of one token after another, several of which it computes together.

    Args:
        model: a recurrent-depth language model.
        cache: an empty `LoopCache` that keeps every step.
        num_steps: steps for every token.
        draft_steps: steps for a guess.
        draft_tokens: guesses before each verification.
        limit: the longest text; nothing is guessed beyond.
    """

    def __init__(self, model: Any, cache: LoopCache, num_steps: int, draft_steps: int, draft_tokens: int, limit: int) -> None:
        self.model, self.cache, self.limit = model, cache, limit
        self.num_steps, self.draft_steps, self.draft_tokens = num_steps, draft_steps, draft_tokens
        self.block: list[int] = []  # the tokens verified together, of which the first stands at `first`
        self.first = 0
        self.logits: Tensor | None = None  # of what follows each of them
        self.report = Speculated()

    def start(self, ids: Int[Tensor, "1 prompt"], initial_state: Any, seed: Any) -> Float[Tensor, "vocabulary"]:
        """Read the prompt; logits of the token after it."""
        thought = self.model.begin(ids, initial_state=initial_state, generator=seed, cache=self.cache)
        self.initial_state, self.seed = initial_state if isinstance(initial_state, str) else None, seed
        return self.model.read(think_for(self.model, thought, self.num_steps), logits_to_keep=1).logits[0, -1]

    def next(self, position: int, token: int) -> Float[Tensor, "vocabulary"]:
        """Logits of the token after `position`, where `token` stands; the text before is what earlier calls said."""
        self.report.tokens += 1
        place = position - self.first
        if not (self.block and place < len(self.block) and self.block[place] == token):
            if surplus := self.cache.length - position:
                self.cache.crop(surplus)  # guesses that nobody took
            self._verify(position, self._draft(position, token))
            place = 0
        assert self.logits is not None
        return self.logits[place]

    def _draft(self, position: int, token: int) -> list[int]:
        """`token`, and what few steps write after it."""
        block = [token]
        while len(block) <= self.draft_tokens and position + len(block) < self.limit:
            thought = think_for(self.model, self._begin(block[-1:]), self.draft_steps)
            block.append(int(self.model.read(thought, logits_to_keep=1).logits[0, -1].argmax()))
            # these positions are about to be thought about anew: no need to hand their keys down to the deeper steps
            self.cache.depth = [len(self.cache.banks) - 1]
        if len(block) > 1:
            self.cache.crop(len(block) - 1)
        self.report.passes += self.draft_steps * (len(block) - 1)
        self.report.guessed += len(block) - 1
        return block

    def _verify(self, position: int, block: list[int]) -> None:
        """Think about the block to the end, all its tokens together."""
        thought = think_for(self.model, self._begin(block), self.num_steps)
        self.logits = self.model.read(thought).logits[0]
        self.block, self.first = block, position
        self.report.passes += self.num_steps
        self.report.rounds += 1

    def _begin(self, tokens: list[int]) -> Any:
        ids = torch.tensor([tokens], device=self.model.device)
        return self.model.begin(ids, initial_state=self.initial_state, generator=self.seed, cache=self.cache)


class SpeculatingWriter:
    """What `generation` asks for the logits of the next token, where it may guess ahead.

    Raises:
        InputError: if what is asked for cannot be had with guesses.
    """

    def __init__(self, model: Any, input_ids: Int[Tensor, "1 prompt"], steps: Any, limit: int | None, options: dict[str, Any]) -> None:
        self._check(input_ids, steps, options)
        self.cache: Any = options.get("past_key_values")
        self.model, self.steps = model, steps
        self.initial_state, generator = options.get("initial_state"), options.get("generator")
        self.seed = (
            int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
            if isinstance(generator, torch.Generator)
            else generator
        )
        self.ahead = self._method(steps, min(limit or 2**62, model.config.max_position_embeddings), options)
        self.started = False

    @property
    def report(self) -> Speculated:
        """What guessing was worth so far."""
        return self.ahead.report

    def next(self, input_ids: Int[Tensor, "1 text"], alive: Tensor) -> tuple[Float[Tensor, "1 vocabulary"], Int[Tensor, "1"]]:
        """Logits of the next token, float32, and its steps."""
        if self.started:
            logits = self.ahead.next(input_ids.shape[1] - 1, int(input_ids[0, -1]))
        else:
            logits = self.ahead.start(input_ids, self.initial_state, self.seed)
            self.started = True
        return logits[None].float(), torch.tensor([self.steps])

    def _method(self, steps: int, limit: int, options: dict[str, Any]) -> DraftAndVerify | Wavefront:
        beats: Beats | None = options.get("beats")
        draft_steps = options.get("draft_steps")
        if beats is not None:
            if beats.model is not self.model or beats.num_steps != steps or draft_steps not in (None, beats.draft_steps):
                raise InputError(
                    f"these beats are for another model or dial (num_steps={beats.num_steps}, draft_steps={beats.draft_steps})"
                )
            if limit > beats.longest:
                raise InputError(
                    f"prompt and answer may take {limit} tokens, these beats were made for {beats.longest}; say capacity={limit}"
                )
            return Wavefront(beats, limit)
        if draft_steps is None:
            raise InputError("say how many steps a guess takes: draft_steps")
        if isinstance(draft_steps, bool) or not isinstance(draft_steps, int) or not 1 <= draft_steps <= steps:
            raise InputError(f"draft_steps must be a whole number from 1 to num_steps ({steps}), got {draft_steps!r}")
        if options.get("wavefront"):
            return Wavefront(Beats(self.model, steps, draft_steps, limit), limit)
        draft_tokens = options.get("draft_tokens", 4)
        if isinstance(draft_tokens, bool) or not isinstance(draft_tokens, int) or draft_tokens < 1:
            raise InputError(f"draft_tokens must be a whole number above 0, got {draft_tokens!r}")
        return DraftAndVerify(self.model, self.cache, steps, draft_steps, draft_tokens, limit)

    def _check(self, input_ids: Tensor, steps: Any, options: dict[str, Any]) -> None:
        if input_ids.shape[0] != 1:
            raise InputError(f"guessing ahead is for one text at a time, got a batch of {input_ids.shape[0]}; the engine serves many")
        if not isinstance(steps, int):
            raise InputError(f"guesses are verified at one number of steps, got the schedule {steps!r}")
        for name in ("halting", "warm_start", "inputs_embeds", "watch"):
            if options.get(name) is not None and options[name] is not False:
                raise InputError(f"{name} needs one token after another; leave it out, or draft_steps")
        mask = options.get("attention_mask")
        if mask is not None and not bool(mask.all()):
            raise InputError("guessing ahead is for one text at a time, and so for a prompt without padding")
        if options.get("draft_tokens") is not None and (options.get("wavefront") or options.get("beats") is not None):
            raise InputError("draft_tokens is for drafting and verifying; the wavefront guesses as many as are in flight")
        cache = options.get("past_key_values")
        if not isinstance(cache, LoopCache) or cache.length:
            raise InputError(
                "guessing ahead needs an empty cache of its own: leave out past_key_values, cache_implementation and use_cache"
            )
        kept = {cache.policy(step, layer) for step in range(steps) for layer in range(cache.core_layers)}
        if len(kept) < steps * cache.core_layers:
            raise InputError('guesses are verified with the keys of every step: cache_policy must be "full"')
