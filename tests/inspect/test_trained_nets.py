"""`benchmarks/inspect/trained.py`: the nets whose task says what their states must hold, and what is measured of them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from latentweaver.inspect import record

FOLDER = Path(__file__).parents[2] / "benchmarks" / "inspect"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("trained")


def test_looped_nets_begin_alike_and_learn_by_their_seed(trained: Any, tmp_path: Path) -> None:
    for task in (trained.Addition(5, seed=3), trained.Clock("cycle", 5, 8, seed=3), trained.Ones(4, seed=3)):
        begun, done = task.model(), task.train(tmp_path / type(task).__name__, 2, "cpu")
        assert begun.config.vocab_size == task.vocabulary
        assert all(torch.equal(one, other) for one, other in zip(begun.parameters(), task.model().parameters(), strict=True))
        assert not done.training
        assert any(not torch.equal(one, other) for one, other in zip(begun.parameters(), done.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["addition", "cycle", "up", "down"])
def test_paths_are_recorded_once(trained: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A recording takes 128 steps of every row: labels, what goes on the bench and lines are read off the same one."""
    recorded: list[str] = []
    monkeypatch.setattr(
        trained, "record", lambda model, ids, **how: recorded.append(f"{ids.tolist()} {how['steps']}") or record(model, ids, **how)
    )
    task = trained.Addition(5) if kind == "addition" else trained.Clock(kind, 100 if kind == "up" else 40, 96 if kind == "up" else 8)
    trained.MEASURES[type(task)](task, task.model().eval(), "cpu")
    assert len(recorded) == len(set(recorded)) == {"down": 2}.get(kind, 1)  # of those that count down, the ones that have far to count too
