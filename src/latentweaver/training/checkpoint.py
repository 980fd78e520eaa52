"""One file that holds all that training needs to go on: weights, optimisers, and how many updates were made.

Randomness needs no saving: batches, depths, first states and torch's own generators are functions of (seed, update). The file
is written beside its place, flushed to disk, and then renamed over the old one, so that a kill at any moment leaves either
the old checkpoint or the new.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latentweaver.errors import CheckpointError

NAME = "training.pt"


def save(folder: Path, model: nn.Module, optimisers: list[torch.optim.Optimizer], update: int, settings: dict[str, Any]) -> None:
    """Write the checkpoint of `folder`, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "model": model.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        "update": update,
        "settings": settings,
    }
    beside = folder / f"{NAME}.{os.getpid()}.new"
    with beside.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, folder / NAME)


def load(folder: Path, model: nn.Module, optimisers: list[torch.optim.Optimizer], settings: dict[str, Any]) -> int:
    """Put the checkpoint of `folder` into model and optimisers; the number of updates made so far.

    Raises:
        CheckpointError: if there is none, it cannot be read, or it was made with other settings.
    """
    path = folder / NAME
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint to resume in {folder}")
    device = next(model.parameters()).device
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error}") from error
    different = [
        f"{name} was {content['settings'].get(name)!r}, is {value!r}"
        for name, value in settings.items()
        if content["settings"].get(name) != value
    ]
    if different:
        raise CheckpointError(f"{path} was made with other settings: {'; '.join(different)}")
    model.load_state_dict(content["model"])
    for optimiser, state in zip(optimisers, content["optimisers"], strict=True):
        optimiser.load_state_dict(state)
    return content["update"]
