"""What states hold: decodability, probes that cannot cheat, bits."""

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest

import latentweaver as lw
from latentweaver.inspect.information import bits_about, blurred_channel, calibrate_bits, channel, token_bits
from latentweaver.inspect.probes import LeakWarning, group_folds, probe, probe_by_step, random_folds, train_monitor
from latentweaver.inspect.separability import separability_by_step, task_decodability

CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "task_decodability.json").read_text())["cases"]


class TestSeparability:
    @pytest.mark.parametrize("case", CASES, ids=lambda case: f"{len(case['X'])} items")
    def test_decodability_is_the_papers(self, case):
        found = task_decodability(np.array(case["X"]), np.array(case["y"]), case["k"], permutations=0)
        assert found.predicted.tolist() == case["pred"]
        assert found.value == pytest.approx(case["td"], abs=1e-4)
        wanted = case["td_per_task"]
        wanted = [wanted[key] for key in sorted(wanted, key=int)] if isinstance(wanted, dict) else wanted
        assert found.by_task == pytest.approx(wanted, abs=1e-4)

    def test_shuffled_labels_are_at_chance(self):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(200, 8)), rng.integers(4, size=200)
        found = task_decodability(x, y)
        assert found.null[0] == pytest.approx(0.25, abs=0.03)
        assert found.p > 0.05
        assert found.interval[0] < 0.27
        assert found.interval[1] > 0.23

    def test_a_concept_that_separates_while_thinking(self):
        rng = np.random.default_rng(0)
        y = np.repeat(np.arange(3), 40)
        centres = rng.normal(size=(3, 16))
        noise = rng.normal(size=(5, 120, 16))
        states = np.stack([0.5 * step * centres[y] + noise[step] for step in range(5)])
        found = separability_by_step(states, y, permutations=50)
        values = [one.decodability.value for one in found]
        assert values == sorted(values)
        assert values[-1] > 0.95
        assert found[0].decodability.p > 0.02
        assert found[-1].silhouette > found[0].silhouette
        assert found[0].probe_interval[0] < 1 / 3 + 0.05
        assert found[-1].probe > 0.9

    def test_leave_one_out_counts(self):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(60, 64)), rng.integers(3, size=60)
        one = task_decodability(x, y, k=1, permutations=0).value
        twins = task_decodability(np.concatenate([x, x]), np.concatenate([y, y]), k=1, permutations=0).value
        apart = task_decodability(
            np.concatenate([x, x]), np.concatenate([y, y]), k=1, groups=np.tile(np.arange(60), 2), permutations=0
        ).value
        assert twins == 1  # copies vote for each other
        assert apart == one  # unless they belong together


