"""`lw info` and `lw models`: what a model is and costs, and which have names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Info:
    """What a model is and what it costs: topology, parameters, cost per step, memory per token."""

    model: Annotated[str, tyro.conf.Positional]
    """A name, a checkpoint folder, a GGUF file, or owner/repository on the hub."""

    def __call__(self) -> None:
        from latentweaver.checkpoints.loading import describe
        from latentweaver.console import facts, make_console, thinker_facts
        from latentweaver.runtime.cost import cost_of

        model = describe(self.model)
        looped = hasattr(model, "parts")
        make_console().print(facts(self.model, model, cost_of(model)) if looped else thinker_facts(self.model, model))


@dataclass(frozen=True)
class Models:
    """The models that can be asked for by name."""

    def __call__(self) -> None:
        from rich.table import Table

        from latentweaver.checkpoints.names import NAMES
        from latentweaver.console import make_console
        from latentweaver.folders import cache_folder

        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("name", "where", "what it is"):
            table.add_column(column, no_wrap=column != "what it is")
        for name, known in NAMES.items():
            if known.find() is not None:
                where = "installed"
            elif (cache_folder() / name / "config.json").is_file():
                where = "converted"
            else:
                where = f"get it: {known.install}"
            table.add_row(name, where, known.about)
        make_console().print(table)
