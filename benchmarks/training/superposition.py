"""The superposition recipe with its controls: many runs side by side, then what each of them can do.

    python benchmarks/training/superposition.py train --set nine --out runs/superposition --seconds 500
    python benchmarks/training/superposition.py table runs/superposition
    python benchmarks/training/superposition.py draw weaver-graphs docs/superposition.png
    python benchmarks/training/superposition.py unlike weaver-graphs benchmarks/training/superposition/unlike.json
    python benchmarks/training/superposition.py tamper weaver-graphs benchmarks/training/superposition/tampered.json

`train` starts one single-threaded process for each run of a set. A run that is not done after `--seconds` is measured as it is, and
goes on from its checkpoint when the same command is given again. Each run leaves one JSON file: accuracy on graphs that occur in
no training sample and on sets unlike those of training, graph by graph, and how `read`'s probability splits at each thought.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path

import torch
import transformers

from latentweaver.checkpoints.loading import load
from latentweaver.evaluate.frontier import frontier_split, search_accuracy
from latentweaver.evaluate.frontier_plot import plot_frontier
from latentweaver.evaluate.intervals import wilson
from latentweaver.recipes.superposition import GRAPHS, Superposition
from latentweaver.tasks.graph_search import LETTERS, GraphSearch, likeness
from latentweaver.tasks.graphs import Graph, GraphMaker, permuted, shortcut_floors

ARMS = {
    "coconut": {},
    "no-cot": {"method": "none"},
    "cot": {"method": "cot"},
    "no-curriculum": {"curriculum": "none"},
    "pause": {"feedback": "pause"},
}
NINE = {"nodes": 9, "edges": 12, "matched": False, "names": 9}
SETS: dict[str, dict[str, dict]] = {
    "nine": {f"nine-{arm}-{seed}": {**NINE, **fields, "seed": seed} for seed in range(3) for arm, fields in ARMS.items()},
    "matched": {f"matched-{arm}-{seed}": {**fields, "seed": seed} for seed in range(3) for arm, fields in ARMS.items()},
    "long-thoughts": {f"long-thoughts-coconut-{seed}": {"final_norm": 1.0, "seed": seed} for seed in range(3)},
    "gpt2": {f"gpt2-coconut-{seed}": {"base": "gpt2", "seed": seed} for seed in range(3)},
    "cold": {f"cold-coconut-{seed}": {"warm_up": 0, "seed": seed} for seed in range(3)},
}
UNLIKE = {
    9: {
        "4 hops": GraphMaker(nodes=9, hops=(4, 4), edges=12),
        "denser": GraphMaker(nodes=9, hops=(3, 3), edges=20, parents=2.4),
    },
    14: {
        "4 hops": GraphMaker(nodes=13, hops=(4, 4), edges=17, matched=True),
        "14 nodes": GraphMaker(nodes=14, hops=(3, 3), edges=18, matched=True),
        "denser": GraphMaker(nodes=11, hops=(3, 3), edges=20, parents=2.2, matched=True),
    },
}
"""By the number of names that a model has: sets unlike those of training, with longer paths, more nodes, more edges."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    train = verbs.add_parser("train", help="all runs of some sets, side by side")
    train.add_argument("--set", nargs="+", choices=list(SETS), default=["nine"])
    train.add_argument("--arms", nargs="+", help="only runs with one of these in their names")
    train.add_argument("--jobs", type=int, default=32, help="processes at a time")
    one = verbs.add_parser("one", help="one run, in this process")
    one.add_argument("--name", required=True)
    one.add_argument("--fields", type=json.loads, required=True)
    drew = verbs.add_parser("graphs", help="draw the graphs of some sets beforehand, which `train --graphs` then reads")
    drew.add_argument("folder", type=Path)
    drew.add_argument("--set", nargs="+", choices=list(SETS), default=["nine", "matched"])
    for verb in (train, one):
        verb.add_argument("--graphs", type=Path, help="a folder of graphs that were drawn beforehand")
        verb.add_argument("--out", type=Path, required=True)
        verb.add_argument("--seconds", type=float, default=1e9, help="stop training after so many")
        verb.add_argument("--devices", nargs="+", default=["cpu"])
        verb.add_argument("--more", type=json.loads, default={}, help="fields of the recipe for all runs, as JSON")
    tabled = verbs.add_parser("table", help="the table of all runs in a folder")
    tabled.add_argument("folder", type=Path)
    tampered = verbs.add_parser("tamper", help="accuracy with something else fed back in place of thoughts")
    tampered.add_argument("model", help="a checkpoint folder or a name")
    tampered.add_argument("path", type=Path, help="where to write the numbers (.json)")
    asked = verbs.add_parser("unlike", help="accuracy on graphs unlike those of training: longer paths, more nodes, more edges")
    asked.add_argument("model", help="a checkpoint folder or a name")
    asked.add_argument("path", type=Path, help="where to write the numbers (.json)")
    asked.add_argument("--count", type=int, default=400, help="how many of each kind")
    asked.add_argument("--graphs", type=Path, help="a folder of graphs that were drawn beforehand")
    drawn = verbs.add_parser("draw", help="the picture of a trained model's frontier, and its numbers")
    drawn.add_argument("model", help="a checkpoint folder or a name")
    drawn.add_argument("path", type=Path, help=".png or .svg; a .json is written beside it")
    drawn.add_argument("--graph", type=int, help="which test graph; of those answered rightly the one with the widest frontier if left out")
    options = parser.parse_args()
    if options.verb == "train":
        train_all(options)
    elif options.verb == "table":
        print(table([json.loads(path.read_text()) for path in sorted(options.folder.glob("*.json"))]))
    elif options.verb == "tamper":
        model = load(options.model, device="cpu")
        recipe = Superposition(**{name: model.config.task[name] for name in GRAPHS})
        results = {}
        for name, right in tamper(model, recipe.task, recipe.held_out()).items():
            results[name] = {"right": sum(right), "graphs": len(right), "interval": wilson(sum(right), len(right))}
            print(
                f"{name:28} {100 * sum(right) / len(right):5.1f}  ({100 * results[name]['interval'][0]:.1f} to {100 * results[name]['interval'][1]:.1f})"
            )
        options.path.write_text(json.dumps(results, indent=1) + "\n")
    elif options.verb == "unlike":
        results = unlike(load(options.model, device="cpu"), options.count, options.graphs, options.path)
        print(unlike_table(results))
    elif options.verb == "graphs":
        options.folder.mkdir(parents=True, exist_ok=True)
        for chosen in options.set:
            recipe = Drawn(**next(iter(SETS[chosen].values())))
            kept = recipe.kept(options.folder)
            with gzip.open(kept, "wt") as file:
                json.dump({name: [astuple(graph) for graph in graphs] for name, graphs in recipe.graphs_of().items()}, file)
            print(kept)
    elif options.verb == "draw":
        draw(options.model, options.path, options.graph)
    else:
        run(options.name, {**options.fields, **options.more}, options.out, options.seconds, options.devices[0], options.graphs)


