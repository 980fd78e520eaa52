"""The derivative of a think, without ever writing its matrix down: eigenvalues, singular values, Lyapunov exponents.

J = d f(x) / d x is touched only through products with vectors: J v by forward-mode differentiation of `think` itself
(torch.func.jvp), u J by reverse mode (vjp). One product costs about two thinks.

    leading_eigenvalues      Arnoldi (ARPACK): the complex eigenvalues of largest modulus. A Rayleigh quotient v'Jv is not one:
                             for a complex pair it lands inside the circle
    largest_singular_value   Lanczos on J'J: the most that one step can stretch. Of a non-normal map it may be large though all
                             eigenvalues are small
    lyapunov_exponents       products along the path with a QR at each step (Benettin et al. 1980): how fast neighbours part

`scope` says what the state is: "token", the derivative of one token's state by itself, the others held; or "row", all tokens of
the row at once. With causal attention the eigenvalues of the row are those of its tokens together, its singular values are not.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy import ndarray
from torch import Tensor
from torch.func import jvp, vjp

from latentweaver.errors import InputError
from latentweaver.thought import Reasoner, Thought


class Jacobian:
    """J of one think from a Thought, as an operator on flat vectors.

    Args:
        model: any reasoner whose think can be differentiated.
        thought: where; without a cache, and of one row.
        token: which token, for scope "token".
        scope: "token" or "row".

    Raises:
        InputError: a cached Thought, several rows, or no such token.
    """

    def __init__(self, model: Reasoner, thought: Thought, token: int = -1, scope: Literal["token", "row"] = "token") -> None:
        batch, sequence, width = thought.state.shape
        if thought.cache is not None:
            raise InputError("the derivative of a think that writes into a cache is not taken; begin without one")
        if batch != 1:
            raise InputError(f"a Jacobian belongs to one row, got {batch}; take thought.rows(torch.tensor([row]))")
        if scope not in ("token", "row") or not -sequence <= token < sequence:
            raise InputError(f"scope must be 'token' or 'row' and the token within {sequence}, got {scope!r} and {token}")
        self.model, self.thought, self.token, self.scope = model, thought, token % sequence, scope
        self.size = width if scope == "token" else sequence * width
        self.point = (thought.state[0, self.token] if scope == "token" else thought.state[0].reshape(-1)).detach()

    @property
    def tolerance(self) -> float:
        """How closely the iterations may agree: no better than products in the state's dtype do."""
        return 1e-8 if self.point.dtype == torch.float64 else 1e-5

    def step(self, x: Float[Tensor, "size"]) -> Float[Tensor, "size"]:
        """f, on a flat vector."""
        state = self.thought.state.detach()
        if self.scope == "token":
            state = torch.cat([state[:, : self.token], x[None, None], state[:, self.token + 1 :]], 1)
        else:
            state = x.view_as(state)
        after = self.model.think(replace(self.thought, state=state)).state[0]
        return after[self.token] if self.scope == "token" else after.reshape(-1)

    def times(self, v: Float[Tensor, "size"]) -> Float[Tensor, "size"]:
        """J v."""
        with _attention_by_products():
            return jvp(self.step, (self.point,), (v.to(self.point),))[1].detach()

    def transposed_times(self, u: Float[Tensor, "size"]) -> Float[Tensor, "size"]:
        """J' u."""
        with _attention_by_products():
            return vjp(self.step, self.point)[1](u.to(self.point))[0].detach()

    def dense(self) -> Float[ndarray, "size size"]:
        """The matrix itself, column by column; for small states."""
        return np.stack([_array(self.times(column)) for column in torch.eye(self.size).to(self.point)], 1)

    def _product(self, transposed: bool = False) -> Any:
        times = self.transposed_times if transposed else self.times
        return lambda v: _array(times(torch.from_numpy(np.ascontiguousarray(v.ravel()))))


