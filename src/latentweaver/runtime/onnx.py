"""A model as an ONNX graph whose loop is still a loop: the number of steps is an input, so the dial goes along to the edge.

One graph reads a prompt and decodes; between calls the caller hands the keys and values on:

    inputs   input_ids [1, new], num_steps [], past_once [layers, 2, heads, past, head], past_core (the same shape for the core), and
             initial_state [1, new, width] for models that begin with noise
    outputs  logits [1, vocabulary] of the next token, once, core: the new positions' keys and values, to be put after the past

The core's memory is that of cache policy "shared": the keys of the last step. So `generate(cache_policy="shared")` writes the
same text. The loop becomes ONNX's Loop by way of `torch.while_loop`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch._higher_order_ops import while_loop

from latentweaver.errors import InputError
from latentweaver.runtime.slots import Attend, Pass
from latentweaver.runtime.thinking import think_for
from latentweaver.thought import Thought

Memory = Float[Tensor, "layers 2 heads positions head"]


class _Blocks(Pass):
    """The cache that some blocks see: the past of each, behind which it puts the new positions; these are kept in `new`."""

    def __init__(self, past: Memory, mask: Tensor, first: int = 0) -> None:
        self.past, self.mask, self.first = past, mask, first
        self.new: list[Tensor] = []

    def attend(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
        self.new.append(torch.stack([k[0], v[0]]))
        past = self.past[block - self.first]
        return attend(q, torch.cat([past[0, None], k], 2), torch.cat([past[1, None], v], 2), self.mask)


class Looped(nn.Module):
    """What is exported; also runs as it is.

    Raises:
        InputError: if the model is not one of recurrent depth, or in 8 bits.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        config: Any = getattr(model, "config", None)
        if not hasattr(model, "parts") or not hasattr(config, "core_layers"):
            raise InputError(f"{type(model).__name__} has no loop that could be exported; recurrent-depth models have")
        if not config.causal:
            raise InputError(
                "this model reads a picture as a whole (causal is False in its configuration); what is exported writes token by token"
            )
        if config.int8:
            raise InputError(
                "this model is in 8 bits, whose kernels are ours; export the model it was made from (onnxruntime quantizes too)"
            )
        self.model: Any = model
        self.config: Any = config
        self.noise = config.initial_state == "noise"

    def forward(
        self,
        input_ids: Int[Tensor, "1 new"],
        num_steps: Int[Tensor, ""],
        past_once: Memory,
        past_core: Memory,
        initial_state: Float[Tensor, "1 new width"] | None = None,
    ) -> tuple[Float[Tensor, "1 vocabulary"], Memory, Memory]:
        """One call; see the top of this file."""
        model, config = self.model, self.config
        new, past = input_ids.shape[1], past_once.shape[3]
        positions = torch.arange(past, past + new, device=input_ids.device)
        mask = (torch.arange(past + new, device=input_ids.device) <= positions[:, None])[None, None]
        once = _Blocks(past_once, mask)
        thought = model.begin(input_ids, position_ids=positions[None], cache=once, initial_state=initial_state)
        parts = model.parts()
        anchor, cos, sin = (thought.anchor[name] for name in ("input", "cos", "sin"))
        first = config.slot(0, 0)

        def going(step: Tensor, state: Tensor, memory: Tensor) -> Tensor:
            return step < num_steps

        def think(step: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            core = _Blocks(past_core, mask, first)
            x = parts["injection"](state, anchor)
            for layer, block in enumerate(parts["core"]):
                x = block(x, (cos, sin), None, core, first + layer)
            return step + 1, parts["norm"](x) if config.norm_in_loop else x, torch.stack(core.new)

        shape = (config.core_layers, 2, config.num_key_value_heads, new, config.head_dim)
        carried = (torch.zeros((), dtype=torch.long), thought.state.clone(), thought.state.new_zeros(shape))
        _, state, memory = while_loop(going, think, carried)
        last = Thought.start(state, anchor=thought.anchor, cache=once)
        logits = model.read(last, logits_to_keep=1).logits[:, -1]
        kept = torch.stack(once.new) if once.new else memory.new_zeros(0, *shape[1:])  # Ouro's blocks are all in the loop
        return logits, kept, memory


def empty_memory(model: Any) -> tuple[Memory, Memory]:
    """Of once and core: before anything has been read."""
    config = model.config
    once = config.prelude_layers + config.coda_layers
    shape = (2, config.num_key_value_heads, 0, config.head_dim)
    return torch.zeros(once, *shape), torch.zeros(config.core_layers, *shape)


def _needed(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"ONNX needs further packages: pip install 'latentweaver[onnx]' ({error})") from error


class Session:
    """An exported file in onnxruntime, called as `Looped` is.

    Raises:
        InputError: if onnxruntime is missing.
    """

    def __init__(self, path: Path) -> None:
        self.session = _needed("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def __call__(self, **inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, once, core = self.session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        return torch.from_numpy(logits), torch.from_numpy(once), torch.from_numpy(core)


@torch.no_grad()
def compare(model: Any, path: Path, steps: tuple[int, ...] = (1, 3, 8)) -> dict[int, float]:
    """By number of steps, how far the logits of an exported file are from the model's: over a prompt of 12 tokens and two more,
    one by one.

    Raises:
        InputError: if onnxruntime is missing.
    """
    session, far = Session(path), {}
    ids = torch.randint(model.config.vocab_size, (1, 14), generator=torch.Generator().manual_seed(0))
    for count in steps:
        cache, worst = model.new_cache("shared"), 0.0
        once, core = empty_memory(model)
        for tokens in (ids[:, :12], ids[:, 12:13], ids[:, 13:]):
            thought = model.begin(tokens, cache=cache)
            inputs = {"input_ids": tokens, "num_steps": torch.tensor(count), "past_once": once, "past_core": core}
            if model.config.initial_state == "noise":
                inputs["initial_state"] = thought.state
            logits, more_once, more_core = session(**inputs)
            expected = model.read(think_for(model, thought, count), logits_to_keep=1).logits[:, -1]
            worst = max(worst, float((logits - expected).abs().max()))
            once, core = torch.cat([once, more_once], 3), torch.cat([core, more_core], 3)
        far[count] = worst
    return far


@torch.no_grad()
def export(model: Any, path: Path) -> None:
    """Write a model to an .onnx file.

    Args:
        model: a recurrent-depth language model, float32, on the CPU.
        path: the file; large weights go to a second one beside it.

    Raises:
        InputError: if the packages for it are missing, or the model cannot be exported.
    """
    _needed("onnxscript")  # torch's exporter asks for it
    looped = Looped(model).eval()
    new, past = 5, 3
    once, core = (memory.new_zeros(*memory.shape[:3], past, memory.shape[4]) for memory in empty_memory(model))
    inputs: dict[str, Any] = {
        "input_ids": torch.ones(1, new, dtype=torch.long),
        "num_steps": torch.tensor(2),
        "past_once": once,
        "past_core": core,
    }
    longest = model.config.max_position_embeddings
    grows, seen = torch.export.Dim("new", min=1, max=longest), torch.export.Dim("past", min=0, max=longest)
    dynamic: dict[str, Any] = {"input_ids": {1: grows}, "num_steps": {}, "past_once": {3: seen}, "past_core": {3: seen}}
    if looped.noise:
        inputs["initial_state"] = torch.zeros(1, new, model.config.hidden_size)
        dynamic["initial_state"] = {1: grows}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        looped,
        (),
        str(path),
        kwargs=inputs,
        input_names=list(inputs),
        output_names=["logits", "once", "core"],
        dynamic_shapes=dynamic,
        dynamo=True,
        external_data=True,
        verbose=False,
    )
