"""One call from a reasoner to a report that opens anywhere.

    lw.inspect.report(model, input_ids, "report.html", steps=128, text=lambda token: tokenizer.decode([token]))

Only the three verbs are used, so any reasoner will do. Who has a recording and no model writes `trajectory.report("report.html")`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.inspect.lens import Lens
from latentweaver.inspect.report_findings import Findings, gather
from latentweaver.inspect.report_page import LIMIT, as_json, html
from latentweaver.thought import Reasoner


def report(
    model: Reasoner,
    input_ids: Int[Tensor, "batch sequence"],
    path: str | Path,
    attention_mask: Tensor | None = None,
    *,
    steps: int = 128,
    tokens: int | slice | Sequence[int] | None = None,
    row: int = 0,
    text: Callable[[int], str] | None = None,
    generated: int = 0,
    top: int = 5,
    control: int | None = None,
    pair: tuple[int, int] | None = None,
    lens: tuple[str, Lens] | None = None,
    starts: int = 3,
    bench: int = 1,
    seed: int = 0,
    title: str = "",
    name: str = "",
    command: str = "",
    json: str | Path | None = None,
    states: str | Path | None = None,
    limit: int = LIMIT,
) -> Findings:
    """Watch a model think about one row of an input and write what was seen into one HTML file.

    It thinks about the input `2 + starts` times, reads after each step, and takes some 5 x `steps` thinks for each token on the bench.

    Args:
        model: any reasoner.
        input_ids: tokens, `[batch, sequence]`.
        path: the HTML file.
        attention_mask: 1 for real tokens and 0 for padding, which is left out.
        steps: how many to think; labels that name a rotation need 96.
        tokens: positions to look at, negative ones from the end; all if None.
        row: which row of the batch.
        text: what a token id reads; "#17" if None.
        generated: how many tokens at the end the model wrote itself; they are marked.
        top: how many likeliest tokens to show after each step.
        control: a token that has nothing to do with it ("the"), whose rank is shown beside the answer's.
        pair: two tokens whose log-probabilities are subtracted.
        lens: what to read the states through, with its name: `("the plain head", head_lens(model))`, or one from `tune_lens`; the
            model's own coda if None.
        starts: from how many other first states to think again.
        bench: how many tokens to replay, extend and kick (`examine`): the last one, then those that seem to go round.
        seed: of the first state.
        title: of the page; the input's text if left out.
        name: of the model; its class if left out.
        command: shown in the footer.
        json: also write everything as JSON, unrounded.
        states: also save the recording (`Trajectory.load` reads it).
        limit: of the page, in bytes.

    Raises:
        InputError: a model without the three verbs, no tokens, steps below 1, positions outside the sequence, or a page that
            would be too large.
    """
    found = gather(
        model, input_ids, attention_mask, steps=steps, tokens=tokens, row=row, text=text, generated=generated, top=top,
        control=control, pair=pair, lens=lens, starts=starts, bench=bench, seed=seed, name=name, command=command, trajectory_to=states,
    )  # fmt: skip
    write(found, path, title, json, limit)
    return found


def write(found: Findings, path: str | Path, title: str = "", json: str | Path | None = None, limit: int = LIMIT) -> None:
    """Write findings as a page, and as JSON if a path is given.

    Raises:
        InputError: if the page would be larger than `limit`, or its folder does not exist.
    """
    for place in (path, json):
        if place is not None and not Path(place).parent.is_dir():
            raise InputError(f"cannot write {place}: there is no folder {Path(place).parent}")
    if not title:
        title = "".join(map(found.text, found.ids)) if found.ids else found.provenance.model or "a recording"
    Path(path).write_text(html(found, title, limit), encoding="utf-8")
    if json is not None:
        Path(json).write_text(as_json(found, title), encoding="utf-8")
