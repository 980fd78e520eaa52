"""Recording a model while it thinks: every step of every chosen token, filtered before it is stored.

    trajectory = record(model, input_ids, steps=128, tokens=[5, 6])                       # begins and thinks itself
    recorder = Recorder(model); model.generate(input_ids, watch=recorder); recorder.trajectories()   # one for each new token

The recorder looks at Thoughts and changes none, so outputs stay the same bit for bit. It sees one point of the cycle per step.
On an accelerator the states of several steps are gathered there and copied together, so that thinking is not held up.

What may surprise: a `watch` hook is first called after step 1, so what it records has no step 0. Large recordings go to a
file: states are appended to a .npy as they come, `[steps, rows, tokens, width]`, and read back memory-mapped.
"""

from __future__ import annotations

import ast
import atexit
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.halting import HaltingRule
from latentweaver.inspect.trajectory import Trajectory
from latentweaver.runtime.thinking import think_for, think_until
from latentweaver.thought import Reasoner, Thought

KEEP = ("states", "top", "entropy", "logprobs")
_ROWS = "recorder.rows"


@torch.no_grad()
def record(
    model: Reasoner,
    input_ids: Int[Tensor, "batch sequence"],
    attention_mask: Bool[Tensor, "batch sequence"] | Int[Tensor, "batch sequence"] | None = None,
    *,
    steps: int = 128,
    tokens: int | slice | Sequence[int] | None = None,
    keep: Iterable[str] = ("states",),
    top: int = 5,
    track: Sequence[int] = (),
    every: int = 1,
    halting: HaltingRule | None = None,
    path: str | Path | None = None,
    memory: int = 2**30,
    **begin: Any,
) -> Trajectory:
    """Think about an input and record how each token's state moved.

    Args:
        model: any reasoner.
        input_ids: tokens, `[batch, sequence]`, or whatever this reasoner's `begin` takes.
        attention_mask: 1 for real tokens and 0 for padding.
        steps: how many steps to think; with `halting` at most so many.
        tokens: positions in the sequence to record, negative ones from the end; all if None.
        keep: what to record: "states", and of the readout "top" (the `top` likeliest tokens), "entropy", "logprobs" (of the
            tokens in `track`). Anything but states costs a readout at every kept step.
        top: how many likeliest tokens to keep.
        track: token ids whose log-probability is followed; implies "logprobs".
        every: keep only every so many steps.
        halting: a rule that stops rows early; recording ends for them there.
        path: stream the states to this .npy file.
        memory: without a path, states beyond so many bytes are streamed to a temporary file,
            which goes when Python does.
        begin: passed on to `model.begin` (initial_state, generator, cache, ...).

    Raises:
        InputError: a model without the three verbs, one whose steps do not count up or that refuses so many of them, no tokens, steps below 1, positions
            outside the sequence.
    """
    missing = [verb for verb in ("begin", "think", "read") if not callable(getattr(model, verb, None))]
    if missing:
        raise InputError(f"{type(model).__name__} has no {', '.join(missing)}: a model without a recurrence has no thoughts to record")
    if isinstance(input_ids, Tensor) and input_ids.numel() == 0:
        raise InputError(f"no tokens to think about: input_ids has shape {list(input_ids.shape)}")
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    thought = model.begin(input_ids, **({} if attention_mask is None else {"attention_mask": attention_mask}), **begin)
    if not isinstance(thought, Thought) or thought.state.dim() != 3 or thought.state.numel() == 0:
        raise InputError(f"begin of {type(model).__name__} must return a Thought with a state [batch, sequence, width] that is not empty")
    recorder = Recorder(model, tokens, keep, top=top, track=track, every=every, path=path, memory=memory, steps=steps)
    recorder._single = True
    rows = torch.arange(thought.state.shape[0])
    recorder(thought)
    watched = replace(thought, anchor={**thought.anchor, _ROWS: rows})  # a batch-first tensor stays with its rows when others leave
    try:
        if halting is None:
            final = think_for(model, watched, steps, recorder)
        else:
            mask = None if attention_mask is None else attention_mask.bool()
            final = think_until(model, watched, halting, steps, mask=mask, watch=recorder)
    except InputError as error:
        if not recorder.reached:  # not a matter of how many steps
            raise
        raise InputError(f"no more than {recorder.reached} of {steps} steps: {error}") from error
    ids = (
        input_ids
        if isinstance(input_ids, Tensor) and not input_ids.is_floating_point() and input_ids.shape == thought.state.shape[:2]
        else None
    )
    return recorder.trajectories(token_ids=ids, mask=attention_mask, final=final)[0]


