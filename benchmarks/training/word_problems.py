"""One base, one set of problems, equal compute: chain of thought, continuous thought and recurrent depth side by side.

    python benchmarks/training/word_problems.py OUT --seconds 3000 --device cuda --seeds 0 1 2
    python benchmarks/training/word_problems_table.py OUT

The base is SmolLM2-135M; the problems are `tasks.worded`, whose templates are split in two: none of the test's was trained on. Every arm
makes as many updates of 256 problems as `--flops` allows, counted column by column as it computes them (`equal_compute.py`). Arms train one
after another, all of a seed before the next. Each leaves OUT/ARM-SEED.json; one that is there is not run again, one that would not fit into
`--seconds` is not begun, and one that time cut short is measured as it is and says so.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import multiprocessing
import pickle
import random
import shutil
import time
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from card import forget, machine
from equal_compute import answer_flops, training_flops

from latentweaver.errors import InputError
from latentweaver.evaluate.answers import seconds_per_answer
from latentweaver.recipes.stepwise import graded
from latentweaver.recipes.word_problems import WordProblems, WordsWithSteps
from latentweaver.recipes.wording import examples
from latentweaver.tasks.worded.shortcuts import all_move, chance, choices, look
from latentweaver.training.curriculum import Example
from latentweaver.training.depth import Fixed
from latentweaver.training.loop import Settings, compile_blocks, train
from latentweaver.training.recorded import Recorded, shape_of

TAUGHT: dict[str, Any] = {"compile": False}
ARMS: dict[str, dict[str, Any]] = {
    "cot": {"method": "cot"},
    "no-cot": {"method": "no-cot"},
    "coconut": {"method": "coconut"},
    "pause": {"method": "pause"},
    "recurrent-coconut": {"method": "coconut", "loops": 6},
    "recurrent": {"method": "no-cot", "loops": 6},
    "no-thoughts": {"method": "no-thoughts"},
    "pccot": {"method": "pccot", **TAUGHT},
    "recurrent-no-thoughts": {"method": "no-thoughts", "loops": 6},
    "no-curriculum": {"method": "no-curriculum"},
    "codi": {"method": "codi", **TAUGHT},
    "icot": {"method": "icot"},
}
"""In the order in which they are run. Pause tokens in several passes are not among them: they compute the numbers of "pause"."""

COMMON: dict[str, Any] = {"tasks": ("sums", "counters", "swaps", "arrows"), "difficulty": 6, "base": "smollm2-135m", "epochs": 12}
COMMON |= {"warm_epochs": 1, "epochs_per_stage": 1, "max_latent_stage": 6, "limit": 192, "batch_size": 64, "accumulate": 4}
COMMON |= {"lr": 5e-4, "cooldown": 0.3, "precision": "bf16", "compile": True, "record": True, "grid": 16}
DEEPER = 4
"""How many steps deeper than in training the deeper test goes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=3000, help="time for this call")
    parser.add_argument("--flops", type=float, default=3e15, help="training compute of each run")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--problems", type=int, default=60_000, help="problems to draw for training")
    parser.add_argument("--test-problems", type=int, default=1000)
    parser.add_argument("--more", type=json.loads, default={}, help="fields of the recipe for all arms, as JSON")
    parser.add_argument(
        "--pool", type=Path, help="where the problems for training are kept, drawn if it is not there; OUT/pool.pickle.gz if left out"
    )
    parser.add_argument("--jobs", type=int, default=8, help="processes that draw problems")
    parser.add_argument("--state", type=Path, help="where a run keeps its log and checkpoint while it trains; OUT/state if left out")
    parser.add_argument(
        "--speeds", type=int, default=0, metavar="BATCHES", help="measure how fast each arm trains on so many batches, and train nothing"
    )
    options = parser.parse_args()
    options.began = time.time()
    options.state = options.state or options.out / "state"
    for folder in (options.out, options.state):
        folder.mkdir(parents=True, exist_ok=True)
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.assume_static_by_default = False  # rows are of many lengths: one piece of code for all of them
    bench = Bench(options)
    say(options, "base and problems read")
    if options.speeds:
        for arm in options.arms:
            attempt(options, arm, lambda arm=arm: bench.speed(arm, options.speeds))
    else:
        bench.all()


def say(options: argparse.Namespace, *words: Any) -> None:
    print(f"[{time.time() - options.began:6.1f} s]", *words, flush=True)


