"""Errors that name what was wrong, with what value, and what to do about it.

Both are `ValueError`s, so code that only knows the standard library still catches them. The command line turns each
into one line on standard error and exit code 2.
"""


class LatentweaverError(ValueError):
    """Something the caller can mend: the message says what and how."""


class InputError(LatentweaverError):
    """An argument that cannot be used: an empty prompt, steps below 1, a state of the wrong shape."""


class CheckpointError(LatentweaverError):
    """A checkpoint that cannot be loaded: missing, misshapen or non-finite tensors, an unknown model type, a pickle."""
