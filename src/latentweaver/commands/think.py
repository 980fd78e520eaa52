"""`lw think`: a question, answered at one or several settings of the dial."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from latentweaver.commands.common import many, prompt_ids, quiet

if TYPE_CHECKING:
    from rich.console import Console

    from latentweaver.halting import HaltingRule


@dataclass(frozen=True)
class Think:
    """Think about a question and answer it, each token tinted by the steps it took."""

    question: Annotated[str, tyro.conf.Positional]
    """What to think about; for weaver-graphs, a graph: "a>b b>c d>e from a: c or e"."""

    model: str = "smollm2-135m"
    """A name (see `lw models`), a checkpoint folder, a GGUF file, or owner/repository on the hub."""

    steps: str | None = None
    """The dial: a number, "auto" to stop when the state settles, a schedule ("first:32,8"), or several settings to see side
    by side ("1,4,16"). Left out, the model's own default."""

    max_steps: int = 32
    """With --steps auto, never more than this many."""

    rule: Literal["state", "confidence"] = "state"
    """With --steps auto, stop when the state settles, or when the model has been sure of the token for two steps."""

    threshold: float = 0.03
    """With --steps auto and the rule "state": a step moves the state by less than this part of its norm."""

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

    draft: int | None = None
    """Guess tokens with this many steps and verify them with --steps: the same text, sooner where guesses hold."""

    draft_tokens: int | None = None
    """With --draft, guess this many tokens before each verification; 4 if left out."""

    wavefront: bool = False
    """With --draft, rather let each guess begin while its predecessor thinks on."""

    dtype: str = "auto"
    """Precision: "auto", "float32", "bfloat16", "float16"."""

    device: str = "auto"
    """Where to run: "auto", "cpu", "cuda", ..."""

    def __call__(self) -> None:
        thinker = Thinker(self)
        for setting in settings(self.steps):
            thinker.answer(self.question, setting)


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
        quiet()
        self.options = options
        self.console: Console = make_console()
        self.model = load(options.model, dtype=options.dtype, device=options.device)
        self.tokenizer = load_tokenizer(options.model)

    def answer(self, question: str, setting: str | None) -> None:
        """Print the answer at one setting of the dial, and what it cost; of a search in a graph, its frontier too."""
        import torch

        from latentweaver.commands.search import search, task_of
        from latentweaver.console import TintedStream, Trace, bars
        from latentweaver.errors import InputError

        options, model = self.options, self.model
        steps, halting = dial_of(setting, options)
        if (task := task_of(model)) is not None:
            if halting is not None or isinstance(steps, str):
                raise InputError(f"a search in a graph takes a number of thoughts, got --steps {setting}")
            return search(model, task, question, steps, self.console)
        if steps is None:
            steps = model.config.num_steps
        stream = TintedStream(self.tokenizer, steps if isinstance(steps, int) else options.max_steps, self.console)
        trace = Trace(model, self.tokenizer)
        self.console.print(f"[bold]steps {setting or steps}[/bold]")
        ids = prompt_ids(self.tokenizer, question, options.raw, model.device)
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if options.temperature > 0:
            sampling = {"do_sample": True, "temperature": options.temperature}
        extra: dict[str, Any] = {"halting": halting} if halting is not None else {}
        if options.trace:
            extra["watch"] = trace.watch
        guesses = {"draft_steps": options.draft, "draft_tokens": options.draft_tokens, "wavefront": options.wavefront or None}
        extra |= {name: value for name, value in guesses.items() if value is not None}
        began = time.perf_counter()
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_steps=steps,
            max_new_tokens=options.tokens,
            generator=torch.Generator(ids.device).manual_seed(options.seed),
            warm_start=options.warm_start,
            cache_policy=options.cache,
            streamer=stream,
            return_dict_in_generate=True,
            pad_token_id=self.tokenizer.pad_token_id or 0,
            **sampling,
            **extra,
        )
        seconds = time.perf_counter() - began
        for line in trace.lines():
            self.console.print(line, markup=False, soft_wrap=True)
        spent, count = sum(stream.steps), len(stream.steps)
        self.console.print(
            f"[dim]{bars(stream.steps, stream.most)}  {many(count, 'token')}, {many(spent, 'step')} ({spent / count:.1f} a token), {seconds:.1f} s[/dim]"
        )
        if out.speculated is not None:
            report = out.speculated
            self.console.print(
                f"[dim]{report.passes_per_token:.1f} passes through the core a token, {report.accepted_length:.2f} tokens a round of guesses[/dim]"
            )
        self.console.print()


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
    from latentweaver.halting import Confidence, StateChange
    from latentweaver.runtime.schedule import schedule

    if setting is None:
        return None, None
    if setting == "auto":
        rule = StateChange(options.threshold) if options.rule == "state" else Confidence()
        return schedule(options.max_steps)(0), rule
    schedule(setting)
    return int(setting) if setting.lstrip("-").isdecimal() else setting, None
