"""`lw ablate`: do a trained model's thoughts matter to its answers?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from latentweaver.commands.common import can_write, in_columns, per_cent, quiet, write_json


@dataclass(frozen=True)
class Ablate:
    """Answers with thoughts swapped between problems, permuted, noised, zeroed, replaced by their mean, or cut; with 95 % intervals."""

    model: Annotated[str, tyro.conf.Positional]
    """A folder that `lw train prosqa-coconut` or one of its siblings left."""

    task: str = "prosqa"
    """The task that the model was trained on: prosqa, prontoqa, words."""

    test: Path | None = None
    """A file of problems: needed for prontoqa; prosqa's are drawn without it."""

    problems: int = 200
    """How many problems, at most."""

    seed: int = 0
    """Another seed, other partners, orders and noise."""

    json: Path | None = None
    """Also write the numbers to this file."""

    device: str = "auto"
    """Where to run."""

    def __call__(self) -> None:
        from latentweaver.checkpoints.loading import load, load_tokenizer
        from latentweaver.console import make_console
        from latentweaver.errors import InputError
        from latentweaver.recipes import STEPWISE as kinds
        from latentweaver.recipes.comparing import ablated

        if self.task not in kinds:
            raise InputError(f"unknown task {self.task!r}; thoughts can be ablated on {', '.join(kinds)}")
        if self.problems < 2:
            raise InputError(f"--problems must be at least 2, since thoughts are swapped between problems; got {self.problems}")
        can_write(self.json)
        quiet()
        model, tokenizer = load(self.model, device=self.device), load_tokenizer(self.model)
        about = getattr(model.config, "task", None) or {}
        if about.get("name") != self.task:
            raise InputError(
                f"{self.model} was not trained on {self.task} by a recipe of problems with steps (lw train {self.task}-coconut)"
            )
        given = {} if self.test is None else {"test": self.test}
        if given and "test" not in kinds[self.task].__dataclass_fields__:
            raise InputError(f"problems of {self.task} are drawn, not read; leave out --test")
        recipe: Any = kinds[self.task](**given, **about["problems"])
        effects = ablated(model, tokenizer, recipe.test_items()[: self.problems], self.seed)
        lines = [["thoughts", "accuracy", "difference", "McNemar's p", "answers changed"]]
        for effect in effects:
            accuracy = per_cent(effect.accuracy, *effect.accuracy_interval)
            difference = per_cent(effect.difference.mean, effect.difference.low, effect.difference.high, "+")
            changed = per_cent(effect.changed, *effect.changed_interval)
            lines.append([effect.name, accuracy, difference, f"{effect.p_value:.2g}", changed])
        console = make_console()
        console.print(f"{self.model} ({about['method']}) on {len(effects[0].right)} problems of {self.task}, per cent", markup=False)
        console.print(in_columns(lines), markup=False, highlight=False, soft_wrap=True)
        if self.json is not None:
            write_json(self.json, [effect.as_dict() for effect in effects])
