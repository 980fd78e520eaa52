"""Labels tell the truth about dynamics that are known by construction, and see nothing in noise.

The numbers in square brackets are the experiments of the project's verification plan (V1 to V10).
"""

import math

import numpy as np
import planted
import pytest
from planted import GOLDEN, NULLS, circle, contraction, cycle, embed, helix, slider

import latentweaver as lw
from latentweaver.inspect import label_path, labels, measure
from latentweaver.inspect.labels import ROTATIONS

T = 128


def draws(count, seed):
    return [np.random.default_rng([seed, i]) for i in range(count)]


def names(make, count=10, seed=1, **options):
    return [str(label_path(make(rng), **options)) for rng in draws(count, seed)]


def share(make, wanted, count=10, seed=1):
    return np.mean([name == wanted for name in names(make, count, seed)])


class TestSettling:
    @pytest.mark.parametrize("rho", [0.5, 0.8, -0.8])
    def test_a_fast_contraction_is_a_fixed_point(self, rho):  # [V1]
        assert share(lambda rng: embed(contraction(rho, T, rng), rng, offset=1), "fixed_point") == 1

    @pytest.mark.parametrize("rho", [0.97, 0.99, -0.97])
    @pytest.mark.parametrize("offset", [0, 1, 30])
    def test_a_slow_one_is_converging_and_never_a_slider(self, rho, offset):  # [V1]
        assert share(lambda rng: embed(contraction(rho, T, rng), rng, offset=offset), "converging") == 1

    @pytest.mark.parametrize("rho", [0.5, 0.8, 0.97, 0.99, -0.8])
    def test_the_rate_is_within_a_hundredth(self, rho):  # [V1]
        for rng in draws(5, 2):
            assert measure(embed(contraction(rho, 64, rng), rng)).rate == pytest.approx(abs(rho), rel=0.01)

    @pytest.mark.parametrize("rho", [0.96, 0.98])
    def test_a_spiral_converges(self, rho):
        assert share(lambda rng: embed(circle(2 * math.pi / 10, T, rng, rho), rng, offset=3), "converging") == 1

    @pytest.mark.parametrize("rho", [0.993, 0.995, 0.997, 0.999])
    def test_a_spiral_slower_than_the_record_is_no_orbit(self, rho):
        for rng in draws(10, 11):
            one = label_path(embed(circle(rng.uniform(0.5, 2.8), T, rng, rho), rng, offset=3))
            assert one.name == "converging"
            assert rho < 0.995 or (one.confidence == "low" and "shrink" in one.reasons[0])

    def test_one_that_grows_has_not_settled(self):
        for rng in draws(10, 12):
            one = label_path(embed(circle(rng.uniform(0.5, 2.8), T, rng, 1.003), rng, offset=3))
            assert (one.name, one.flags) == ("wander", ("growing",))

    def test_what_remains_is_right(self):
        rng = np.random.default_rng(0)
        path = embed(contraction(0.97, T, rng), rng)
        assert measure(path).remaining == pytest.approx(np.linalg.norm(path[-1]), rel=0.02)

    def test_a_far_start_does_not_make_a_slow_approach_look_finished(self):
        def leap(rng):
            path = embed(contraction(0.98, T, rng), rng, offset=1)
            path[0] *= 1e4
            return path

        assert share(leap, "converging") == 1

    def test_roundings_are_not_motion(self):  # [V6]
        path = rounding_cycle()
        assert label_path(path, "bfloat16").name == "fixed_point"
        assert label_path(fine_contraction()).name == "fixed_point"

    def test_without_the_floor_roundings_are_motion(self, monkeypatch):  # [V6, mutation]
        monkeypatch.setattr(labels, "ROUNDINGS", 0)
        assert label_path(rounding_cycle(), "bfloat16").name != "fixed_point"

    @pytest.mark.parametrize("theta", [math.pi, 2 * math.pi / 3])
    def test_roundings_that_a_slow_contraction_adds_up_are_not_motion(self, theta):  # [V6]
        for seed in range(5):
            path = tired_contraction(0.98, theta, seed)
            one = label_path(path, "float32")
            assert one.name == "fixed_point"

    def test_steps_of_roundings_that_lead_somewhere_are_motion(self):
        import torch

        def rounded(path):
            return torch.from_numpy(8 * path / np.abs(path).max()).bfloat16().float().numpy()

        for rng in draws(10, 13):
            one = label_path(rounded(slider(T, rng)), "bfloat16")
            assert (one.name, one.confidence) == ("slider", "low")
            assert label_path(rounded(contraction(0.97, T, rng) + rng.normal(size=8)), "bfloat16").name in ("converging", "fixed_point")

    def test_without_the_rule_for_rest_they_are(self, monkeypatch):  # [V6, mutation]
        monkeypatch.setattr(labels, "_resting", lambda d: None)
        found = [label_path(tired_contraction(0.98, math.pi, seed), "float32").name for seed in range(5)]
        assert "orbit" in found

    def test_the_last_state_is_no_fixed_point(self):  # [V10]
        for rng in draws(10, 3):
            assert label_path(planted.walk(T, rng)).name == "wander"
            assert label_path(embed(slider(T, rng), rng)).name == "slider"


