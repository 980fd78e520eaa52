"""What the `lw` command prints: text tinted by thought, traces, and the facts of a model.

The tint goes from cold (few steps) to warm (many), on a scale that stays readable to colour-blind eyes (viridis); without
colours the steps are printed as a line of small bars.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from latentweaver.runtime.cost import Cost
from latentweaver.thought import Thought

_VIRIDIS = ("#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#fde725")
_BARS = "▁▂▃▄▅▆▇█"


def tint(steps: int, most: int) -> str:
    """The style of a token that took `steps` of at most `most` steps."""
    place = _place(steps, most)
    return f"{'black' if place > 4 else 'white'} on {_VIRIDIS[place]}"


def bars(steps: list[int], most: int) -> str:
    """One small bar for each token."""
    return "".join(_BARS[_place(count, most)] for count in steps)


def _place(steps: int, most: int) -> int:
    return min(len(_BARS) - 1, (steps * len(_BARS) - 1) // most)


class TintedStream:
    """A streamer for `generate` that prints each token as it comes, tinted by the steps it took.

    Args:
        tokenizer: turns tokens into text.
        most: the number of steps that gets the warmest tint.
        console: where to print.
    """

    def __init__(self, tokenizer: Any, most: int, console: Console) -> None:
        self.tokenizer = tokenizer
        self.most = most
        self.console = console
        self.tokens: list[int] = []
        self.steps: list[int] = []
        self.printed = 0
        self.first_at: float | None = None

    def put_steps(self, steps: torch.Tensor) -> None:
        self.steps.append(int(steps[0]))

    def put(self, tokens: torch.Tensor) -> None:
        if not self.steps:
            return  # transformers hands the prompt to the streamer first
        if self.first_at is None:
            self.first_at = time.perf_counter()
        self.tokens.append(int(tokens.reshape(-1)[0]))
        text = self.tokenizer.decode(self.tokens, skip_special_tokens=True)
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            return  # half a character; the next token completes it
        self._print(text)

    def end(self) -> None:
        self._print(self.tokenizer.decode(self.tokens, skip_special_tokens=True))
        self.console.print()

    def _print(self, text: str) -> None:
        fresh = text[self.printed :]
        self.printed = len(text)
        if fresh:
            style = tint(self.steps[-1], self.most) if self.console.color_system else ""
            self.console.print(Text(fresh, style=style), end="", soft_wrap=True)


class Trace:
    """Remembers what a model would have said after each step; give `watch` to `generate`.

    Args:
        model: the reasoner; its readout is computed at every step.
        tokenizer: turns tokens into text.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.said: list[list[int]] = []

    def watch(self, thought: Thought) -> None:
        if int(thought.step[0, -1]) == 1:
            self.said.append([])
        logits = self.model.read(thought, logits_to_keep=1).logits[0, -1]
        self.said[-1].append(int(logits.argmax()))

    def lines(self) -> list[str]:
        """One line for each token: the likeliest token after each step, runs of the same one together."""
        lines = []
        for place, said in enumerate(self.said):
            runs: list[str] = []
            start = 0
            for step in range(1, len(said) + 1):
                if step == len(said) or said[step] != said[start]:
                    steps = f"{start + 1}" if step == start + 1 else f"{start + 1}-{step}"
                    runs.append(f"{steps}: {self.tokenizer.decode([said[start]])!r}")
                    start = step
            lines.append(f"{place + 1:4d}  " + "  ".join(runs))
        return lines


def facts(name: str, model: Any, cost: Cost) -> Table:
    """What `lw info` prints."""
    config = model.config
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    layers = f"prelude {config.prelude_layers}, core {config.core_layers}, coda {config.coda_layers}"
    table.add_row("model", name)
    table.add_row("topology", f"{layers}; injection {config.injection}, first state {config.initial_state}, {config.block} norms")
    heads = f"{config.num_attention_heads} heads ({config.num_key_value_heads} for keys) of {config.head_dim}"
    table.add_row("shape", f"width {config.hidden_size}, {heads}, MLP {config.intermediate_size}, vocabulary {config.vocab_size}")
    table.add_row("context", f"{config.max_position_embeddings} tokens")
    table.add_row("exit gate", "learned" if config.exit_gate else "none")
    total = sum(cost.parameters.values())
    split = ", ".join(f"{role} {_count(number).strip()}" for role, number in cost.parameters.items() if number)
    table.add_row("parameters", f"{total:,} ({split})")
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    table.add_row("weights", f"{_bytes(total * cost.weight_bytes)} in {dtype}")
    step = 2 * cost.per_step
    table.add_row("one step costs", f"{_count(step)}FLOP and {_bytes(cost.per_step * cost.weight_bytes)} of weights read, per token")
    for steps in sorted({1, config.num_steps, 4 * config.num_steps}):
        table.add_row(
            f"at {steps} step{'s' * (steps > 1)}",
            f"{_count(cost.flops(steps))}FLOP, {_bytes(cost.bytes_read(steps))} of weights read, per token; "
            f"cache {_bytes(cost.cache_bytes(steps))} a token (full), {_bytes(cost.cache_bytes(steps, 1))} (shared)",
        )
    return table


