"""Problems in words by every method and control, from nothing: many runs side by side, then what each of them can do.

    python benchmarks/training/prosqa.py RUNS OUT --seconds 480 --devices cuda:0 cuda:1
    python benchmarks/training/prosqa.py RUNS OUT --only coconut-0 cot-0

RUNS is a JSON file: for every run its recipe ("prosqa", "prontoqa") and the recipe's fields. Runs with "seconds" come first, train for
that long, and keep their decoder; others may begin with it ("base": its name), with as many updates for all of them as the slowest
has time for ("fit": true). Each run leaves OUT/NAME.json and its
log; models are kept in OUT/NAME/model. A run that is stopped by `--seconds` before its curriculum is over is not measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from latentweaver import recipes
from latentweaver.recipes.comparing import SOFT, ablated, floors_of, measure, softened
from latentweaver.recipes.methods import METHODS
from latentweaver.recipes.wording import examples
from latentweaver.tasks.graphs import GraphMaker
from latentweaver.tasks.prosqa import ProsQA


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
        together = [name for name, about in runs.items() if about.get("fit") and (not options.only or name in options.only)]
        run(options.one, runs[options.one], together, options.out, options.seconds, options.devices[0])
        return
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = {name: about for name, about in runs.items() if not options.only or name in options.only}
    bases = {name: about for name, about in chosen.items() if "seconds" in about}
    began = time.monotonic()
    launch(options, bases, options.seconds)
    rest = {name: about for name, about in chosen.items() if name not in bases}
    launch(options, rest, options.seconds - (time.monotonic() - began))


def launch(options: argparse.Namespace, runs: dict[str, dict], seconds: float) -> None:
    """One process a run, at most `jobs` at a time; they share the devices in turn."""
    began, running, started, waiting = time.monotonic(), [], 0, list(runs)
    while waiting or running:
        running = [process for process in running if process.poll() is None]
        while waiting and len(running) < options.jobs:
            name, device = waiting.pop(0), options.devices[started % len(options.devices)]
            left = seconds - (time.monotonic() - began)
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
            command += ["--only", *options.only] if options.only else []
            with (options.out / f"{name}.log").open("w") as log:
                running.append(subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}))
            started += 1
        time.sleep(0.5)


def fitted(recipe: Any, name: str, out: Path, together: list[str], ends: float) -> int:
    """Problems of an epoch, the same for all runs that go on together, so that the slowest has made its updates when time `ends`.

    All of them try for some seconds how long an update takes while the others do the same, and wait for each other before and after.
    """
    meet(out, "ready", name, together, 0.0)
    trial = replace(recipe, problems=recipe.batch_size)
    model = trial.model().to(recipe.device).train()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-9)
    batch = trial.lesson.batch(examples(trial.items, trial.tokenizer), 10**6, random.Random(0)).to(recipe.device)
    began, times = time.monotonic(), []
    while time.monotonic() - began < TRIAL or len(times) < 3:
        start = time.monotonic()
        with torch.autocast(model.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss = trial.lesson.objective()(model, batch, (0, 1), 0).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        loss.item()
        times.append(time.monotonic() - start)
    slowest = meet(out, "speed", name, together, sum(times[1:]) / len(times[1:]))
    updates = 0.75 * (ends - time.monotonic()) / slowest
    print(f"an update takes up to {slowest:.3f} s: {updates:.0f} updates", flush=True)
    return min(max(round(updates / recipe.epochs), 20), 280) * recipe.batch_size


def meet(out: Path, what: str, name: str, together: list[str], value: float) -> float:
    """Leave a number for the others and wait, not for ever, until each has left one; the largest."""
    (out / f"{what}-{name}").write_text(str(value))
    began, places = time.monotonic(), [out / f"{what}-{other}" for other in together]
    while time.monotonic() - began < 60 and not all(place.exists() for place in places):
        time.sleep(0.2)
    return max(float(place.read_text() or 0) for place in places if place.exists())


TRIAL = 8.0
"""Seconds for which runs try how long an update takes."""


class OutOfTime(Exception):
    pass


def run(name: str, about: dict, together: list[str], out: Path, seconds: float, device: str) -> None:
    """One run: train, then measure."""
    began = time.monotonic()
    torch.set_num_threads(1)
    fields = dict(about)
    kind = fields.pop("recipe")
    seconds = min(seconds, fields.pop("seconds", seconds))
    if "base" in fields:
        fields["base"] = str(out / fields["base"] / "decoder")
    fit = fields.pop("fit", False)
    recipe = recipes.RECIPES[f"{kind}-{fields.pop('method')}"](**{**fields, "device": device})
    if fit:
        recipe = replace(recipe, problems=fitted(recipe, name, out, together, began + seconds))
    folder, last = out / name, {"update": 0}

    def report(line: dict) -> None:
        last.update(line)
        if "accuracy" in line or line["update"] % 100 == 0:
            print(*(f"{key} {line[key]:.4g}" for key in ("update", "loss", "accuracy", "seconds") if key in line), flush=True)
        if time.monotonic() - began > seconds and line["update"] < recipe.updates:
            raise OutOfTime

    with contextlib.suppress(OutOfTime):
        recipe.run(folder, report=report)
    if "seconds" in about:  # what other runs begin with
        decoder, tokenizer = recipe.parts
        decoder.save_pretrained(folder / "decoder")
        tokenizer.save_pretrained(folder / "decoder")
        model = recipe.model().eval()
        model.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
    result = {"name": name, "run": about, "updates": last["update"], "of": recipe.updates, "complete": last["update"] == recipe.updates}
    result |= {"seconds": time.monotonic() - began, "device": device, "torch": torch.__version__, "transformers": transformers.__version__}
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
    result["log"] = [line for line in lines if "accuracy" in line or line["update"] % 100 == 0]
    (out / f"{name}.json").write_text(json.dumps(result))  # in case measuring does not end
    if not (folder / "model" / "config.json").is_file():
        return
    from latentweaver.checkpoints.loading import load, load_tokenizer

    trained, tokenizer = load(folder / "model", device=device), load_tokenizer(folder / "model")
    sets = problems(recipe)
    methods = [about["method"], SOFT] if about["method"] == "cot" else [about["method"]]
    result["measured"] = {
        method: {
            label: measure(
                trained if method != SOFT else softened(trained), tokenizer, items, method, recipe.seed, timed=20 * (label == "test")
            ).as_dict()
            for label, items in sets.items()
        }
        for method in methods
    }
    result["floors"] = {label: floors_of(items) for label, items in sets.items()}
    (out / f"{name}.json").write_text(json.dumps(result))
    if recipe.lesson.thoughts and METHODS[about["method"]].feedback != "pause":
        result["ablations"] = [effect.as_dict() for effect in ablated(trained, tokenizer, sets["test"])]
    (out / f"{name}.json").write_text(json.dumps(result))
    print({method: {label: measured["accuracy"] for label, measured in each.items()} for method, each in result["measured"].items()})


def problems(recipe: Any) -> dict[str, list[Any]]:
    """The test problems, and for ProsQA graphs unlike those of training: longer paths, more edges; nodes permuted."""
    sets = {"test": recipe.test_items()}
    if recipe.name == "prosqa":
        low, high = recipe.hops
        for label, maker in {
            "longer": GraphMaker(nodes=recipe.nodes + 6, hops=(high + 1, high + 2)),
            "denser": GraphMaker(nodes=recipe.nodes, hops=(low, high), parents=2.0),
        }.items():
            rng = random.Random(label)
            sets[label] = [ProsQA(maker).draw(rng) for _ in range(300)]
    return sets


if __name__ == "__main__":
    main()
