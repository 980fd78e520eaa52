"""What a recording is: the states of chosen tokens at every step, and what the model would have said there.

Arrays come rows first, then steps, so that `trajectory.states[row]` is `[steps + 1, tokens, width]`. A recording holds one point
of the cycle per step (the state that `think` returned), never the layers inside a step: those follow one another in a circle by
construction, and would draw an orbit where there is none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from latentweaver.errors import InputError
from latentweaver.thought import Thought

if TYPE_CHECKING:
    import pandas

_ARRAYS = (
    "states", "steps", "taken", "positions", "token_ids", "real", "entropy", "top_ids", "top_logprobs", "tracked_logprobs",
)  # fmt: skip


def roundoff(dtype: str) -> float:
    """Unit roundoff of a dtype by name, the relative error of one rounding: 2^-8 for bfloat16, 2^-11 float16, 2^-24 float32."""
    return torch.finfo(getattr(torch, dtype)).eps / 2


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The paths of some tokens through latent space.

    Attributes:
        states: `[rows, kept steps, tokens, width]`, or None if they were not kept. float32 (float64 for a float64 model), which
            holds every smaller dtype exactly. After a row has halted: NaN.
        steps: which step each kept state follows, `[kept steps]`; 0 is the state before any thinking.
        taken: how many of the kept steps each row has, `[rows]`: `states[row, :taken[row]]` are real.
        positions: where in the sequence the tokens are, `[tokens]`.
        token_ids: the tokens themselves, `[rows, tokens]`, where the input was tokens.
        real: False for padding, `[rows, tokens]`.
        dtype: the coarsest of the state's own dtype and that of the model's weights: what rounding is judged by.
        entropy: of the readout in nats, `[rows, kept steps, tokens]`, or None.
        top_ids, top_logprobs: the likeliest tokens, best first, `[rows, kept steps, tokens, k]`, or None.
        tracked: tokens whose log-probability was followed.
        tracked_logprobs: `[rows, kept steps, tokens, len(tracked)]`, or None.
        model: the model's class.
        final: the Thought after the last step, to be read or thought on.
        path: the file that holds the states, if they were streamed.
    """

    states: Float[ndarray, "rows kept tokens width"] | None
    steps: Int[ndarray, "kept"]
    taken: Int[ndarray, "rows"]
    positions: Int[ndarray, "tokens"]
    token_ids: Int[ndarray, "rows tokens"] | None
    real: Bool[ndarray, "rows tokens"]
    dtype: str
    entropy: Float[ndarray, "rows kept tokens"] | None = None
    top_ids: Int[ndarray, "rows kept tokens k"] | None = None
    top_logprobs: Float[ndarray, "rows kept tokens k"] | None = None
    tracked: tuple[int, ...] = ()
    tracked_logprobs: Float[ndarray, "rows kept tokens tracked"] | None = None
    model: str = ""
    final: Thought | None = field(default=None, repr=False)
    path: Path | None = None

    @classmethod
    def of(cls, states: Any, dtype: str | None = None, positions: Sequence[int] | None = None) -> Trajectory:
        """A Trajectory of states from elsewhere: `[steps + 1, width]`, `[steps + 1, tokens, width]` or rows before that.

        `dtype` is what they were computed in, if that was coarser than the array's own.

        Raises:
            InputError: if the array has another number of dimensions, or nothing in it.
        """
        if isinstance(states, torch.Tensor):
            dtype = dtype or str(states.dtype).removeprefix("torch.")
            states = states.detach().cpu()
            states = (states if states.dtype == torch.float64 else states.float()).numpy()
        states = np.asarray(states)
        if not np.issubdtype(states.dtype, np.floating):
            states = states.astype(np.float64)
        if states.ndim not in (2, 3, 4) or states.size == 0:
            raise InputError(
                f"states must be [steps + 1, width], [steps + 1, tokens, width] or [rows, steps + 1, tokens, width], got {states.shape}"
            )
        if states.ndim == 2:
            states = states[:, None]
        if states.ndim == 3:
            states = states[None]
        rows, kept, tokens, _ = states.shape
        return cls(
            states=states,
            steps=np.arange(kept),
            taken=np.full(rows, kept),
            positions=np.arange(tokens) if positions is None else np.asarray(positions),
            token_ids=None,
            real=np.ones((rows, tokens), bool),
            dtype=dtype or str(states.dtype),
        )

    @property
    def rows(self) -> int:
        return len(self.taken)

    @property
    def tokens(self) -> int:
        return len(self.positions)

    @property
    def every(self) -> int:
        """How many steps lie between two kept states."""
        return int(self.steps[1] - self.steps[0]) if len(self.steps) > 1 else 1

    def at(self, row: int = 0, token: int = 0) -> Float[ndarray, "taken width"]:
        """The path of one token; `token` counts among the recorded ones.

        Raises:
            InputError: if there is no such row or token, or states were not kept.
        """
        if self.states is None:
            raise InputError("this recording kept no states; record with 'states' in keep")
        if not -self.rows <= row < self.rows or not -self.tokens <= token < self.tokens:
            raise InputError(f"no row {row}, token {token} in a recording of {self.rows} rows and {self.tokens} tokens")
        return np.asarray(self.states[row, : self.taken[row], token])

    def norms(self) -> Float[ndarray, "rows kept tokens"]:
        """Length of every state."""
        return self._reduced(lambda now, before: np.linalg.norm(now, axis=-1))

    def moves(self) -> Float[ndarray, "rows kept tokens"]:
        """How far each kept step went, |x_t - x_(t-1)|; NaN for the first."""
        return self._reduced(lambda now, before: np.linalg.norm(now - before, axis=-1))

    def save(self, path: str | Path) -> None:
        """Write everything but `final` to a safetensors file, to be read back bit for bit."""
        from safetensors.numpy import save_file

        arrays = {name: getattr(self, name) for name in _ARRAYS}
        notes = {"dtype": self.dtype, "tracked": self.tracked, "model": self.model}
        try:
            save_file(
                {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None},
                str(path),
                metadata={"trajectory": json.dumps(notes)},
            )
        except OSError as error:
            raise InputError(f"cannot write {path}: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Trajectory:
        """Read back what `save` wrote.

        Raises:
            InputError: if there is no such file, or it holds something else.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                notes = json.loads((file.metadata() or {}).get("trajectory", "null"))
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot read a Trajectory from {path}: {error}") from error
        if notes is None:
            raise InputError(f"{path} holds no Trajectory; files written by Trajectory.save do")
        return cls(**{"states": None, "token_ids": None, **arrays, **notes, "tracked": tuple(notes["tracked"])})

    def report(
        self, path: str | Path, row: int = 0, text: Callable[[int], str] | None = None, title: str = "", json: str | Path | None = None
    ) -> None:
        """Write what this recording tells of one row into one HTML file (`reporting.report` can tell more, with the model at hand).

        Args:
            path: the HTML file.
            row: which row.
            text: what a token id reads; "#17" if None.
            title: of the page.
            json: also write everything as JSON.

        Raises:
            InputError: if the recording kept no states, or there is no such row.
        """
        from latentweaver.inspect.report_findings import from_trajectory
        from latentweaver.inspect.reporting import write

        write(from_trajectory(self, row, text=text), path, title, json)

    def to_pandas(self) -> pandas.DataFrame:
        """One line for each row, token and step: norm, move, speed (move over norm), entropy, likeliest token, tracked tokens."""
        import pandas as pd

        rows, kept, tokens = self.rows, len(self.steps), self.tokens
        grid = np.meshgrid(np.arange(rows), self.steps, np.arange(tokens), indexing="ij")
        columns: dict[str, ndarray] = {"row": grid[0], "step": grid[1], "token": grid[2], "position": self.positions[grid[2]]}
        if self.token_ids is not None:
            columns["token_id"] = self.token_ids[grid[0], grid[2]]
        columns["real"] = self.real[grid[0], grid[2]]
        if self.states is not None:
            norms, moves = self.norms(), self.moves()
            with np.errstate(invalid="ignore", divide="ignore"):
                columns |= {"norm": norms, "move": moves, "speed": moves / norms}
        if self.entropy is not None:
            columns["entropy"] = self.entropy
        if self.top_ids is not None and self.top_logprobs is not None:
            columns |= {"top_id": self.top_ids[..., 0], "top_logprob": self.top_logprobs[..., 0]}
        if self.tracked_logprobs is not None:
            columns |= {f"logprob_{token}": self.tracked_logprobs[..., i] for i, token in enumerate(self.tracked)}
        table = pd.DataFrame({name: values.reshape(rows * kept * tokens) for name, values in columns.items()})
        there = np.arange(kept)[None, :, None] < self.taken[:, None, None]
        return table.loc[np.broadcast_to(there, (rows, kept, tokens)).ravel()].reset_index(drop=True)

    def _reduced(self, reduce: Any) -> ndarray:
        """A number for each row, step and token, one step in memory at a time."""
        if self.states is None:
            raise InputError("this recording kept no states; record with 'states' in keep")
        before = np.full_like(self.states[:, 0], np.nan)
        out = []
        with np.errstate(invalid="ignore", over="ignore"):
            for step in range(self.states.shape[1]):
                now = np.asarray(self.states[:, step], np.float64)  # squares may leave float32
                out.append(reduce(now, before))
                before = now
        return np.stack(out, 1)
