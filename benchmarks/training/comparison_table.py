"""What `lw compare ... --json FILE` wrote, as a Markdown table: `python benchmarks/training/comparison_table.py FILE` prints it, `--write PAGE ...`
puts it into Markdown files between the marks of the file's name, and `--check` beside it only compares.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from marks import update


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--write", type=Path, nargs="+", default=[], metavar="PAGE")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = table(json.loads(options.file.read_text()))
    print(text)
    update({page: {options.file.stem: text} for page in options.write}, check=options.check)


def lines(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---", *["--:"] * (len(head) - 1)], *rows])


def table(comparison: dict[str, Any]) -> str:
    """Every method's row, and what shortcuts reach."""
    against = comparison["against"]
    head = ["method", "each seed", "accuracy", f"beyond {against}", "p (McNemar)", "columns", "s an answer"]
    rows = []
    for row in comparison["rows"]:
        gain = "" if row["gain"] is None else f"{100 * row['gain']:+.1f} ({100 * row['gain_low']:+.1f} to {100 * row['gain_high']:+.1f})"
        rows.append(
            [
                row["method"] if row["complete"] else f"{row['method']} (not trained to the end)",
                ", ".join(f"{100 * accuracy:.1f}" for accuracy in row["accuracies"]),
                f"{100 * row['mean']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})",
                gain,
                ", ".join(f"{p:.2g}" for p in row["p_values"]),
                f"{row['tokens']:.1f}",
                "" if row["seconds"] is None else f"{row['seconds']:.3f}",
            ]
        )
    rows += [[f"no search: {name}", "", f"{100 * share:.1f}", *[""] * 4] for name, share in comparison["floors"].items()]
    return lines(head, rows)


if __name__ == "__main__":
    main()