def rounding_cycle():
    """A rotation that contracts towards a far point, its state kept in bfloat16: it ends in a cycle of roundings."""
    import torch

    torch.manual_seed(0)
    width = 64
    angle = torch.tensor(2 * math.pi / 5)
    turn = 0.9 * torch.block_diag(
        *[torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])] * (width // 2)
    )
    target = 100 + torch.randn(width)
    x, path = torch.randn(width).bfloat16(), []
    for _ in range(T + 1):
        path.append(x.float().numpy())
        x = (target + turn @ (x.float() - target) + 0.4 * torch.randn(width).sign()).bfloat16()
    return np.array(path)


def tired_contraction(rho, theta, seed, width=64):
    """A rotation that contracts slowly, in float32 and long after it has arrived: it circles on a few dozen roundings."""
    rng = np.random.default_rng(seed)
    core = 0.3 * np.eye(width)
    core[:2, :2] = rho * np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
    frame = np.linalg.qr(rng.normal(size=(width, width)))[0]
    turn, shift = (frame @ core @ frame.T).astype(np.float32), 3 * rng.normal(size=width).astype(np.float32)
    x, path = rng.normal(size=width).astype(np.float32), []
    for t in range(2000 + T + 1):
        if t >= 2000:
            path.append(x)
        x = turn @ x + shift
    return np.array(path)


def fine_contraction():
    rng = np.random.default_rng(0)
    return embed(circle(2 * math.pi / 5, T, rng, 0.9), rng, offset=100)


