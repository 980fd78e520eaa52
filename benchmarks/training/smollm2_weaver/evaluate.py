"""What a model says to problems in words: the answer at once at every number of steps (`direct.json`), and after writing the way down
(`written.json`), with what it says to the same problems at once (`unwritten.json`).

python benchmarks/training/smollm2_weaver/evaluate.py MODEL OUT [--problems N] [--evaluation-seed 101] [--tasks sums,homes] [--twin] ...
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from latentweaver.checkpoints.loading import load, load_tokenizer
from latentweaver.evaluate.worded import WRITTEN_SIZES, accuracy_in_words, accuracy_in_writing
from latentweaver.tasks.worded import WORDED

SIZES = (0.2, 0.8)
"""How much there is beyond what the answer needs, where it is asked for at once."""


def options_of(parser: argparse.ArgumentParser) -> None:
    """The options of an evaluation."""
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--written-problems", type=int, default=64)
    parser.add_argument("--difficulties", default="1,2,4,8,12,16,24,32")
    parser.add_argument("--steps", default="1,2,4,8,12,16,20,24,32,48,80,128")
    parser.add_argument("--written-tokens", type=int, default=160, help="a longer reply counts as wrong")
    parser.add_argument("--written-steps", default="1,2,4,8")
    parser.add_argument("--written-difficulties", default="4,8,16")
    parser.add_argument("--evaluation-seed", type=int, default=100)


def evaluate(model: Any, tokenizer: Any, tasks: tuple[str, ...], out: Path, options: argparse.Namespace, loops: bool = True) -> None:
    """Measure and write; a model that does not loop has one step."""
    began = time.monotonic()
    numbers = lambda text: [int(part) for part in text.split(",") if part]  # noqa: E731
    direct, written, unwritten = [], [], []
    seed, device = options.evaluation_seed, next(model.parameters()).device
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for name in tasks if options.problems else ():
            steps = numbers(options.steps) if loops else [1]
            task = WORDED[name]()
            levels = [level for level in numbers(options.difficulties) if level <= task.difficulties[1]]
            table = accuracy_in_words(model, tokenizer, task, steps, levels, options.problems, seed, SIZES)
            direct.append(json.loads(table.to_json()))
            (out / "direct.json").write_text(json.dumps(direct) + "\n")
            print(f"{table}\n{name}, {time.monotonic() - began:.0f} s", flush=True)
        for name in tasks if options.written_problems else ():
            steps = numbers(options.written_steps) if loops else [1]
            levels = numbers(options.written_difficulties)
            table = accuracy_in_writing(
                model, tokenizer, WORDED[name](), steps, levels, options.written_problems, seed, WRITTEN_SIZES, options.written_tokens
            )
            written.append(json.loads(table.to_json()))
            (out / "written.json").write_text(json.dumps(written) + "\n")
            at_once = accuracy_in_words(model, tokenizer, WORDED[name](), steps, levels, options.written_problems, seed, WRITTEN_SIZES)
            unwritten.append(json.loads(at_once.to_json()))
            (out / "unwritten.json").write_text(json.dumps(unwritten) + "\n")
            print(f"{table}\nat once\n{at_once}\n{name} in writing, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", default=",".join(WORDED))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--twin", action="store_true", help="a control that does not loop: one step")
    options_of(parser)
    options = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    options.out.mkdir(parents=True, exist_ok=True)
    tasks = tuple(options.tasks.split(","))
    evaluate(load(options.model, dtype=options.dtype), load_tokenizer(options.model), tasks, options.out, options, not options.twin)
