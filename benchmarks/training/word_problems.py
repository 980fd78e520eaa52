"""One base, one set of problems, equal compute: chain of thought, continuous thought and recurrent depth side by side.

    python benchmarks/training/word_problems.py OUT --seconds 1000 --device cuda
    python benchmarks/training/word_problems.py OUT --table

The base is SmolLM2-135M; the problems are `tasks.worded`, whose templates are split in two: none of the test's was trained on. Every arm
makes as many updates as the same number of floating-point operations allows, counted column by column as it computes them, padding
left out. That number is set from speeds measured first, so that all arms fit in `--seconds`; `--flops` sets it by
hand. Seeds train one after another, or `--together` at a time, each in a process of its own. A run that time cut short goes on when the same command is given again (`--state`
keeps the checkpoints); each finished run leaves OUT/ARM-SEED.json.
"""

from __future__ import annotations

import argparse
import copy
import gc
import gzip
import json
import multiprocessing
import os
import pickle
import platform
import random
import shutil
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from latentweaver.errors import InputError
from latentweaver.evaluate.answers import seconds_per_answer
from latentweaver.evaluate.intervals import wilson
from latentweaver.models import continuous_thought, latent_block
from latentweaver.models.decoder import read_on
from latentweaver.recipes.stepwise import graded
from latentweaver.recipes.word_problems import WordProblems
from latentweaver.recipes.wording import examples
from latentweaver.tasks.token_batch import IGNORED
from latentweaver.training.curriculum import Example
from latentweaver.training.depth import Fixed
from latentweaver.training.loop import Settings, compile_blocks, train
from latentweaver.training.recorded import Recorded, shape_of

ARMS: dict[str, dict[str, Any]] = {
    "cot": {"method": "cot"},
    "no-cot": {"method": "no-cot"},
    "coconut": {"method": "coconut"},
    "recurrent": {"method": "no-cot", "loops": 6},
    "recurrent-coconut": {"method": "coconut", "loops": 6},
    "pause": {"method": "pause"},
    "codi": {"method": "codi", "compile": False, "batch_size": 64, "accumulate": 4},
    "pccot": {"method": "pccot", "compile": False, "batch_size": 64, "accumulate": 4},
    "no-thoughts": {"method": "no-thoughts"},
    "recurrent-no-thoughts": {"method": "no-thoughts", "loops": 6},
}
COMMON: dict[str, Any] = {"tasks": ("sums", "counters", "swaps", "arrows"), "difficulty": 6, "base": "smollm2-135m", "epochs": 12}
COMMON |= {"warm_epochs": 1, "epochs_per_stage": 1, "max_latent_stage": 6, "limit": 96, "batch_size": 128, "accumulate": 2}
COMMON |= {"lr": 5e-4, "cooldown": 0.3, "precision": "bf16", "compile": True, "record": True, "grid": 16}
WINDOW = 64
"""Batches that are sorted by length together, where an arm has no thoughts. The others' come in random order, and so all in one shape a stage."""


def say(options: argparse.Namespace, *words: Any) -> None:
    print(f"[{time.time() - options.began:6.1f} s]", *words, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=1000, help="time for this call")
    parser.add_argument("--total", type=float, help="time for all calls, this one among them, from which the compute is planned")
    parser.add_argument("--flops", type=float, help="training compute of each run")
    parser.add_argument("--arms", nargs="+", default=list(ARMS)[:8], choices=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--together", type=int, default=1, help="seeds that train side by side; each takes up to 25 GB of the card")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--problems", type=int, default=200_000)
    parser.add_argument("--test-problems", type=int, default=1000)
    parser.add_argument("--state", type=Path, help="where checkpoints are kept between calls; OUT/state if left out")
    parser.add_argument("--more", type=json.loads, default={}, help="fields of the recipe for all arms, as JSON")
    parser.add_argument("--pool", type=Path, help="problems drawn beforehand (state/pool-PROBLEMS.pickle of another run, gzipped)")
    parser.add_argument("--jobs", type=int, default=8, help="processes that draw problems")
    parser.add_argument("--table", action="store_true", help="print the table of OUT and train nothing")
    parser.add_argument("--batches", type=int, default=48, help="batches to measure an arm's speed with")
    parser.add_argument("--speeds", action="store_true", help="measure how fast each arm trains, and train nothing")
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, default=time.time(), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.state = options.state or options.out / "state"
    options.out.mkdir(parents=True, exist_ok=True)
    options.state.mkdir(parents=True, exist_ok=True)
    if options.table:
        print(table([json.loads(path.read_text()) for path in sorted(options.out.glob("*-[0-9].json"))]))
    elif options.seed is None:
        launch(options)
        print(table([json.loads(path.read_text()) for path in sorted(options.out.glob("*-[0-9].json"))]))
    else:
        work(options)


