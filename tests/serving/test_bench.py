"""What `lw bench` measures is what happened."""

from __future__ import annotations

import pytest

from latentweaver.errors import InputError
from latentweaver.halting import StateChange
from latentweaver.runtime.bench import bandwidth, bench


def test_every_setting_is_measured(model) -> None:
    speeds = bench(model, steps=(1, 4), batches=(1, 3), prompt=4, tokens=4)
    assert [(speed.steps, speed.batch) for speed in speeds] == [(1, 1), (1, 3), (4, 1), (4, 3)]
    assert [speed.steps_per_token for speed in speeds] == [1, 1, 4, 4]
    for speed in speeds:
        assert min(speed.as_dict().values()) > 0


def test_a_rule_takes_fewer_steps(model) -> None:
    (speed,) = bench(model, steps=(9,), batches=(2,), prompt=4, tokens=4, halting=StateChange(5.0))
    assert speed.steps_per_token < 9


def test_the_machine_reads_at_some_speed() -> None:
    assert 0.05 < bandwidth(megabytes=16) < 1e5


@pytest.mark.parametrize("fields", [{"tokens": 1}, {"prompt": 0}, {"batches": (0,)}, {"steps": (0,)}])
def test_numbers_that_cannot_be(model, fields: dict) -> None:
    with pytest.raises(InputError):
        bench(model, **fields)
