"""Who owns the map can tell an orbit from a resonator, a limit cycle from a centre, and a transient from both."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from maps import Embedded, Map, logistic, seeded, stuart_landau, turn

import latentweaver as lw
from latentweaver.inspect.interventions import NOISE_DRIVEN, STEP_DRIVEN, Bench, examine

IDS = torch.zeros(1, 1, dtype=torch.long)
EAST = torch.tensor([1.0, 0.0], dtype=torch.float64)
SEEDS = range(3)


def planted(step, seed, start=EAST, core=2):
    return Embedded(step, core, 32, 10 * seed + 1, start).model


def linear(theta, rho):
    return lambda x: x @ turn(theta, rho).T


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("step", "core", "start", "outcome", "verdict"),
    [
        (stuart_landau(1.3), 2, 0.7 * EAST, "limit cycle", "quasi_orbit"),
        (linear(1.3, 1), 2, EAST, "neutral", "quasi_orbit"),
        (linear(2 * math.pi / 3, 1), 2, EAST, "neutral", "orbit(3)"),
        (linear(1.3, 0.99), 2, EAST, "transient", "converging"),
        (linear(0, 0.8), 2, EAST, "attractor", "fixed_point"),
        (logistic(3.83), 1, torch.tensor([0.3], dtype=torch.float64), "limit cycle", "orbit(3)"),
        (logistic(4.0), 1, torch.tensor([0.3], dtype=torch.float64), "chaos", "wander"),
        (logistic(3.6), 1, torch.tensor([0.3], dtype=torch.float64), "chaos", "wander"),
    ],
    ids=["Stuart-Landau", "rotation", "third", "spiral", "contraction", "logistic 3.83", "logistic 4", "two-band chaos"],
)
def test_kicks(step, core, start, outcome, verdict, seed):  # [V5b]
    start = start * (1 + 0.07 * seed) if core == 1 else start
    found = examine(planted(step, seed, start, core), IDS, steps=256, seeds=0)
    assert found.kick.outcome == outcome
    assert found.verdict == verdict


@pytest.mark.parametrize("seed", SEEDS)
def test_chaos_in_two_narrow_bands_is_seen_from_close_by(seed):
    """Its record passes for a torus, and a push is soon as long as the bands are wide."""
    pull = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    start = torch.tensor([0.3, 0.61], dtype=torch.float64)
    found = examine(planted(lambda x: (3.9 * x * (1 - x)) @ pull.T, seed, start), IDS, seeds=0)
    assert found.passive.name == "quasi_orbit"
    assert found.kick.outcome == "chaos"
    assert found.verdict == "wander"


@pytest.mark.parametrize("rho", [0.9, 0.98, 0.995])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_noise_drives_is_never_called_an_orbit(rho, seed):  # [V5]
    torch.manual_seed(seed)
    noisy = planted(lambda x: x @ turn(2 * math.pi / 5, rho).T + 0.1 * torch.randn_like(x), seed)
    found = examine(noisy, IDS, seeds=2)
    assert not found.replay.deterministic
    assert "orbit" not in found.verdict
    assert "helix" not in found.verdict
    assert not any("orbit" in name for name in (found.passive.name, found.extension.label.name, *found.reseed.labels))
    twin = examine(planted(linear(2 * math.pi / 5, 1), seed), IDS, seeds=0)
    assert twin.verdict == "orbit(5)"


def test_noise_on_a_true_rotation_is_said_to_be_possible():
    torch.manual_seed(0)
    found = examine(planted(lambda x: x @ turn(1.3).T + 0.03 * torch.randn_like(x), 0), IDS, seeds=0)
    assert found.verdict == NOISE_DRIVEN


def test_an_oscillation_that_follows_the_step_is_not_the_states_own():
    def step(state, thought):
        phase = 2 * math.pi / 5 * thought.step[..., None]
        return torch.cat([torch.cos(phase), torch.sin(phase)], -1).double()

    assert examine(Map(step, 2), IDS, seeds=0).verdict == STEP_DRIVEN


def test_a_long_transient_is_withdrawn():
    found = examine(planted(linear(2 * math.pi / 5, 0.9985), 0), IDS, seeds=0)
    assert "orbit" not in found.verdict


def test_a_map_that_throws_kicks_out_is_said_to_diverge():
    def step(state, thought):  # rotation on the unit circle; anything off it explodes
        off = (state**2).sum(-1, keepdim=True) - 1
        return (state @ turn(2 * math.pi / 3).T) * (1 + 1e9 * off * (off.abs() > 1e-9))

    model = Map(step, 2, start=EAST)
    assert Bench(model, IDS).kick().outcome == "diverged"


def test_path_independence():  # [V14]
    double = Bench(Map(lambda x, _: torch.tanh(2.5 * x), 1), IDS).reseed(64)
    assert abs(double.path_independence) < 0.15
    assert double.same_label == 1
    assert sorted({round(float(end), 3) for end in double.ends[:, 0]}) == [-0.986, 0.986]
    single = Bench(Map(lambda x, _: torch.tanh(0.5 * x + 1), 1), IDS).reseed()
    assert single.path_independence == pytest.approx(1)
    assert single.spread < 1e-6


def test_a_fixed_start_is_perturbed():
    found = Bench(Map(lambda x, _: 0.5 * x + 1, 3, start=torch.zeros(3, dtype=torch.float64)), IDS).reseed()
    assert found.starts == "perturbed"
    assert found.path_independence == pytest.approx(1)


def test_a_transformer_in_a_batch():
    torch.manual_seed(0)
    config = lw.RecurrentDepthConfig(
        vocab_size=11, hidden_size=16, intermediate_size=32, num_attention_heads=2, prelude_layers=1, core_layers=1, coda_layers=1, num_steps=4
    )  # fmt: skip
    model = lw.RecurrentDepthForCausalLM(config).eval()
    ids = torch.randint(0, 11, (2, 5), generator=seeded(0))
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    found = examine(model, ids, mask, row=1, token=3, steps=96, seeds=3)
    assert found.replay.deterministic
    assert found.replay.autonomous
    assert found.verdict in ("fixed_point", "converging")
    assert found.kick.outcome in ("attractor", "transient")


class Remembers(Map):
    """The delayed logistic map, x_(t+1) = 2.1 x_t (1 - x_(t-1)): a cycle. What was before stands in the anchor; it thinks `most` steps."""

    def __init__(self, most=10**6):
        super().__init__(lambda x, thought: 2.1 * x * (1 - thought.anchor.get("before", x)), 1, start=torch.full((1,), 0.5))
        self.most = most

    def think(self, thought):
        if int(thought.step.max()) == self.most:
            raise lw.InputError(f"no room for more than {self.most}")
        return replace(super().think(thought), anchor={**thought.anchor, "before": thought.state})


def test_what_a_thought_remembers_goes_on_with_a_pushed_state():
    bench = Bench(Remembers(), IDS, steps=128)
    run, moments = bench.path(200), np.array([60, 90])
    still, kicked = bench._kicked(moments, np.zeros((2, 1)), 40)
    for one, moment in enumerate(moments):
        assert (still[one] == run[moment : moment + 41]).all()
        assert (kicked[one] == still[one]).all()


@pytest.mark.parametrize(("most", "tried"), [(300, True), (132, False)])
def test_a_model_that_refuses_to_think_longer_is_examined_as_far_as_it_goes(most, tried):
    found = examine(Remembers(most), IDS, steps=128, seeds=0)
    assert found.extension.times == most / 128
    assert found.extension.refused == f"no room for more than {most}"
    assert (found.kick.outcome != "not tried") == tried
    assert any(f"no room for more than {most}" in why for why in found.reasons)
    with pytest.raises(lw.InputError, match="no more than 100 of 128 steps: no room for more than 100"):
        lw.record(Remembers(100), IDS, steps=128)
    with pytest.raises(lw.InputError, match=r"^no room for more than 0"):  # a refusal to begin with is not about how many steps
        lw.record(Remembers(0), IDS, steps=128)
    with pytest.raises(lw.InputError, match="no room for more than 100"):
        examine(Remembers(100), IDS, steps=128)


def test_bad_input():
    model = planted(linear(1, 1), 0)
    with pytest.raises(lw.InputError, match="8 steps"):
        Bench(model, IDS, steps=2)
    with pytest.raises(lw.InputError, match="no token 3"):
        Bench(model, IDS, token=3)
    with pytest.raises(lw.InputError, match="cache"):
        Bench(model, IDS, cache=object())