class TestGoingRound:
    @pytest.mark.parametrize("k", [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 17, 23])
    @pytest.mark.parametrize("noise", [0, 0.05])
    def test_exact_periods(self, k, noise):  # [V2]
        assert share(lambda rng: embed(circle(2 * math.pi / k, T, rng), rng, noise=noise, offset=3), f"orbit({k})") == 1

    @pytest.mark.parametrize("k", [3, 7, 12])
    def test_far_from_zero_in_many_dimensions(self, k):  # [V2]
        assert share(lambda rng: embed(circle(2 * math.pi / k, T, rng), rng, 512, 0.05, 100), f"orbit({k})") == 1

    def test_turning_more_than_once_a_period(self):
        assert share(lambda rng: embed(circle(2 * math.pi * 3 / 8, T, rng), rng, noise=0.05), "orbit(8)") == 1

    @pytest.mark.parametrize("k", [3, 5, 8, 12, 15])
    def test_cycles_of_any_shape(self, k):
        assert share(lambda rng: embed(cycle(k, T, rng), rng, noise=0.01), f"orbit({k})", count=20) >= 0.95

    @pytest.mark.parametrize("k", [3, 7])
    @pytest.mark.parametrize("fall", [0.8, 0.9, 0.95, 0.97])
    def test_orbits_that_are_still_approached(self, k, fall):
        def arriving(rng):
            return embed((1 + 2 * fall ** np.arange(T + 1))[:, None] * circle(2 * math.pi / k, T, rng), rng, offset=3)

        assert share(arriving, f"orbit({k})") == 1

    @pytest.mark.parametrize("scale", [1e-300, 1e-44, 1e-30, 1e30, 1e38, 1e300])
    def test_at_any_scale(self, scale):
        dtype = np.float32 if 1e-45 < scale < 1e39 else np.float64
        for rng in draws(3, 14):
            orbit = circle(2 * math.pi / 5, T, rng, squash=0.9)
            one = label_path((scale * orbit).astype(dtype))
            assert str(one) == "orbit(5)"
            assert one.evidence.radius == pytest.approx(scale * measure(orbit).radius, rel=0.1 if scale == 1e-44 else 1e-4)
            if scale != 1e-44:  # where numbers end
                assert label_path((scale * planted.walk(T, rng, 8) / 100).astype(dtype)).name == "wander"

    def test_two_cycles_at_once(self):
        def both(rng):
            return embed(np.concatenate([circle(2 * math.pi / 3, T, rng), 0.6 * circle(2 * math.pi / 4, T, rng)], 1), rng, noise=0.02)

        assert share(both, "orbit(12)") == 1

    def test_the_angle_is_within_three_errors(self):  # [V2]
        off = []
        for rng in draws(60, 4):
            theta = rng.uniform(0.4, 3.0)
            found = measure(embed(circle(theta, T, rng), rng, noise=0.05)).rotation
            off.append(abs(found.theta - theta) / found.error)
        assert np.mean(np.array(off) < 3) >= 0.95

    def test_golden_rotation_has_no_period(self):  # [V3]
        found = [label_path(embed(circle(GOLDEN, T, rng), rng, noise=0.05)) for rng in draws(40, 5)]
        assert np.mean([one.name == "quasi_orbit" for one in found]) >= 0.95
        golden = 2 * math.pi / (2 * math.pi - GOLDEN)
        assert np.mean([abs(one.period - golden) < 3 * one.period_error for one in found]) >= 0.95

    def test_a_torus_and_a_broken_period_have_none(self):
        def torus(rng):
            return embed(np.concatenate([circle(GOLDEN, T, rng), 0.6 * circle(1.1, T, rng)], 1), rng, noise=0.02)

        assert share(torus, "quasi_orbit") == 1
        assert share(lambda rng: embed(circle(2 * math.pi / 20.3, T, rng), rng, noise=0.05), "quasi_orbit") == 1

    def test_a_short_record_says_so(self):  # [V3]
        for rng in draws(10, 6):
            one = label_path(embed(circle(GOLDEN, 64, rng), rng, noise=0.05))
            assert (one.name, one.candidate, one.confidence) == ("undetermined", "quasi_orbit", "low")
            assert "short" in one.flags

    @pytest.mark.parametrize(
        ("r", "wanted"),
        [
            (2.8, "fixed_point"),
            (2.9, "fixed_point"),
            (3.2, "orbit(2)"),
            (3.5, "orbit(4)"),
            (3.55, "orbit(8)"),
            (3.567, "orbit(16)"),
            (3.569, "orbit(32)"),
            (3.83, "orbit(3)"),
            (3.6, "wander"),
            (3.7, "wander"),
            (3.9, "wander"),
            (4.0, "wander"),
        ],
    )
    def test_logistic_map(self, r, wanted):  # [V7]
        assert share(lambda rng: embed(planted.logistic(r, T, rng), rng, 8), wanted) == 1

    def test_chaos_is_told_from_noise(self):  # [V7]
        for rng in draws(10, 7):
            one = label_path(embed(planted.henon(T, rng), rng))
            assert one.name == "wander"
            assert "rule" in one.reasons[1]
            assert "noise" in label_path(planted.white(T, rng)).reasons[1]

    def test_a_record_of_the_layers_is_refused(self):  # [V9]
        rng = np.random.default_rng(0)
        layers = rng.normal(size=(4, 16))
        states = np.concatenate([layers * (1 + 0.5 * 0.6**t) for t in range(T + 1)])
        with pytest.raises(lw.InputError, match="one point of the cycle"):
            label_path(states, points_per_step=4)
        for layer in range(4):
            assert label_path(states[layer::4]).name == "fixed_point"


class TestSliding:
    @pytest.mark.parametrize("options", [{}, {"curve": 0.3}])
    @pytest.mark.parametrize("noise", [0, 0.05, 0.3])
    def test_sliders(self, options, noise):  # [V4]
        assert share(lambda rng: embed(slider(T, rng, **options), rng, noise=noise, offset=20), "slider") == 1

    def test_the_direction_is_right(self):  # [V4]
        for rng in draws(10, 8):
            u = rng.normal(size=32)
            path = np.arange(T + 1)[:, None] * u + 0.1 * rng.normal(size=(T + 1, 32))
            assert abs(measure(path).rotation.drift_direction @ u) / np.linalg.norm(u) > 0.99

    @pytest.mark.parametrize("period", [3, 7, 11.3])
    def test_a_helix_has_a_period_and_a_drift(self, period):  # [V4]
        for rng in draws(10, 9):
            one = label_path(embed(helix(period, T, rng), rng, noise=0.05))
            assert one.name == "helix"
            assert abs(one.period - period) < max(4 * one.period_error, 0.01)
            assert one.evidence.rotation.drift == pytest.approx(0.3 * 64, rel=0.05)

    def test_a_walk_with_a_bias_is_no_slider(self):
        def biased(rng):
            return (0.5 + rng.normal(size=(T + 1, 16))).cumsum(0)

        assert share(biased, "wander") == 1


