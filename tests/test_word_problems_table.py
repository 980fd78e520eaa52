"""The table of word problems: arms with different seeds, and runs that were cut."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

TRAINING = Path(__file__).parents[1] / "benchmarks" / "training"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TRAINING))
    kept = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - kept:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(TRAINING.parent)):
            del sys.modules[name]


def _run(arm: str, seed: int, right: str, **more: Any) -> dict[str, Any]:
    found = {"right": right, "accuracy": right.count("1") / len(right), "columns": 3.0, "flops_of_an_answer": 8e9}
    sets = {label: {**found, "seconds_of_an_answer": 0.25} for label in ("unseen", "seen", "deeper")}
    logged = [{"update": 50, "loss": 0.5}]
    return {
        "arm": arm,
        "seed": seed,
        "complete": True,
        "updates": 100,
        "planned": 100,
        "seconds": 60.0,
        "log": logged,
        "sets": sets,
        **more,
    }


def _rows(text: str) -> dict[str, list[str]]:
    return {row.split(" | ")[0].strip("| "): [cell.strip() for cell in row.strip("|").split(" | ")[1:]] for row in text.splitlines()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    problems = [{"kind": kind, "hops": hops, "choices": 4, "shortcuts": [1.0, 1.0]} for kind in ("sums", "swaps") for hops in (1, 2)]
    deeper = [{**each, "hops": 7} for each in problems]
    (tmp_path / "problems.json").write_text(json.dumps({"unseen": problems, "seen": problems, "deeper": deeper}))
    runs = [_run("coconut", 0, "1100"), _run("coconut", 1, "1111"), _run("coconut", 2, "0000")]
    runs += [_run("pause", 0, "1000"), _run("pause", 1, "0000", complete=False, updates=60), _run("pause", 2, "1000")]
    runs += [_run("no-thoughts", 0, "1100")]
    for run in runs:
        (tmp_path / f"{run['arm']}-{run['seed']}.json").write_text(json.dumps(run))
    return tmp_path


def test_arms_are_compared_over_the_seeds_that_both_have_to_the_end(scripts: Any, folder: Path) -> None:
    pairs = _rows(scripts("word_problems_table").tables(folder).split("\n\n")[3])
    assert pairs["coconut - pause"][:2] == ["0, 2", "+25.0 (p 1), -25.0 (p 1)"]
    assert pairs["coconut - pause"][2].startswith("+0.0 (")
    assert pairs["coconut - no-thoughts"][0] == "0"
    assert "no-thoughts - no-cot" not in pairs


def test_every_seed_has_its_own_number_and_a_cut_run_says_so(scripts: Any, folder: Path) -> None:
    first, kinds = map(_rows, scripts("word_problems_table").tables(folder).split("\n\n")[:2])
    assert first["pause"][1].endswith("cut at update 60 of 100")
    assert first["pause"][3] == "25.0, 0.0 (cut), 25.0"
    assert first["no-thoughts"][1:3] == ["", ""]
    assert "pause, seed 1 (cut)" in kinds and "pause, seed 2" in kinds


def test_wall_times_of_a_shared_machine_are_left_out(scripts: Any, folder: Path) -> None:
    table = scripts("word_problems_table")
    assert _rows(table.tables(folder).split("\n\n")[0])["no-thoughts"][-2:] == ["60", "0.25"]
    path = folder / "coconut-1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "beside": "others"}))
    assert "s an answer" not in table.tables(folder)