class Recorder:
    """A `watch` hook that records. Each `begin` that it sees thinking (each new token of `generate`) is a recording of its own.

    Arguments as in `record`; `steps`, if known, is how many to make room for.

    Raises:
        InputError: an unknown name in `keep`, `every` below 1, positions outside the sequence.
    """

    def __init__(
        self,
        model: Reasoner,
        tokens: int | slice | Sequence[int] | None = None,
        keep: Iterable[str] = ("states",),
        *,
        top: int = 5,
        track: Sequence[int] = (),
        every: int = 1,
        path: str | Path | None = None,
        memory: int = 2**30,
        steps: int = 16,
    ) -> None:
        self.keep = {keep} if isinstance(keep, str) else set(keep)
        if track:
            self.keep.add("logprobs")
        if unknown := self.keep - set(KEEP):
            raise InputError(f"cannot keep {sorted(unknown)}; known are {list(KEEP)}")
        if not self.keep or every < 1 or top < 1:
            raise InputError(f"keep something, with every and top at least 1; got keep={sorted(self.keep)}, every={every}, top={top}")
        if "logprobs" in self.keep and not track:
            raise InputError("name the tokens whose log-probability to follow: track=[...]")
        self.model, self.tokens, self.top, self.track, self.every = model, tokens, top, tuple(track), every
        self.path, self.memory, self.steps = None if path is None else Path(path), memory, steps
        self._single = False  # `record` sees one begin: a step that does not count up is no other one
        self._segments: list[_Segment] = []

    @torch.no_grad()
    def __call__(self, thought: Thought) -> None:
        step = int(thought.step.max())
        if self._segments and self._single and step <= self.reached:
            raise InputError(
                f"think of {type(self.model).__name__} returned a thought of step {step} after one of step {self.reached}: "
                "return thought.advance(state), also where the state stays as it is"
            )
        if not self._segments or step <= self._segments[-1].last:
            self._segments.append(_Segment(self, thought, len(self._segments)))
        segment = self._segments[-1]
        segment.last = step
        if step % self.every == 0:
            segment.add(thought, step)

    @property
    def reached(self) -> int:
        """The last step that was seen."""
        return self._segments[-1].last if self._segments else 0

    def trajectories(self, token_ids: Tensor | None = None, mask: Tensor | None = None, final: Thought | None = None) -> list[Trajectory]:
        """What was recorded so far, one Trajectory for each `begin`."""
        return [segment.finished(token_ids, mask, final) for segment in self._segments]