def launch(options: argparse.Namespace) -> None:
    """One process a seed, `together` of them at a time; all draw the same problems, which are drawn first."""
    pool_of(options)
    waiting, running = list(options.seeds), []
    while waiting or running:
        running = [process for process in running if process.poll() is None]
        late = time.time() > options.began + options.seconds
        while waiting and len(running) < options.together and not late:
            seed = waiting.pop(0)
            log = (options.out / f"seed-{seed}.log").open("a")
            command = [sys.executable, *sys.argv, "--seed", str(seed), "--began", str(options.began)]
            running.append(subprocess.Popen(command, stdout=log, stderr=log))
        if late:
            waiting = []
        if time.time() > options.began + options.seconds + 20:
            for process in running:
                process.kill()
        time.sleep(0.5)


def work(options: argparse.Namespace) -> None:
    """All arms of one seed, one after another."""
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.assume_static_by_default = False  # rows are of many lengths: one piece of code for all of them
    bench, ends = Bench(options, pool_of(options)), options.began + options.seconds
    if options.speeds:
        for arm in options.arms:
            if time.time() < ends:
                try:
                    print(f"{arm}: {bench.speed(arm, options.batches) / 1e12:.1f} TFLOP/s", flush=True)
                except Exception:  # the other arms go on
                    print(f"{arm} failed", flush=True)
                    traceback.print_exc()
        return
    flops = options.flops
    if not flops:
        try:
            flops = planned(bench, options)
        except Exception:  # without compilation everything is slower, and the same
            traceback.print_exc()
            options.more["compile"] = False
            flops = planned(bench, options)
    say(options, f"{flops:.3g} FLOP a run")
    for arm in options.arms:
        name = f"{arm}-{options.seed}"
        kept = options.state / f"{name}.json"
        if not kept.exists() and time.time() < ends - 15:
            try:
                result = bench.run(arm, flops, ends)
            except Exception:  # the other arms go on; what failed is in the log
                say(options, f"{name} failed")
                traceback.print_exc()
                options.more["record"] = False
                continue
            gc.collect()
            if options.device.startswith("cuda"):
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            if result is None:
                print(f"{name} is cut by the time; the same command goes on with it", flush=True)
                break
            kept.write_text(json.dumps(result))
        if kept.exists():
            shutil.copy(kept, options.out)


# Problems ----------------------------------------------------------------------------------------------------------------


