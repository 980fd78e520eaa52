"""The `lw` command: its subcommands are in `commands`; what can be wrong in the input ends in one line and exit
code 2.

Nothing heavy is imported until a command needs it: `lw --help` must answer at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import tyro

from latentweaver.commands.ablate import Ablate
from latentweaver.commands.common import one_line_errors
from latentweaver.commands.compare import Compare, compare
from latentweaver.commands.demo import Demo
from latentweaver.commands.export import Export
from latentweaver.commands.inspect import Inspect
from latentweaver.commands.maze import Maze
from latentweaver.commands.measure import Bench, Eval
from latentweaver.commands.probe import Probe
from latentweaver.commands.quantize import Quantize
from latentweaver.commands.serve import Serve
from latentweaver.commands.show import Info, Models
from latentweaver.commands.think import Think
from latentweaver.commands.train import Train, train
from latentweaver.errors import LatentweaverError

Command = (
    Annotated[Think, tyro.conf.subcommand("think")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Models, tyro.conf.subcommand("models")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Eval, tyro.conf.subcommand("eval")]
    | Annotated[Maze, tyro.conf.subcommand("maze")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Ablate, tyro.conf.subcommand("ablate")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Probe, tyro.conf.subcommand("probe")]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
    | Annotated[Quantize, tyro.conf.subcommand("quantize")]
    | Annotated[Export, tyro.conf.subcommand("export")]
)


def main(arguments: list[str] | None = None) -> None:
    """Run the `lw` command; the exit code is 2 for input that cannot be used."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments[:1] in (["train"], ["compare"]):  # their flags are the recipe's fields, known only once the recipe is
            {"train": train, "compare": compare}[arguments[0]](arguments[1:])
            return
        with one_line_errors():
            command = tyro.cli(
                Command,  # type: ignore[arg-type]
                prog="lw",
                description="Models that think in latent space, with compute as a dial.",
                args=arguments,
                config=(tyro.conf.OmitSubcommandPrefixes,),
            )
        assert not isinstance(command, (Train, Compare)), "has been run above"
        command()
    except LatentweaverError as error:
        print(f"lw: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
