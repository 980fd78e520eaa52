"""The superposition recipe with its controls: many runs side by side, then what each of them can do.

    python benchmarks/training/superposition.py train --set matched --out runs/superposition --seconds 500
    python benchmarks/training/superposition.py table runs/superposition benchmarks/training/superposition

`train` starts one single-threaded process for each run of a set. A run that is not done after `--seconds` is measured as it is, and
goes on from its checkpoint when the same command is given again. Each run leaves one JSON file: accuracy on graphs that occur in
no training sample and on sets unlike those of training, graph by graph, and how `read`'s probability splits at each thought.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
import transformers

from latentweaver.evaluate.frontier import frontier_split, search_accuracy
from latentweaver.recipes.superposition import Superposition
from latentweaver.tasks.graph_search import GraphSearch
from latentweaver.tasks.graphs import Graph, GraphMaker, permuted, shortcut_floors

ARMS = {
    "coconut": {},
    "no-cot": {"method": "none"},
    "cot": {"method": "cot"},
    "no-curriculum": {"curriculum": "none"},
    "pause": {"feedback": "pause"},
}
APPENDIX = {
    "nodes": 9,
    "edges": 12,
    "parents": 1.5,
    "matched": False,
    "names": 9,
    "warm_up": 450,
    "updates": 2400,
    "batch_size": 64,
    "lr": 2e-3,
}
FOUR = {"nodes": 18, "hops": 4, "edges": 28, "parents": 1.5}
SETS: dict[str, dict[str, dict]] = {
    "matched": {f"matched-{arm}-{seed}": {**fields, "seed": seed} for seed in range(3) for arm, fields in ARMS.items()},
    "appendix": {f"appendix-{arm}-{seed}": {**APPENDIX, **fields, "seed": seed} for seed in range(3) for arm, fields in ARMS.items()},
    "four": {f"four-{arm}-{seed}": {**FOUR, **fields, "seed": seed} for seed in range(3) for arm, fields in ARMS.items()},
    "learned-positions": {f"learned-positions-coconut-{seed}": {**APPENDIX, "base": "gpt2", "seed": seed} for seed in range(2)},
    "sweep": {
        f"sweep-{spread}-{norm}-{lr}": {"initializer_range": spread, "final_norm": norm, "lr": lr}
        for spread, norm, lr in ((0.05, 0.1, 1e-3), (0.05, 0.1, 2.5e-3), (0.02, 0.1, 1.5e-3))
    },
    "cold": {"cold-coconut-0": {"warm_up": 0}},
}
UNLIKE = {
    "4 hops": GraphMaker(nodes=18, hops=(4, 4), edges=28, matched=True),
    "5 hops": GraphMaker(nodes=20, hops=(5, 5), edges=30),
    "20 nodes": GraphMaker(nodes=20, hops=(3, 3), edges=36, parents=1.8, matched=True),
    "denser": GraphMaker(nodes=14, hops=(3, 3), edges=30, parents=2.6, matched=True),
}
"""Sets unlike those of training, for models with enough names: longer paths, more nodes, more edges."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    train = verbs.add_parser("train", help="all runs of some sets, side by side")
    train.add_argument("--set", nargs="+", choices=list(SETS), default=["matched"])
    train.add_argument("--arms", nargs="+", help="only runs with one of these in their names")
    train.add_argument("--jobs", type=int, default=32, help="processes at a time")
    one = verbs.add_parser("one", help="one run, in this process")
    one.add_argument("--name", required=True)
    one.add_argument("--fields", type=json.loads, required=True)
    for verb in (train, one):
        verb.add_argument("--out", type=Path, required=True)
        verb.add_argument("--seconds", type=float, default=1e9, help="stop training after so many")
        verb.add_argument("--devices", nargs="+", default=["cpu"])
        verb.add_argument("--more", type=json.loads, default={}, help="fields of the recipe for all runs, as JSON")
    options = parser.parse_args()
    if options.verb == "train":
        train_all(options)
    else:
        run(options.name, {**options.fields, **options.more}, options.out, options.seconds, options.devices[0])


def train_all(options: argparse.Namespace) -> None:
    """One process a run, at most `jobs` at a time; they share the devices in turn."""
    began, waiting, running = time.monotonic(), [], []
    for chosen in options.set:
        waiting += [item for item in SETS[chosen].items() if not options.arms or any(arm in item[0] for arm in options.arms)]
    started = 0
    while waiting or running:
        running = [process for process in running if process.poll() is None]
        while waiting and len(running) < options.jobs:
            name, fields = waiting.pop(0)
            left = options.seconds - (time.monotonic() - began)
            command = [sys.executable, __file__, "one", "--name", name, "--fields", json.dumps(fields), "--out", str(options.out)]
            command += ["--seconds", str(left), "--more", json.dumps(options.more)]
            kind, _, number = options.devices[started % len(options.devices)].partition(":")
            seen = {"CUDA_VISIBLE_DEVICES": number} if number else {}
            running.append(subprocess.Popen([*command, "--devices", kind], env={**os.environ, **seen}))
            started += 1
        time.sleep(1)


class _OutOfTime(Exception):
    pass


def run(name: str, fields: dict, out: Path, seconds: float, device: str) -> None:
    """One run: train, or go on; then measure."""
    torch.set_num_threads(1)
    began = time.monotonic()
    recipe = Superposition(**fields, device=device)
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
    result = {"name": name, "recipe": asdict(recipe), "updates": updates, "complete": updates == wanted}
    result |= {"seconds": trained, "machine": f"{platform.machine()} {processor()}, one thread, {device}"}
    result |= {"torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version()}
    result["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    result["log"] = [line for line in lines if "accuracy" in line or line["update"] % 50 == 0]
    result["sets"] = measure(model, recipe)
    (out / f"{name}.json").write_text(json.dumps(result))
    print(name, "updates", updates, {key: round(value["accuracy"], 3) for key, value in result["sets"].items()}, flush=True)


def measure(model, recipe: Superposition) -> dict[str, dict]:
    """Accuracy, graph by graph, on graphs like those of training and unlike them; with thoughts, the picture of the frontier."""
    sets: dict[str, tuple[GraphSearch, list[Graph]]] = {"test": (recipe.task, recipe.held_out())}
    for name, maker in UNLIKE.items() if recipe.names >= 20 else ():
        rng, task = random.Random(5), GraphSearch(maker, recipe.names)
        sets[name] = task, [permuted(maker.draw(rng), rng, recipe.names) for _ in range(300)]
    results = {}
    for name, (task, graphs) in sets.items():
        right = search_accuracy(model, task, graphs, recipe.method)
        results[name] = {"graphs": len(graphs), "accuracy": sum(right) / len(right), "right": "".join("01"[answer] for answer in right)}
        results[name]["floors"] = shortcut_floors(graphs)
        results[name]["edges"] = sum(len(graph.edges) for graph in graphs) / len(graphs)
        if recipe.method == "thoughts":
            results[name]["frontier"] = [asdict(split) for split in frontier_split(model, task, graphs)]
    return results


def processor() -> str:
    """What the machine calls its processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(": ", 1)[1]
    return platform.processor()


if __name__ == "__main__":
    main()