class TestNothing:
    @pytest.mark.parametrize("null", NULLS)
    def test_few_false_orbits(self, null):  # [V5]
        false_orbits(null, 100)

    @pytest.mark.slow
    @pytest.mark.parametrize("null", NULLS)
    def test_at_most_one_false_orbit_in_a_hundred(self, null):  # [V5]
        false_orbits(null, 3000)

    def test_what_a_walk_looks_like_in_its_principal_components(self):  # trap A
        path = planted.walk(T, np.random.default_rng(0), 4096)
        centred = path - path.mean(0)
        variance = np.linalg.svd(centred, compute_uv=False) ** 2
        assert (variance / variance.sum())[:3] == pytest.approx([0.608, 0.152, 0.068], abs=0.02)
        assert label_path(path).name == "wander"


def false_orbits(null, count):
    widths = [1, 2, 4, 16, 64, 256]
    wrong = sum(label_path(NULLS[null](T, rng, widths[i % 6])).name in ROTATIONS for i, rng in enumerate(draws(count, 10)))
    print(f"{null}: {wrong} false orbits in {count}")
    assert wrong <= 0.01 * count


@pytest.mark.slow
def test_exact_periods_in_a_thousand_draws():  # [V2]
    right = [
        str(label_path(embed(circle(2 * math.pi / k, T, rng), rng, noise=0.05))) == f"orbit({k})"
        for k in range(2, 13)
        for rng in draws(100, k)
    ]
    print(f"exact periods: {np.mean(right):.4f} of {len(right)}")
    assert np.mean(right) >= 0.99


@pytest.mark.parametrize(("offset", "name"), [(100, "orbit"), (2000, "fixed_point")])
def test_an_orbit_of_less_than_a_thousandth_is_rest_and_says_that_it_goes_round(offset, name):
    rng = np.random.default_rng(0)
    one = label_path(embed(circle(2 * math.pi / 5, T, rng), rng, offset=offset))
    assert one.name == name
    assert one.period == 5
    assert any("every 5 steps" in reason for reason in one.reasons)


def test_an_orbit_of_a_few_roundings_says_so():
    rng = np.random.default_rng(0)
    one = label_path(embed(circle(2 * math.pi / 5, T, rng), rng, offset=40), "bfloat16")
    assert one.name == "orbit"
    assert one.confidence == "low"
    assert "finer dtype" in one.reasons[-1]


def test_a_path_that_leaves_the_numbers_says_what_it_did_before():
    growing = (2.2 ** np.arange(T + 1, dtype=np.float64))[:, None] * np.ones(4) * 1e-3
    broken = growing.astype(np.float32)
    broken[120:] = np.inf
    one = label_path(broken)
    assert (one.name, one.flags) == ("wander", ("growing", "not finite"))
    assert "grow by 2.2000" in one.reasons[0]
    assert "not finite from step 120" in one.reasons[-1]
    rng = np.random.default_rng(0)
    settled = embed(contraction(0.7, T, rng), rng, offset=1)
    settled[100:] = np.nan
    one = label_path(settled)
    assert (one.name, one.candidate, one.flags) == ("undetermined", "fixed_point", ("not finite",))
    assert "until then" in one.reasons[1]


