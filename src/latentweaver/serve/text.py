"""Tokens into text as they come, up to a stop string; and OpenAI's penalties as a logits processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor


class TextStream:
    """Turns tokens into pieces of text.

    A character may take several tokens, and a stop string several pieces: what could be the beginning of either is held back
    until it is known.

    Args:
        tokenizer: any tokenizer of transformers.
        stops: texts that end the answer and are not part of it.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.stops = stops
        self.tokens: list[int] = []
        self.start = self.read = 0  # tokens before `start` are done with; text up to `read` has come out of the decoder
        self.held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain after one more token; `stopped` says whether a stop string was met."""
        self.tokens.append(token)
        known, text = self._decode(self.start, self.read), self._decode(self.start, len(self.tokens))
        if len(text) <= len(known) or text.endswith("\ufffd"):
            return ""
        self.start, self.read = self.read, len(self.tokens)
        return self._certain(text[len(known) :])

    def flush(self) -> str:
        """What was held back, when no more tokens come."""
        if self.stopped:
            return ""
        known, text = self._decode(self.start, self.read), self._decode(self.start, len(self.tokens))
        self.start = self.read = len(self.tokens)
        piece = self._certain(text[len(known) :])
        held, self.held = self.held, ""
        return piece if self.stopped else piece + held

    def _decode(self, start: int, end: int) -> str:
        return self.tokenizer.decode(self.tokens[start:end], skip_special_tokens=True)

    def _certain(self, piece: str) -> str:
        text, self.held = self.held + piece, ""
        found = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        keep = max((length for stop in self.stops for length in range(1, len(stop)) if text.endswith(stop[:length])), default=0)
        if keep:
            text, self.held = text[:-keep], text[-keep:]
        return text


class Penalties(LogitsProcessor):
    """OpenAI's presence and frequency penalties, on the tokens of the answer, and its logit bias.

    Args:
        prompt: tokens of the prompt, which are not penalised.
        presence: taken off once from every token that has been said.
        frequency: taken off as often as it has been said.
        bias: added to single tokens.
    """

    def __init__(self, prompt: int, presence: float, frequency: float, bias: dict[int, float]) -> None:
        self.prompt, self.presence, self.frequency = prompt, presence, frequency
        self.tokens, self.bias = torch.tensor(list(bias), dtype=torch.long), torch.tensor(list(bias.values()))

    def __call__(self, input_ids: Int[Tensor, "1 length"], scores: Float[Tensor, "1 vocabulary"]) -> Float[Tensor, "1 vocabulary"]:
        count = torch.bincount(input_ids[0, self.prompt :], minlength=scores.shape[-1]).to(scores)
        scores = scores - self.frequency * count - self.presence * (count > 0)
        scores[0, self.tokens.to(scores.device)] += self.bias.to(scores)
        return scores
