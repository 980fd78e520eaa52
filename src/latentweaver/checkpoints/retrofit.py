"""Retrofits: a pretrained Llama-family model, cut into prelude, core and coda, its core made recurrent.

At one step the retrofit is the base: the injection starts out so that the anchor enters the core unchanged. From the second
step on it also hears its own last state, `memory` times as loud as the anchor:

    x_1 = anchor        x_(t+1) = inject(core(x_t), anchor)

With `memory` below 1 the untrained loop is damped and settles; it has learned nothing from looping, though, so more steps are
not better answers until it is trained (arXiv 2511.07384 does that to several models).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from latentweaver.checkpoints.formats import LLAMA_FAMILY, joined, llama_fields, llama_tensor
from latentweaver.checkpoints.reading import build, fill
from latentweaver.errors import CheckpointError, InputError
from latentweaver.models.config import RecurrentDepthConfig
from latentweaver.models.recurrent_depth import RecurrentDepthForCausalLM

Layers = int | Sequence[int]


def retrofit(
    base: Any,
    prelude: Layers | None = None,
    core: Layers | None = None,
    coda: Layers | None = None,
    injection: str = "linear",
    num_steps: int = 1,
    memory: float = 0.25,
) -> RecurrentDepthForCausalLM:
    """A recurrent-depth model made of a Llama-family one; its logits at one step equal the base's if every layer is kept.

    Args:
        base: a transformers model (LlamaForCausalLM and its family), or a path or name that `load` understands. It is not
            changed; the weights are copied.
        prelude, core, coda: how many of the base's layers each part takes, in order, or which ones (their indices; what
            none of them names is dropped). Left out, the prelude takes a third of the layers, the core a third, and the
            coda the rest.
        injection: "linear", "scaled", "add", "diagonal" or "none".
        num_steps: the dial's default.
        memory: how much of the last state the injection lets back in, beside the anchor. "add" is 1 and "none" is 1 in
            place of the anchor.

    Raises:
        InputError: if layers are named twice, out of range, or not enough to go round.
        CheckpointError: if the base is not of the Llama family.
    """
    if isinstance(base, (str, os.PathLike)):
        from latentweaver.checkpoints.loading import load_base

        fields, tensors = load_base(base)
    else:
        fields, tensors = _base_of(base)
    return retrofit_tensors(fields, tensors, prelude, core, coda, injection, num_steps, memory)


def _base_of(base: Any) -> tuple[dict[str, Any], Iterable[tuple[str, Tensor]]]:
    """The config and the tensors of a transformers model."""
    config = getattr(base, "config", None)
    if config is None or config.model_type not in LLAMA_FAMILY:
        kind = getattr(config, "model_type", type(base).__name__)
        raise CheckpointError(f"cannot retrofit a {kind!r}; models of the Llama family are {', '.join(LLAMA_FAMILY)}")
    fields = copy.deepcopy(config.to_dict())
    dtype = next(base.parameters()).dtype
    fields["dtype"] = str(dtype).removeprefix("torch.")
    return fields, ((name, tensor.detach().clone().to(dtype)) for name, tensor in base.state_dict().items())


def retrofit_config(fields: Mapping[str, Any], parts: Mapping[str, Sequence[int]], injection: str, num_steps: int) -> RecurrentDepthConfig:
    """The configuration of a retrofit: a base's config.json fields, and which of its layers each part takes."""
    passed_on = ("bos_token_id", "eos_token_id", "pad_token_id", "dtype")
    return RecurrentDepthConfig(
        **llama_fields(fields),
        prelude_layers=len(parts["prelude"]),
        core_layers=len(parts["core"]),
        coda_layers=len(parts["coda"]),
        num_steps=num_steps,
        injection=injection,
        initial_state="input" if injection == "none" else "zeros",
        block="pre",
        norm_before_coda=False,
        **{name: fields[name] for name in passed_on if fields.get(name) is not None},
    )


def retrofit_tensors(
    fields: Mapping[str, Any],
    tensors: Iterable[tuple[str, Tensor]],
    prelude: Layers | None = None,
    core: Layers | None = None,
    coda: Layers | None = None,
    injection: str = "linear",
    num_steps: int = 1,
    memory: float = 0.25,
) -> RecurrentDepthForCausalLM:
    """`retrofit` on a base's config.json fields and tensors."""
    if not 0 < memory <= 1 or (injection == "diagonal" and memory == 1):
        raise InputError(f"memory must lie in (0, 1], and below 1 for a diagonal injection; got {memory}")
    total = int(fields["num_hidden_layers"])
    parts = split_layers(total, prelude, core, coda)
    model = build(retrofit_config(fields, parts, injection, num_steps))
    places: list[str | None] = [None] * total
    for part, layers in parts.items():
        for position, layer in enumerate(layers):
            places[layer] = f"{part}.{position}"
    translate = llama_tensor(places)
    ours: dict[str, Tensor] = {}
    for name, tensor in tensors:
        ours.update(translate(name, tensor))
    ours = joined(ours)
    dtype = next(iter(ours.values())).dtype
    fresh = model.model.injection.to_empty(device="cpu")
    fresh.start_transparent(memory)
    ours.update({f"model.injection.{name}": tensor.to(dtype) for name, tensor in fresh.state_dict().items()})
    fill(model, ours.items(), "the base", dtype)
    return model


def split_layers(total: int, prelude: Layers | None = None, core: Layers | None = None, coda: Layers | None = None) -> dict[str, list[int]]:
    """Which of a base's `total` layers each part takes (see `retrofit`)."""
    given = {"prelude": prelude, "core": core, "coda": coda}
    counts = {part: layers for part, layers in given.items() if isinstance(layers, int)}
    named = {part: [int(layer) for layer in layers] for part, layers in given.items() if not (layers is None or isinstance(layers, int))}
    if named and (counts or len(named) < 3):
        raise InputError("name the layers of all three parts (prelude, core, coda), or give how many each takes")
    if not named:
        third = max(total // 3, 1)
        if not counts:
            counts = {"prelude": third, "core": total - 2 * third, "coda": third}
        absent = [part for part in given if part not in counts]
        if len(absent) == 1:
            counts[absent[0]] = total - sum(counts.values())
        elif absent:
            raise InputError(f"say how many layers {' and '.join(absent)} take, too")
        if any(number < 0 for number in counts.values()) or sum(counts.values()) != total:
            raise InputError(
                f"the base has {total} layers; prelude {counts['prelude']}, core {counts['core']} and coda {counts['coda']} do not add up to that (name layers by index to drop some)"
            )
        edge = counts["prelude"]
        named = {
            "prelude": list(range(edge)),
            "core": list(range(edge, edge + counts["core"])),
            "coda": list(range(edge + counts["core"], total)),
        }
    taken = [layer for layers in named.values() for layer in layers]
    wrong = sorted({layer for layer in taken if not 0 <= layer < total or taken.count(layer) > 1})
    if wrong:
        raise InputError(f"layers {wrong} are named twice or are not among the base's 0 to {total - 1}")
    if not named["core"]:
        raise InputError("the core needs at least one layer")
    return named
