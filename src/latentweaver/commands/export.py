"""`lw export`: a model for machines without Python and torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from latentweaver.commands.common import quiet


@dataclass(frozen=True)
class Export:
    """Write a model as an ONNX graph in which the number of steps is an input, and compare what onnxruntime makes of it with the
    model itself."""

    model: Annotated[str, tyro.conf.Positional]
    """A name, a checkpoint folder, a GGUF file, or owner/repository on the hub."""

    out: Path
    """The folder to write (model.onnx, its weights, the tokenizer); it must not exist."""

    def __call__(self) -> None:
        from latentweaver.checkpoints.loading import load, load_tokenizer
        from latentweaver.console import make_console
        from latentweaver.errors import CheckpointError, InputError
        from latentweaver.runtime.onnx import compare, export

        if self.out.exists():
            raise InputError(f"{self.out} exists already; name another folder, or remove it")
        quiet()
        model = load(self.model, dtype="float32", device="cpu")
        export(model, self.out / "model.onnx")
        try:
            load_tokenizer(self.model).save_pretrained(self.out)
        except CheckpointError as error:
            make_console().print(f"{error}", markup=False, soft_wrap=True)
        size = sum(file.stat().st_size for file in self.out.iterdir())
        make_console().print(f"{self.out}: {size / 1e6:.0f} MB", soft_wrap=True)
        for steps, far in compare(model, self.out / "model.onnx").items():
            make_console().print(f"at {steps} steps its logits differ from the model's by at most {far:.1e}", soft_wrap=True)
