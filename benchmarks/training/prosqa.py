"""Problems in words by every method and control, from nothing: many runs side by side, then what each of them can do.

    python benchmarks/training/prosqa.py RUNS OUT --seconds 480 --devices cuda:0 cuda:1
    python benchmarks/training/prosqa.py RUNS OUT --only coconut-0 cot-0

RUNS is a JSON file: for every run its recipe ("prosqa", "prontoqa") and the recipe's fields. A run that is not done after
`--seconds` is measured as it is and marked so. Each leaves OUT/NAME.json and its log; models are kept in OUT/NAME/model.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9, help="training ends after so many")
    parser.add_argument("--devices", nargs="+", default=["cpu"], help="shared by the runs in turn")
    parser.add_argument("--jobs", type=int, default=32, help="processes at a time")
    parser.add_argument("--only", nargs="+", help="these runs only")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    runs = json.loads(options.runs.read_text())
    if options.one:
        run(options.one, runs[options.one], options.out, options.seconds, options.devices[0])
        return
    options.out.mkdir(parents=True, exist_ok=True)
    began, running, started = time.monotonic(), [], 0
    waiting = [name for name in runs if not options.only or name in options.only]
    while waiting or running:
        running = [process for process in running if process.poll() is None]
        while waiting and len(running) < options.jobs:
            name, device = waiting.pop(0), options.devices[started % len(options.devices)]
            left = options.seconds - (time.monotonic() - began)
            command = [
                sys.executable,
                __file__,
                str(options.runs),
                str(options.out),
                "--one",
                name,
                "--seconds",
                str(left),
                "--devices",
                device,
            ]
            with (options.out / f"{name}.log").open("w") as log:
                running.append(subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}))
            started += 1
        time.sleep(0.5)


class OutOfTime(Exception):
    pass


def run(name: str, about: dict, out: Path, seconds: float, device: str) -> None:
    """One run: train, then measure."""
    began = time.monotonic()
    import torch
    import transformers

    from latentweaver import recipes

    torch.set_num_threads(1)
    fields = dict(about)
    kind = fields.pop("recipe")
    recipe = recipes.RECIPES[f"{kind}-{fields.pop('method')}"](**{**fields, "device": device})
    folder, last = out / name, {"update": 0}

    def report(line: dict) -> None:
        last.update(line)
        if "accuracy" in line or line["update"] % 100 == 0:
            print(*(f"{key} {line[key]:.4g}" for key in ("update", "loss", "accuracy", "seconds") if key in line), flush=True)
        if time.monotonic() - began > seconds and line["update"] < recipe.updates:
            raise OutOfTime

    with contextlib.suppress(OutOfTime):
        recipe.run(folder, report=report)
    result = {"name": name, "run": about, "updates": last["update"], "of": recipe.updates, "complete": last["update"] == recipe.updates}
    result |= {"seconds": time.monotonic() - began, "device": device, "torch": torch.__version__, "transformers": transformers.__version__}
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
    result["log"] = [line for line in lines if "accuracy" in line or line["update"] % 100 == 0]
    (out / f"{name}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
