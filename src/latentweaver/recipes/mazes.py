"""`weaver-mazes`: a small reasoner that floods a maze from its goal, one move a step, trained from nothing.

The recipe of `weaver-chains` on a picture: every place says which way leads to the goal, after every step, or "?" as long as there
were fewer steps than it is far. So each update is a one-hop problem at all distances at once: look at the places next door, and
if one of them knows its way, point to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from latentweaver import tasks
from latentweaver.recipes.chains import Chains
from latentweaver.tasks.characters import Characters
from latentweaver.tasks.flood import UNKNOWN
from latentweaver.training.objectives import EveryStep


@dataclass(frozen=True)
class Mazes(Chains):
    """The recipe of `weaver-mazes`; for the fields that are not here see `Chains`.

    Attributes:
        side: places in a row of a maze, and rows.
        depth: the longest way of a maze's answer in training. All its places are asked, but of those that are farther than there
            are steps only that they are not known yet.
    """

    side: int = 6
    depth: int = 12
    width: int = 64
    inner: int = 172
    initial_state: str = "zeros"
    low_steps: int = 1
    high_steps: int = 20
    backprop: int = 4
    warm_steps: int = 2
    warm_updates: int = 150
    rise_updates: int = 250
    answer_weight: float = 1.0
    batch_size: int = 32
    updates: int = 1000
    lr: float = 2e-3
    optimiser: Literal["adamw", "muon"] = "muon"

    @property
    def task(self) -> tasks.Task:
        """The task."""
        return tasks.Flood(self.side)

    def objective(self) -> EveryStep:
        """What is asked: as soon as it can be known the arrow, before that "?"."""
        unknown = Characters(self.task.characters).ids[UNKNOWN] if self.solvable_only else None
        return EveryStep(solvable_only=self.solvable_only, answer_weight=self.answer_weight, unknown=unknown)

    def looks(self) -> dict[str, tuple[int, int]]:
        """As in `Chains`; a maze is solved if every place on the way is answered right."""
        return {
            "distance_4": (4, 4),
            f"distance_{self.depth}": (self.depth, self.depth),
            f"distance_{self.depth}_one_step": (self.depth, 1),
            f"distance_{2 * self.depth}": (2 * self.depth, 2 * self.depth),
            f"distance_{self.depth}_long": (self.depth, 4 * self.high_steps),
        }


@dataclass(frozen=True)
class MazesNoLoop(Mazes):
    """A control of `Mazes`: the same blocks applied once, every place asked at once."""

    low_steps: int = 1
    high_steps: int = 1
    warm_steps: int = 1
    solvable_only: bool = False


@dataclass(frozen=True)
class MazesNoLoopDeep(MazesNoLoop):
    """A control of `Mazes`: no loop, but ten blocks of their own in the middle."""

    core: int = 10