def pool_of(options: argparse.Namespace) -> list[Example]:
    """The training problems as tokens, drawn by several processes once and kept."""
    kept = options.state / f"pool-{options.problems}.pickle"
    if options.pool and not kept.exists():
        kept.write_bytes(gzip.decompress(options.pool.read_bytes()))
    if not kept.exists():
        began, jobs = time.monotonic(), options.jobs
        recipe = WordProblems(**{**COMMON, **options.more})
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            parts = pool.starmap(_drawn, [(recipe, options.problems // jobs, part) for part in range(jobs)])
        kept.write_bytes(pickle.dumps([example for part in parts for example in part]))
        print(f"{options.problems} problems drawn in {time.monotonic() - began:.0f} s", flush=True)
    return [Example(*each) for each in pickle.loads(kept.read_bytes())]  # written by this script


def _drawn(recipe: WordProblems, count: int, part: int) -> list[tuple[list[int], list[list[int]], list[int]]]:
    torch.set_num_threads(1)
    from latentweaver.checkpoints.bases import tokenizer_of

    made = examples(recipe.drawn("train", count, part), tokenizer_of(recipe.base))
    return [(example.question, example.steps, example.answer) for example in made]


@dataclass
class Fresh:
    """Batches of like length, drawn anew from a pool: batch i of `count` depends on (seed, i) alone, and belongs to epoch i * epochs // count."""

    pool: list[Example]
    batch_size: int
    count: int
    epochs: int
    make: Any
    seed: int
    window: int = 1
    _window: tuple[int, list[list[int]]] = field(default=(-1, []), repr=False)

    def epoch(self, index: int) -> int:
        return index * self.epochs // self.count

    def __getitem__(self, index: int) -> Any:
        number, place = divmod(index, self.window)
        if self._window[0] != number:
            rng = random.Random(f"window {self.seed} {number}")
            chosen = rng.choices(range(len(self.pool)), k=self.window * self.batch_size)
            chosen.sort(key=lambda i: (len(self.pool[i].question), sum(map(len, self.pool[i].steps))))
            batches = [chosen[start : start + self.batch_size] for start in range(0, len(chosen), self.batch_size)]
            rng.shuffle(batches)
            self._window = number, batches
        rows = [self.pool[i] for i in self._window[1][place]]
        return self.make(rows, self.epoch(index), random.Random(f"batch {self.seed} {index}"))


# Compute -----------------------------------------------------------------------------------------------------------------


@dataclass
class Columns:
    """Counts what a decoder is asked to compute, in place of computing it: columns, and pairs of a column with what it looks at."""

    columns: int = 0
    pairs: int = 0
    heads: int = 0

    def __call__(self, base: Any, inputs: torch.Tensor, mask: torch.Tensor, memory: Any = None, layers: Any = None) -> Any:
        whole = mask if memory is None else torch.cat([memory["mask"], mask], 1)
        self.columns += int(mask.sum())
        self.pairs += int((mask.sum(1) * whole.sum(1)).sum())
        if layers is not None:
            layers.append((inputs,))
        return inputs, {"mask": whole}


def flops_of(decoder: Any, columns: int, pairs: int, heads: int) -> float:
    """Operations of a forward pass: two for each weight of a column, and attention to all that a row has, masked or not."""
    config, body = decoder.config, decoder.base_model
    if hasattr(body, "core"):
        once = matrices(body.prelude) + matrices(body.coda)
        looped = matrices(body.core) + matrices(body.injection)
        weights = once + config.num_steps * looped
        layers = config.prelude_layers + config.coda_layers + config.num_steps * config.core_layers
    else:
        weights, layers = matrices(body.layers), config.num_hidden_layers
    attention = 4 * config.num_attention_heads * config.head_dim * layers
    return 2.0 * weights * columns + float(attention) * pairs + 2.0 * config.hidden_size * config.vocab_size * heads


def matrices(part: torch.nn.Module) -> int:
    """The numbers in a part's matrices."""
    return sum(parameter.numel() for parameter in part.parameters() if parameter.dim() == 2)


def flops_a_row(recipe: WordProblems, decoder: Any, pool: list[Example], epochs: range | list[int], batches: int = WINDOW) -> list[float]:
    """Operations of training for one problem at each epoch of an arm, forward and backward, averaged over a window of batches."""
    lesson, counted = recipe.lesson, []
    counter_model = _counting(recipe, lesson)
    for epoch in epochs:
        stream = Fresh(pool, recipe.batch_size, 1, 1, lambda rows, _, rng, epoch=epoch: lesson.batch(rows, epoch, rng), 0)
        total = 0.0
        for index in range(batches):
            made, counter = stream[index], Columns()
            _count(counter_model, counter, lesson, made)
            total += 3 * flops_of(decoder, counter.columns, counter.pairs, counter.heads)
        counted.append(total / batches / recipe.batch_size)
    return counted


def _counting(recipe: WordProblems, lesson: Any) -> Any:
    """A model of the arm's kind of almost no size: it is there for its columns alone."""
    config = transformers.LlamaConfig(
        vocab_size=len(recipe.tokenizer),
        hidden_size=2,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=2,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = lesson.model(transformers.LlamaForCausalLM(config), recipe.iterations)
    model.wanted_loss = lambda hidden, asked, wanted: hidden.sum()  # the head is counted by what is asked
    return model


def _count(model: Any, counter: Columns, lesson: Any, batch: Any) -> None:
    for module in (continuous_thought, latent_block):
        module.read_on = counter  # type: ignore[assignment]
    try:
        with torch.no_grad():
            lesson.objective()(model, batch, (0, 1), 0)
    finally:
        for module in (continuous_thought, latent_block):
            module.read_on = read_on
    for part in (batch.student, batch.teacher) if hasattr(batch, "student") else (batch,):
        counter.heads += int((part.wanted != IGNORED).sum())


def flops_of_answers(decoder: Any, prompts: list[int], said: list[Any], thoughts: int, iterations: int) -> float:
    """Operations of an answer, on average: question, thoughts and tokens, each column once, a refined block as often as it is."""
    total = 0.0
    for prompt, each in zip(prompts, said, strict=True):
        columns = prompt + thoughts * (iterations - 1) + len(each.tokens) - 1
        total += flops_of(decoder, columns, columns * (prompt + len(each.tokens)) // 2, len(each.tokens))
    return total / len(said)


# Runs --------------------------------------------------------------------------------------------------------------------


class _OutOfTime(Exception):
    pass


class Bench:
    """What the arms of one seed share: the base, read once, and the problems."""

    def __init__(self, options: argparse.Namespace, pool: list[Example]) -> None:
        from latentweaver.checkpoints.bases import load_decoder
        from latentweaver.models.continuous_thought import add_markers

        self.options, self.pool = options, pool
        self.drawn: dict[tuple[int, int], list[Any]] = {}
        began = time.monotonic()
        self.decoder, self.tokenizer = load_decoder({**COMMON, **options.more}["base"])
        add_markers(self.decoder, self.tokenizer)
        print(f"base read in {time.monotonic() - began:.0f} s", flush=True)
        if (ends := {example.answer[-1] for example in pool}) != {self.tokenizer.eos_token_id}:
            raise InputError(
                f"the problems end with token {', '.join(map(str, ends))}, this tokenizer's answers with {self.tokenizer.eos_token_id}: "
                "they were drawn with another version of transformers; draw them anew"
            )

    def recipe(self, arm: str) -> WordProblems:
        """The recipe of an arm, its decoder a copy of the base."""
        fields = {**COMMON, **self.options.more, **ARMS[arm], "seed": self.options.seed}
        recipe = WordProblems(
            **fields, device=self.options.device, problems=self.options.problems, test_problems=self.options.test_problems
        )
        recipe.__dict__["parts"] = recipe.looped(copy.deepcopy(self.decoder)), self.tokenizer
        return recipe

    def tests(self, recipe: WordProblems) -> list[Any]:
        """The test problems, drawn once for all arms."""
        asked = recipe.difficulty, recipe.test_problems
        if asked not in self.drawn:
            self.drawn[asked] = recipe.test_items()
        return self.drawn[asked]

    def speed(self, arm: str, batches: int = 48) -> float:
        """Operations a second of an arm's training at the last of its epochs, once all shapes are known; the weights are left alone."""
        recipe, began = self.recipe(arm), time.monotonic()
        lesson, device = recipe.lesson, torch.device(self.options.device)
        flops = flops_a_row(recipe, recipe.parts[0], self.pool, [recipe.epochs - 1], 4)[0]
        model = recipe.model().to(device).train()
        if recipe.compile:
            compile_blocks(model)
        objective = lesson.objective()

        def descend(batch: Any, steps: tuple[int, int], seed: int) -> tuple[torch.Tensor, Any]:
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                terms = objective(model, batch, steps, seed)
            terms.loss.backward()
            return terms.loss.detach(), terms

        learn = Recorded(descend, model) if device.type == "cuda" and recipe.record else descend
        stream = Fresh(
            self.pool,
            recipe.batch_size,
            1,
            1,
            lambda rows, _, rng: lesson.batch(rows, recipe.epochs - 1, rng),
            1,
            1 if lesson.thoughts else WINDOW,
        )
        seen: dict[Any, list[float]] = {}
        for index in range(batches):
            batch, start = stream[index].to(device), time.monotonic()
            learn(batch, (0, 1), 0)[0].item()
            seen.setdefault(shape_of(batch), []).append(time.monotonic() - start)
        known = [took for times in seen.values() for took in times[2:]] or [times[-1] for times in seen.values()]
        took = sum(known) / len(known)
        memory = torch.cuda.max_memory_reserved() / 1e9 if device.type == "cuda" else 0.0
        print(
            f"{arm}: {flops / 1e9:.2f} GFLOP a problem, {1000 * took:.0f} ms for {recipe.batch_size} of them, {len(seen)} shapes, first "
            f"{1000 * sum(times[0] for times in seen.values()) / len(seen):.0f} ms, second "
            f"{1000 * sum(times[1] for times in seen.values() if len(times) > 1) / len(seen):.0f} ms, {memory:.0f} GB, "
            f"{time.monotonic() - began:.0f} s in all",
            flush=True,
        )
        del model, learn, descend
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return flops * recipe.batch_size / took

    def run(self, arm: str, flops: float, ends: float) -> dict[str, Any] | None:
        """Train an arm, or go on, and measure it; None if time was not enough."""
        options, recipe = self.options, self.recipe(arm)
        name, lesson, tokenizer = f"{arm}-{options.seed}", recipe.lesson, self.tokenizer
        began = time.monotonic()
        each = flops_a_row(recipe, recipe.parts[0], self.pool, range(recipe.epochs), 4)
        rows = recipe.batch_size * recipe.accumulate
        updates = max(int(flops / (rows * sum(each) / len(each))), recipe.epochs)
        stream = Fresh(
            self.pool,
            recipe.batch_size,
            updates * recipe.accumulate,
            recipe.epochs,
            lesson.batch,
            recipe.seed,
            1 if lesson.thoughts else WINDOW,
        )
        tests = self.tests(recipe)
        settings = Settings.of(
            recipe,
            updates=updates,
            warmup=max(updates // 30, 1),
            workers=1 if options.device != "cpu" else 0,
            evaluate_every=max(updates // 3, 1),
            checkpoint_every=10**9 if options.device.startswith("cuda") else 250,
            log_every=10,
        )
        now = {"update": 0}

        def measure(model: Any) -> dict[str, float]:
            epoch = stream.epoch(min(now["update"] + 10, updates - 1) * recipe.accumulate)
            asked = tests[:: max(len(tests) // 200, 1)]
            prompts = [lesson.prompt(example, epoch) for example in examples(asked, tokenizer)]
            with torch.compiler.set_stance("force_eager"):
                right = graded(model, tokenizer, asked, prompts, recipe.limit, batch_size=512)[0]
            return {"accuracy": sum(right) / len(right)}

        def report(line: dict[str, Any]) -> None:
            now["update"] = line["update"]
            if "accuracy" in line or line["update"] % 50 == 0:
                say(options, name, *(f"{key} {line[key]:.4g}" for key in ("update", "loss", "norm", "accuracy", "seconds") if key in line))
            if time.time() > ends - 4 and line["update"] < updates:
                raise _OutOfTime

        folder, model = options.state / name, recipe.model()
        if not (folder / "training.pt").exists():
            shutil.rmtree(folder, ignore_errors=True)
        say(options, f"{name}: {updates} updates of {rows}, {sum(each) / len(each) / 1e9:.2f} GFLOP a problem")
        try:
            train(model, lesson.objective(), Fixed(0, 1), stream, settings, folder, (folder / "training.pt").exists(), measure, report)
        except _OutOfTime:
            return None
        trained = time.monotonic() - began
        result: dict[str, Any] = {"name": name, "arm": arm, "seed": recipe.seed, "updates": updates, "problems": rows * updates}
        fields = {key: value for key, value in asdict(recipe).items() if key not in ("device", "workers")}
        result |= {"recipe": fields, "flops_a_problem": each, "flops": rows * updates * sum(each) / len(each)}
        result |= {
            "seconds": trained,
            "machine": machine(options.device),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
        if options.device.startswith("cuda"):
            result["gigabytes"] = torch.cuda.max_memory_reserved() / 1e9
        result["log"] = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
        with torch.compiler.set_stance("force_eager"):
            result["sets"] = self.measured(model.eval(), recipe)
        shutil.rmtree(folder)
        shown = {label: round(measured["accuracy"], 3) for label, measured in result["sets"].items()}
        say(options, name, f"{trained:.0f} s to train, {time.monotonic() - began:.0f} s in all", shown)
        return result

    def measured(self, model: Any, recipe: WordProblems) -> dict[str, Any]:
        """Accuracy on the test's templates, as deep as those of training and deeper, and what an answer costs."""
        lesson, tokenizer, sets = recipe.lesson, self.tokenizer, {}
        deeper = replace(recipe, difficulty=recipe.difficulty + 4, test_problems=2 * recipe.test_problems)
        wanted = {"test": self.tests(recipe), "deeper": [item for item in self.tests(deeper) if len(item.steps) > recipe.difficulty + 1]}
        for label, items in wanted.items():
            prompts = [lesson.prompt(example, recipe.epochs) for example in examples(items, tokenizer)]
            right, said = graded(model, tokenizer, items, prompts, recipe.limit, batch_size=512)
            result = {"problems": len(items), "accuracy": sum(right) / len(right), "right": "".join("01"[answer] for answer in right)}
            result["tasks"] = [item.question.split(".")[0] + (" starts" if "starts" in item.question else "") for item in items]
            result["steps"] = [len(item.steps) for item in items]
            result["columns"] = sum(each.cost for each in said) / len(said)
            iterations = recipe.iterations + 1 if lesson.method.refine else 1
            result["flops_of_an_answer"] = flops_of_answers(recipe.parts[0], list(map(len, prompts)), said, lesson.thoughts, iterations)
            sets[label] = result
        prompts = [lesson.prompt(example, recipe.epochs) for example in examples(wanted["test"][:6], tokenizer)]
        limit, latent = recipe.limit, model.config.latent_token_id
        sets["test"]["seconds_of_an_answer"] = seconds_per_answer(model, prompts, tokenizer.eos_token_id, limit, latent)
        return sets


def planned(bench: Bench, options: argparse.Namespace) -> float:
    """Operations of a run, the same for all arms and seeds, so that all arms fit: the first seed measures speeds, the others wait."""
    kept = options.state / "flops.json"
    if options.seed == options.seeds[0] and not kept.exists():
        speeds = {"coconut": bench.speed("coconut", 14)}  # the others do as well or better, but what is taught, which is not compiled
        shares = sum(1.5 if ARMS[arm].get("compile") is False else 1.0 for arm in options.arms)
        left = (options.total or options.seconds) - (time.time() - options.began) - 26 * len(options.arms)
        flops = 0.95 * left * speeds["coconut"] / shares
        kept.write_text(json.dumps({"flops": flops, "speeds": speeds}))
        print({arm: f"{speed / 1e12:.1f} TFLOP/s" for arm, speed in speeds.items()}, flush=True)
    while not kept.exists():
        time.sleep(0.2)
    time.sleep(0.2)
    return json.loads(kept.read_text())["flops"]


def machine(device: str) -> str:
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} CPU cores"


def table(runs: list[dict]) -> str:
    """Each arm: accuracy of every seed and of all together, by kind of problem and by depth, and what an answer costs."""
    arms: dict[str, list[dict]] = {}
    for run in runs:
        arms.setdefault(run["arm"], []).append(run)
    if not arms:
        return "no run is finished"
    kinds = sorted({task for run in runs for task in run["sets"]["test"]["tasks"]})
    head = [
        "arm",
        "updates",
        "each seed",
        "accuracy (95 %)",
        *kinds,
        "deeper",
        "columns of an answer",
        "GFLOP of an answer",
        "ms of an answer",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for arm in [arm for arm in ARMS if arm in arms]:
        found = arms[arm]
        each = ", ".join(f"{100 * run['sets']['test']['accuracy']:.1f}" for run in found)
        right = sum(run["sets"]["test"]["right"].count("1") for run in found)
        count = sum(run["sets"]["test"]["problems"] for run in found)
        low, high = wilson(right, count)
        by_kind = []
        for kind in kinds:
            of = [
                answer == "1"
                for run in found
                for answer, task in zip(run["sets"]["test"]["right"], run["sets"]["test"]["tasks"], strict=True)
                if task == kind
            ]
            by_kind.append(f"{100 * sum(of) / len(of):.1f}")
        deeper = sum(run["sets"]["deeper"]["accuracy"] for run in found) / len(found)
        test = found[0]["sets"]["test"]
        lines.append(
            f"| {arm} | {found[0]['updates']} | {each} | {100 * right / count:.1f} ({100 * low:.1f} to {100 * high:.1f}) | {' | '.join(by_kind)} "
            f"| {100 * deeper:.1f} | {test['columns']:.1f} | {test['flops_of_an_answer'] / 1e9:.1f} | {1000 * test['seconds_of_an_answer']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
