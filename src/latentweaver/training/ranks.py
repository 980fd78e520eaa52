"""Several processes as one: the same update on the same global batch, every process with its share of the rows.

Started by `torchrun`, which says in the environment who a process is; without it there is one process and nothing here does
anything. Each rank makes the whole batch, which depends on (seed, update) alone, and keeps every size-th row. Means over labels
are divided by the count over all ranks, so that the loss is that of one process with all the rows.

Weights, gradients and the state of the optimisers are sharded by FSDP2. What is sharded is not the model but the whole question,
`Asked`, whose forward goes from a batch to a loss: a looped block is used many times in an update, yet its weights are gathered
once before it and its gradients reduced once after it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from latentweaver.errors import InputError
from latentweaver.training import working


def rank() -> int:
    """Which process this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def join(device: str | None) -> torch.device:
    """Meet the other processes, if `torchrun` started any; the device of this one.

    Args:
        device: where to train; None for a GPU of one's own, else the CPU.
    """
    local = int(os.environ.get("LOCAL_RANK", 0))
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if chosen.type == "cuda" and chosen.index is None and "LOCAL_RANK" in os.environ:
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        # what processes say to each other beside tensors, as when they write a checkpoint, goes from CPU to CPU
        dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    return chosen


def total(value: Tensor) -> Tensor:
    """The sum of a tensor over all ranks; it carries no gradient."""
    value = value.detach()
    if size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def average(value: Tensor) -> Float[Tensor, ""]:
    """The mean of a number over all ranks."""
    return total(value.float()) / size()


def piece(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor: its shard, or all of a tensor that is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def joined(part: Tensor, like: Tensor) -> Tensor:
    """All of what every rank holds a piece of, cut as `like` is; the piece itself where that is whole."""
    if not isinstance(like, DTensor):
        return part
    return DTensor.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    ).full_tensor()  # fmt: skip


def cut(whole: Tensor, like: Tensor) -> Tensor:
    """This rank's rows of a tensor, cut as `like` is by FSDP: rows shared out in order, the last ranks with fewer."""
    if not isinstance(like, DTensor):
        return whole
    rows = -(-like.shape[0] // size())
    return whole.narrow(0, min(rank() * rows, len(whole)), len(like.to_local()))


@torch.no_grad()
def clip(parameters: Iterable[nn.Parameter], largest: float, loss: Float[Tensor, ""]) -> Float[Tensor, "2"]:
    """Scale gradients down, in place, to a norm of `largest` over all ranks.

    Works on the pieces: a call on a list of DTensors goes through each of them in Python, for 131 of them 5 ms beside 0.5.

    Returns:
        The mean over all ranks of `loss`, and the norm there was. Nothing waits for the device.
    """
    pieces = [piece(parameter.grad) for parameter in parameters if parameter.grad is not None]
    squares = nn.utils.get_total_norm(pieces).float().square()
    loss, squares = total(torch.stack([loss.float(), squares])).unbind()
    norm = squares.sqrt()
    torch._foreach_mul_(pieces, (largest / (norm + 1e-6)).clamp(max=1.0))  # pyright: ignore[reportPrivateImportUsage]
    return torch.stack([loss / size(), norm])


def share(batch: Any) -> Any:
    """This rank's rows of a batch, a dataclass of tensors (or of such dataclasses) whose first dimension is the row.

    Raises:
        InputError: if the rows cannot be shared out evenly.
    """
    ranks = size()
    if ranks == 1:
        return batch

    def part(value: Any) -> Any:
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{field.name: part(getattr(value, field.name)) for field in fields(value)})
        if not isinstance(value, Tensor):
            return value
        if value.shape[0] % ranks:
            raise InputError(f"{value.shape[0]} rows of a batch cannot be shared evenly by {ranks} processes; choose another batch size")
        return value[rank() :: ranks]

    return part(batch)


class Asked(nn.Module):
    """An objective and the model it is about: a forward from a batch to the loss.

    With a `dtype` matrices are brought into it once for all steps, and stay until `working.drop`.
    """

    def __init__(self, model: nn.Module, objective: Any, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.dtype = dtype

    def forward(self, batch: Any, depth: tuple[int, int], seed: int) -> tuple[Float[Tensor, ""], Any]:
        """The loss, and the `Terms` it is from."""
        if self.dtype is not None:
            working.make(self.model, self.dtype)
        terms = self.objective(self.model, batch, depth, seed)
        return terms.loss, terms


def shard(asked: Asked, blocks: bool = False) -> None:
    """Shard the weights over all ranks, in place.

    Args:
        asked: what is trained.
        blocks: shard every block by itself too. A model too large for one device fits then, but a looped block is gathered and
            reduced at every step.
    """
    mesh = init_device_mesh(next(asked.parameters()).device.type, (size(),))
    for block in looped_blocks(asked.model) if blocks else ():
        fully_shard(block, mesh=mesh)
    fully_shard(asked, mesh=mesh)


def looped_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that the model names as not to be split (transformers' `_no_split_modules`)."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def reduce_gradients(asked: nn.Module, wanted: bool) -> None:
    """Whether the next backward reduces its gradients over the ranks, or lets them add up where they are."""
    if isinstance(asked, FSDPModule):
        asked.set_requires_gradient_sync(wanted)


@contextmanager
def whole(asked: Asked) -> Iterator[None]:
    """Within this block every rank has all the weights, so that the model can be called as any other."""
    sharded = [module for module in asked.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.reshard()


def gather(asked: Asked) -> None:
    """Give every rank all the weights, for good: plain parameters in place of the shards."""
    known: dict[int, nn.Parameter] = {}  # a tied matrix stays one
    for module in asked.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, DTensor):
                if id(parameter) not in known:
                    known[id(parameter)] = nn.Parameter(parameter.full_tensor(), parameter.requires_grad)
                module.register_parameter(name, known[id(parameter)])
