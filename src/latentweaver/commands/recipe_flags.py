"""The fields of a recipe as flags of a command, each with what the recipe's docstring says of it.

A docstring explains several fields in one line ("prelude, core, coda: blocks of each part") and sends one to `training.Settings` for those
that all recipes share. A list of flags has to say it at each of them.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Annotated, Any, get_type_hints

import tyro

from latentweaver.commands.common import one_line_errors

SHARED = "see `training.Settings`."
"""How a recipe's docstring explains the fields that it hands on to the loop."""


def read(options: type, recipe: type, prog: str, arguments: list[str]) -> tuple[Any, Any]:
    """A command's own flags (a dataclass) and the fields of a recipe, which are known only once the recipe is; one of each.

    Raises:
        InputError: arguments that cannot be read.
    """

    def chosen(options: Any, recipe: Any) -> tuple[Any, Any]:
        return options, recipe

    kinds = {"options": options, "recipe": with_help(recipe)}
    chosen.__annotations__ = {name: Annotated[kind, tyro.conf.arg(name="")] for name, kind in kinds.items()}
    chosen.__doc__ = recipe.__doc__
    with one_line_errors():
        own, fields = tyro.cli(chosen, prog=prog, args=arguments)
    return own, recipe(**{field.name: getattr(fields, field.name) for field in dataclasses.fields(recipe)})


def with_help(recipe: type) -> type:
    """The same recipe, the help of every field beside its type."""
    told, kinds = explained(recipe), get_type_hints(recipe, include_extras=True)
    fields = [
        (field.name, Annotated[kinds[field.name], tyro.conf.arg(help=told[field.name])], dataclasses.field(default=field.default))
        for field in dataclasses.fields(recipe)
        if field.name in told
    ]
    return dataclasses.make_dataclass(recipe.__name__, fields, bases=(recipe,), frozen=True)


def explained(recipe: type) -> dict[str, str]:
    """What docstrings say of each field: the recipe's, else that of what it inherits from; where they name `training.Settings`, its own."""
    from latentweaver.training.loop import Settings

    shared = {} if recipe is Settings else explained(Settings)
    told: dict[str, str] = {}
    for kind in reversed(recipe.__mro__):
        section = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:\n")[2]
        attributes = re.split(r"\n(?=\S)", section)[0]  # up to the next section
        for names, said in re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {5,}.*)*)", attributes, re.MULTILINE):
            text = " ".join(said.split())
            told |= {name: shared.get(name, text) if text == SHARED else text for name in names.split(", ")}
    return told
