"""`lw inspect`: watch a model think about a question, and write what was seen into one HTML file."""

from __future__ import annotations

import math
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from latentweaver.commands.common import can_write, many, prompt_ids, quiet

if TYPE_CHECKING:
    from latentweaver.inspect import Findings


@dataclass(frozen=True)
class Inspect:
    """See a model think: which tokens take long, how each one moves, what it would have said after each step."""

    question: Annotated[str, tyro.conf.Positional]
    """What to think about; for weaver-graphs, a graph: "a>b b>c d>e from a: c or e"."""

    model: str = "smollm2-135m"
    """A name (see `lw models`), a checkpoint folder, a GGUF file, or owner/repository on the hub."""

    steps: int = 128
    """How many steps to think. Fewer than 96 are too few to name an orbit."""

    out: Path = Path("report.html")
    """The report: one file that needs no network and no server."""

    tokens: str = "all"
    """Which positions to look at: "all", places ("0,5,-1"), or a range ("5:12", "-8:")."""

    generate: int = 0
    """Also look at so many tokens that the model goes on with (greedily, at these steps)."""

    top: int = 5
    """How many of the likeliest tokens to keep of each step."""

    control: str = " the"
    """A token that has nothing to do with the answer, whose rank is shown beside the answer's ("" for none)."""

    pair: tuple[str, str] | None = None
    """Two tokens whose log-probabilities are subtracted, as " yes" " no"."""

    lens: Literal["coda", "head"] = "coda"
    """What to read the states through: the model's own coda, or the plain head (final norm and output embedding alone)."""

    tune_on: Path | None = None
    """A file of texts, one a line, like the question but not it: train a tuned lens for each step on them, and read through that."""

    starts: int = 3
    """From how many other first states to think again."""

    bench: int = 1
    """How many tokens to replay, extend and kick: the last one, then those that seem to go round."""

    json: Path | None = None
    """Also write all numbers to this file."""

    states: Path | None = None
    """Also save the recorded states to this file (read it with `latentweaver.inspect.Trajectory.load`)."""

    raw: bool = False
    """Give the question to the model as it is, without the chat template."""

    seed: int = 0
    """Seed of the first states."""

    dtype: str = "auto"
    """Precision: "auto", "float32", "bfloat16", "float16"."""

    device: str = "auto"
    """Where to run: "auto", "cpu", "cuda", ..."""

    def __call__(self) -> None:
        from latentweaver.checkpoints.loading import load, load_tokenizer
        from latentweaver.console import make_console
        from latentweaver.errors import InputError
        from latentweaver.inspect import report

        wanted = positions(self.tokens)
        texts = self._texts()
        can_write(self.out, self.json, self.states)
        if not self.question.strip():
            raise InputError("the question is empty")
        quiet()
        began = time.perf_counter()
        model, tokenizer = load(self.model, dtype=self.dtype, device=self.device), load_tokenizer(self.model)
        ids = self._ids(model, tokenizer)
        asked = ids.shape[1]
        control, pair = self._watched(tokenizer)
        if self.generate:
            ids = self._go_on(model, tokenizer, ids)
        found = report(
            model, ids, self.out, steps=self.steps, tokens=wanted, text=lambda token: tokenizer.decode([token]),
            generated=ids.shape[1] - asked, top=self.top, control=control, pair=pair, lens=self._lens(model, tokenizer, texts), starts=self.starts, bench=self.bench,
            seed=self.seed, title=self.question, name=self.model, command=shlex.join(["lw", *sys.argv[1:]]), json=self.json, states=self.states,
        )  # fmt: skip
        console = make_console()
        for line in _lines(found):
            console.print(line, markup=False, soft_wrap=True)
        size = self.out.stat().st_size
        console.print(f"[dim]{self.out}: {size / 1e6:.2f} MB, {time.perf_counter() - began:.1f} s[/dim]", soft_wrap=True)

    def _ids(self, model: Any, tokenizer: Any) -> Any:
        """The tokens of the question; a graph is written in a way of its own."""
        import torch

        from latentweaver.commands.search import task_of
        from latentweaver.tasks.graph_search import Question

        if (task := task_of(model)) is not None:
            return torch.tensor([task.ask(Question.parse(self.question, task.names))], device=model.device)
        return prompt_ids(tokenizer, self.question, self.raw, model.device)

    def _texts(self) -> list[str]:
        """What a tuned lens is trained on."""
        from latentweaver.errors import InputError

        if self.tune_on is None:
            return []
        if self.lens != "coda":
            raise InputError("--tune-on trains a lens of its own; leave --lens out")
        try:
            texts = [line for line in self.tune_on.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {self.tune_on}: {error}") from error
        if len(texts) < 8 or self.question in texts:
            raise InputError(f"{self.tune_on} must hold at least 8 texts, the question not among them; it has {len(texts)}")
        return texts

    def _lens(self, model: Any, tokenizer: Any, texts: list[str]) -> tuple[str, Any] | None:
        """The lens that was asked for, with its name; None for the coda."""
        from latentweaver.inspect.lens import coda_lens, head_lens
        from latentweaver.inspect.tuned import lens_divergence, tune_lens

        if self.lens == "head":
            return "the plain head", head_lens(model)
        if not texts:
            return None
        batches = [prompt_ids(tokenizer, text, self.raw, model.device) for text in texts]
        held = max(2, len(batches) // 5)
        tuned = tune_lens(model, batches[held:], self.steps)
        before, after = (float(lens_divergence(model, one, batches[:held], self.steps)[:-1].mean()) for one in (coda_lens(model), tuned))
        return (
            f"a lens tuned on {len(batches) - held} texts (on {held} others {after:.3g} nats from the last word, the coda {before:.3g})",
            tuned,
        )

    def _watched(self, tokenizer: Any) -> tuple[int | None, tuple[int, int] | None]:
        """The control token, if this vocabulary has it, and the pair."""
        control = _single(tokenizer, self.control) if self.control else None
        if self.pair is None:
            return control, None
        from latentweaver.errors import InputError

        first, second = (_single(tokenizer, text) for text in self.pair)
        if first is None or second is None:
            raise InputError(f"--pair takes two texts of one token each for this model, got {self.pair[0]!r} and {self.pair[1]!r}")
        return control, (first, second)

    def _go_on(self, model: Any, tokenizer: Any, ids: Any) -> Any:
        import torch

        from latentweaver.errors import InputError

        if self.generate < 0:
            raise InputError(f"--generate must not be negative, got {self.generate}")
        return model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_steps=self.steps,
            max_new_tokens=self.generate,
            generator=torch.Generator(ids.device).manual_seed(self.seed),
            pad_token_id=tokenizer.pad_token_id or 0,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
        )


def positions(text: str) -> slice | list[int] | None:
    """The positions that --tokens names.

    Raises:
        InputError: if it names none.
    """
    from latentweaver.errors import InputError

    if text == "all":
        return None
    try:
        if ":" in text:
            first, _, last = text.partition(":")
            return slice(int(first) if first else None, int(last) if last else None)
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f'--tokens must be "all", places such as 0,5,-1 or a range such as 5:12, got {text!r}') from None


