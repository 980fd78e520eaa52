"""`lw eval` and `lw bench`: how good and how fast, at each setting of the dial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from latentweaver.commands.common import can_write, numbers, quiet, write_json
from latentweaver.errors import InputError


@dataclass(frozen=True)
class Eval:
    """Accuracy of a model on a task, against steps and against difficulty, with 95 % intervals."""

    model: Annotated[str, tyro.conf.Positional]
    """A name or a checkpoint folder: for a task made of characters one whose tokens these are; any language model for one in words."""

    task: str = "chains"
    """The task (see `latentweaver.tasks`); in words are sums, homes, logic, counters, swaps and arrows."""

    steps: str = "1,2,4,8,16,32,64"
    """Numbers of steps to read the answer at."""

    difficulty: str = ""
    """Difficulties to ask for; if not given, those of 1,2,4,8,16,32 that the task has."""

    problems: int = 200
    """Problems of each difficulty."""

    seed: int = 0
    """Another seed, other problems."""

    written: bool = False
    """Have the way written down before the answer, with --steps for each token: a task in words, and a model that was taught to
    write, as smollm2-weaver was."""

    tokens: int = 160
    """With --written: the most tokens of a reply; a longer one counts as wrong."""

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
        from latentweaver.evaluate import accuracy_against_steps
        from latentweaver.evaluate.plot import plot
        from latentweaver.evaluate.worded import accuracy_in_words

        if self.problems < 1:
            raise InputError(f"--problems must be at least 1, got {self.problems}")
        if self.tokens < 1:
            raise InputError(f"--tokens must be at least 1, got {self.tokens}")
        can_write(self.json, picture=self.plot, kinds=(".png", ".svg", ".html"))
        steps, task = numbers("--steps", self.steps), tasks.task(self.task)
        difficulties = self._difficulties(*task.difficulties)
        if self.written and not isinstance(task, tasks.Worded):
            raise InputError(f"{self.task} has no written form; tasks that have one: {', '.join(tasks.WORDED)}")
        quiet()
        console, model = make_console(), load(self.model, device=self.device)
        if self.written:
            table = self._in_writing(model, task, steps, difficulties, console)
        elif isinstance(task, tasks.Worded):
            table = accuracy_in_words(model, load_tokenizer(self.model), task, steps, difficulties, self.problems, self.seed)
        else:
            table = accuracy_against_steps(model, task, steps, difficulties, self.problems, self.seed)
        console.print(f"{self.model} on {self.task}, accuracy in per cent with 95 % intervals, {self.problems} problems a row")
        console.print(str(table), markup=False)
        if self.json is not None:
            table.to_json(self.json)
        if self.plot is not None:
            console.print(f"[dim]{plot(table, self.plot, f'{self.model} on {self.task}')}[/dim]")

    def _difficulties(self, low: int, high: int) -> list[int]:
        """Those that were asked for, or what the task has of 1, 2, 4, ...

        Raises:
            InputError: one that the task does not have; said before anything is computed.
        """
        if not self.difficulty:
            return [level for level in (1, 2, 4, 8, 16, 32) if low <= level <= high] or [low]
        asked = numbers("--difficulty", self.difficulty)
        if wrong := [level for level in asked if not low <= level <= high]:
            raise InputError(f"--difficulty: {self.task} has difficulties {low} to {high}, got {', '.join(map(str, wrong))}")
        return asked

    def _in_writing(self, model: Any, task: Any, steps: list[int], difficulties: list[int], console: Any) -> Any:
        """The table of answers that are written with the way to them; each cell is said as soon as it is known."""
        from latentweaver.checkpoints.loading import load_tokenizer
        from latentweaver.evaluate.worded import WRITTEN_SIZES, Written, accuracy_in_writing

        answered = 0

        def report(cell: Written) -> None:
            nonlocal answered
            answered += cell.answered
            if not answered:  # the easiest problems with the most steps; what comes next takes minutes and would be no better
                raise InputError(
                    f"none of {cell.count} replies (difficulty {cell.difficulty}, steps {cell.steps}) came to an answer: {self.model} "
                    f"was not taught to write its way down, as smollm2-weaver was, or --tokens {self.tokens} is too few"
                )
            right, sure, tokens = cell.shown
            console.print(f"difficulty {cell.difficulty}, steps {cell.steps}: {right} ({sure}), {tokens}", style="dim", highlight=False)

        return accuracy_in_writing(
            model,
            load_tokenizer(self.model),
            task,
            steps,
            sorted(difficulties),
            self.problems,
            self.seed,
            WRITTEN_SIZES,
            self.tokens,
            batch_size=32,  # what a reply keeps in memory grows with its tokens and its steps
            report=report,
        )


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

        can_write(self.json)
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
