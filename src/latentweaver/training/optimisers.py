"""AdamW, and Muon for the matrices inside the blocks. Both are torch's own; this file says which parameter goes where."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from latentweaver.errors import InputError
from latentweaver.training.ranks import cut, joined, piece

Kind = Literal["adamw", "muon"]


class AdamW(torch.optim.AdamW):
    """torch's AdamW on the pieces that this rank holds of sharded parameters. It works number by number, so it needs no others;
    on DTensors the host takes longer to start it than the device to do it (for 131 of them 8 ms beside 2)."""

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        found = super()._init_group(group, *lists)
        for tensors in lists:
            tensors[:] = map(piece, tensors)
        return found


class Muon(torch.optim.Muon):
    """torch's Muon, for sharded matrices too: each is put together once, where torch's own would do so for every product of its iteration
    (two CPU processes, weaver-chains at width 64: an update took 1.22 s so, and takes 0.27)."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not any(isinstance(parameter, DTensor) for group in self.param_groups for parameter in group["params"]):
            return super().step(closure)
        loss = None if closure is None else closure()
        self._sharded_step()
        return loss

    @torch.no_grad()
    def _sharded_step(self) -> None:
        from torch.optim._muon import _adjust_lr, _zeropower_via_newtonschulz  # torch's own has no public name

        for group in self.param_groups:
            lists: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
            self._init_group(group, *lists)
            for parameter, gradient, momentum in zip(*lists, strict=True):
                average = piece(momentum).lerp_(piece(gradient), 1 - group["momentum"])
                update = piece(gradient).lerp(average, group["momentum"]) if group["nesterov"] else average
                whole = joined(update, parameter)
                straight = _zeropower_via_newtonschulz(whole, group["ns_coefficients"], group["ns_steps"], group["eps"])
                mine = piece(parameter).mul_(1 - group["lr"] * group["weight_decay"])
                mine.add_(cut(straight, parameter), alpha=-_adjust_lr(group["lr"], group["adjust_lr_fn"], parameter.shape))


def optimisers(
    model: nn.Module, kind: Kind, lr: float, weight_decay: float, betas: tuple[float, float] = (0.9, 0.95)
) -> list[torch.optim.Optimizer]:
    """The optimisers of a model's trainable parameters.

    Embeddings, the head, norms and biases are always AdamW's, and only matrices decay. With "muon" the other matrices are
    Muon's (Jordan et al. 2024), its updates scaled to the size of AdamW's (arXiv 2502.16982), so that one learning rate and
    one weight decay serve both.

    Raises:
        InputError: another kind.
    """
    if kind not in ("adamw", "muon"):
        raise InputError(f"optimiser must be 'adamw' or 'muon', got {kind!r}")
    outer = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head = getattr(model, "lm_head", None)
    outer |= {id(parameter) for parameter in head.parameters()} if head is not None else set()
    matrices, tables, vectors = [], [], []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (vectors if parameter.dim() < 2 else tables if id(parameter) in outer else matrices).append(parameter)
    decaying = tables if kind == "muon" else matrices + tables
    groups = [{"params": decaying, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    fused = {parameter.device.type for parameter in decaying + vectors} in ({"cuda"}, {"cpu"})  # a pass over memory in place of ten
    result: list[torch.optim.Optimizer] = [AdamW(groups, lr=lr, betas=betas, eps=1e-8, fused=fused)]
    if kind == "muon" and matrices:
        result.append(Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
    return result


def trapezoid(update: int, updates: int, warmup: int, cooldown: float) -> float:
    """The factor on the learning rate: a linear rise over `warmup` updates, flat, a linear fall over the last `cooldown` share."""
    rise = min((update + 1) / warmup, 1.0) if warmup else 1.0
    fall = min((updates - update) / max(math.ceil(cooldown * updates), 1), 1.0)
    return rise * fall
