"""ProsQA or ProntoQA by every method and control: one card, one arm after another, the same problems and epochs for all.

    python benchmarks/training/stepwise_arms.py OUT --test prosqa_test.json --valid prosqa_valid.json --seconds 1300 --base smollm2-135m
    python benchmarks/training/stepwise_arms.py OUT --task prontoqa --train prontoqa_train.json --test prontoqa_test.json --base smollm2-135m
    python benchmarks/training/stepwise_table.py OUT

One decoder, three tokens a fact, learns to write all steps first (`--steps` epochs, fewer once its loss is below `--enough`); on ProsQA,
without a pretrained `--base`, it has learned facts before that: to say what follows a name. Every arm of a seed begins with it and is shown
the same problems as often, their names and order drawn anew; the arms with a curriculum go through its stages in that time.
How often is set from the pace of a trial, so that the first arms (`--fitted`) fit in `--seconds`, or by hand (`--epochs`).
Every arm leaves OUT/ARM-SEED.json when it is done: right or wrong for each of the published problems and of sets unlike those of training
(`stepwise_tasks.py`); thoughts and tokens of an answer, its wall time, and what is left of it when thoughts are ablated.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import re
import shutil
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from card import forget, machine
from stepwise_table import ARMS, table
from stepwise_tasks import TASKS, keep_graphs

from latentweaver.checkpoints.formats import llama_tensor
from latentweaver.recipes import RECIPES
from latentweaver.recipes.comparing import ablated, floors_of, measure
from latentweaver.recipes.methods import METHODS
from latentweaver.training import working
from latentweaver.training.depth import Fixed
from latentweaver.training.loop import Settings, compile_blocks, train
from latentweaver.training.ranks import Asked
from latentweaver.training.recorded import Recorded

ASIDE = 35
"""Seconds of an arm that are no updates as usual: its shapes are met for the first time, and it is measured."""
COMMON: dict[str, Any] = {
    "width": 512,
    "layers": 8,
    "heads": 8,
    "batch_size": 128,
    "grid": 16,
    "limit": 48,
    "max_latent_stage": 6,
}
COMMON |= {"lr": 3e-4, "warmup": 50, "cooldown": 0.2, "precision": "bf16", "compile": True, "record": True, "workers": 6}
ONE_BY_ONE = {arm: {"compile": False, "batch_size": 64, "accumulate": 2} for arm in ("codi", "pccot")}
"""Taught from the states after each layer, which compiled blocks do not say."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--task", default="prosqa", choices=list(TASKS))
    parser.add_argument("--train", type=Path, help="the training problems of ProntoQA")
    parser.add_argument("--test", type=Path)
    parser.add_argument("--valid", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9, help="no arm begins that would not end in this time")
    parser.add_argument("--base", help="a pretrained decoder to begin with, which is given a vocabulary of the task's words")
    parser.add_argument("--facts", type=int, default=12, help="epochs of facts at the most, without a base")
    parser.add_argument("--steps", type=int, default=4, help="epochs of all steps in words, before the arms part")
    parser.add_argument("--enough", type=float, default=0.0, help="the loss of these that is low enough to end them before")
    parser.add_argument("--first-seconds", type=float, default=1e9, help="they end by then, loading and compiling included")
    parser.add_argument("--first-lr", type=float, default=5e-4, help="learning rate of these")
    parser.add_argument("--epochs", type=int, help="passes over the problems for each arm; from the time there is if left out")
    parser.add_argument(
        "--edges", type=int, default=48, help="train on graphs of so many edges at most, so that batches come in few shapes"
    )
    parser.add_argument("--fitted", type=int, default=4, help="how many of the arms are to fit in the time")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=8, help="processes that draw problems")
    parser.add_argument("--graphs", type=Path, help="graphs drawn beforehand (`--draw`), for a machine whose time is dear")
    parser.add_argument("--draw", type=Path, help="draw the training graphs into this file (.json.gz), and train nothing")
    parser.add_argument("--state", type=Path, default=Path("/tmp/stepwise-arms"), help="a folder for checkpoints")
    parser.add_argument("--more", type=json.loads, default={}, help="fields of the recipe for all arms, as JSON")
    parser.add_argument("--gigabytes", type=float, help="memory of the card at the most, where others need the rest")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.draw:
        keep_graphs(options.draw, options.jobs)
        return
    run_all(options)
    print(table(options.out))


