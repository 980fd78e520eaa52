"""The `lw` command. Each subcommand is a thin call into the library; what can be wrong in the input ends in one line and exit
code 2.

Nothing heavy is imported until a command needs it: `lw --help` must answer at once.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from rich.console import Console

    from latentweaver.halting import HaltingRule

QUESTIONS = (
    "What is the capital of France?",
    "How many legs do three spiders have?",
    "Name three primary colors.",
)


@dataclass(frozen=True)
class Think:
    """Think about a question and answer it, each token tinted by the steps it took."""

    question: Annotated[str, tyro.conf.Positional]
    """What to think about."""

    model: str = "smollm2-135m"
    """A name (see `lw models`), a checkpoint folder, a GGUF file, or owner/repository on the hub."""

    steps: str | None = None
    """The dial: a number, "auto" to stop when the state settles, a schedule ("first:32,8"), or several settings to see side
    by side ("1,4,16"). Left out, the model's own default."""

    max_steps: int = 32
    """With --steps auto, never more than this many."""

    threshold: float = 0.03
    """With --steps auto, stop when a step moves the state by less than this part of its norm."""

    tokens: int = 64
    """At most this many new tokens."""

    trace: bool = False
    """Also print what the model would have said after each step of each token."""

    raw: bool = False
    """Give the question to the model as it is, without the chat template."""

    temperature: float = 0.0
    """0 for greedy decoding; above it, sample."""

    seed: int = 0
    """Seed of the first states and of sampling."""

    warm_start: bool = False
    """Begin each token from the state of the one before it."""

    cache: str = "full"
    """Which steps' keys and values are kept: "full", "shared", "shared:K" or "anchor:N"."""

    dtype: str = "auto"
    """Precision: "auto", "float32", "bfloat16", "float16"."""

    device: str = "auto"
    """Where to run: "auto", "cpu", "cuda", ..."""

    def __call__(self) -> None:
        thinker = Thinker(self)
        for setting in settings(self.steps):
            thinker.answer(self.question, setting)


@dataclass(frozen=True)
class Info:
    """What a model is and what it costs: topology, parameters, cost per step, memory per token."""

    model: Annotated[str, tyro.conf.Positional]
    """A name, a checkpoint folder, a GGUF file, or owner/repository on the hub."""

    def __call__(self) -> None:
        from latentweaver.checkpoints.loading import describe
        from latentweaver.console import facts, make_console
        from latentweaver.runtime.cost import cost_of

        model = describe(self.model)
        make_console().print(facts(self.model, model, cost_of(model)))


@dataclass(frozen=True)
class Models:
    """The models that can be asked for by name."""

    def __call__(self) -> None:
        from rich.table import Table

        from latentweaver.checkpoints.names import NAMES
        from latentweaver.folders import cache_folder
        from latentweaver.console import make_console

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


@dataclass(frozen=True)
class Demo:
    """A real pretrained model thinks about real questions, at several settings of the dial."""

    model: str = "smollm2-135m"
    """A name, a checkpoint folder, a GGUF file, or owner/repository on the hub."""

    tokens: int = 24
    """At most this many new tokens for each answer."""

    def __call__(self) -> None:
        thinker = Thinker(Think(question="", model=self.model, tokens=self.tokens))
        for question in QUESTIONS:
            thinker.console.rule(question, align="left")
            for setting in ("1", "2", "4", "auto"):
                thinker.answer(question, setting)


class Thinker:
    """A loaded model that answers questions on the console, as the options of `Think` say."""

    def __init__(self, options: Think) -> None:
        from latentweaver.checkpoints.loading import load, load_tokenizer
        from latentweaver.console import make_console
        from latentweaver.errors import InputError

        if options.temperature < 0:
            raise InputError(f"--temperature must not be negative, got {options.temperature}")
        if options.tokens < 1:
            raise InputError(f"--tokens must be at least 1, got {options.tokens}")
        for setting in settings(options.steps):
            dial_of(setting, options)  # a bad dial should not wait for the model to load
        _quiet()
        self.options = options
        self.console: Console = make_console()
        self.model = load(options.model, dtype=options.dtype, device=options.device)
        self.tokenizer = load_tokenizer(options.model)

    def answer(self, question: str, setting: str | None) -> None:
        """Print the answer at one setting of the dial, and what it cost."""
        import torch

        from latentweaver.console import TintedStream, Trace, bars

        options, model = self.options, self.model
        steps, halting = dial_of(setting, options)
        if steps is None:
            steps = model.config.num_steps
        stream = TintedStream(self.tokenizer, steps if isinstance(steps, int) else options.max_steps, self.console)
        trace = Trace(model, self.tokenizer)
        self.console.print(f"[bold]steps {setting or steps}[/bold]")
        ids = self._prompt(question)
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if options.temperature > 0:
            sampling = {"do_sample": True, "temperature": options.temperature}
        extra: dict[str, Any] = {"halting": halting} if halting is not None else {}
        if options.trace:
            extra["watch"] = trace.watch
        began = time.perf_counter()
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_steps=steps,
            max_new_tokens=options.tokens,
            generator=torch.Generator(ids.device).manual_seed(options.seed),
            warm_start=options.warm_start,
            cache_policy=options.cache,
            streamer=stream,
            pad_token_id=self.tokenizer.pad_token_id or 0,
            **sampling,
            **extra,
        )
        seconds = time.perf_counter() - began
        for line in trace.lines():
            self.console.print(line, markup=False, soft_wrap=True)
        spent, count = sum(stream.steps), len(stream.steps)
        self.console.print(
            f"[dim]{bars(stream.steps, stream.most)}  {count} tokens, {spent} steps ({spent / count:.1f} a token), {seconds:.1f} s[/dim]\n"
        )

    def _prompt(self, question: str) -> Any:
        from latentweaver.errors import InputError

        if not question.strip():
            raise InputError("the question is empty")
        if self.options.raw or not self.tokenizer.chat_template:
            ids = self.tokenizer(question, return_tensors="pt").input_ids
        else:
            message = [{"role": "user", "content": question}]
            ids = self.tokenizer.apply_chat_template(message, add_generation_prompt=True, return_tensors="pt", return_dict=True)[
                "input_ids"
            ]
        return ids.to(self.model.device)


def settings(steps: str | None) -> list[str | None]:
    """The settings that --steps names: several are separated by commas, but a schedule has commas of its own."""
    if steps is None or ":" in steps:
        return [steps]
    return [setting.strip() for setting in steps.split(",")]


def dial_of(setting: str | None, options: Think) -> tuple[Any, HaltingRule | None]:
    """`num_steps` and `halting` of one setting.

    Raises:
        InputError: if the setting means nothing.
    """
    from latentweaver.halting import StateChange
    from latentweaver.runtime.schedule import schedule

    if setting is None:
        return None, None
    if setting == "auto":
        rule = StateChange(options.threshold)
        return schedule(options.max_steps)(0), rule
    schedule(setting)
    return int(setting) if setting.lstrip("-").isdecimal() else setting, None


def _quiet() -> None:
    """No progress bars and advice of other libraries between the lines of an answer."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


Command = (
    Annotated[Think, tyro.conf.subcommand("think")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Models, tyro.conf.subcommand("models")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
)


def main(arguments: list[str] | None = None) -> None:
    """Run the `lw` command; the exit code is 2 for input that cannot be used."""
    command = tyro.cli(
        Command,  # type: ignore[arg-type]
        prog="lw",
        description="Models that think in latent space, with compute as a dial.",
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )
    from latentweaver.errors import LatentweaverError

    try:
        command()
    except LatentweaverError as error:
        print(f"lw: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
