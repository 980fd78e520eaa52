"""`load`: one function for every kind of checkpoint.

    load("smollm2-135m")        a name (`lw models` lists them)
    load("path/to/folder")      config.json and safetensors: ours (recurrent depth or continuous thought), Huginn's, Ouro's, or a
                                Llama-family model's; or delta.json: the difference from a named one
    load("path/to/model.gguf")  a GGUF of a Llama-family model
    load("owner/repository")    the same from the hub

A Llama-family model becomes a retrofit that equals it at one step.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentweaver.checkpoints.continuous import KINDS as CONTINUOUS
from latentweaver.checkpoints.continuous import load_continuous
from latentweaver.checkpoints.delta import apply_delta, is_delta, read_note
from latentweaver.checkpoints.formats import FORMATS, LLAMA_FAMILY, joined
from latentweaver.checkpoints.names import NAMES, source_of
from latentweaver.checkpoints.reading import build, fill, finish, read_config, read_tensors
from latentweaver.checkpoints.retrofit import retrofit_config, retrofit_tensors, split_layers
from latentweaver.errors import CheckpointError, InputError
from latentweaver.folders import cache_folder
from latentweaver.models.config import RecurrentDepthConfig

_CONVERSION = 2
"""Counted up when what a conversion writes changes, so that those in the cache are made again."""


def load(
    path_or_name: str | os.PathLike[str],
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    num_steps: int | None = None,
) -> Any:
    """A model from a name, a folder, a GGUF file, or the hub, ready to think.

    Args:
        path_or_name: see the top of this file.
        dtype: "auto" for what the checkpoint says; else "float32", "bfloat16", ... or a torch dtype.
        device: "auto" for an accelerator if there is one; else "cpu", "cuda", ...
        num_steps: the dial's default, if not the checkpoint's.

    Raises:
        CheckpointError: naming what is missing, broken or unknown.
        InputError: if an argument cannot be used.
    """
    wanted = _dtype(dtype)
    target = locate(path_or_name)
    config = {} if target.suffix == ".gguf" or is_delta(target) else read_config(target)
    kind = config.get("model_type")
    if is_delta(target):
        model = _with_delta(target, wanted)
    elif target.suffix == ".gguf" or kind in LLAMA_FAMILY:
        model = retrofit_tensors(*load_base(target))
        model = model if wanted is None else model.to(wanted)  # pyright: ignore[reportArgumentType]
    elif kind in FORMATS:
        model = build(FORMATS[kind].config(config))
        ours: dict[str, Tensor] = {}
        for name, tensor in read_tensors(target):
            ours.update(FORMATS[kind].translate(name, tensor))
        fill(model, joined(ours).items(), str(target), wanted)
    elif kind in CONTINUOUS:
        model = load_continuous(target, wanted)
    else:
        model = build(_own_config(target, config))
        fill(model, read_tensors(target), str(target), wanted)
    if num_steps is not None:
        if num_steps < 1:
            raise InputError(f"num_steps must be at least 1, got {num_steps}")
        model.config.num_steps = num_steps
    _generation_config(model, target)
    model.name_or_path = str(path_or_name)
    return finish(model, device)


def describe(path_or_name: str | os.PathLike[str]) -> Any:
    """The same model without its weights (on the meta device), where the configuration alone says what it is.

    Raises:
        CheckpointError: as `load`.
    """
    target = locate(path_or_name)
    if target.suffix == ".gguf" or is_delta(target):
        return load(target)
    config = read_config(target)
    kind = config.get("model_type")
    if kind in CONTINUOUS:
        return load(target)
    if kind in LLAMA_FAMILY:
        ours = retrofit_config(config, split_layers(int(config["num_hidden_layers"])), "linear", 1)
    else:
        ours = FORMATS[kind].config(config) if kind in FORMATS else _own_config(target, config)
    return build(ours, _dtype(str(ours.dtype or "float32").removeprefix("torch.")))


def _with_delta(folder: Path, dtype: torch.dtype | None) -> Any:
    """The base that a delta names, changed as it says."""
    model = load(_named_base(folder, read_note(folder)), dtype="float32", device="cpu")
    for field, value in apply_delta(model, folder).items():
        setattr(model.config, field, value)
    return model if dtype is None else model.to(dtype)


def _named_base(folder: Path, note: dict[str, Any]) -> str:
    """The name of a delta's base, which must be one that comes from a package or the hub, not another delta or a path."""
    if note["base"] not in NAMES or NAMES[note["base"]].retrofit is None:
        bases = ", ".join(name for name, known in NAMES.items() if known.retrofit is not None)
        raise CheckpointError(f"{folder} is a delta on {note['base']!r}; bases that can be had by name are {bases}")
    return note["base"]


def _own_config(target: Path, config: dict[str, Any]) -> RecurrentDepthConfig:
    if config.get("model_type") != RecurrentDepthConfig.model_type:
        known = ", ".join(sorted([RecurrentDepthConfig.model_type, *CONTINUOUS, *FORMATS, *LLAMA_FAMILY]))
        raise CheckpointError(f"{target} is of unknown model type {config.get('model_type')!r}; known are {known}")
    return RecurrentDepthConfig.from_dict(config)


