"""Eigenvalues, singular values and Lyapunov exponents against maps whose spectra are known."""

import math

import numpy as np
import pytest
import torch
from maps import Map, seeded, turn

import latentweaver as lw
from latentweaver.inspect.spectra import Jacobian, largest_singular_value, leading_eigenvalues, lyapunov_exponents

IDS = torch.zeros(1, 1, dtype=torch.long)


def linear(matrix):
    return Map(lambda state, thought: state @ matrix.T, len(matrix))


def non_normal(n, seed, rho=0.9, angle=2 * math.pi / 5):
    """A complex leading pair of modulus rho, the rest within 0.7 of it, in a skewed basis."""
    rng = np.random.default_rng(seed)
    blocks = np.zeros((n, n))
    blocks[:2, :2] = turn(angle, rho).numpy()
    blocks[2:, 2:] = np.diag(0.7 * rho * rng.uniform(-1, 1, n - 2)) + np.triu(0.2 * rng.normal(size=(n - 2, n - 2)) / math.sqrt(n), 1)
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0] @ np.diag(rng.uniform(0.5, 2, n)) @ np.linalg.qr(rng.normal(size=(n, n)))[0]
    return torch.from_numpy(basis @ blocks @ np.linalg.inv(basis))


def leading_by(method, jacobian):
    if method == "arnoldi":
        return leading_eigenvalues(jacobian, 4)[0]
    v = torch.randn(jacobian.size, generator=seeded(0), dtype=torch.float64)
    for _ in range(50):  # the mutation: power iteration and a Rayleigh quotient
        v = jacobian.times(v / v.norm())
    v = v / v.norm()
    return complex(v @ jacobian.times(v))


@pytest.mark.parametrize("n", [8, 60, 200])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "method", ["arnoldi", pytest.param("rayleigh", marks=pytest.mark.xfail(strict=True, reason="what a Rayleigh quotient gets wrong"))]
)
def test_leading_pair(n, seed, method):  # [V11]
    matrix = non_normal(n, seed)
    model = linear(matrix)
    found = leading_by(method, Jacobian(model, model.begin(IDS, generator=seeded(seed))))
    dense = np.linalg.eigvals(matrix.numpy())
    true = dense[np.abs(dense).argmax()]
    assert abs(abs(found) - abs(true)) < 1e-3
    assert abs(abs(np.angle(found)) - abs(np.angle(true))) < 1e-3


def test_a_non_normal_map_stretches_though_it_contracts():  # trap D
    model = linear(torch.tensor([[0.5, 50], [0, 0.5]], dtype=torch.float64))
    jacobian = Jacobian(model, model.begin(IDS))
    assert abs(leading_eigenvalues(jacobian, 2)[0]) == pytest.approx(0.5)
    assert largest_singular_value(jacobian) == pytest.approx(50, rel=0.01)


@pytest.mark.parametrize("n", [10, 80])
def test_largest_singular_value(n):
    matrix = non_normal(n, 5)
    model = linear(matrix)
    assert largest_singular_value(Jacobian(model, model.begin(IDS))) == pytest.approx(np.linalg.norm(matrix.numpy(), 2), rel=1e-5)


def logistic(r):
    return Map(lambda x, thought: r * x * (1 - x), 1, start=torch.tensor([0.3], dtype=torch.float64))


def henon():
    def step(state, thought):
        x, y = state[..., :1], state[..., 1:]
        return torch.cat([1 - 1.4 * x * x + y, 0.3 * x], -1)

    return Map(step, 2, start=torch.tensor([0.1, 0.1], dtype=torch.float64))


@pytest.mark.parametrize(("r", "exponent"), [(2.8, math.log(0.8)), (3.5, -0.873), (3.83, -0.37), (4.0, math.log(2))])
def test_signs_are_right_at_128_steps(r, exponent):  # [V7]
    model = logistic(r)
    found = lyapunov_exponents(model, model.begin(IDS), steps=128, skip=200)
    assert found.steps == 128
    assert found.exponents[0] == pytest.approx(exponent, abs=0.05)


@pytest.mark.slow
def test_lyapunov_exponents_of_long_runs():  # [V7]
    model = logistic(4.0)
    assert lyapunov_exponents(model, model.begin(IDS), steps=5_000).exponents[0] == pytest.approx(math.log(2), abs=0.01)
    model = henon()
    found = lyapunov_exponents(model, model.begin(IDS), steps=8_000, count=2, skip=100).exponents
    assert found[0] == pytest.approx(0.419, abs=0.005)
    assert found[1] == pytest.approx(-1.623, abs=0.005)


def test_a_transformer_of_this_library():
    torch.manual_seed(0)
    config = lw.RecurrentDepthConfig(
        vocab_size=11, hidden_size=16, intermediate_size=32, num_attention_heads=2, prelude_layers=1, core_layers=1, coda_layers=1, num_steps=4
    )  # fmt: skip
    model = lw.RecurrentDepthForCausalLM(config).eval()
    thought = lw.think_for(model, model.begin(torch.tensor([[1, 2, 3]])), 4)
    row, token = Jacobian(model, thought, scope="row"), Jacobian(model, thought, token=1)
    dense = row.dense()
    assert np.allclose(dense[16:32, 16:32], token.dense(), atol=1e-5)  # causal: the row is block triangular
    assert np.allclose(dense[:16, 16:], 0, atol=1e-6)
    tokens = [leading_eigenvalues(Jacobian(model, thought, token=i), 1)[0] for i in range(3)]
    assert abs(leading_eigenvalues(row, 1)[0]) == pytest.approx(max(map(abs, tokens)), rel=1e-3)
    moved = row.point + 1e-3 * torch.nn.functional.normalize(torch.ones(row.size), dim=0)
    slope = (row.step(moved) - row.step(row.point)) / 1e-3
    assert torch.allclose(slope, row.times(torch.nn.functional.normalize(torch.ones(row.size), dim=0)), atol=2e-3)


def test_a_map_that_forgets_its_state_has_no_spectrum():
    model = Map(lambda state, thought: torch.ones_like(state), 40)
    jacobian = Jacobian(model, model.begin(IDS, generator=seeded(0)))
    assert not leading_eigenvalues(jacobian, 3).any()
    assert largest_singular_value(jacobian) == 0


def test_bad_input():
    model = linear(torch.eye(3, dtype=torch.float64))
    with pytest.raises(lw.InputError, match="one row"):
        Jacobian(model, model.begin(IDS.repeat(2, 1)))
    with pytest.raises(lw.InputError, match="token"):
        Jacobian(model, model.begin(IDS), token=4)
    with pytest.raises(lw.InputError, match="count"):
        lyapunov_exponents(model, model.begin(IDS), count=4)
