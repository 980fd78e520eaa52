"""Opening a checkpoint folder: config.json, safetensors (single, or many with an index), and every way they can be broken.

Weights are only ever read from safetensors, which cannot carry code. Tensors are put into the model as they are read,
without initialising it first, and the file is mapped, so loading is as fast as the disk. What stays on the CPU is then copied once,
into large pages (`kernels.pages`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from latentweaver.errors import CheckpointError, InputError
from latentweaver.kernels.pages import in_large_pages
from latentweaver.models.blocks import RotaryTable
from latentweaver.models.config import RecurrentDepthConfig
from latentweaver.models.recurrent_depth import RecurrentDepthForCausalLM

Translate = Callable[[str, Tensor], dict[str, Tensor]]


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json.

    Raises:
        CheckpointError: if there is none, or it is not JSON.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json, so it is not a checkpoint folder")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} must hold a JSON object, it holds a {type(config).__name__}")
    return config


def read_tensors(folder: Path) -> Iterable[tuple[str, Tensor]]:
    """Every tensor of the folder's safetensors files, by name.

    Raises:
        CheckpointError: if there are none (a pickle is refused), one named by the index is missing, or one is truncated.
    """
    for path in _weight_files(folder):
        try:
            with safe_open(str(path), framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    yield name, file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read as safetensors, it may be truncated: {error}") from error


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (json.JSONDecodeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{index} is not an index of safetensors: {error!r}") from error
        absent = [name for name in names if not (folder / name).is_file()]
        if absent:
            raise CheckpointError(f"{index} names files that are missing: {', '.join(absent)}")
        return [folder / name for name in names]
    files = sorted(folder.glob("*.safetensors"))
    if (folder / "model.safetensors") in files:
        files = [folder / "model.safetensors"]
    if files:
        return files
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl") for path in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{folder} holds only pickles ({', '.join(pickles)}), which can run code when opened; convert them to safetensors first"
        )
    raise CheckpointError(f"{folder} holds no *.safetensors weights")


def build(config: RecurrentDepthConfig, dtype: torch.dtype | None = None) -> RecurrentDepthForCausalLM:
    """The model without weights, on the meta device: shapes only, no memory."""
    with torch.device("meta"):
        model = RecurrentDepthForCausalLM(config)
    return model if dtype is None else model.to(dtype)  # pyright: ignore[reportArgumentType]


def fill(model: RecurrentDepthForCausalLM, tensors: Iterable[tuple[str, Tensor]], source: str, dtype: torch.dtype | None) -> None:
    """Put `tensors` into a model built on the meta device; all of it must be there, in shape, and finite.

    Raises:
        CheckpointError: naming the tensors that are missing, unknown, of the wrong shape, or not finite.
    """
    given = dict(tensors)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        stored, tied = given.pop("lm_head.weight", None), given.get("model.embed_tokens.weight")
        if stored is not None and tied is not None and not torch.equal(stored, tied):
            raise CheckpointError(f"{source} ties its head to the embedding, yet stores a different lm_head.weight")
        expected.pop("lm_head.weight", None)
    _report(source, "is missing", [name for name in expected if name not in given])
    _report(source, "holds tensors that the model does not have:", [name for name in given if name not in expected])
    misshapen = [
        f"{name} (expected {list(shape)}, got {list(given[name].shape)})" for name, shape in expected.items() if given[name].shape != shape
    ]
    _report(source, "holds tensors of the wrong shape:", misshapen)
    _report(source, "holds NaN or infinite values in", [name for name, tensor in given.items() if not bool(torch.isfinite(tensor).all())])
    dtype = dtype or _stored_dtype(model.config, given)
    whole = {name for name, parameter in model.named_parameters() if parameter.dtype is torch.int8}
    _report(source, "must hold 8-bit whole numbers in", [name for name in whole if given[name].dtype is not torch.int8])
    scales = {name for name, _ in model.named_buffers()}  # of 8-bit matrices
    given = {name: tensor if name in whole else tensor.to(torch.float32 if name in scales else dtype) for name, tensor in given.items()}
    model.load_state_dict(given, strict=False, assign=True)
    model.tie_weights()
    for module in model.modules():  # buffers are computed, not stored
        if isinstance(module, RotaryTable):
            module.inverse_frequency = module.inverse_frequencies(model.config)[0]
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    model.config.dtype = dtype
    model.eval()


def _stored_dtype(config: RecurrentDepthConfig, tensors: dict[str, Tensor]) -> torch.dtype:
    """What config.json says, or else what the weights are stored in; float8 and integers become bfloat16."""
    said = getattr(config, "dtype", None)
    if isinstance(said, str):
        said = getattr(torch, said.removeprefix("torch."), None)
    stored = said if isinstance(said, torch.dtype) else next(iter(tensors.values())).dtype
    return stored if stored in (torch.float32, torch.bfloat16, torch.float16, torch.float64) else torch.bfloat16


def _report(source: str, what: str, names: list[str]) -> None:
    if names:
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise CheckpointError(f"{source} {what} {shown}")


def finish(model: nn.Module, device: str | torch.device) -> Any:
    """The model on the device it shall run on; "auto" takes an accelerator if there is one.

    Raises:
        InputError: if there is no such device here.
    """
    if device == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return in_large_pages(model.to(found or "cpu"))
    try:
        model = model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"cannot run on device {str(device)!r}: {str(error).splitlines()[0]}") from error
    return in_large_pages(model)