def load_tokenizer(path_or_name: str | os.PathLike[str]) -> Any:
    """The tokenizer of the same checkpoint.

    Raises:
        CheckpointError: if the checkpoint has none.
    """
    from transformers import AutoTokenizer

    target = locate(path_or_name)
    if is_delta(target):
        note = read_note(target)
        tokenizer = load_tokenizer(_named_base(target, note))
        if note["plain_text"]:
            tokenizer.chat_template = None
        return tokenizer
    try:
        if target.suffix == ".gguf":
            return _as_the_file_says(AutoTokenizer.from_pretrained(target.parent, gguf_file=target.name), target)
        return AutoTokenizer.from_pretrained(target)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path_or_name} has no tokenizer that can be read (tokenizer.json): {_first_line(error)}") from error


def _as_the_file_says(tokenizer: Any, path: Path) -> Any:
    """The tokenizer with the special tokens that a GGUF names: versions of transformers differ in what they take from the file.

    5.17 makes SmolLM2's first token its last one too, and then no answer ends.
    """
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    for ours, theirs in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items():
        if (field := fields.get(f"tokenizer.ggml.{theirs}_token_id")) is not None:
            setattr(tokenizer, f"{ours}_token", tokenizer.convert_ids_to_tokens(int(field.contents())))
    return tokenizer


def locate(path_or_name: str | os.PathLike[str]) -> Path:
    """The folder or GGUF file that is meant; a named model is converted into the user's cache the first time.

    Raises:
        CheckpointError: if there is nothing of that name.
    """
    path = Path(path_or_name)
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path
    if path.is_file():
        raise CheckpointError(f"{path} is neither a checkpoint folder nor a GGUF file")
    text = str(path_or_name)
    if text in NAMES:
        return source_of(text) if NAMES[text].retrofit is None else _converted(text)
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(text, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"]))
        except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
            raise CheckpointError(f"{text} is no folder here, and the hub does not give it: {_first_line(error)}") from error
    raise CheckpointError(f"there is no model {text!r}: not a folder, not a GGUF file, and not one of the names {', '.join(NAMES)}")


def load_base(path_or_name: str | os.PathLike[str]) -> tuple[dict[str, Any], Iterable[tuple[str, Tensor]]]:
    """The config.json fields and the tensors of a Llama-family model, from a folder or a GGUF file.

    Raises:
        CheckpointError: if it is not of the Llama family, or broken.
    """
    path = source_of(str(path_or_name)) if str(path_or_name) in NAMES else locate(path_or_name)
    if path.suffix != ".gguf":
        config = read_config(path)
        if config.get("model_type") not in LLAMA_FAMILY:
            raise CheckpointError(f"{path} is a {config.get('model_type')!r}; models of the Llama family are {', '.join(LLAMA_FAMILY)}")
        return config, read_tensors(path)
    from transformers import AutoModelForCausalLM

    try:
        base = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    except ImportError as error:
        raise CheckpointError(f"reading a GGUF needs two more packages: pip install gguf accelerate ({_first_line(error)})") from error
    except Exception as error:  # what a damaged file makes the reader stumble over is anybody's guess
        raise CheckpointError(f"{path} cannot be read as a GGUF of a Llama-family model: {_first_line(error)}") from error
    if base.config.model_type not in LLAMA_FAMILY:
        raise CheckpointError(f"{path} is a {base.config.model_type!r}; models of the Llama family are {', '.join(LLAMA_FAMILY)}")
    fields = {**base.config.to_dict(), "dtype": "float32"}
    return fields, list(base.state_dict().items())


def save(model: Any, folder: Path, tokenizer: Any = None) -> None:
    """Write a model (and its tokenizer) to a folder, all of it or nothing: the folder appears when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        model.save_pretrained(scratch)
        if tokenizer is not None:
            tokenizer.save_pretrained(scratch)
        if folder.exists():
            shutil.rmtree(folder)
        Path(scratch).chmod(0o755)
        shutil.copytree(scratch, folder)


def _converted(name: str) -> Path:
    """The folder in the user's cache that holds a named model, converted now if it is not there yet."""
    folder = cache_folder() / name
    recipe = {"source": NAMES[name].hub, "retrofit": NAMES[name].retrofit, "conversion": _CONVERSION}
    note = folder / "latentweaver.json"
    if note.is_file() and json.loads(note.read_text()) == recipe:
        return folder
    source = source_of(name)
    fields, tensors = load_base(source)
    model = retrofit_tensors(fields, tensors, **(NAMES[name].retrofit or {}))
    save(model, folder, load_tokenizer(source))
    note.write_text(json.dumps(recipe))
    return folder


def _generation_config(model: Any, target: Path) -> None:
    """Take over the checkpoint's generation_config.json, if it has one."""
    from transformers import GenerationConfig

    if target.is_dir() and (target / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(target)


def _dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return None
    known = getattr(torch, dtype, None)
    if not isinstance(known, torch.dtype):
        raise InputError(f"unknown dtype {dtype!r}; say auto, float32, bfloat16 or float16")
    return known


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
