"""How many steps each token of a text gets: the dial over a whole answer.

A schedule is a function from a token's place among the new ones (0 for the first, which the prompt's own thinking yields) to
a number of steps. A number is a schedule too, and so is a name:

    "16"            16 steps for every token
    "first:32,8"    32 for the first token, where the prompt is read, 8 for each later one
    "every:4:32,8"  32 for every fourth token, 8 for those between
"""

from __future__ import annotations

from collections.abc import Callable

from latentweaver.errors import InputError

Schedule = Callable[[int], int]


def schedule(wanted: int | str | Schedule) -> Schedule:
    """The schedule that a number, a name or a function stands for.

    Raises:
        InputError: if it is none of these, or gives fewer than one step.
    """
    if callable(wanted):
        return lambda place: _checked(wanted(place))
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        steps = _checked(wanted)
        return lambda place: steps
    if isinstance(wanted, str):
        return _named(wanted)
    raise InputError(f"num_steps must be a whole number, a schedule's name or a function, got {wanted!r}")


def _named(name: str) -> Schedule:
    kind, *rest = name.split(":")
    if len(name) > 100:
        raise InputError(f"a schedule's name has at most 100 characters, got {len(name)}")
    try:
        if not rest and kind.lstrip("-").isdecimal():
            return schedule(int(kind))
        if kind == "first" and len(rest) == 1:
            first, later = map(int, rest[0].split(","))
            return schedule(lambda place: later if place else first)
        if kind == "every" and len(rest) == 2:
            period = _checked(int(rest[0]))
            much, little = map(int, rest[1].split(","))
            return schedule(lambda place: little if place % period else much)
    except ValueError as error:
        raise InputError(f"cannot read the schedule {name!r}: {error}") from error
    raise InputError(f"unknown schedule {name!r}; write a number, 'first:32,8' or 'every:4:32,8'")


def _checked(steps: int) -> int:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps must be a whole number of at least 1, got {steps!r}")
    return steps