def train_all(options: argparse.Namespace) -> None:
    """One process a run, at most `jobs` at a time; they share the devices in turn."""
    began, waiting, running = time.monotonic(), [], []
    for chosen in options.set:
        waiting += [item for item in SETS[chosen].items() if not options.arms or any(arm in item[0] for arm in options.arms)]
    waiting = [(name, fields) for name, fields in waiting if not _complete(options.out / f"{name}.json")]
    started = 0
    while waiting or running:
        running = [process for process in running if process.poll() is None]
        if options.seconds - (time.monotonic() - began) < 60:
            waiting = []  # too late to begin
        while waiting and len(running) < options.jobs:
            name, fields = waiting.pop(0)
            left = options.seconds - (time.monotonic() - began)
            command = [sys.executable, __file__, "one", "--name", name, "--fields", json.dumps(fields), "--out", str(options.out)]
            command += ["--seconds", str(left), "--more", json.dumps(options.more)]
            command += ["--graphs", str(options.graphs)] if options.graphs else []
            kind, _, number = options.devices[started % len(options.devices)].partition(":")
            seen = {"CUDA_VISIBLE_DEVICES": number} if number else {}
            running.append(subprocess.Popen([*command, "--devices", kind], env={**os.environ, **seen}))
            started += 1
        time.sleep(1)


def _complete(path: Path) -> bool:
    return path.exists() and json.loads(path.read_text())["complete"]


class _OutOfTime(Exception):
    pass


