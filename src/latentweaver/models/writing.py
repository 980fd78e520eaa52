"""`generate` of continuous thought: think once, then write one token after another from the Thought's memory."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.runtime.generation import dial
from latentweaver.runtime.thinking import think_for, think_until
from latentweaver.thought import Thought


class Writer:
    """Thinks once, then writes one token after another: what `_sample` asks for the logits of the next."""

    cache = None

    def __init__(self, model: Any, options: dict[str, Any]) -> None:
        self.model, self.options = model, options
        self.thought: Thought | None = None

    def next(
        self, input_ids: Int[Tensor, "batch sequence"], alive: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch vocabulary"], Int[Tensor, "batch"]]:
        """Logits of the next token, float32, and the thoughts each row had for it: none after the first token."""
        if self.thought is None:
            thought: Thought = self.model.close(self._think(input_ids))
            steps = thought.step[:, -1]
        else:
            thought = self.model.begin(input_ids[:, -1:], after=self.thought)
            steps = torch.zeros(len(input_ids), dtype=torch.long)
        self.thought = thought
        return self.model.head(thought.state)[:, -1].float(), steps

    def _think(self, input_ids: Tensor) -> Thought:
        model, options = self.model, self.options
        thought = model.begin(input_ids, options.get("attention_mask"), options.get("initial_state"), options.get("generator"))
        wanted = options.get("num_steps")
        if wanted == 0 or (wanted is None and model.has_thoughts(input_ids)):
            return thought
        steps = dial(model, wanted)
        if not isinstance(steps, int):
            raise InputError(f"num_steps must be a number of thoughts, got {steps!r}")
        halting, watch = options.get("halting"), options.get("watch")
        if halting is None:
            return think_for(model, thought, steps, watch)
        return think_until(model, thought, halting, steps, min(options.get("min_steps") or 1, steps), watch=watch)
