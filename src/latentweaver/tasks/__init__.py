"""Verifiable tasks: problems made at run time, with one knob for difficulty and a judge for the answer. No download, no model.

    task = tasks.Chains()
    problem = tasks.draw(task, "test", difficulty=6, seed=0)
    task.judge(problem, answer)

`TASKS` names those made of characters, `WORDED` those in plain English (see `tasks.worded`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from latentweaver.errors import InputError
from latentweaver.tasks.chains import Chains
from latentweaver.tasks.flood import Flood
from latentweaver.tasks.maze import Maze
from latentweaver.tasks.multiplication import Multiplication
from latentweaver.tasks.problem import Hint, Problem, Split, Task, draw, split_of
from latentweaver.tasks.sudoku import Sudoku
from latentweaver.tasks.worded import WORDED, Worded

TASKS: dict[str, Callable[..., Task]] = {"chains": Chains, "flood": Flood, "maze": Maze, "multiplication": Multiplication, "sudoku": Sudoku}

__all__ = [
    "TASKS",
    "WORDED",
    "Chains",
    "Flood",
    "Hint",
    "Maze",
    "Multiplication",
    "Problem",
    "Split",
    "Sudoku",
    "Task",
    "Worded",
    "draw",
    "split_of",
    "task",
]


def task(name: str) -> Task:
    """The task of that name, with its default settings.

    Raises:
        InputError: if there is none of that name, or what it is made from cannot be used.
    """
    kind, colon, rest = name.partition(":")
    if colon and kind in ADAPTERS:
        return ADAPTERS[kind](rest)
    known = {**TASKS, **WORDED}
    if name not in known:
        raise InputError(f"unknown task {name!r}; there are {', '.join([*known, *(f'{kind}:{form}' for kind, form in FORMS.items())])}")
    return known[name]()


def _gym(rest: str) -> Task:
    from latentweaver.tasks.gym import Gym

    return Gym(rest)


def _recorded(kind: str, rest: str) -> Task:
    from latentweaver.tasks.recorded import Recorded

    train, comma, test = rest.partition(",")
    if not (train and comma and test):
        raise InputError(f"{kind} needs two files, {kind}:TRAIN,TEST; got {rest!r}")
    return Recorded.of(kind, train, test)


FORMS = {"gsm8k": "TRAIN,TEST", "prosqa": "TRAIN,TEST", "reasoning-gym": "NAME"}
ADAPTERS: dict[str, Callable[[str], Task]] = {
    "gsm8k": partial(_recorded, "gsm8k"),
    "prosqa": partial(_recorded, "prosqa"),
    "reasoning-gym": _gym,
}
