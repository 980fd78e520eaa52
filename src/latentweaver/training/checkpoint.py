"""What training needs to go on: weights, optimisers, and how many updates were made.

Randomness needs no saving: batches, depths, first states and torch's own generators are functions of (seed, update).

One process writes one file, `training.pt`. Several write a folder of shards through torch's distributed checkpoints,
`training-000500`, each rank what it holds. Any number of processes resumes either. Both are written beside their place, flushed to
disk, and then renamed, and what was there before goes only after that: a kill at any moment leaves the old checkpoint or the new.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load as load_shards
from torch.distributed.checkpoint.state_dict_saver import save as save_shards
from torch.distributed.tensor import DTensor, distribute_tensor

from latentweaver.errors import CheckpointError
from latentweaver.training import ranks

NAME = "training.pt"
SHARDS = "training-"
NOTES = "notes.json"
Optimisers = list[torch.optim.Optimizer]


def there(folder: Path) -> bool:
    """Whether the folder holds a checkpoint."""
    return (folder / NAME).exists() or bool(_shards(folder))


def save(folder: Path, model: nn.Module, optimisers: Optimisers, update: int, settings: dict[str, Any]) -> None:
    """Write the checkpoint of `folder`, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    before = _shards(folder)
    if ranks.size() > 1:
        _save_shards(folder, model, optimisers, update, settings)
        before = [path for path in before if path.name != _name(update)] + [folder / NAME]
    else:
        _save_file(folder, model, optimisers, update, settings)
    if ranks.rank() == 0:
        for path in before:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if ranks.size() > 1:
        dist.barrier()


def load(folder: Path, model: nn.Module, optimisers: Optimisers, settings: dict[str, Any]) -> int:
    """Put the checkpoint of `folder` into model and optimisers; the number of updates made so far.

    Raises:
        CheckpointError: if there is none, it cannot be read, or it was made with other settings.
    """
    if not there(folder):
        raise CheckpointError(f"there is no checkpoint to resume in {folder}")
    path = folder / NAME
    try:
        file: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True) if path.exists() else {"update": -1}
        notes = file
        for shards in _shards(folder):
            there_too = json.loads((shards / NOTES).read_text())
            if there_too["update"] > notes["update"]:  # a kill can leave one of each kind
                path, notes = shards, there_too
        _compare(path, notes["settings"], json.loads(json.dumps(settings)))
        if notes is file:
            _load_file(file, model, optimisers)
        else:
            _load_shards(path, model, optimisers)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error}; choose another folder to begin anew") from error
    if ranks.rank() == 0:
        for left in folder.glob(f"{NAME}.*.new"):  # by a kill while it was written
            left.unlink()
    return notes["update"]


def _compare(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    different = [f"{name} was {then.get(name)!r}, is {value!r}" for name, value in now.items() if then.get(name) != value]
    if different:
        raise CheckpointError(f"{path} was made with other settings: {'; '.join(different)}; resume with those, or choose another folder")


# One file ------------------------------------------------------------------------------------------------------------


def _save_file(folder: Path, model: nn.Module, optimisers: Optimisers, update: int, settings: dict[str, Any]) -> None:
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


def _load_file(content: dict[str, Any], model: nn.Module, optimisers: Optimisers) -> None:
    """Every rank reads all of it and keeps its part."""
    ours = model.state_dict()
    model.load_state_dict({name: _like(value, ours.get(name)) for name, value in content["model"].items()})
    for optimiser, saved in zip(optimisers, content["optimisers"], strict=True):
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        saved["state"] = {
            place: {key: _like(value, parameters[place]) for key, value in state.items()} for place, state in saved["state"].items()
        }
        optimiser.load_state_dict(saved)


def _like(value: Any, ours: Any) -> Any:
    """A whole tensor as our part of it, where ours is sharded."""
    if isinstance(ours, DTensor) and value.shape == ours.shape:
        return distribute_tensor(value.to(ours.device), ours.device_mesh, ours.placements)
    return value


# A folder of shards --------------------------------------------------------------------------------------------------


def _name(update: int) -> str:
    return f"{SHARDS}{update:06d}"


def _shards(folder: Path) -> list[Path]:
    """The complete ones, the latest last."""
    found = [path for path in folder.glob(f"{SHARDS}*") if path.name.removeprefix(SHARDS).isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(SHARDS)))


def _states(model: nn.Module, optimisers: Optimisers) -> Iterator[tuple[str, nn.Parameter, dict[str, Any]]]:
    """Name, parameter and state of everything that is optimised: names do not depend on the number of processes."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                yield names[id(parameter)], parameter, optimiser.state[parameter]


def _save_shards(folder: Path, model: nn.Module, optimisers: Optimisers, update: int, settings: dict[str, Any]) -> None:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, _, state in _states(model, optimisers):
        tensors |= {f"optimiser.{name}.{key}": value for key, value in state.items()}
    beside, place = folder / f"{_name(update)}.new", folder / _name(update)
    if ranks.rank() == 0 and beside.exists():
        shutil.rmtree(beside)  # left by a kill
    dist.barrier()
    save_shards(tensors, checkpoint_id=beside)
    if ranks.rank() == 0:
        (beside / NOTES).write_text(json.dumps({"update": update, "settings": settings}))
        if place.exists():
            shutil.rmtree(place)
        os.replace(beside, place)
    dist.barrier()


def _load_shards(path: Path, model: nn.Module, optimisers: Optimisers) -> None:
    sizes = FileSystemReader(path).read_metadata().state_dict_metadata
    tensors: dict[str, Any] = {f"model.{name}": value for name, value in model.state_dict().items()}
    found: list[tuple[dict[str, Any], str, str]] = []
    for name, parameter, state in _states(model, optimisers):
        prefix = f"optimiser.{name}."
        for key in (full.removeprefix(prefix) for full in sizes if full.startswith(prefix)):
            about: Any = sizes[prefix + key]
            counter = key == "step" or about.size != parameter.shape
            dtype = about.properties.dtype
            tensors[prefix + key] = torch.zeros(about.size, dtype=dtype) if counter else torch.zeros_like(parameter.detach(), dtype=dtype)
            found.append((state, key, prefix + key))
    load_shards(tensors, checkpoint_id=path)
    model.load_state_dict({name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")})
    for state, key, name in found:
        state[key] = tensors[name]
    for optimiser in optimisers:
        if optimiser.defaults.get("fused"):  # its counters live beside the parameters
            for parameter, state in optimiser.state.items():
                state["step"] = state["step"].to(parameter.device)