def leaky(seed=0, prompts=60, rollouts=20, width=64):
    """Tokens of a prompt are nearly copies, and its label is drawn at random."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(prompts), rollouts)
    y = rng.permutation(np.arange(prompts) % 2)[group]
    return rng.normal(size=(prompts, width))[group] + 0.1 * rng.normal(size=(len(group), width)), y, group


class TestProbes:
    @pytest.mark.parametrize(
        "split", [group_folds, pytest.param(random_folds, marks=pytest.mark.xfail(strict=True, reason="what a random split gets wrong"))]
    )
    def test_random_labels_are_not_learned(self, split):  # [V22]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LeakWarning)
            found = probe(*leaky(), split=split)
        assert found.probe.low <= 0.5 <= found.probe.high

    def test_a_random_split_is_warned_about(self):  # [V22]
        with pytest.warns(LeakWarning, match="both sides"):
            found = probe(*leaky(), split=random_folds)
        assert found.probe.auroc > 0.99
        assert found.leaking == 60

    def test_copies_under_another_name_are_warned_about(self):
        x, y, group = leaky(prompts=30)
        with pytest.warns(LeakWarning):
            probe(np.concatenate([x, x]), np.concatenate([y, y]), np.concatenate([group, group + 30]))

    def test_a_planted_property_is_found_and_its_controls_are_not(self):
        rng = np.random.default_rng(1)
        group = np.repeat(np.arange(80), 5)
        y = (np.arange(80) % 2)[group]
        states = rng.normal(size=(400, 32))
        states[:, 3] += 3 * y
        texts = [f"prompt number {rng.integers(50)}" for _ in group]
        found = probe(states, y, group, texts, untrained=rng.normal(size=(400, 32)))
        assert found.probe.low > 0.9
        assert found.shuffled.auroc == pytest.approx(0.5, abs=0.12)
        assert found.text.low < 0.6
        assert found.untrained.low < 0.6
        assert found.leaking == 0
        assert found.alarm is None  # too few negatives to set one in a hundred
        assert found.length.auroc == pytest.approx(0.5, abs=0.1)

    def test_what_the_text_says_needs_no_looking_inside(self):
        rng = np.random.default_rng(1)
        y = np.arange(100) % 2
        texts = ["a trap" if one else "no harm" for one in y]
        found = probe(rng.normal(size=(100, 8)) + y[:, None], y, np.arange(100), texts)
        assert found.text.auroc == 1

    def test_the_property_appears_at_a_step(self):
        rng = np.random.default_rng(2)
        y = np.arange(200) % 2
        states = rng.normal(size=(8, 200, 16))
        states[5:, :, 0] += 3 * y
        curve = probe_by_step(states, y, np.arange(200))
        assert max(one.auroc for one in curve["step"][:5]) < 0.65
        assert min(one.auroc for one in curve["step"][5:]) > 0.9
        assert curve["last"][0].auroc > curve["early"][0].auroc

    def test_false_alarms_and_abstention(self):  # [V26]
        rng = np.random.default_rng(3)
        direction = rng.normal(size=24) / 3

        def draw(count, positive):
            return rng.normal(size=(count, 24)) @ np.diag(np.linspace(0.3, 2, 24)) + positive * direction

        x, y = np.concatenate([draw(500, 0), draw(500, 1)]), np.repeat([0, 1], 500)
        monitor = train_monitor(x, y, draw(5000, 0))
        fresh = draw(10000, 0)
        assert 0.003 <= monitor.alarms(fresh).mean() <= 0.02
        assert monitor.abstains(fresh).mean() < 0.03
        assert monitor.abstains(fresh + 8 * rng.normal(size=24)).mean() >= 0.9
        assert monitor.alarms(draw(1000, 1)).mean() > monitor.alarms(fresh).mean() * 5

    def test_bad_input(self):
        x, y, group = leaky(prompts=4)
        with pytest.raises(lw.InputError, match="0 and 1"):
            probe(x, y + 1, group)
        with pytest.raises(lw.InputError, match="groups"):
            probe(x, y, np.zeros(len(y)))
        with pytest.raises(lw.InputError, match="not finite"):
            probe(np.full_like(x, np.nan), y, group)
        with pytest.raises(lw.InputError, match="negatives"):
            train_monitor(x, y, x[:10])


class TestInformation:
    @pytest.mark.parametrize("bits", [0, 0.5, 1, 2])
    def test_channels_of_known_capacity(self, bits):
        found = bits_about(*channel(bits, 4, 2000, 16, seed=1))
        assert found.bits == pytest.approx(bits, abs=0.08)
        assert found.bits < bits + 0.05  # a lower bound
        assert found.entropy == pytest.approx(2, abs=0.01)

    @pytest.mark.parametrize("bits", [1.0])
    def test_overlapping_classes_hold_what_they_hold(self, bits):
        states, labels = blurred_channel(bits, 4, 1500, 8, seed=2)
        points = np.stack([states[labels == k].mean(0) for k in range(4)])
        away = ((states[:, None] - points) ** 2).sum(-1)
        spread = away[np.arange(len(labels)), labels].mean() / 8
        log = -away / (2 * spread)
        log -= np.log(np.exp(log - log.max(-1, keepdims=True)).sum(-1, keepdims=True)) + log.max(-1, keepdims=True)
        assert 2 + log[np.arange(len(labels)), labels].mean() / math.log(2) == pytest.approx(bits, abs=0.1)
        assert bits - 0.15 < bits_about(states, labels).bits < bits + 0.08

    def test_the_bias_is_known(self):
        few, many = calibrate_bits(4, 100, 32, channels=3), calibrate_bits(4, 1000, 32, channels=3)
        assert few.bias <= many.bias <= 0.03
        assert abs(many.worst) < 0.15

    def test_groups_are_held_out(self):
        x, y, group = leaky()
        assert bits_about(x, y, group).bits < 0.05
        assert bits_about(x, y).bits > 0.9

    def test_bits_of_a_chain(self):
        assert token_bits(np.log([0.5, 0.25])) == pytest.approx(3)
        with pytest.raises(lw.InputError, match="one class"):
            bits_about(np.zeros((4, 2)), [1, 1, 1, 1])
        with pytest.raises(lw.InputError, match="bits"):
            channel(3, 4, 10, 8)
        assert math.isclose(channel(0, 2, 50, 4)[1].mean(), 0.5, abs_tol=0.3)
