"""What several commands need."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latentweaver.errors import InputError


def numbers(flag: str, text: str) -> list[int]:
    """The whole numbers above 0 that a flag lists, separated by commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"{flag} must be whole numbers above 0, separated by commas; got {text!r}")
    return [int(part) for part in parts]


def quiet() -> None:
    """No progress bars and advice of other libraries between the lines of an answer."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def can_write(*places: Path | None, picture: Path | None = None, kinds: tuple[str, ...] = (".png", ".svg")) -> None:
    """Say before the work, which may take hours, what would end it when its result is written.

    Args:
        places: files that are asked for, or None.
        picture: one more, a picture of one of the `kinds`.

    Raises:
        InputError: a file in a folder that is not there, or a picture of another kind.
    """
    for place in (*places, picture):
        if place is not None and not place.parent.is_dir():
            raise InputError(f"cannot write {place}: there is no folder {place.parent}; make it, or name a file elsewhere")
    if picture is not None and picture.suffix not in kinds:
        raise InputError(f"cannot write {picture}: a picture is {', '.join(kinds[:-1])} or {kinds[-1]}")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file; whenever the program is stopped, the file is the old one or the new one, whole."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    beside.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(beside, path)


def prompt_ids(tokenizer: Any, question: str, raw: bool, device: Any) -> Any:
    """The tokens of a question, `[1, sequence]`: in the model's chat template, if it has one and `raw` does not forbid it.

    Raises:
        InputError: if the question is empty.
    """
    if not question.strip():
        raise InputError("the question is empty")
    if raw or not tokenizer.chat_template:
        ids = tokenizer(question, return_tensors="pt").input_ids
    else:
        message = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
    return ids.to(device)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """What tyro draws a box around when it cannot read the arguments, as the one line that every other error is."""
    drawn = io.StringIO()
    try:
        with contextlib.redirect_stderr(drawn):
            yield
    except SystemExit as stop:
        if stop.code != 2:
            raise
        said = []
        for line in (line[1:-1].strip() for line in drawn.getvalue().splitlines()[1:-1]):
            if said and line and not line.strip("─-"):
                break  # below the line is help
            said.append(line)
        raise InputError(f"{' '.join(filter(None, said))}; --help says what there is") from None


def many(number: int, what: str) -> str:
    """A number of something: "1 step", "2 steps"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def per_cent(mean: float, low: float, high: float, sign: str = "") -> str:
    """A share with its interval, "97.0 [95.1, 98.2]"."""
    return f"{100 * mean:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def in_columns(lines: list[list[str]]) -> str:
    """Lines of cells as aligned text, the first column to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))]) for line in lines
    )