def attempt(options: argparse.Namespace, name: str, what: Any) -> Any:
    """Do it; if it fails, say so and let the others go on."""
    try:
        return what()
    except Exception:
        say(options, name, "failed")
        traceback.print_exc()
        return None
    finally:
        forget(options.device)


# Problems ----------------------------------------------------------------------------------------------------------------


def pool_of(options: argparse.Namespace) -> list[Example]:
    """The training problems as tokens, drawn by several processes once and kept."""
    kept = options.pool or options.out / "pool.pickle.gz"
    if not kept.exists():
        began, jobs = time.monotonic(), options.jobs
        recipe = WordProblems(**{**COMMON, **options.more})
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            parts = pool.starmap(_drawn, [(recipe, options.problems // jobs, part) for part in range(jobs)])
        kept.write_bytes(gzip.compress(pickle.dumps([example for part in parts for example in part])))
        say(options, f"{options.problems} problems drawn in {time.monotonic() - began:.0f} s")
    return [Example(*each) for each in pickle.loads(gzip.decompress(kept.read_bytes()))]  # written by this script


def _drawn(recipe: WordProblems, count: int, part: int) -> list[tuple[list[int], list[list[int]], list[int]]]:
    torch.set_num_threads(1)
    from latentweaver.checkpoints.bases import tokenizer_of

    made = examples(recipe.drawn("train", count, part), tokenizer_of(recipe.base or ""))
    return [(example.question, example.steps, example.answer) for example in made]


def about(item: WordsWithSteps) -> dict[str, Any]:
    """A problem's kind, how many steps its answer is away, among how many answers of the right kind a guess has to choose, the chance
    of being right with at most one step and at most two, and on swaps that all move the thing asked for by a look at the first two."""
    asked = item.asked
    told = item.task == "swaps" and all_move(asked)
    found = {"kind": item.task, "hops": item.difficulty, "choices": choices(asked), "shortcuts": [chance(asked, most) for most in (1, 2)]}
    return found | ({"look": look(asked)} if told else {})


@dataclass(frozen=True)
class Fresh:
    """Batches drawn anew from a pool: batch i of `count` depends on (seed, i) alone, and belongs to epoch i * epochs // count."""

    pool: list[Example]
    batch_size: int
    count: int
    epochs: int
    make: Any
    seed: int

    def epoch(self, index: int) -> int:
        return index * self.epochs // self.count

    def __getitem__(self, index: int) -> Any:
        rng = random.Random(f"batch {self.seed} {index}")
        return self.make(rng.choices(self.pool, k=self.batch_size), self.epoch(index), rng)


# Runs --------------------------------------------------------------------------------------------------------------------


class _OutOfTime(Exception):
    pass


class Bench:
    """What the arms share: the base, read once, and the problems."""

    def __init__(self, options: argparse.Namespace) -> None:
        from latentweaver.checkpoints.bases import load_decoder
        from latentweaver.models.continuous_thought import add_markers

        self.options, self.pool, self.sets = options, pool_of(options), {}
        self.decoder, self.tokenizer = load_decoder({**COMMON, **options.more}["base"])
        add_markers(self.decoder, self.tokenizer)
        if (ends := {example.answer[-1] for example in self.pool}) != {self.tokenizer.eos_token_id}:
            raise InputError(
                f"the problems end with token {', '.join(map(str, ends))}, this tokenizer's answers with {self.tokenizer.eos_token_id}: "
                "they were drawn with another version of transformers; draw them anew"
            )

    def all(self) -> None:
        """Every arm of every seed that time is left for."""
        options, took = self.options, {}
        ends = options.began + options.seconds
        for seed in options.seeds:
            for arm in options.arms:
                kept, name = options.out / f"{arm}-{seed}.json", f"{arm}-{seed}"
                if kept.exists() and json.loads(kept.read_text())["complete"]:
                    continue
                if time.time() + took.get(arm, 60) > ends:
                    say(options, name, "is left out: no time")
                    continue
                began = time.time()
                result = attempt(options, name, lambda arm=arm, seed=seed: self.run(arm, seed, ends))
                if result is not None:
                    took[arm] = time.time() - began
                    kept.write_text(json.dumps(result))

    def recipe(self, arm: str, seed: int) -> WordProblems:
        """The recipe of an arm, its decoder a copy of the base."""
        options = self.options
        fields = {**COMMON, **ARMS[arm], **options.more, "seed": seed}
        recipe = WordProblems(**fields, device=options.device, problems=len(self.pool), test_problems=options.test_problems)
        longest = max(sum(map(len, example.steps)) for example in self.pool)
        stages = recipe.max_latent_stage * recipe.epochs_per_stage  # by the end of which no token of a step may be left
        recipe = replace(recipe, removed_per_epoch=max(recipe.removed_per_epoch, -(-longest // stages)))
        vars(recipe)["parts"] = recipe.looped(copy.deepcopy(self.decoder)), self.tokenizer
        return recipe

    def problems(self, recipe: WordProblems) -> dict[str, list[Any]]:
        """What is asked, drawn once for all arms: templates of the test's side, of the training's, and of the test's, but deeper."""
        if not self.sets:
            count, deepest = recipe.test_problems, recipe.difficulty
            deeper = replace(recipe, difficulty=deepest + DEEPER).drawn("test", 2 * count)
            self.sets["unseen"] = recipe.drawn("test", count)
            self.sets["seen"] = recipe.drawn("train", count // 2, part=10**6)
            self.sets["deeper"] = [item for item in deeper if about(item)["hops"] > deepest]
            described = {label: [about(item) for item in items] for label, items in self.sets.items()}
            (self.options.out / "problems.json").write_text(json.dumps(described))
        return self.sets

    def stream(self, recipe: WordProblems, updates: int) -> Fresh:
        """The training batches, drawn in the same way for all arms: one whose batches were of like length could not be compared with others."""
        return Fresh(self.pool, recipe.batch_size, updates * recipe.accumulate, recipe.epochs, recipe.lesson.batch, recipe.seed)

    def cost(self, recipe: WordProblems, rows: int = 512) -> list[float]:
        """Operations of training for one problem at each epoch, over the same problems for all arms."""
        found = []
        for epoch in range(recipe.epochs):
            make = lambda rows, _, rng, epoch=epoch: recipe.lesson.batch(rows, epoch, rng)  # noqa: E731
            stream = Fresh(self.pool, recipe.batch_size, 1, 1, make, 0)
            found.append(training_flops(recipe, (stream[index] for index in range(-(-rows // recipe.batch_size)))))
        return found

    def run(self, arm: str, seed: int, ends: float) -> dict[str, Any]:
        """Train an arm and measure it."""
        options, recipe, began = self.options, self.recipe(arm, seed), time.monotonic()
        name, lesson, cost = f"{arm}-{seed}", recipe.lesson, self.cost(recipe)
        rows = recipe.batch_size * recipe.accumulate
        updates = max(int(options.flops * len(cost) / (rows * sum(cost))), recipe.epochs)
        stream, asked = self.stream(recipe, updates), self.problems(recipe)["unseen"]
        settings = Settings.of(
            recipe,
            updates=updates,
            warmup=max(updates // 30, 1),
            workers=1 if options.device != "cpu" else 0,
            evaluate_every=max(updates // 2, 1),
            checkpoint_every=10**9,
            log_every=10,
        )
        made = {"update": 0}

        def measure(model: Any) -> dict[str, float]:
            epoch = stream.epoch(min(made["update"] + 10, updates - 1) * recipe.accumulate)
            return {"accuracy": self.asked(model, recipe, asked[:: max(len(asked) // 200, 1)], epoch)["accuracy"]}

        def report(line: dict[str, Any]) -> None:
            made["update"] = line["update"]
            if "accuracy" in line or line["update"] % 50 == 0:
                say(options, name, *(f"{key} {line[key]:.4g}" for key in ("update", "loss", "norm", "accuracy", "seconds") if key in line))
            if time.time() > ends - 20 and line["update"] < updates:
                raise _OutOfTime

        folder, model = options.state / name, recipe.model()
        shutil.rmtree(folder, ignore_errors=True)
        say(options, f"{name}: {updates} updates of {rows}, {sum(cost) / len(cost) / 1e9:.2f} GFLOP a problem")
        complete, trains = True, time.monotonic()
        try:
            train(model, lesson.objective(), Fixed(0, 1), stream, settings, folder, False, measure, report)
        except _OutOfTime:
            complete = False
        trained = time.monotonic() - trains
        log = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
        shutil.rmtree(folder)
        fields = {key: value for key, value in asdict(recipe).items() if key not in ("device", "workers")}
        result = {
            "name": name,
            "arm": arm,
            "seed": seed,
            "complete": complete,
            "updates": log[-1]["update"],
            "planned": updates,
            "rows": rows,
        }
        result |= {
            "recipe": fields,
            "flops_a_problem": cost,
            "flops": rows * sum(cost[stream.epoch(update * recipe.accumulate)] for update in range(log[-1]["update"])),
            "seconds": trained,
            "log": log,
        }
        result |= {"machine": machine(options.device), "torch": torch.__version__, "transformers": transformers.__version__}
        if options.device.startswith("cuda"):
            result["gigabytes"] = torch.cuda.max_memory_reserved() / 1e9
        forget(options.device)
        result["sets"] = self.measured(model.eval(), recipe, stream.epoch(result["updates"] * recipe.accumulate - 1))
        shown = {label: round(found["accuracy"], 3) for label, found in result["sets"].items()}
        say(options, name, f"{trained:.0f} s to train, {time.monotonic() - began:.0f} s in all", shown, "" if complete else "CUT")
        return result

    def asked(self, model: Any, recipe: WordProblems, items: list[Any], epoch: int) -> dict[str, Any]:
        """What a model does with some problems, as they stand at an epoch of its curriculum."""
        lesson, tokenizer = recipe.lesson, self.tokenizer
        prompts = [lesson.prompt(example, epoch) for example in examples(items, tokenizer)]
        with torch.compiler.set_stance("force_eager"):
            right, said = graded(model, tokenizer, items, prompts, recipe.limit, batch_size=512)
        found: dict[str, Any] = {
            "problems": len(items),
            "accuracy": sum(right) / len(right),
            "right": "".join("01"[each] for each in right),
        }
        found["ended"] = sum(tokenizer.eos_token_id in each.tokens for each in said) / len(said)
        found["columns"] = sum(each.cost for each in said) / len(said)
        iterations = recipe.iterations + 1 if lesson.method.refine else 1
        found["flops_of_an_answer"] = answer_flops(recipe.parts[0], list(map(len, prompts)), said, lesson.thoughts, iterations)
        return found

    def measured(self, model: Any, recipe: WordProblems, epoch: int) -> dict[str, Any]:
        """All sets, and the wall time of an answer asked alone."""
        sets = {label: self.asked(model, recipe, items, epoch) for label, items in self.problems(recipe).items()}
        alone = [recipe.lesson.prompt(example, epoch) for example in examples(self.sets["unseen"][:4], self.tokenizer)]
        with torch.compiler.set_stance("force_eager"):
            taken = seconds_per_answer(model, alone, self.tokenizer.eos_token_id, recipe.limit, model.config.latent_token_id)
        sets["unseen"]["seconds_of_an_answer"] = taken
        return sets

    def speed(self, arm: str, batches: int) -> None:
        """Say how fast an arm trains at the last of its epochs, each shape's first two batches left out; the weights are left alone."""
        options, recipe, began = self.options, self.recipe(arm, 0), time.monotonic()
        device, last = torch.device(options.device), recipe.epochs - 1
        model, objective = recipe.model().to(device).train(), recipe.lesson.objective()
        if recipe.compile:
            compile_blocks(model)

        def descend(batch: Any, steps: tuple[int, int], seed: int) -> tuple[torch.Tensor, Any]:
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                terms = objective(model, batch, steps, seed)
            terms.loss.backward()
            return terms.loss.detach(), terms

        learn = Recorded(descend, model) if device.type == "cuda" and recipe.record else descend
        make = lambda rows, _, rng: recipe.lesson.batch(rows, last, rng)  # noqa: E731
        stream = Fresh(self.pool, recipe.batch_size, 1, 1, make, 1)
        flops = training_flops(recipe, (stream[index] for index in range(2))) * recipe.batch_size
        seen: dict[Any, list[float]] = {}
        for index in range(batches):
            batch, start = stream[index].to(device), time.monotonic()
            learn(batch, (0, 1), 0)[0].item()
            seen.setdefault(shape_of(batch), []).append(time.monotonic() - start)
        known = [took for times in seen.values() for took in times[2:]] or [times[-1] for times in seen.values()]
        took, first = sum(known) / len(known), [f"{1000 * took:.0f}" for times in seen.values() for took in times[:2]]
        memory = torch.cuda.max_memory_reserved() / 1e9 if device.type == "cuda" else 0.0
        say(options, f"{arm}: {1000 * took:.0f} ms for {recipe.batch_size}, {flops / took / 1e12:.1f} TFLOP/s, {memory:.0f} GB,")
        say(options, f"{len(seen)} shapes, first two of each {' '.join(first)} ms, {time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
