"""Labels that can be known by now, read once after the last step: for models whose readout is too large to be made every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from latentweaver.training.objectives import IGNORED, Terms, answered, mean


@dataclass(frozen=True)
class Solvable:
    """After n + k steps, the labels whose `depth` is at most that number, and no others.

    With the number of steps drawn anew for every update this is `EveryStep` spread over updates. The head is applied where
    there is a label to ask for and nowhere else, which for a vocabulary of 49,152 is most of its cost.

    Attributes:
        solvable_only: ask for a label only once there were as many steps as it is deep.
        answer_weight: weight of a label of the answer relative to one of a hint.
        compile: as in `answered`.
    """

    solvable_only: bool = True
    answer_weight: float = 4.0
    compile: bool = False

    def __call__(self, model: Any, batch: Any, depth: tuple[int, int], seed: int) -> Terms:
        asked = batch.labels != IGNORED
        if self.solvable_only:
            asked = asked & (batch.depth <= sum(depth))
        places = asked.nonzero(as_tuple=True)  # waits for the device, which has nothing to do yet
        thought = model.begin(batch.input_ids, generator=seed)
        with torch.no_grad():
            for _ in range(depth[0]):
                thought = model.think(thought)
        before = thought.state
        for _ in range(depth[1]):
            before = thought.state
            thought = model.think(thought)
        losses, right = answered(model, thought, batch.labels[places], places, self.compile)
        weight = torch.where(batch.is_answer[places], self.answer_weight, 1.0)
        report = {"accuracy": mean(right, torch.ones_like(right)).detach(), "asked": asked.float().mean()}
        return Terms(mean(losses, weight), report, (before.detach(), thought.state.detach()))