class TestMended:
    """What fresh kinds of paths broke."""

    @pytest.mark.parametrize(("period", "wide"), [(7, 3), (9, 1), (16, 1)])
    def test_a_pulse_leaves_the_median_step_at_nothing_and_is_no_rest(self, period, wide):
        for rng in draws(10, 20):
            up = ((np.arange(T + 1) + rng.integers(period)) % period < wide).astype(float)
            assert str(label_path(embed(up[:, None], rng, offset=2))) == f"orbit({period})"

    def test_a_jump_after_which_it_rests_is_rest(self):
        rng = np.random.default_rng(0)
        path = embed(contraction(0.7, T, rng), rng, offset=1)
        path[70:] += rng.normal(size=path.shape[1])
        assert label_path(path).name == "fixed_point"

    @pytest.mark.parametrize("theta", [3.05, 3.1, 3.12])
    @pytest.mark.parametrize("noise", [0, 0.05])
    def test_a_turn_close_to_pi_is_no_change_of_sign(self, theta, noise):
        for rng in draws(10, 21):
            one = label_path(embed(circle(theta, T, rng), rng, noise=noise))
            assert one.name == "quasi_orbit"
            assert abs(one.period - 2 * math.pi / theta) < max(4 * one.period_error, 1e-6)

    @pytest.mark.parametrize("sideways", [False, True])
    def test_a_change_of_sign_that_is_still_approached_keeps_its_period(self, sideways):
        t = np.arange(T + 1)
        sign, fall = (-1.0) ** t, 2 * 0.97**t
        for rng in draws(10, 22):
            path = np.stack([sign, sign * fall] if sideways else [sign * (1 + fall), 0 * t], 1)
            name = str(label_path(embed(path, rng)))
            assert name == "orbit(2)" or (sideways and name == "converging")

    @pytest.mark.parametrize("rho", [0.97, 0.98, 0.985])
    def test_an_approach_whose_steps_are_lost_in_jitter_is_one(self, rho):
        for rng in draws(10, 23):
            one = label_path(embed(rho ** np.arange(T + 1)[:, None], rng, noise=2e-3, offset=1))
            assert one.name == "converging"

    def test_a_walk_that_slows_down_by_chance_is_no_approach(self):
        names = [label_path(rng.normal(size=(T + 1, 1 + i % 3)).cumsum(0)).name for i, rng in enumerate(draws(200, 24))]
        assert names.count("converging") <= 4

    def test_an_amplitude_that_jitters_does_not_shrink(self):
        for rng in draws(60, 25):
            path = circle(2 * math.pi / 5, T, rng) * (1 + 0.1 * rng.normal(size=(T + 1, 1)))
            assert str(label_path(embed(path, rng))) == "orbit(5)"

    def test_a_cycle_among_noise_in_many_dimensions_is_not_taken_for_chaos(self):
        for rng in draws(30, 26):
            path = rng.normal(size=(12, 1))[np.arange(T + 1) % 12]
            assert str(label_path(embed(path, rng, 500, noise=0.02))) == "orbit(12)"

    def test_a_record_too_short_for_a_name_says_what_it_leans_to(self):
        along = np.arange(13)[:, None] * np.ones(3)
        assert (label_path(along).name, label_path(along).candidate) == ("undetermined", "slider")
        fall = 0.8 ** np.arange(13)[:, None] * np.ones(3)
        assert label_path(fall).candidate == "converging"

    def test_a_spiral_onto_a_cycle_leaves_the_period_as_it_is(self):
        def onto(rng):  # the spiral's own line, as it dies, fits some multiple of the period by chance
            spiral = 30 * circle(rng.uniform(0.4, 2.8), T, rng, rho=0.9)
            return embed(np.concatenate([spiral, circle(2 * math.pi / 7, T, rng)], 1), rng)

        assert share(onto, "orbit(7)", count=40, seed=29) == 1

    def test_wandering_among_roundings_is_not_called_chaos(self):
        noise = np.random.default_rng(5).normal(size=(T + 1, 64))
        path = (1 + 6 * 2**-8 * noise).astype(np.float32)  # steps of some eight roundings of bfloat16
        one = label_path(path, "bfloat16")
        assert (one.name, one.confidence) == ("wander", "low")
        assert "run it again in a finer dtype" in one.reasons[1]
        assert label_path(path).confidence == "high"

    def test_only_periods_that_the_record_can_show_are_ruled_out(self):
        rng = np.random.default_rng(0)
        one = label_path(embed(circle(2 * math.pi * 0.381966, T, rng), rng))
        assert "no period of up to 27 steps" in one.reasons[0]

    @pytest.mark.parametrize("steps", [128, 512])
    def test_a_pull_that_is_only_cubic_converges_whatever_the_length(self, steps):
        for rng in draws(5, 27):
            x = [rng.uniform(0.5, 1)]
            for _ in range(steps):
                x.append(x[-1] - 0.3 * x[-1] ** 3)
            one = label_path(embed(np.array(x)[:, None], rng, offset=1))
            assert one.name == "converging"

    def test_what_remains_is_not_known_where_the_rate_is_not(self):
        assert math.isnan(measure(np.arange(4.0)[:, None]).remaining)
        still = np.ones((T + 1, 3)) + 1e-16 * np.random.default_rng(0).normal(size=(T + 1, 3))
        assert measure(still).remaining == 0
