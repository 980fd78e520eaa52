"""`lw maze`: watch a maze being flooded, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from latentweaver.commands.common import can_write, numbers, quiet


@dataclass(frozen=True)
class Maze:
    """A maze, and which way to its goal the model knows after each number of steps."""

    model: Annotated[str, tyro.conf.Positional] = "weaver-mazes"
    """A name or a checkpoint folder of a model that was trained on flood (`lw train mazes`)."""

    steps: str = "1,2,4,8,12,20"
    """Numbers of steps to look at."""

    distance: int = 12
    """Moves from the start to the goal, so that the maze has ways at least as long."""

    side: int = 6
    """Places in a row, and rows; what the model was trained on."""

    seed: int = 0
    """Another seed, another maze."""

    plot: Path | None = None
    """Also draw it: .png or .svg."""

    def __call__(self) -> None:
        from rich.columns import Columns
        from rich.panel import Panel
        from rich.text import Text

        from latentweaver import tasks
        from latentweaver.checkpoints.loading import load
        from latentweaver.console import make_console
        from latentweaver.errors import InputError
        from latentweaver.evaluate.flood import plot_flood, told
        from latentweaver.tasks.characters import Characters
        from latentweaver.tasks.flood import HEAVY

        can_write(picture=self.plot)
        steps = numbers("--steps", self.steps)
        quiet()
        model = load(self.model)
        if model.config.vocab_size != len(Characters(tasks.Flood.characters)):
            raise InputError(f"{self.model} was not trained on mazes; give a model of the recipe mazes")
        problem = tasks.draw(tasks.Flood(self.side), "test", self.distance, self.seed)
        truth = {hint.place: hint.value for hint in problem.hints}
        found, panels = told(model, problem, steps), []
        for said in found:
            text = Text()
            for at, glyph in enumerate(problem.prompt):
                arrow = said.arrows.get(at)
                style = "bold" if glyph in HEAVY else "dim" if arrow is None else "green" if arrow == truth[at] else "red"
                text.append(arrow or glyph, style)
            name = f"{said.steps} step{'s' * (said.steps > 1)}"
            panels.append(Panel(text, title=name, subtitle=f"{said.right}/{said.places}", expand=False))
        console = make_console()
        console.print(Columns(panels))
        console.print("[dim]An arrow is the way to the goal (heavy) where the model is at least 90 % sure of it; red ones are wrong.[/dim]")
        if self.plot is not None:
            console.print(f"[dim]{plot_flood(found, problem, self.plot)}[/dim]")
