"""What a model costs: arithmetic, memory traffic and cache, each as a function of the dial.

Per token a looped model runs its prelude, coda and head once and its core at every step, so work is a + b * steps. Decoding
one row reads every weight it uses once per use: the same a + b * steps in bytes, which is what bounds its speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Cost:
    """Counts for one token; attention over earlier tokens is not in them.

    Attributes:
        parameters: parameters by part; a tied head counts in the embedding only.
        once: parameters used once a token (prelude, coda, norm, head).
        per_step: parameters used at every step (injection, core).
        weight_bytes: bytes of one parameter.
        once_slots: cached blocks that run once a token.
        step_slots: cached blocks that run at every step.
        slot_bytes: bytes that one token takes in one slot.
    """

    parameters: dict[str, int]
    once: int
    per_step: int
    weight_bytes: int
    once_slots: int
    step_slots: int
    slot_bytes: int

    def flops(self, steps: int) -> int:
        """Floating-point operations for one token: two for each parameter used."""
        return 2 * (self.once + self.per_step * steps)

    def bytes_read(self, steps: int) -> int:
        """Bytes of weights that decoding one token of one row reads."""
        return self.weight_bytes * (self.once + self.per_step * steps)

    def cache_bytes(self, steps: int, kept: int | None = None) -> int:
        """Bytes of keys and values that one token takes, keeping `kept` recurrences (all of them if None)."""
        kept = steps if kept is None else min(kept, steps)
        return self.slot_bytes * (self.once_slots + self.step_slots * kept)


def cost_of(model: Any) -> Cost:
    """The cost of a recurrent-depth model (one with `parts`), loaded or on the meta device."""
    parts: dict[str, nn.Module] = model.parts()
    counts = {role: sum(parameter.numel() for parameter in part.parameters()) for role, part in parts.items()}
    head = counts["lm_head"]
    if model.config.tie_word_embeddings:
        counts.pop("lm_head")
    config = model.config
    weight_bytes = max(parts["core"].parameters(), key=lambda parameter: parameter.numel()).element_size()  # 1 for 8-bit matrices
    return Cost(
        parameters=counts,
        once=counts["prelude"] + counts["coda"] + counts["norm"] + head,
        per_step=counts["injection"] + counts["core"],
        weight_bytes=weight_bytes,
        once_slots=config.prelude_layers + config.coda_layers,
        step_slots=config.core_layers,
        slot_bytes=2 * config.num_key_value_heads * config.head_dim * model.dtype.itemsize,
    )
