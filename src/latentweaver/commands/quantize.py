"""`lw quantize`: a smaller model, which a CPU runs faster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from latentweaver.commands.common import quiet


@dataclass(frozen=True)
class Quantize:
    """Write a model with its matrices in 8 bits: a quarter of the size of float32, and as much faster where reading weights is
    what takes the time. The folder is used like any other model."""

    model: Annotated[str, tyro.conf.Positional]
    """A name, a checkpoint folder, a GGUF file, or owner/repository on the hub."""

    out: Path
    """The folder to write; it must not exist."""

    int8: bool = True
    """8-bit whole numbers with a scale for each row; the only kind there is."""

    dtype: str = "auto"
    """Precision of everything else (states, norms, keys): "auto" for the model's own, "float32", "bfloat16"."""

    def __call__(self) -> None:
        from latentweaver.checkpoints.loading import load, load_tokenizer, save
        from latentweaver.console import make_console
        from latentweaver.errors import CheckpointError, InputError
        from latentweaver.models.config import RecurrentDepthConfig
        from latentweaver.runtime.int8 import quantize

        if not self.int8:
            raise InputError("8 bits are the only kind there is; leave out --no-int8")
        if self.out.exists():
            raise InputError(f"{self.out} exists already; name another folder, or remove it")
        quiet()
        model = load(self.model, dtype=self.dtype, device="cpu")
        if not isinstance(model.config, RecurrentDepthConfig):
            raise InputError(f"{self.model} is a {type(model).__name__}; recurrent-depth models can be quantized")
        if model.config.int8:
            raise InputError(f"{self.model} is in 8 bits already")
        before = _bytes(model)
        try:
            tokenizer = load_tokenizer(self.model)
        except CheckpointError:
            tokenizer = None
        save(quantize(model), self.out, tokenizer)
        line = f"{self.out}: {_bytes(model) / 1e6:.0f} MB of weights, {before / 1e6:.0f} MB before"
        make_console().print(line + ("" if tokenizer else "; the model has no tokenizer"), soft_wrap=True)


def _bytes(model: object) -> int:
    """Of all parameters and stored buffers, those that are shared counted once."""
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in model.state_dict().values()}  # type: ignore[attr-defined]
    return sum(tensors.values())
