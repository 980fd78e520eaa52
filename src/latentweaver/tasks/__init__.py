"""Verifiable tasks: problems made at run time, with one knob for difficulty and a judge for the answer. No download, no model.

    task = tasks.Chains()
    problem = tasks.draw(task, "test", difficulty=6, seed=0)
    task.judge(problem, answer)

`TASKS` names them all.
"""

from __future__ import annotations

from collections.abc import Callable

from latentweaver.errors import InputError
from latentweaver.tasks.chains import Chains
from latentweaver.tasks.problem import Hint, Problem, Split, Task, draw, split_of

TASKS: dict[str, Callable[..., Task]] = {"chains": Chains}

__all__ = ["TASKS", "Chains", "Hint", "Problem", "Split", "Task", "draw", "split_of", "task"]


def task(name: str) -> Task:
    """The task of that name, with its default settings."""
    if name not in TASKS:
        raise InputError(f"unknown task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]()
