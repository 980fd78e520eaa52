"""What is asked of continuous thoughts. The number of thoughts is in the batch, so these pay no heed to the depth.

Answer    the labels after the thoughts, and nothing of the thoughts themselves (COCONUT, arXiv 2412.06769)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from latentweaver.training.objectives import Depth, Terms


@dataclass(frozen=True)
class Answer:
    """Cross-entropy of the labelled tokens; the batch has `input_ids`, `attention_mask` and `labels`."""

    def __call__(self, model: Any, batch: Any, depth: Depth, seed: int) -> Terms:
        hidden = model.trace(batch.input_ids, batch.attention_mask).hidden
        return Terms(model.labelled_loss(hidden, batch.labels))
