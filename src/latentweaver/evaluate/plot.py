"""Accuracy against steps and against difficulty, as a picture (PNG, SVG) or one self-contained page (HTML).

Needs matplotlib: `pip install latentweaver[plot]`.
"""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import Any

from latentweaver.errors import InputError
from latentweaver.evaluate.accuracy import Cell, Table


def plot(table: Table, path: str | Path, title: str = "") -> Path:
    """Draw a table: one line for each difficulty over steps, beside one for each number of steps over difficulty.

    Bands are the 95 % intervals. The suffix of `path` says what to write: .png, .svg or .html (the picture and its numbers).

    Raises:
        InputError: if the suffix is another, or matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg", ".html"):
        raise InputError(f"cannot write {path.name}: a plot is .png, .svg or .html")
    figure = _figure(table, None if path.suffix == ".html" else title)  # a page has a heading of its own
    if path.suffix == ".html":
        picture = io.StringIO()
        figure.savefig(picture, format="svg", bbox_inches="tight")
        path.write_text(_page(table, title, picture.getvalue()), encoding="utf-8")
    else:
        figure.savefig(path, bbox_inches="tight", dpi=150)
    return path


def _figure(table: Table, title: str | None) -> Any:
    """The picture; without words above it if `title` is None."""
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(11, 4))
    left, right = figure.subplots(1, 2, sharey=True)
    steps = sorted({cell.steps for cell in table.cells})
    difficulties = sorted({cell.difficulty for cell in table.cells})
    colours = colormaps["viridis"]
    for place, difficulty in enumerate(difficulties):
        cells = [table.cell(difficulty, step) for step in steps]
        _line(left, steps, cells, f"{difficulty}", colours(0.9 * place / max(len(difficulties) - 1, 1)))
    for place, step in enumerate(steps):
        cells = [table.cell(difficulty, step) for difficulty in difficulties]
        _line(right, difficulties, cells, f"{step}", colours(0.9 * place / max(len(steps) - 1, 1)))
    left.set_xscale("log", base=2)
    left.set_xticks(steps, [str(step) for step in steps])
    left.set(xlabel="steps", ylabel="accuracy", ylim=(-0.02, 1.02))
    right.set(xlabel="difficulty")
    for axis, name in ((left, "difficulty"), (right, "steps")):
        axis.legend(title=name, fontsize=7, ncols=8, loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
        axis.grid(alpha=0.3)
    if title is not None:
        figure.suptitle(title or f"{table.task}: accuracy against steps and difficulty (95 % intervals)", y=1.08)
    return figure


def _line(axis: Any, places: list[int], cells: list[Cell], label: str, colour: Any) -> None:
    low, high = zip(*(cell.interval for cell in cells), strict=True)
    axis.plot(places, [cell.accuracy for cell in cells], marker="o", markersize=3, color=colour, label=label)
    axis.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)


def _page(table: Table, title: str, picture: str) -> str:
    name = html.escape(title or table.task)
    steps = sorted({cell.steps for cell in table.cells})
    head = "".join(f"<th>{step}</th>" for step in steps)
    rows = []
    for difficulty in sorted({cell.difficulty for cell in table.cells}):
        cells = [table.cell(difficulty, step) for step in steps]
        texts = (f"{100 * cell.accuracy:.1f}<br><small>{100 * cell.interval[0]:.1f}-{100 * cell.interval[1]:.1f}</small>" for cell in cells)
        rows.append(f"<tr><th>{difficulty}</th>{''.join(f'<td>{text}</td>' for text in texts)}</tr>")
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{name}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }}
svg {{ width: 100%; height: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ border: 1px solid #ccc; padding: .2rem .6rem; text-align: right }}
small {{ color: #666 }}
</style>
<h1>{name}</h1>
{picture[picture.index("<svg") :]}
<p>Accuracy in per cent with 95 % Wilson intervals; rows are difficulties, columns numbers of steps. {table.cells[0].count} problems a
cell, {html.escape(table.split)} side of the split, seed {table.seed}.</p>
<table><tr><th>difficulty \\ steps</th>{head}</tr>{"".join(rows)}</table>
</html>
"""