BEGAN = time.monotonic()


def say(*words: Any) -> None:
    print(f"[{time.monotonic() - BEGAN:6.1f} s]", *words, flush=True)


def scheduled(epochs: int, step: int) -> dict[str, int]:
    """COCONUT's curriculum in so many epochs: its seven stages, and at least a third of them for the last; `step` tokens are a step."""
    stage = max(2 * epochs // 21, 1)
    return {"epochs": max(epochs, 8), "epochs_per_stage": stage, "removed_per_epoch": max(round(step / stage), 1)}


def run_all(options: argparse.Namespace) -> None:
    """Every arm of every seed, as far as the time goes."""
    ends, pace, task = BEGAN + options.seconds, 0.0, TASKS[options.task]
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.assume_static_by_default = False  # one piece of code for all shapes
    if options.gigabytes:
        torch.cuda.set_per_process_memory_fraction(options.gigabytes * 1e9 / torch.cuda.get_device_properties(0).total_memory)
    fields = {
        **COMMON,
        "block": task.step,
        **scheduled(options.epochs or 20, task.step),
        **task.fields(options),
        **options.more,
        "device": options.device,
        "base": options.base,
        "own_words": options.base is not None,
    }
    shared = RECIPES[f"{options.task}-cot"](**fields)
    items, sets = task.items(shared, options), task.sets(shared)
    say(f"{len(items)} problems")
    for seed in options.seeds:
        if time.monotonic() + 200 * (pace > 0) > ends:
            break
        base = begun(replace(shared, seed=seed, lr=options.first_lr), items, sets["test"], options)
        if not pace:
            pace = trial(RECIPES[f"{options.task}-coconut"](**{**fields, "seed": seed}), items, base)
            forget(options.device)
            if not options.epochs:
                arms = options.arms[: options.fitted]
                left, cost = ends - time.monotonic() - ASIDE * len(arms), sum(ARMS[arm] for arm in arms)
                epochs = max(int(left / cost / pace / (len(items) // shared.batch_size)), 8)
                fields |= scheduled(min(epochs, 50), task.step)
            say(f"{1000 * pace:.0f} ms an update of COCONUT's last stage, { ({key: fields[key] for key in scheduled(20, 1)}) }")
        for arm in options.arms:
            name = f"{arm}-{seed}"
            needs = ASIDE + ARMS[arm] * pace * fields["epochs"] * (len(items) // shared.batch_size)
            if (options.out / f"{name}.json").exists():
                continue
            if time.monotonic() + 0.9 * needs > ends:
                say(f"no time for {name}: {needs:.0f} s")
                continue
            for record in (True, False):
                try:
                    recipe = RECIPES[f"{options.task}-{arm}"](**{**fields, **ONE_BY_ONE.get(arm, {}), "seed": seed, "record": record})
                    result = run(recipe, arm, items, sets, base, options, ends)
                    (options.out / f"{name}.json").write_text(json.dumps(result))
                    done = fields["epochs"] * (len(items) // shared.batch_size) * result["updates"] / result["planned"]
                    pace = min(pace, result["seconds"] / ARMS[arm] / done)  # a trial may be slower than what follows
                    break
                except Exception:  # the other arms go on; what failed is in the log
                    say(f"{name} failed, record={record}")
                    traceback.print_exc()
                finally:
                    forget(options.device)


def trial(recipe: Any, items: list[Any], base: Any) -> float:
    """Seconds of an update at the last stage, weights left alone."""
    recipe.__dict__.update(items=items, parts=(copy.deepcopy(base), recipe.tokenizer))
    device = torch.device(recipe.device)
    model, objective, times = recipe.model().to(device).train(), recipe.lesson.objective(), []
    asked = Asked(model, objective, torch.bfloat16)
    if recipe.compile:
        compile_blocks(model)

    def descend(batch: Any, steps: tuple[int, int], seed: int) -> tuple[torch.Tensor, Any]:
        with torch.autocast(device.type, torch.bfloat16):
            loss, terms = asked(batch, steps, seed)
        loss.backward()
        working.drop(model)
        return loss.detach(), terms

    learn = Recorded(descend, model) if device.type == "cuda" and recipe.record else descend
    stream = recipe.stream()
    batches = [stream[recipe.updates - 1 - index].to(device) for index in range(6)]
    for batch in [batches[0]] * 3 + batches * 2:
        began = time.monotonic()
        learn(batch, (0, 1), 0)[0].item()
        times.append(time.monotonic() - began)
    say("trial", *(f"{1000 * each:.0f}" for each in times), "ms")
    return sorted(times)[len(times) // 2] + 0.004 * (device.type == "cuda")  # the optimiser's share


def begun(recipe: Any, items: list[Any], tests: list[Any], options: argparse.Namespace) -> Any:
    """The decoder that all arms of a seed begin with: it knows facts, and writes steps. How well is left in OUT/begun.json."""
    place = options.state / f"begun-{recipe.seed}.pt"
    recipe.__dict__["items"] = items
    decoder = recipe.parts[0]
    if place.exists():
        decoder.load_state_dict(torch.load(place))
        return decoder
    epoch = len(items) // recipe.batch_size // recipe.accumulate
    if recipe.base is None and hasattr(recipe, "facts_epochs"):
        facts = replace_kept(recipe, facts_epochs=10**6, epochs=10**7, cooldown=0.0)
        _train(facts, options.facts * epoch, options.state / f"facts-{recipe.seed}", "facts", options, 1e18, enough=FLOOR)
    if options.steps:
        folder, ends = options.state / f"steps-{recipe.seed}", BEGAN + options.first_seconds
        model = _train(recipe, options.steps * epoch, folder, "steps", options, ends, options.enough)[0].eval()
        with torch.compiler.set_stance("force_eager"):
            wrote = measure(model, recipe.tokenizer, tests, "cot", recipe.seed, batch_size=TASKS[options.task].asked)
        say(f"steps written: {wrote.accuracy:.3f} right of the test")
        (options.out / "begun.json").write_text(json.dumps(wrote.as_dict()))
    decoder.to("cpu")
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save(decoder.state_dict(), place)
    return decoder


FLOOR = 1.03
"""The loss of a decoder that knows which names follow a name, but not which of them is asked for: 1.00."""


class _Enough(Exception):
    """The loss is low enough, or the time is over."""


def replace_kept(recipe: Any, **fields: Any) -> Any:
    """`replace`, with what the recipe has made so far."""
    other = replace(recipe, **fields)
    other.__dict__.update(items=recipe.items, parts=recipe.parts)
    return other


def _train(
    recipe: Any, updates: int, folder: Path, name: str, options: argparse.Namespace, ends: float, enough: float = 0.0
) -> tuple[Any, list[dict]]:
    """The trained model and its log; a model whose loss has been below `enough` for a hundred updates has learned enough."""
    shutil.rmtree(folder, ignore_errors=True)
    settings = Settings.of(recipe, updates=updates, log_every=20, checkpoint_every=10**9, evaluate_every=10**9)
    model, began, first, lines = recipe.model(), time.monotonic(), [0.0, 0], []

    def report(line: dict[str, Any]) -> None:
        lines.append(line)
        if line["update"] % 100 == 0 or line["update"] in (20, updates):
            pace = (time.monotonic() - first[0]) / max(line["update"] - first[1], 1) if first[1] else 0.0
            first[:] = time.monotonic(), line["update"]
            memory = torch.cuda.max_memory_reserved() / 1e9 if options.device.startswith("cuda") else 0.0
            say(name, *(f"{key} {line[key]:.4g}" for key in ("update", "loss", "norm")), f"{1000 * pace:.0f} ms an update, {memory:.0f} GB")
        if len(lines) > 5 and sum(each["loss"] for each in lines[-5:]) < 5 * enough:
            raise _Enough
        if time.monotonic() > ends:
            say(f"{name} is cut by the time at update {line['update']} of {updates}")
            raise _Enough

    with contextlib.suppress(_Enough):
        train(model, recipe.lesson.objective(), Fixed(0, 1), recipe.stream(), settings, folder, report=report)
    shutil.rmtree(folder, ignore_errors=True)
    say(f"{name}: {time.monotonic() - began:.1f} s for {lines[-1]['update']} updates, loss {lines[-1]['loss']:.3f}")
    return model, lines


def run(recipe: Any, arm: str, items: list[Any], sets: dict, base: Any, options: argparse.Namespace, ends: float) -> dict[str, Any]:
    """Train an arm from the decoder that all begin with, and measure it."""
    began, task = time.monotonic(), TASKS[options.task]
    recipe.__dict__["items"] = items
    tokenizer = recipe.tokenizer
    decoder = plain(recipe, base) if arm in ONE_BY_ONE and hasattr(base.config, "prelude_layers") else copy.deepcopy(base)
    recipe.__dict__["parts"] = decoder, tokenizer
    name = f"{arm}-{recipe.seed}"
    model, lines = _train(recipe, recipe.updates, options.state / name, name, options, ends - ASIDE)
    trained = time.monotonic() - began
    model.eval()
    result: dict[str, Any] = {
        "name": name,
        "arm": arm,
        "task": options.task,
        "seed": recipe.seed,
        "updates": lines[-1]["update"],
        "planned": recipe.updates,
        "shown": lines[-1]["update"] * recipe.batch_size * recipe.accumulate,
    }
    first = {"epochs of facts at most": 0 if options.base else options.facts, "epochs of steps": options.steps, "lr": options.first_lr}
    first |= {"enough": options.enough}
    result |= {"first": first, "seconds": trained, "machine": machine(options.device)}
    result |= {"torch": torch.__version__, "transformers": transformers.__version__}
    result["recipe"] = {key: "published" if isinstance(value, Path) else value for key, value in asdict(recipe).items()} | {"device": None}
    if options.device.startswith("cuda"):
        result["gigabytes"] = torch.cuda.max_memory_reserved() / 1e9
    result["log"] = [line for line in lines if line["update"] % 100 == 0]
    with torch.compiler.set_stance("force_eager"):
        result["sets"] = {
            label: measure(model, tokenizer, chosen, arm, recipe.seed, timed=10 * (label == "test"), batch_size=task.asked).as_dict()
            for label, chosen in sets.items()
        }
        result["floors"] = {label: floors_of(chosen) | recipe.floors(chosen) for label, chosen in sets.items()}
        if recipe.lesson.thoughts and METHODS[arm].feedback != "pause":
            for name_of, label in {"ablations": "test", "ablations unlike": task.unlike}.items():
                if label is not None:
                    chosen = sets[label] if task.unlike is None else sets[label][: task.asked]
                    effects = ablated(model, tokenizer, chosen, batch_size=task.asked)
                    result[name_of] = [effect.as_dict() for effect in effects]
    shown = {label: round(measured["accuracy"], 3) for label, measured in result["sets"].items()}
    say(name, f"{trained:.0f} s to train, {time.monotonic() - began:.0f} s in all", shown)
    return result


def plain(recipe: Any, base: Any) -> Any:
    """The same decoder as transformers has it, which says its states after every layer."""
    decoder, ours = recipe.parts[0], base.state_dict()
    parts = {"prelude": base.config.prelude_layers, "core": base.config.core_layers, "coda": base.config.coda_layers}
    translate = llama_tensor([f"{part}.{place}" for part, count in parts.items() for place in range(count)])
    found, taken = {}, {}
    for name, tensor in decoder.state_dict().items():
        for wanted in translate(name, tensor):
            piece = re.fullmatch(r"(.+)#\d+(\..+)", wanted)  # gate and up are one matrix of ours, one after the other
            place = piece[1] + piece[2] if piece else wanted
            start = taken.get(place, 0)
            found[name] = ours[place][start : start + len(tensor)]
            taken[place] = start + len(tensor)
    decoder.load_state_dict(found)
    return decoder


if __name__ == "__main__":
    main()
