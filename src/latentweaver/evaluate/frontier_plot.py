"""The picture of a search in thoughts: one graph, its nodes tinted by what `read` says after each thought, and the average of many.

Needs matplotlib: `pip install latentweaver[plot]`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentweaver.errors import InputError
from latentweaver.evaluate.frontier import CLASSES, Split
from latentweaver.tasks.graph_search import LETTERS
from latentweaver.tasks.graphs import Graph, distances

COLOURS = {"optimal": "#1fa187", "frontier": "#a0da39", "reached": "#365c8d", "beyond": "#9aa7b5", "unreachable": "#c4473a"}
MEANING = {
    "optimal": "frontier, on a path to the target",
    "frontier": "frontier, elsewhere",
    "reached": "reached before",
    "beyond": "further away",
    "unreachable": "never reached",
}


def plot_frontier(graph: Graph, rows: list[tuple[str, list[float]]], splits: list[Split], path: str | Path, title: str = "") -> Path:
    """Draw both.

    Args:
        graph: the graph of the panels.
        rows: for each panel its title and the probability of every node.
        splits: the averages, one for each number of thoughts.
        path: .png or .svg.
        title: stands above the whole.

    Raises:
        InputError: if the suffix is another, or matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise InputError(f"cannot write {path.name}: a plot is .png or .svg")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(3.1 * len(rows), 6.2))
    grid = figure.add_gridspec(2, len(rows), height_ratios=(1.5, 1), hspace=0.28, wspace=0.08)
    for place, (name, probability) in enumerate(rows):
        _panel(figure.add_subplot(grid[0, place]), graph, probability, name)
    _bars(figure.add_subplot(grid[1, :]), splits)
    figure.suptitle(title, y=0.97)
    figure.savefig(path, dpi=140, bbox_inches="tight", facecolor="white")
    return path


def _places(graph: Graph) -> dict[int, tuple[float, float]]:
    """Reached nodes in columns by their distance from the root; the others below, by theirs from the other root."""
    far = distances(graph.children, graph.other)
    nodes = sorted({node for edge in graph.edges for node in edge})
    columns: dict[tuple[bool, int], list[int]] = {}
    for node in nodes:
        reached = node in graph.distance
        columns.setdefault((reached, graph.distance[node] if reached else far.get(node, 0)), []).append(node)
    tallest = max(len(column) for (reached, _), column in columns.items() if reached)
    places = {}
    for (reached, x), column in columns.items():
        for row, node in enumerate(column):
            y = (len(column) - 1) / 2 - row
            places[node] = (float(x), y if reached else y - tallest / 2 - 1.6)
    return places


def _panel(axis: Any, graph: Graph, probability: list[float], name: str) -> None:
    from matplotlib import colormaps

    places = _places(graph)
    for a, b in set(graph.edges):
        arrow = {"arrowstyle": "-|>", "color": "#9aa7b5", "shrinkA": 9, "shrinkB": 9, "lw": 0.9, "connectionstyle": "arc3,rad=0.08"}
        axis.annotate("", places[b], places[a], arrowprops=arrow)
    for node, (x, y) in places.items():
        share = probability[node]
        ring = "#1fa187" if node == graph.target else "#c4473a" if node == graph.distractor else "#444444"
        colour = colormaps["YlGnBu"](0.08 + 0.9 * share) if share >= 0.005 else "white"
        axis.scatter(
            [x], [y], s=330, color=[colour], edgecolors=ring, linewidths=2.2 if node in (graph.target, graph.distractor) else 0.8, zorder=3
        )
        axis.text(x, y, LETTERS[node], ha="center", va="center", fontsize=9, color="white" if share > 0.5 else "black", zorder=4)
        if share >= 0.005:
            axis.text(x, y + 0.42, f"{share:.0%}", ha="center", va="bottom", fontsize=7)
    axis.set_title(name, fontsize=10)
    axis.margins(0.14)
    axis.set_axis_off()


def _bars(axis: Any, splits: list[Split]) -> None:
    labels, rows = [], []
    for split in splits:
        when = "at once" if split.thoughts == 0 else f"after {split.thoughts}"
        labels += [f"{when}: read", "chance"]
        rows += [split.probability, split.share]
    for place, row in enumerate(rows):
        left = 0.0
        for kind in CLASSES:
            axis.barh(place, row[kind], left=left, color=COLOURS[kind], alpha=0.35 if place % 2 else 1, height=0.8)
            if row[kind] >= 0.03:
                axis.text(left + row[kind] / 2, place, f"{row[kind]:.0%}", ha="center", va="center", fontsize=7)
            left += row[kind]
    axis.set_yticks(range(len(rows)), labels, fontsize=8)
    axis.invert_yaxis()
    axis.set(xlim=(0, 1), xlabel="probability over the nodes, mean over the test graphs (chance: each class's share of the nodes)")
    handles = [axis.barh(0, 0, color=COLOURS[kind]) for kind in CLASSES]
    axis.legend(
        handles, [MEANING[kind] for kind in CLASSES], ncols=5, fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False
    )
