"""Quality against compute: the interval, the table, and the reasoner that the library ships."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import latentweaver
from latentweaver import tasks
from latentweaver.errors import InputError
from latentweaver.evaluate import Cell, Table, accuracy_against_steps, wilson

SHIPPED = Path(latentweaver.__file__).parent / "weights" / "weaver-chains"


def test_wilsons_interval_is_the_published_one() -> None:
    low, high = wilson(15, 50)  # R: prop.test(15, 50, correct = FALSE)
    assert (low, high) == (pytest.approx(0.1910, abs=5e-4), pytest.approx(0.4375, abs=5e-4))
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == pytest.approx(1)
    assert wilson(500, 500)[0] == pytest.approx(0.9924, abs=1e-4)
    with pytest.raises(InputError, match="got 3 of 2"):
        wilson(3, 2)


class TestTheShippedReasoner:
    @pytest.fixture(scope="class")
    def model(self):  # type: ignore[no-untyped-def]
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(SHIPPED).eval()

    def test_it_answers_with_enough_steps_and_not_before(self, model) -> None:  # type: ignore[no-untyped-def]
        table = accuracy_against_steps(model, tasks.Chains(), [1, 6, 8], [6], problems=16, seed=7)
        assert table.cell(6, 8).accuracy == 1
        assert table.cell(6, 1).accuracy < 0.4
        assert table.cell(6, 6).accuracy < 0.4

    @pytest.mark.slow
    def test_it_thinks_longer_than_it_was_trained_to(self, model) -> None:  # type: ignore[no-untyped-def]
        table = accuracy_against_steps(model, tasks.Chains(), [20, 36], [32], problems=12, seed=7)
        assert table.cell(32, 36).accuracy >= 0.9
        assert table.cell(32, 20).accuracy < 0.5

    def test_the_table_is_json_with_intervals(self, model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        table = accuracy_against_steps(model, tasks.Chains(), [4], [1, 2], problems=8, seed=1)
        table.to_json(tmp_path / "table.json")
        cells = json.loads((tmp_path / "table.json").read_text())["cells"]
        assert [cell["difficulty"] for cell in cells] == [1, 2]
        assert all(0 <= cell["interval"][0] <= cell["accuracy"] <= cell["interval"][1] <= 1 for cell in cells)
        assert "100.0" in str(table)
        low, high = table.cells[0].interval
        assert f"{100 * low:.0f}-{100 * high:.0f}" in str(table)


def test_a_table_is_drawn_and_its_page_stands_alone(tmp_path):
    pytest.importorskip("matplotlib")
    from latentweaver.errors import InputError
    from latentweaver.evaluate.plot import plot

    cells = tuple(Cell(difficulty, steps, min(steps * 3, 10), 10) for difficulty in (1, 2) for steps in (1, 2, 4))
    table = Table("sums <script>", "test", 0, cells)
    assert plot(table, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    page = plot(table, tmp_path / "a.html", "sums <script>").read_text()
    assert "<script" not in page and 'src="' not in page and "100.0" in page
    with pytest.raises(InputError, match=r"a\.pdf"):
        plot(table, tmp_path / "a.pdf")
