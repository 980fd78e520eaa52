"""Checkpoint folders of the originals, a tiny model of our own, and one thread for everything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import latentweaver as lw
from tiny_models import tiny_config

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Original:
    """A fixture: the checkpoint folder as its authors would publish it, and what their code gave for it."""

    folder: Path
    notes: dict[str, Any]
    io: dict[str, Tensor]

    def load(self) -> lw.RecurrentDepthForCausalLM:
        return lw.load(self.folder, device="cpu")


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Original]:
    """The fixture of that name, laid out as a checkpoint folder."""
    made: dict[str, Original] = {}

    def make(name: str) -> Original:
        if name not in made:
            notes = json.loads((FIXTURES / f"{name}.json").read_text())
            folder = tmp_path_factory.mktemp(name)
            config = {"model_type": notes["model_type"], **notes["config"]}
            (folder / "config.json").write_text(json.dumps(config))
            shutil.copy(FIXTURES / f"{name}.safetensors", folder / "model.safetensors")
            made[name] = Original(folder, notes, load_file(FIXTURES / f"{name}_io.safetensors"))
        return made[name]

    return make


@pytest.fixture
def tiny() -> Callable[..., lw.RecurrentDepthForCausalLM]:
    """A tiny random model, lively enough that tokens and depths differ; any field of the configuration may be given."""

    def make(seed: int = 0, **fields: Any) -> lw.RecurrentDepthForCausalLM:
        torch.manual_seed(seed)
        model = lw.RecurrentDepthForCausalLM(tiny_config(**{"initializer_range": 0.2, **fields})).eval()
        for weight in model.parameters():
            if weight.dim() == 1:  # a norm of ones or a bias of zeros would hide a mistake
                weight.data += 0.3 * torch.randn_like(weight)
        return model

    return make