def leading_eigenvalues(jacobian: Jacobian, count: int = 6, seed: int = 0) -> Complex[ndarray, "count"]:
    """The `count` eigenvalues of largest modulus, largest first, by Arnoldi's method (ARPACK; Lehoucq et al. 1998)."""
    import scipy.sparse.linalg

    n = jacobian.size
    if count >= n - 1 or n <= 24:
        values = np.linalg.eigvals(jacobian.dense())
    else:
        arpack: Any = scipy.sparse.linalg  # its signatures are not typed well
        operator = arpack.LinearOperator((n, n), matvec=jacobian._product(), dtype=np.float64)
        start = np.random.default_rng(seed).normal(size=n)
        if not np.any(operator @ start):  # a map that forgets where it was; ARPACK has nothing to start from
            return np.zeros(count, complex)
        # one more pair than asked for: ARPACK may cut a complex pair in two
        values = arpack.eigs(
            operator, k=min(count + 1, n - 2), v0=start, ncv=min(n, max(24, 4 * count)), tol=jacobian.tolerance, return_eigenvectors=False
        )
    return values[np.argsort(-np.abs(values), kind="stable")][:count].astype(complex)


def largest_singular_value(jacobian: Jacobian, seed: int = 0) -> float:
    """sigma_max, by Lanczos' method on J'J."""
    import scipy.sparse.linalg

    n = jacobian.size
    if n <= 24:
        return float(np.linalg.norm(jacobian.dense(), 2))
    arpack: Any = scipy.sparse.linalg
    operator = arpack.LinearOperator((n, n), matvec=jacobian._product(), rmatvec=jacobian._product(transposed=True), dtype=np.float64)
    start = np.random.default_rng(seed).normal(size=n)
    if not np.any(operator @ start):
        return 0.0
    return float(arpack.svds(operator, k=1, v0=start, tol=jacobian.tolerance, return_singular_vectors=False)[0])


@dataclass(frozen=True)
class Lyapunov:
    """Finite-time Lyapunov exponents of one path.

    Attributes:
        exponents: nats per step, largest first, `[k]`. Positive: neighbours part, the motion is chaotic.
        steps: T, how many steps they are averaged over. At T around 128 only their sign and first digit mean anything.
        running: the largest exponent averaged up to each step, `[steps]`.
    """

    exponents: Float[ndarray, "k"]
    steps: int
    running: Float[ndarray, "steps"]


def lyapunov_exponents(
    model: Reasoner,
    thought: Thought,
    steps: int = 128,
    count: int = 1,
    token: int = -1,
    scope: Literal["token", "row"] = "token",
    skip: int = 0,
    seed: int = 0,
) -> Lyapunov:
    """Follow `count` directions along the path from `thought` for `steps` steps, orthonormalised after each.

    `skip` steps are thought first, to be on the attractor.

    Raises:
        InputError: as `Jacobian`; or more directions than dimensions.
    """
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    frame: ndarray | None = None
    totals: list[ndarray] = []
    for _ in range(skip):
        with torch.no_grad():
            thought = model.think(thought)
    for _ in range(steps):
        jacobian = Jacobian(model, thought, token, scope)
        if frame is None:
            if not 1 <= count <= jacobian.size:
                raise InputError(f"count must lie between 1 and the {jacobian.size} dimensions, got {count}")
            frame = np.linalg.qr(np.random.default_rng(seed).normal(size=(jacobian.size, count)))[0]
        moved = np.stack([_array(jacobian.times(torch.from_numpy(column.copy()))) for column in frame.T], 1)
        frame, stretch = np.linalg.qr(moved)
        with np.errstate(divide="ignore"):
            totals.append(np.log(np.abs(np.diag(stretch))))
        with torch.no_grad():
            thought = model.think(thought)
    sums = np.cumsum(totals, 0)
    exponents = np.sort(sums[-1] / steps)[::-1]
    return Lyapunov(exponents, steps, sums[:, 0] / np.arange(1, steps + 1))


def _attention_by_products() -> AbstractContextManager[Any]:
    """Attention by plain matrix products: the fused kernels have no forward-mode derivative."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)


def _array(x: Tensor) -> ndarray:
    return x.double().cpu().numpy()