class _Segment:
    """The recording of one begin."""

    def __init__(self, recorder: Recorder, first: Thought, number: int) -> None:
        self.recorder = recorder
        self.batch, self.sequence, _ = first.state.shape
        self.positions = positions_of(recorder.tokens, self.sequence)
        self.whole = len(self.positions) == self.sequence and bool((self.positions.diff() == 1).all())
        self.dtype = coarsest_dtype(recorder.model, first.state)
        self.last = -1
        self.steps: list[int] = []
        self.taken = np.zeros(self.batch, np.int64)
        self.stores: dict[str, _Store] = {}
        self.waiting: list[tuple[Tensor, ndarray]] = []
        width, number_type = first.state.shape[-1], 8 if first.state.dtype == torch.float64 else 4
        size = (recorder.steps // recorder.every + 1) * self.batch * len(self.positions) * width * number_type
        path = recorder.path
        if path is None and size > recorder.memory:
            folder = tempfile.mkdtemp(prefix="latentweaver-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            path = Path(folder) / "states.npy"
        elif path is not None and number:
            path = path.with_stem(f"{path.stem}-{number}")
        self.path = path

    def add(self, thought: Thought, step: int) -> None:
        recorder = self.recorder
        rows = thought.anchor.get(_ROWS)
        rows = np.arange(self.batch) if rows is None else rows.cpu().numpy()
        if len(rows) != thought.state.shape[0]:
            raise InputError(
                f"recording began with {len(rows)} rows and now sees {thought.state.shape[0]}: record rows that halt apart, one at a time"
            )
        self.steps.append(step)
        self.taken[rows] += 1
        if "states" in recorder.keep:
            state = thought.state.detach()
            state = state if self.whole else state[:, self.positions.to(state.device)]
            if state.device.type == "cpu":
                self._put("states", state, rows)
            else:  # gather on the device; a copy for each step would wait for it each time
                self.waiting.append((state.clone() if self.whole else state, rows))
                if len(self.waiting) >= 16:
                    self._flush()
        if recorder.keep - {"states"}:
            self._readout(thought, rows)

    def _readout(self, thought: Thought, rows: ndarray) -> None:
        recorder = self.recorder
        logits = recorder.model.read(thought).logits
        shift = self.sequence - logits.shape[1]  # a readout of the last positions only
        logprobs = logits[:, (self.positions - shift).to(logits.device)].float().log_softmax(-1)
        if "entropy" in recorder.keep:
            self._put("entropy", -(logprobs.exp() * logprobs.clamp(min=-1e4)).sum(-1), rows)
        if "top" in recorder.keep:
            best = logprobs.topk(min(recorder.top, logprobs.shape[-1]))
            self._put("top_logprobs", best.values, rows)
            self._put("top_ids", best.indices, rows)
        if "logprobs" in recorder.keep:
            if not all(-logprobs.shape[-1] <= token < logprobs.shape[-1] for token in recorder.track):
                raise InputError(f"track names tokens {list(recorder.track)} of a vocabulary of {logprobs.shape[-1]}")
            self._put("tracked_logprobs", logprobs[..., list(recorder.track)], rows)

    def _flush(self) -> None:
        if self.waiting:
            together = torch.cat([state for state, _ in self.waiting]).cpu().split([len(state) for state, _ in self.waiting])
            for state, (_, rows) in zip(together, self.waiting, strict=True):
                self._put("states", state, rows)
            self.waiting.clear()

    def _put(self, name: str, value: Tensor, rows: ndarray) -> None:
        value = value.cpu() if value.dtype in (torch.float32, torch.float64, torch.int64) else value.cpu().float()
        store = self.stores.get(name)
        if store is None:
            capacity = self.recorder.steps // self.recorder.every + 1
            store = self.stores[name] = _Store(
                (self.batch, *value.shape[1:]), value.numpy().dtype, capacity, self.path if name == "states" else None
            )
        store.append(value.numpy(), rows)

    def finished(self, token_ids: Tensor | None, mask: Tensor | None, final: Thought | None) -> Trajectory:
        self._flush()
        got = {name: store.finished().swapaxes(0, 1) for name, store in self.stores.items()}
        real = np.ones((self.batch, len(self.positions)), bool)
        if mask is not None and mask.dim() == 2:
            real = mask[:, -self.sequence :][:, self.positions.to(mask.device)].bool().cpu().numpy()
        return Trajectory(
            states=got.get("states"),
            steps=np.asarray(self.steps),
            taken=self.taken.copy(),
            positions=self.positions.numpy(),
            token_ids=None if token_ids is None else token_ids[:, self.positions.to(token_ids.device)].cpu().numpy(),
            real=real,
            dtype=self.dtype,
            entropy=got.get("entropy"),
            top_ids=got.get("top_ids"),
            top_logprobs=got.get("top_logprobs"),
            tracked=self.recorder.track,
            tracked_logprobs=got.get("tracked_logprobs"),
            model=type(self.recorder.model).__name__,
            final=final,
            path=self.path if "states" in got else None,
        )


class _Store:
    """One array that grows by a step at a time, in memory or at the end of a .npy file."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, capacity: int, path: Path | None) -> None:
        self.shape, self.dtype, self.path, self.count = shape, dtype, path, 0
        if path is None:
            self.array = np.empty((capacity, *shape), dtype)
        else:
            self.file = open(path, "w+b")  # noqa: SIM115 (closed by finished)
            self.file.write(_npy_header(0, shape, dtype))

    def append(self, value: ndarray, rows: ndarray) -> None:
        if len(rows) != self.shape[0]:
            whole = np.full(self.shape, np.nan if self.dtype.kind == "f" else -1, self.dtype)
            whole[rows] = value
            value = whole
        if self.path is not None:
            if self.file.closed:
                self.file = open(self.path, "r+b")  # noqa: SIM115
                self.file.seek(0, 2)
            self.file.write(np.ascontiguousarray(value).data)
        else:
            if self.count == len(self.array):
                self.array = np.concatenate([self.array, np.empty_like(self.array)])
            self.array[self.count] = value
        self.count += 1

    def finished(self) -> ndarray:
        if self.path is None:
            return self.array[: self.count]
        if not self.file.closed:
            self.file.seek(0)
            self.file.write(_npy_header(self.count, self.shape, self.dtype))
            self.file.close()
        return np.load(self.path, mmap_mode="r")


def _npy_header(count: int, shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """A .npy header, version 1.0, of 256 bytes whatever it says, so that the count can be put in last."""
    said = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count, *shape)}
    assert ast.literal_eval(repr(said)) == said
    return b"\x93NUMPY\x01\x00" + (246).to_bytes(2, "little") + repr(said).encode("latin1").ljust(245) + b"\n"


def positions_of(tokens: int | slice | Sequence[int] | None, sequence: int) -> Int[Tensor, "tokens"]:
    if isinstance(tokens, int):
        tokens = [tokens]
    if tokens is None or isinstance(tokens, slice):
        chosen = list(range(sequence))[slice(None) if tokens is None else tokens]
    else:
        try:
            chosen = [index(token) for token in tokens]
        except TypeError:
            raise InputError(f"tokens must be positions in the sequence (whole numbers, or a slice), got {tokens!r}") from None
    if not chosen or not all(-sequence <= token < sequence for token in chosen):
        raise InputError(f"tokens must name at least one position of a sequence of {sequence}, got {tokens}")
    return torch.tensor([token % sequence for token in chosen])


def coarsest_dtype(model: Any, state: Tensor) -> str:
    """The dtype with the largest rounding error among the state's and the floating-point weights'."""
    dtypes = {state.dtype}
    if isinstance(model, torch.nn.Module):
        dtypes |= {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return str(max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)).removeprefix("torch.")