def _single(tokenizer: Any, text: str) -> int | None:
    """The token that is this text, if one is."""
    ids = tokenizer(text, add_special_tokens=False).input_ids
    return ids[0] if len(ids) == 1 and ids[0] != tokenizer.unk_token_id else None


def _lines(found: Findings) -> list[str]:
    """The report in a few lines."""
    from collections import Counter

    kinds = Counter(label.name.replace("_", " ") for label in found.labels)
    lines = [
        f"{many(found.tokens, 'token')}, {many(found.provenance.steps, 'step')}: "
        + ", ".join(f"{count} {name}" for name, count in kinds.most_common())
    ]
    names = [found.name(token) for token in range(found.tokens)]
    broken = [label for label in found.labels if "not finite" in label.flags]
    if growing := [repr(names[i]) for i, label in enumerate(found.labels) if "growing" in label.flags]:
        lines.append(f"growing without end: {', '.join(growing[:5])}{' and others' if len(growing) > 5 else ''}")
    if broken:
        lines.append(f"{len(broken)} paths run into NaN or infinity: {next(why for why in broken[0].reasons if 'not finite' in why)}")
    if found.tokens and all("still" in label.flags for label in found.labels):
        lines.append("no state ever moved: think returns its input, so this model has no recurrence to look at")
    slow = sorted(range(found.tokens), key=lambda token: -(found.settled[token] or 10**9))[:5]
    times = (f"{names[token]!r} {found.settled[token] or 'not within the run'}" for token in slow)
    lines.append("steps until it settled, slowest first: " + ", ".join(times))
    if (said := found.said) is not None and found.tokens:
        flips = said.flips[-1]
        answer = "NaN" if said.answers[-1] < 0 else repr(found.text(int(said.answers[-1])))
        best = said.top_logprobs[-1, found.steps.tolist().index(said.read_to), 0]
        until = f" (step {said.read_to}, the last with finite states)" if said.read_to < found.steps[-1] else ""
        changed = (
            "its readout is not finite"
            if flips is None
            else "it never changed"
            if flips.last is None
            else f"last changed after step {flips.last}"
        )
        probability = f" (probability {math.exp(best):.2g})" if flips is not None else ""
        lines.append(f"after the last token it says {answer}{probability}{until}; {changed}")
    last = found.labels[-1] if found.labels else None
    if last is not None:
        lines.append(f"the last token: {last} ({last.confidence} confidence): {last.reasons[0]}")
    if found.tokens - 1 in found.examined:
        lines.append(f"on the bench: {found.examined[found.tokens - 1].verdict}")
    return lines
