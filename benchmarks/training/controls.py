"""What the claim of `weaver-chains` rests on: the recipe beside its controls, side by side on one GPU, evaluated alike.

    chains                the recipe
    chains-answers-only   the same, no value supervised but the answer
    chains-no-loop        the same blocks applied once
    chains-no-loop-deep   ten blocks of their own, applied once; also for twice the updates, about the recipe's work in blocks

python benchmarks/training/controls.py OUT --updates 3600 --seconds 460 --set compile=true --set 'precision="bf16"'
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch
import transformers

from latentweaver import recipes, tasks
from latentweaver.evaluate import accuracy_against_steps
from latentweaver.training import checkpoint

DEPTHS, STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32), (1, 2, 4, 8, 16, 18, 20, 32, 40, 64)
RUNS = {
    "chains": ("chains", 1, 3),
    "answers-only": ("chains-answers-only", 1, 3),
    "no-loop": ("chains-no-loop", 1, 5),
    "no-loop-deep": ("chains-no-loop-deep", 1, 5),
    "no-loop-deep-twice": ("chains-no-loop-deep", 2, 7),
}
"""Name: recipe, times the updates, processes that make batches."""


class TimeIsUp(Exception):
    pass


def one(name: str, out: Path, updates: int, seconds: float, problems: int, overrides: dict) -> None:
    """Train a run until it has made its updates, or `seconds` are over; then measure what it has become."""
    recipe_name, times, workers = RUNS[name]
    recipe = recipes.RECIPES[recipe_name](**{"updates": times * updates, "workers": workers, **overrides})
    folder, began = Path(tempfile.mkdtemp()), time.monotonic()

    def report(line: dict) -> None:
        if time.monotonic() - began > seconds:
            raise TimeIsUp

    finished = False
    with contextlib.suppress(TimeIsUp):
        recipe.run(folder, report=report)
        finished = True
    trained = time.monotonic() - began
    content = torch.load(folder / checkpoint.NAME, map_location="cpu", weights_only=True)
    model = recipe.model()
    model.load_state_dict(content["model"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).eval()
    steps = STEPS if recipe.high_steps > 1 else (1, 2)
    table = accuracy_against_steps(model, tasks.Chains(recipe.statements), steps, DEPTHS, problems, seed=100, batch_size=250)
    record = {
        "recipe": recipe_name,
        "fields": asdict(recipe),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "finished": finished,
        "updates": content["update"],
        "seconds": round(trained, 1),
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__},
        "accuracy": json.loads(table.to_json()),
    }
    (out / f"control-{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    shutil.copy(folder / "log.jsonl", out / f"log-{name}.jsonl")
    print(f"== {name}: {content['update']} updates in {trained:.0f} s, finished {finished}\n{table}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--updates", type=int, default=3600)
    parser.add_argument("--seconds", type=float, default=460)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--only", help="one of the runs, in this process")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=JSON", help="a field of every recipe")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only:
        fields = {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in options.set)}
        one(options.only, options.out, options.updates, options.seconds, options.problems, fields)
        sys.exit()
    running = [subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--only", name]) for name in RUNS]
    sys.exit(max(process.wait() for process in running))
