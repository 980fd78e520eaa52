"""What several commands need."""

from __future__ import annotations


def numbers(flag: str, text: str) -> list[int]:
    """The whole numbers above 0 that a flag lists, separated by commas."""
    from latentweaver.errors import InputError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"{flag} must be whole numbers above 0, separated by commas; got {text!r}")
    return [int(part) for part in parts]


def quiet() -> None:
    """No progress bars and advice of other libraries between the lines of an answer."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
