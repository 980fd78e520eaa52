"""A picture of principal components comes with what chance would have drawn."""

import math

import numpy as np
import planted
import pytest
from planted import circle, embed

import latentweaver as lw
from latentweaver.inspect.portrait import draw_portrait


@pytest.mark.parametrize("width", [512, 4096])
def test_a_random_walk_is_called_one(width):  # [V8]
    found = draw_portrait(planted.walk(128, np.random.default_rng(0), width), ghosts=20)
    assert found.explained[:3] == pytest.approx([6 / (math.pi * k) ** 2 for k in (1, 2, 3)], abs=0.02)
    assert found.ghost_explained[1, :3] == pytest.approx([0.608, 0.152, 0.068], abs=0.01)
    assert found.like_a_walk
    assert "indistinguishable from a random walk" in found.caption()


def test_walks_are_rarely_taken_for_more():
    found = [draw_portrait(planted.walk(128, np.random.default_rng(i), 64), ghosts=60).like_a_walk for i in range(30)]
    assert np.mean(found) > 0.8


def test_an_orbit_is_not_a_walk():
    rng = np.random.default_rng(0)
    found = draw_portrait(embed(circle(2 * math.pi / 7, 126, rng), rng, 256, 0.01, 20), ghosts=20)
    assert not found.like_a_walk
    assert found.explained[:2].sum() > 0.9
    assert found.turns[0] == pytest.approx(18, abs=0.2)
    assert found.ghost_turns[2, 0] < 2
    assert not draw_portrait(embed(planted.contraction(0.9, 128, rng), rng), ghosts=20).like_a_walk


def test_bad_input():
    with pytest.raises(lw.InputError, match="at least 4 finite"):
        draw_portrait(np.full((10, 3), np.nan))
    with pytest.raises(lw.InputError, match="at least 4 finite"):
        draw_portrait(np.zeros((2, 3)))
