"""Updates that a GPU plays back: forward and backward of every shape of batch, recorded once as a CUDA graph.

A thought is a pass over one column: some hundred kernels of a few microseconds each, which a host launches more slowly than the device
runs them. Played back from a recording they cost what they cost the device. A shape is computed as usual when it is first
met (what is compiled or allocated then must not be recorded), recorded when it is met again, and played from then on. All
recordings share their memory, for only one plays at a time; batches in few shapes (`TokenBatch.of`'s `grid`) need few of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentweaver.training.objectives import Terms

Descend = Callable[[Any, tuple[int, int], int], tuple[Tensor, Terms]]
"""From a batch, a depth and a seed to the loss and its terms, gradients added to those of the parameters."""


@dataclass
class _Recording:
    graph: Any
    batch: Any
    loss: Tensor
    terms: Terms


class Recorded:
    """A `Descend` whose work is recorded. It must draw nothing, and ask nothing of what is in a tensor.

    Args:
        descend: what is recorded.
        model: whose gradients are kept in place from now on; they are to be zeroed, not dropped.
    """

    def __init__(self, descend: Descend, model: nn.Module) -> None:
        self.descend = descend
        self.stream = torch.cuda.Stream()
        self.pool = torch.cuda.graph_pool_handle()
        self.recordings: dict[Any, _Recording | None] = {}
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def __call__(self, batch: Any, steps: tuple[int, int], seed: int) -> tuple[Tensor, Terms]:
        key = (shape_of(batch), steps)
        if key not in self.recordings:
            self.recordings[key] = None
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                loss, terms = self.descend(batch, steps, seed)
            torch.cuda.current_stream().wait_stream(self.stream)
            return loss, terms
        recording = self.recordings[key]
        if recording is None:
            recording = self.recordings[key] = self._record(batch, steps, seed)
        for kept, given in zip(tensors_of(recording.batch), tensors_of(batch), strict=True):
            kept.copy_(given, non_blocking=True)
        recording.graph.replay()
        return recording.loss.clone(), recording.terms

    def _record(self, batch: Any, steps: tuple[int, int], seed: int) -> _Recording:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # a thread of the data loader pins memory meanwhile, which would be an error if all threads were watched
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            loss, terms = self.descend(batch, steps, seed)
        return _Recording(graph, batch, loss, terms)


def tensors_of(batch: Any) -> Iterator[Tensor]:
    """The tensors of a batch, a dataclass of tensors or of such dataclasses, in the order of its fields."""
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            yield value
        elif is_dataclass(value):
            yield from tensors_of(value)


def shape_of(batch: Any) -> tuple[Any, ...]:
    """What must be equal for a recording of one batch to serve another: the shapes of its tensors, and all else that it says."""
    found: list[Any] = []
    for field in fields(batch):
        value = getattr(batch, field.name)
        found.append(tuple(value.shape) if isinstance(value, Tensor) else shape_of(value) if is_dataclass(value) else value)
    return tuple(found)
