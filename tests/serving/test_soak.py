"""A short soak of a real server; `benchmarks/soak.py` says what it does, and runs for minutes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")


@pytest.mark.slow
def test_nothing_is_lost_mixed_or_leaked() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "soak.py"
    spec = importlib.util.spec_from_file_location("soak", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    record = module.soak("weaver-chains", 12, growth=48)  # seconds are too few for memory to settle
    assert record["faults"] == []
    seen = record["seen"]
    assert min(seen["answered plain"], seen["answered streamed"], seen["refused plain"], seen["killed"], seen["left"]) > 0
    assert record["running_at_the_end"] == record["waiting_at_the_end"] == 0
    assert record["open_files_at_the_end"] <= record["most_open_files"]