@dataclass(frozen=True)
class Drawn(Superposition):
    """The recipe, its graphs drawn once: rejecting all that have no such question takes a minute where both candidates match."""

    drawn: dict[str, list[Graph]] = field(default_factory=dict, compare=False, repr=False)

    def graphs_of(self) -> dict[str, list[Graph]]:
        """Training graphs, test graphs, and sets unlike those."""
        if not self.drawn:
            sets = {"test": super().held_out(), "pool": super().pool()}
            for name, maker in UNLIKE.get(self.names, {}).items():
                rng = random.Random(5)
                sets[name] = [permuted(maker.draw(rng), rng, self.names) for _ in range(150)]
            self.drawn.update(sets)
        return self.drawn

    def kept(self, folder: Path) -> Path:
        """Where these graphs are kept."""
        return folder / f"graphs-{self.nodes}-{self.hops}-{self.edges}-{self.graphs}-{self.test_graphs}.json.gz"

    def read(self, folder: Path | None) -> None:
        """Take the graphs from a folder, if they are there."""
        if folder is not None and self.kept(folder).exists():
            for name, graphs in json.loads(gzip.decompress(self.kept(folder).read_bytes())).items():
                self.drawn[name] = [Graph(nodes, tuple(map(tuple, edges)), *rest) for nodes, edges, *rest in graphs]

    def held_out(self) -> list[Graph]:
        return self.drawn["test"] if self.drawn else super().held_out()

    def pool(self) -> list[Graph]:
        return self.drawn["pool"] if self.drawn else super().pool()


