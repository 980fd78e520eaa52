"""Every published run as a typed function: `train("chains")` reproduces it, keyword arguments override it.

recipes.train("chains", folder="runs/chains", updates=200)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Any

from latentweaver.errors import InputError
from latentweaver.recipes.chains import AnswersOnly, Chains, NoLoop, NoLoopDeep
from latentweaver.recipes.mazes import Mazes, MazesNoLoop, MazesNoLoopDeep
from latentweaver.recipes.methods import METHODS, MethodName
from latentweaver.recipes.prontoqa import ProntoQA
from latentweaver.recipes.prosqa import ProsQA
from latentweaver.recipes.smollm2_weaver import SmolLM2NoLoop, SmolLM2Weaver
from latentweaver.recipes.stepwise import Stepwise
from latentweaver.recipes.superposition import Superposition
from latentweaver.recipes.word_problems import WordProblems

RECIPES: dict[str, type] = {
    "chains": Chains,
    "chains-answers-only": AnswersOnly,
    "chains-no-loop": NoLoop,
    "chains-no-loop-deep": NoLoopDeep,
    "mazes": Mazes,
    "mazes-no-loop": MazesNoLoop,
    "mazes-no-loop-deep": MazesNoLoopDeep,
    "smollm2-weaver": SmolLM2Weaver,
    "smollm2-weaver-no-loop": SmolLM2NoLoop,
    "superposition": Superposition,
}
STEPWISE: dict[str, type[Stepwise]] = {kind.name: kind for kind in (ProsQA, ProntoQA, WordProblems)}
"""Tasks whose problems have steps, and so a recipe for every method: prosqa-coconut, prosqa-cot, ..., words-lotus."""
for _kind in STEPWISE.values():
    for _method in METHODS:
        _field = ("method", MethodName, _method)
        _options = {"frozen": True, "namespace": {"__doc__": _kind.__doc__, "__module__": _kind.__module__}}
        RECIPES[f"{_kind.name}-{_method}"] = make_dataclass(_kind.__name__, [_field], bases=(_kind,), **_options)

__all__ = [
    "RECIPES",
    "AnswersOnly",
    "Chains",
    "Mazes",
    "MazesNoLoop",
    "MazesNoLoopDeep",
    "NoLoop",
    "NoLoopDeep",
    "ProntoQA",
    "ProsQA",
    "SmolLM2NoLoop",
    "SmolLM2Weaver",
    "Superposition",
    "train",
]


def train(
    name: str,
    folder: str | Path | None = None,
    resume: bool = False,
    report: Callable[[dict[str, Any]], None] | None = None,
    **overrides: Any,
) -> Path:
    """Run a recipe.

    Args:
        name: one of `RECIPES`.
        folder: where the run is kept and the model is saved; `runs/NAME` if None.
        resume: go on with the run in that folder.
        report: is given each line of the log as it is written.
        overrides: fields of the recipe to change.

    Returns:
        The folder of the trained model, which `lw think`, `lw eval` and `from_pretrained` open.

    Raises:
        InputError: an unknown recipe or field, a value that a field cannot have, or a folder that holds another run.
    """
    if name not in RECIPES:
        raise InputError(f"unknown recipe {name!r}; there are {', '.join(RECIPES)}")
    known = {field.name for field in fields(RECIPES[name])}
    if unknown := sorted(set(overrides) - known):
        raise InputError(f"the recipe {name} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    return RECIPES[name](**overrides).run(folder or Path("runs") / name, resume, report)
