"""`lw eval` and `lw bench`: how good and how fast, at each setting of the dial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from latentweaver.commands.common import numbers, quiet, write_json


@dataclass(frozen=True)
class Eval:
    """Accuracy of a model on a task, against steps and against difficulty, with 95 % intervals."""

    model: Annotated[str, tyro.conf.Positional]
    """A name or a checkpoint folder: for a task made of characters one whose tokens these are; any language model for one in words."""

    task: str = "chains"
    """The task (see `latentweaver.tasks`); in words are sums, homes, logic, counters, swaps and arrows."""

    steps: str = "1,2,4,8,16,32,64"
    """Numbers of steps to read the answer at."""

    difficulty: str = "1,2,4,8,16,32"
    """Difficulties to ask for."""

    problems: int = 200
    """Problems of each difficulty."""

    seed: int = 0
    """Another seed, other problems."""

    json: Path | None = None
    """Also write the table to this file."""

    plot: Path | None = None
    """Also draw it: .png, .svg or .html."""

    device: str = "auto"
    """Where to run."""

    def __call__(self) -> None:
        from latentweaver import tasks
        from latentweaver.checkpoints.loading import load, load_tokenizer
        from latentweaver.console import make_console
        from latentweaver.errors import InputError
        from latentweaver.evaluate import accuracy_against_steps
        from latentweaver.evaluate.plot import plot
        from latentweaver.evaluate.worded import accuracy_in_words

        if self.problems < 1:
            raise InputError(f"--problems must be at least 1, got {self.problems}")
        steps, difficulties = numbers("--steps", self.steps), numbers("--difficulty", self.difficulty)
        task = tasks.task(self.task)
        quiet()
        model = load(self.model, device=self.device)
        if isinstance(task, tasks.Worded):
            table = accuracy_in_words(model, load_tokenizer(self.model), task, steps, difficulties, self.problems, self.seed)
        else:
            table = accuracy_against_steps(model, task, steps, difficulties, self.problems, self.seed)
        console = make_console()
        console.print(f"{self.model} on {self.task}, accuracy in per cent with 95 % intervals, {self.problems} problems a row")
        console.print(str(table), markup=False)
        if self.json is not None:
            table.to_json(self.json)
        if self.plot is not None:
            console.print(f"[dim]{plot(table, self.plot, f'{self.model} on {self.task}')}[/dim]")


@dataclass(frozen=True)
class Bench:
    """Tokens per second, time to first token, and weights read against what this machine can read."""

    model: Annotated[str, tyro.conf.Positional]
    """A name, a checkpoint folder, a GGUF file, or owner/repository on the hub."""

    steps: str = "1,4,16"
    """Settings of the dial."""

    batch: str = "1,8"
    """Rows decoded together."""

    prompt: int = 32
    """Tokens of each prompt."""

    tokens: int = 32
    """Tokens to write."""

    int8: bool = False
    """Keep the weights in 8 bits."""

    dtype: str = "auto"
    """Precision: "auto", "float32", "bfloat16", "float16"."""

    device: str = "auto"
    """Where to run."""

    json: Path | None = None
    """Also write the numbers to this file."""

    def __call__(self) -> None:
        import torch
        from rich.table import Table

        from latentweaver.checkpoints.loading import load
        from latentweaver.console import make_console
        from latentweaver.runtime.bench import bench, last_level_cache
        from latentweaver.runtime.int8 import quantize

        steps, batches = numbers("--steps", self.steps), numbers("--batch", self.batch)
        quiet()
        model = load(self.model, dtype=self.dtype, device=self.device)
        if self.int8:
            quantize(model)
        speeds = bench(model, steps, batches, self.prompt, self.tokens)
        rows = [speed.as_dict() for speed in speeds]
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("steps", "rows", "1st token", "tokens/s", "steps/token", "MB read", "GB/s", "of limit"):
            table.add_column(column, justify="right", no_wrap=True)
        for speed in speeds:
            first = f"{speed.first_token_seconds:.3f} s"
            read = (f"{speed.megabytes_per_pass:.1f}", f"{speed.gigabytes_per_second:.1f}", f"{speed.share_of_bandwidth:.0%}")
            per_token = (f"{speed.tokens_per_second:.1f}", f"{speed.steps_per_token:.1f}")
            table.add_row(str(speed.steps), str(speed.batch), first, *per_token, *read)
        console, reading = make_console(), speeds[0].gigabytes_per_second / speeds[0].share_of_bandwidth
        cache = last_level_cache() if model.device.type == "cpu" else None
        console.print(
            f"{self.model} on {model.device.type}"
            + (f", threads: {torch.get_num_threads()}" if model.device.type == "cpu" else "")
            + f"; memory is read at {reading:.1f} GB/s; the core takes {speeds[0].core_megabytes:.1f} MB"
            + (f", the last-level cache {cache / 1e6:.0f}" if cache else ""),
            soft_wrap=True,
        )
        console.print(table)
        console.print("MB read: weights, for one token of every row. Of limit: GB/s as a part of what memory gives.", soft_wrap=True)
        if self.json is not None:
            write_json(self.json, rows)