def run(name: str, fields: dict, out: Path, seconds: float, device: str, graphs: Path | None) -> None:
    """One run: train, or go on; then measure."""
    torch.set_num_threads(1)
    began = time.monotonic()
    recipe = Drawn(**fields, device=device)
    recipe.read(graphs)
    folder, wanted = out / name, recipe.warm_up + recipe.updates

    def report(line: dict) -> None:
        if "accuracy" in line or line["update"] % 250 == 0:
            print(name, *(f"{key} {line[key]:.4g}" for key in ("update", "loss", "accuracy", "seconds") if key in line), flush=True)
        if time.monotonic() - began > seconds and (folder / "training.pt").exists() and line["update"] < wanted:
            raise _OutOfTime

    with contextlib.suppress(_OutOfTime):
        recipe.run(folder, resume=(folder / "training.pt").exists(), report=report)
    model = recipe.model().eval()
    content = torch.load(folder / "training.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(content["model"])
    trained = time.monotonic() - began
    updates = content["update"]
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
    result = {"name": name, "recipe": fields_of(recipe), "updates": updates, "complete": updates == wanted}
    result |= {"seconds": trained, "machine": f"{platform.machine()} {processor()}, one thread, {device}"}
    result |= {"torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version()}
    result["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    result["log"] = [line for line in lines if "accuracy" in line or line["update"] % 50 == 0]
    result["sets"] = measure(model, recipe, UNLIKE.get(recipe.names, {}) if result["complete"] else {})
    (out / f"{name}.json").write_text(json.dumps(result))
    print(name, "updates", updates, {key: round(value["accuracy"], 3) for key, value in result["sets"].items()}, flush=True)


def fields_of(recipe: Drawn) -> dict:
    """What says which run it was."""
    return {name: value for name, value in asdict(replace(recipe, drawn={})).items() if name != "drawn"}


def measure(model, recipe: Drawn, unlike: dict[str, GraphMaker]) -> dict[str, dict]:
    """Accuracy, graph by graph, on graphs like those of training and unlike them; with thoughts, the picture of the frontier."""
    sets: dict[str, tuple[GraphSearch, list[Graph]]] = {"test": (recipe.task, recipe.graphs_of()["test"])}
    sets |= {name: (GraphSearch(maker, recipe.names), recipe.graphs_of()[name]) for name, maker in unlike.items()}
    results = {}
    for name, (task, graphs) in sets.items():
        right = search_accuracy(model, task, graphs, recipe.method)
        results[name] = {"graphs": len(graphs), "accuracy": sum(right) / len(right), "right": "".join("01"[answer] for answer in right)}
        results[name]["floors"] = shortcut_floors(graphs)
        results[name]["edges"] = sum(len(graph.edges) for graph in graphs) / len(graphs)
        if recipe.method == "thoughts":
            results[name]["frontier"] = [asdict(split) for split in frontier_split(model, task, graphs)]
    return results


@torch.no_grad()
def tamper(model, task: GraphSearch, graphs: list[Graph]) -> dict[str, list[int]]:
    """Right answers, graph by graph, when something else is fed back: what the thoughts have to do with the answer."""
    ways = {
        "thoughts as they are": lambda state: state,
        "another problem's thoughts": lambda state: state.roll(1, 0),
        "mean thought": lambda state: state.mean(0, keepdim=True).expand_as(state),
        "noise of the same length": lambda state: (
            torch.nn.functional.normalize(noise[: len(state)], dim=-1) * state.norm(dim=-1, keepdim=True)
        ),
        "a pause token": lambda state: model.get_input_embeddings().weight[task.latent].expand_as(state),
        "likeliest node's embedding": lambda state: model.get_input_embeddings()(model.head(state)[..., : task.names].argmax(-1)),
    }
    noise = torch.randn(len(graphs), 1, model.config.text_config.hidden_size, generator=torch.Generator().manual_seed(0))
    results = {}
    for (name, way), hops in [
        *((item, task.hops) for item in ways.items()),
        *((("thoughts as they are", ways["thoughts as they are"]), n) for n in range(task.hops)),
    ]:
        rng = random.Random(0)
        thought = model.begin(torch.tensor([task.prompt(graph, rng) for graph in graphs]))
        for _ in range(hops):
            thought = model.think(thought.branch(way(thought.state)))
        said = model.read(model.begin(torch.full((len(graphs), 1), task.answer), after=thought)).logits[:, -1, : task.names].argmax(-1)
        right = [int(answer == graph.target) for answer, graph in zip(said.tolist(), graphs, strict=True)]
        results[name if hops == task.hops else f"{hops} of {task.hops} thoughts"] = right
    return results


FARTHER = {
    "as in training": GraphMaker(nodes=11, hops=(3, 3), edges=14, matched=True),
    "nine nodes, shortcuts": GraphMaker(nodes=9, hops=(3, 3), edges=12),
    "5 hops, shortcuts": GraphMaker(nodes=14, hops=(5, 5), edges=20),
    "denser": GraphMaker(nodes=11, hops=(3, 3), edges=20, parents=2.2, matched=True),
    "14 nodes": GraphMaker(nodes=14, hops=(3, 3), edges=18, matched=True),
    "4 hops": GraphMaker(nodes=13, hops=(4, 4), edges=17, matched=True),
    "2 hops": GraphMaker(nodes=11, hops=(2, 2), edges=14, matched=True),
    "14 nodes, denser": GraphMaker(nodes=14, hops=(3, 3), edges=26, parents=2.0, matched=True),
}
"""Kinds of graphs, from those of training to those far from them; a model has as many thoughts as a kind has hops."""


def unlike(model, count: int, drawn: Path | None, path: Path) -> list[dict]:
    """Right answers on `count` graphs of each kind, none of which is of training's up to names where they could be."""
    recipe = Drawn(**{name: model.config.task[name] for name in GRAPHS})
    recipe.read(drawn)
    learned, results = set(map(likeness, recipe.pool())), []
    for name, maker in FARTHER.items():
        rng, found = random.Random(f"unlike {name}"), {}
        while len(found) < count:
            graph = maker.draw(rng)
            if likeness(graph) not in learned:
                found.setdefault(likeness(graph), permuted(graph, rng, recipe.names))
        graphs = list(found.values())
        # an edge list is never shorter than in training, where it is filled up with edges said twice
        task = GraphSearch(replace(maker, edges=max(maker.edges, recipe.edges)), recipe.names)
        right = search_accuracy(model, task, graphs)
        splits = frontier_split(model, task, graphs)
        results.append({"kind": name, "graphs": count, "right": sum(right), "interval": wilson(sum(right), count)})
        results[-1] |= {"edges": sum(len(graph.edges) for graph in graphs) / count, "floors": shortcut_floors(graphs)}
        results[-1] |= {"auc": [split.auc for split in splits], "thoughts": task.hops}
        results[-1]["frontier"] = [split.probability["optimal"] + split.probability["frontier"] for split in splits]
        path.write_text(json.dumps(results, indent=1) + "\n")  # drawing takes minutes
        print(name, sum(right), flush=True)
    return results


def unlike_table(results: list[dict]) -> str:
    """The same as a table."""
    lines = [
        "| graphs | edges | thoughts | right (95 %) | best shortcut of degree and ancestors | on the frontier after 0, 1, ... |",
        "|---|---|---|---|---|---|",
    ]
    for each in results:
        low, high = each["interval"]
        floor = max(value for name, value in each["floors"].items() if "hops" not in name)
        shares = ", ".join(f"{100 * share:.0f}" for share in each["frontier"])
        lines.append(
            f"| {each['kind']} | {each['edges']:.1f} | {each['thoughts']} | {100 * each['right'] / each['graphs']:.1f} ({100 * low:.1f} to {100 * high:.1f}) "
            f"| {100 * floor:.0f} | {shares} % |"
        )
    return "\n".join(lines)


def table(runs: list[dict]) -> str:
    """Accuracy of every arm: each seed, and all seeds together with a 95 % interval; then sets unlike training's."""
    arms: dict[tuple[str, str], list[dict]] = {}
    for run in runs:
        chosen, arm = run["name"].rsplit("-", 1)[0].split("-", 1)
        arms.setdefault((chosen, arm), []).append(run)
    unlike = sorted({name for run in runs for name in run["sets"]} - {"test"})
    lines = ["| graphs | arm | runs | updates | accuracy of each seed | together (95 %) | AUC of frontier | " + " | ".join(unlike) + " |"]
    lines.append("|" + "---|" * (7 + len(unlike)))
    for (chosen, arm), found in sorted(arms.items()):
        each = ", ".join(f"{100 * run['sets']['test']['accuracy']:.1f}" for run in found)
        frontier = [run["sets"]["test"]["frontier"] for run in found if "frontier" in run["sets"]["test"]]
        auc = " ".join(f"{statistics.mean(split['auc'] for split in splits):.3f}" for splits in zip(*frontier, strict=True)) or "-"
        updates = ", ".join(sorted({str(run["updates"]) + ("" if run["complete"] else " (cut)") for run in found}))
        rest = [_share([run["sets"][name] for run in found if name in run["sets"]]) for name in unlike]
        cells = [chosen, arm, str(len(found)), updates, each, _share([run["sets"]["test"] for run in found]), auc, *rest]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _share(measured: list[dict]) -> str:
    """All seeds together: the share of right answers, with Wilson's interval."""
    if not measured:
        return "-"
    right, count = sum(each["right"].count("1") for each in measured), sum(each["graphs"] for each in measured)
    low, high = wilson(right, count)
    return f"{100 * right / count:.1f} ({100 * low:.1f} to {100 * high:.1f})"


@torch.no_grad()
def draw(name: str, path: Path, chosen: int | None) -> None:
    """Draw one test graph thought by thought, and the average over all test graphs."""
    model = load(name, device="cpu")
    recipe = Superposition(**{name: model.config.task[name] for name in GRAPHS})
    task, graphs = recipe.task, recipe.held_out()
    right = [place for place, answered in enumerate(search_accuracy(model, task, graphs)) if answered]
    widest = max(right, key=lambda place: sorted(len(graphs[place].frontier(hops + 1)) for hops in range(task.hops - 1)))
    chosen = widest if chosen is None else chosen
    graph = graphs[chosen]
    thought = model.begin(torch.tensor([task.prompt(graph, random.Random(chosen))]))
    rows = []
    for count in range(task.hops + 1):
        thought = model.think(thought) if count else thought
        if count < task.hops:
            rows.append(
                (f"after {count} thoughts" if count > 1 else "after 1 thought" if count else "at once", nodes(model, thought, task))
            )
    said = model.begin(torch.tensor([[task.answer]]), after=thought)
    rows.append((f"the answer, after {task.hops}", nodes(model, said, task)))
    splits = frontier_split(model, task, graphs)
    about = f"{LETTERS[graph.root]} reaches {LETTERS[graph.target]} (green ring), not {LETTERS[graph.distractor]} (red ring)"
    plot_frontier(graph, rows, splits, path, f"What the model would say if it stopped thinking now: {about}")
    shown = [{"when": when, "probability": probability} for when, probability in rows]
    numbers = {"graph": asdict(graph), "panels": shown, "graphs": len(graphs), "splits": [asdict(split) for split in splits]}
    path.with_suffix(".json").write_text(json.dumps(numbers, indent=1))


def nodes(model, thought, task: GraphSearch) -> list[float]:
    """The probability of every node, among the nodes."""
    return model.read(thought).logits[0, -1, : task.names].softmax(-1).tolist()


def processor() -> str:
    """What the machine calls its processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(": ", 1)[1]
    return platform.processor()


if __name__ == "__main__":
    main()