def thinker_facts(name: str, model: Any) -> Table:
    """What `lw info` prints about a decoder that thinks in continuous thoughts."""
    config, inner = model.config, model.config.text_config
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("model", name)
    table.add_row("thinking", f"{config.model_type}, {config.num_steps} thoughts by default; fed back: {config.feedback}")
    heads = f"{inner.num_attention_heads} heads"
    table.add_row("decoder", f"{inner.model_type}, {inner.num_hidden_layers} layers of width {inner.hidden_size}, {heads}")
    table.add_row("context", f"{inner.max_position_embeddings} tokens, thoughts included; vocabulary {inner.vocab_size}")
    total = sum(parameter.numel() for parameter in model.parameters())
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    table.add_row("parameters", f"{total:,}")
    table.add_row("weights", f"{_bytes(sum(each.numel() * each.element_size() for each in model.parameters()))} in {dtype}")
    if about := getattr(config, "task", None):
        table.add_row("trained for", ", ".join(f"{key} {value}" for key, value in about.items()))
    return table


def _count(number: float) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if number < 1000:
            return f"{number:.3g} {unit}" if unit else f"{number:.0f} "
        number /= 1000
    return f"{number:.3g} P"


def _bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} TiB"


def make_console() -> Console:
    """The console that answers go to."""
    return Console(file=sys.stdout, highlight=False)


_CHIP, _LABEL = 9, 9
"""Characters of a node with its number in `Frontier`, and of the label before a row, spaces between columns among them."""


class Frontier:
    """A search through a graph as a table: one row for each thought, nodes by their distance from the root, each tinted by the
    probability it is given.

    Args:
        letters: what nodes are called.
        edges: (from, to).
        root: where the search begins.
        distance: edges from the root to every node that it reaches.
    """

    def __init__(self, letters: str, edges: tuple[tuple[int, int], ...], root: int, distance: dict[int, int]) -> None:
        self.letters, self.root = letters, root
        self.edges = sorted(set(edges))
        nodes = sorted({node for edge in edges for node in edge} - {root})
        farthest = max(distance.values())
        self.columns = {_edges(away): [node for node in nodes if distance.get(node) == away] for away in range(1, farthest + 1)}
        self.columns["never"] = [node for node in nodes if node not in distance]
        self.rows: list[tuple[str, list[float]]] = []

    def add(self, label: str, probability: list[float]) -> None:
        """A row: the probability of every node."""
        self.rows.append((label, probability))

    def table(self, width: int = 80) -> Table:
        """What to print in so many characters: above each column the edges that lead there, below them a row for each thought.

        Where nodes do not fit beside each other they go on in the next line, a letter always with its number.
        """
        counts, room = [len(nodes) for nodes in self.columns.values()], width - _LABEL
        beside = max([most for most in range(1, max(counts) + 1) if sum(min(count, most) for count in counts) * _CHIP <= room], default=1)
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", caption_justify="left")
        table.add_column("from " + self.letters[self.root], no_wrap=True)
        for name, nodes in self.columns.items():
            if nodes:
                table.add_column(name)
        table.add_row("", *(Text(self._into(nodes), style="dim") for nodes in self.columns.values() if nodes), end_section=True)
        for label, probability in self.rows:
            table.add_row(label, *(self._chips(nodes, probability, beside) for nodes in self.columns.values() if nodes))
        return table

    def _into(self, nodes: list[int]) -> str:
        return " ".join(f"{self.letters[a]}>{self.letters[b]}" for b in nodes for a, to in self.edges if to == b) or "-"

    def _chips(self, nodes: list[int], probability: list[float], beside: int) -> Text:
        chips = Text(no_wrap=True)
        for place, node in enumerate(nodes):
            share = probability[node]
            percent = f"{100 * share:.0f}" if share >= 0.005 else "·"
            chips.append(f" {self.letters[node]} {percent:>3} ", style=tint(1 + int(99 * share), 100) if share >= 0.005 else "dim")
            chips.append("\n" if (place + 1) % beside == 0 and place + 1 < len(nodes) else " ")
        return chips


def _edges(away: int) -> str:
    return "1 edge" if away == 1 else f"{away} edges"
