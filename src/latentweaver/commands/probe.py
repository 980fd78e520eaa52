"""`lw probe`: can something be read from the latent state, after which step, and is it more than the text gives away?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from latentweaver.commands.common import can_write, quiet

if TYPE_CHECKING:
    from latentweaver.inspect.labelled import Labelled


@dataclass(frozen=True)
class Probe:
    """Train and test a probe of the latent state after each step, with its controls beside it."""

    model: Annotated[str, tyro.conf.Positional]
    """A name, a checkpoint folder, a GGUF file, or owner/repository on the hub."""

    data: Path | None = None
    """Texts with labels, one JSON object a line: {"text": ..., "label": ..., "group": ...}; texts of one group (prompt, template)
    stay on one side of every split."""

    task: str | None = None
    """In place of --data: the values that become known on the way to the answers of this task ("chains")."""

    depth: int = 4
    """With --task: values that take so many steps in a row."""

    items: int = 400
    """With --task: how many problems."""

    steps: str = "0,1,2,3,4,6,8,16"
    """After which steps to look."""

    untrained: bool = True
    """Also probe the same model with random weights."""

    seed: int = 0
    """Of problems, splits, dealt labels and random weights."""

    json: Path | None = None
    """Also write the table to this file."""

    plot: Path | None = None
    """Also draw it: .png or .svg."""

    dtype: str = "float32"
    """Precision: "auto", "float32", "bfloat16", "float16"."""

    device: str = "auto"
    """Where to run."""

    def __call__(self) -> None:
        from latentweaver.checkpoints.loading import load, load_tokenizer
        from latentweaver.console import make_console
        from latentweaver.inspect.labelled import states_after
        from latentweaver.inspect.probe_table import draw_probe_table, probe_steps

        can_write(self.json, picture=self.plot)
        steps, items = _steps(self.steps), self._items()
        _needs_scikit_learn()
        quiet()
        model, tokenizer = load(self.model, dtype=self.dtype, device=self.device), load_tokenizer(self.model)
        texts = [item.text for item in items]

        def states(one: Any) -> Any:
            return states_after(one, lambda text: tokenizer(text).input_ids, texts, steps)

        table = probe_steps(
            states(model),
            [item.label for item in items],
            [item.group for item in items],
            steps=steps,
            texts=texts,
            untrained=states(_random_twin(model, self.seed)) if self.untrained else None,
            seed=self.seed,
        )
        console = make_console()
        about = f"{self.model}: {self.data or f'values of {self.task} that are {self.depth} deep'}"
        several = (
            f"of {len(table.classes)} classes" if table.metric == "accuracy" else f"of {table.classes[1]!r} against {table.classes[0]!r}"
        )
        console.print(f"{about}; {table.metric} {several}, {table.items} items in {table.groups} groups", markup=False)
        console.print(str(table), markup=False, soft_wrap=True)
        start = table.readable_from
        verdict = (
            "not readable at the last step beyond what the controls read"
            if start is None
            else f"readable beyond every control from step {start} on"
        )
        console.print(f"{verdict} (chance {table.chance:.3f}). Readable is not used: lw.inspect.interchange asks that.", markup=False)
        if table.leaking:
            console.print(
                f"warning: {table.leaking} groups are on both sides of a split, or have states that are copies of another group's",
                style="yellow",
            )
        if self.json is not None:
            table.to_json(self.json, model=self.model, about=about, seed=self.seed)
        if self.plot is not None:
            console.print(f"[dim]{draw_probe_table(table, self.plot, about)}[/dim]")

    def _items(self) -> list[Labelled]:
        from latentweaver import tasks
        from latentweaver.errors import InputError
        from latentweaver.inspect.labelled import known_on_the_way, read_labelled

        if (self.data is None) == (self.task is None):
            raise InputError("say what to read from the states: either --data FILE.jsonl or --task chains")
        if self.data is not None:
            return read_labelled(self.data)
        if self.items < 1 or self.depth < 0:
            raise InputError(f"--items must be at least 1 and --depth at least 0, got {self.items} and {self.depth}")
        return known_on_the_way(tasks.task(str(self.task)), self.depth, self.items, self.seed)


def _steps(text: str) -> list[int]:
    from latentweaver.errors import InputError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--steps must be whole numbers from 0, separated by commas; got {text!r}")
    return sorted({int(part) for part in parts})


def _needs_scikit_learn() -> None:
    from latentweaver.errors import InputError

    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise InputError(f"probes need scikit-learn: pip install 'latentweaver[inspect]' ({error})") from error


def _random_twin(model: Any, seed: int) -> Any:
    """The same model with random weights."""
    import torch

    torch.manual_seed(seed)
    twin = type(model)(model.config)
    return twin.to(device=model.device, dtype=model.dtype).eval()
