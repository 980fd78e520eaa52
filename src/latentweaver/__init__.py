"""latentweaver: models that think in latent space. Build or import one, run it with compute as a dial, look inside.

    import latentweaver as lw

    model = lw.load("smollm2-135m")
    thought = model.begin(input_ids)      # read the input
    thought = model.think(thought)        # one latent step, as often as wanted
    logits = model.read(thought).logits   # what it would say if it stopped now

Everything here is loaded when it is first used, so that the import itself costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from latentweaver.registration import register as _register

__version__ = "0.1.0"

_HOME = {
    "Thought": "latentweaver.thought",
    "Readout": "latentweaver.thought",
    "Reasoner": "latentweaver.thought",
    "load": "latentweaver.checkpoints.loading",
    "load_tokenizer": "latentweaver.checkpoints.loading",
    "save": "latentweaver.checkpoints.loading",
    "retrofit": "latentweaver.checkpoints.retrofit",
    "RecurrentDepthConfig": "latentweaver.models.config",
    "RecurrentDepthModel": "latentweaver.models.recurrent_depth",
    "RecurrentDepthForCausalLM": "latentweaver.models.recurrent_depth",
    "continuous_thought": "latentweaver.models.continuous_thought",
    "latent_block": "latentweaver.models.latent_block",
    "ContinuousThoughtConfig": "latentweaver.models.continuous_thought_config",
    "ContinuousThoughtForCausalLM": "latentweaver.models.continuous_thought",
    "LoopCache": "latentweaver.runtime.cache",
    "think_for": "latentweaver.runtime.thinking",
    "think_until": "latentweaver.runtime.thinking",
    "record": "latentweaver.inspect.recorder",
    "LatentweaverError": "latentweaver.errors",
    "InputError": "latentweaver.errors",
    "CheckpointError": "latentweaver.errors",
}
_MODULES = ("halting", "inspect")

__all__ = [*_HOME, *_MODULES]

if TYPE_CHECKING:
    from latentweaver import halting, inspect
    from latentweaver.checkpoints.loading import load, load_tokenizer, save
    from latentweaver.checkpoints.retrofit import retrofit
    from latentweaver.errors import CheckpointError, InputError, LatentweaverError
    from latentweaver.inspect.recorder import record
    from latentweaver.models.config import RecurrentDepthConfig
    from latentweaver.models.continuous_thought import ContinuousThoughtForCausalLM, continuous_thought
    from latentweaver.models.continuous_thought_config import ContinuousThoughtConfig
    from latentweaver.models.latent_block import latent_block
    from latentweaver.models.recurrent_depth import RecurrentDepthForCausalLM, RecurrentDepthModel
    from latentweaver.runtime.cache import LoopCache
    from latentweaver.runtime.thinking import think_for, think_until
    from latentweaver.thought import Readout, Reasoner, Thought


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"latentweaver.{name}")
    else:
        raise AttributeError(f"module 'latentweaver' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


_register()
