"""Pages show what the recorded files say: the scripts of `benchmarks/` that put tables between the marks of pages."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
MARKS = runpy.run_path(str(ROOT / "benchmarks" / "marks.py"))

PAGE = """before

<!-- runs: written by a script.py -->

old

<!-- end of runs -->
between
<!-- runs made again: written by a script.py -->
<!-- end of runs made again -->
after
"""


@pytest.mark.parametrize(
    "command",
    [
        "readme.py",
        "inspect/table.py",
        "training/smollm2_weaver/table.py",
        "training/comparison_table.py training/prontoqa/prontoqa.json --write training/prontoqa/README.md",
        "training/prontoqa_table.py training/prontoqa/smollm2 --write training/prontoqa/README.md",
        pytest.param(
            "training/word_problems_table.py training/word_problems --write training/word_problems/README.md"
            " --brief ../docs/continuous-thought.md",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_pages_show_the_recorded_results(command: str) -> None:
    done = subprocess.run([sys.executable, *command.split(), "--check"], cwd=ROOT / "benchmarks", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_part_goes_between_its_marks_and_nothing_else_changes() -> None:
    text = MARKS["put"](PAGE, "runs", r"| new \1 |")
    assert text == PAGE.replace("old", r"| new \1 |")
    assert MARKS["put"](text, "runs", r"| new \1 |") == text
    empty = MARKS["put"](PAGE, "runs made again", "| once more |")
    assert empty == PAGE.replace("-->\n<!-- end of runs made", "-->\n\n| once more |\n\n<!-- end of runs made")


def test_a_page_needs_one_place_for_a_part(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    with pytest.raises(ValueError, match=r"page\.md has 0 places for 'known'.*<!-- known: written by"):
        MARKS["stale"]({page: {"known": ""}})
    page.write_text(PAGE.replace("<!-- end of runs -->", ""))  # the other end must not do for it
    with pytest.raises(ValueError, match="0 places for 'runs'"):
        MARKS["stale"]({page: {"runs": ""}})
    page.write_text(PAGE + PAGE)
    with pytest.raises(ValueError, match="2 places for 'runs'"):
        MARKS["stale"]({page: {"runs": ""}})


def test_check_writes_nothing_and_names_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[Any]) -> None:
    pages = {tmp_path / "one.md": {"runs": "old"}, tmp_path / "other.md": {"runs": "new"}}
    for page in pages:
        page.write_text(PAGE)
    with pytest.raises(SystemExit, match=r"not what the recorded files say: \S*other\.md;"):
        MARKS["update"](pages, check=True)
    assert all(page.read_text() == PAGE for page in pages)
    MARKS["update"](pages, check=False)
    assert [page.read_text() for page in pages] == [PAGE, PAGE.replace("old", "new")]
    MARKS["update"](pages, check=True)
