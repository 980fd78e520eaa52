"""Verifiable tasks: problems made at run time, with one knob for difficulty and a judge for the answer. No download, no model.

    task = tasks.Chains()
    problem = tasks.draw(task, "test", difficulty=6, seed=0)
    task.judge(problem, answer)

`TASKS` names those made of characters, `WORDED` those in plain English (see `tasks.worded`).
"""

from __future__ import annotations

from collections.abc import Callable

from latentweaver.errors import InputError
from latentweaver.tasks.chains import Chains
from latentweaver.tasks.maze import Maze
from latentweaver.tasks.multiplication import Multiplication
from latentweaver.tasks.problem import Hint, Problem, Split, Task, draw, split_of
from latentweaver.tasks.sudoku import Sudoku
from latentweaver.tasks.worded import WORDED, Worded

TASKS: dict[str, Callable[..., Task]] = {"chains": Chains, "maze": Maze, "multiplication": Multiplication, "sudoku": Sudoku}

__all__ = [
    "TASKS",
    "WORDED",
    "Chains",
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
    """The task of that name, with its default settings."""
    known = {**TASKS, **WORDED}
    if name not in known:
        raise InputError(f"unknown task {name!r}; there are {', '.join(known)}")
    return known[name]()
