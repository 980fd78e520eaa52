"""How many steps in a row a model follows: of every value that a text determines, whether it is known, by its depth and by the steps taken.

A text of serial depth 16 has values of every depth up to that. Values of one text are not independent of each other.

python benchmarks/training/smollm2_weaver/hops.py MODEL OUT.json [--steps 1,2,4,8,16,20] [--problems 8]
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from latentweaver.checkpoints.loading import load, load_tokenizer
from latentweaver.tasks.batches import IGNORED
from latentweaver.tasks.problem import draw
from latentweaver.tasks.worded import WORDED
from latentweaver.tasks.worded.stream import Words, as_batch, row_of
from latentweaver.tasks.worded.writing import WordedProblem

Counts = dict[int, dict[int, tuple[int, int]]]


@torch.no_grad()
def by_depth(model: Any, tokenizer: Any, task: str, difficulty: int, problems: int, steps: Sequence[int], seed: int) -> Counts:
    """For every number of steps and every depth: values known, and values asked for."""
    words, rng = Words(tokenizer), random.Random(f"hops {task} {seed}")
    rows = [row_of(cast(WordedProblem, draw(WORDED[task](), "test", difficulty, rng, 0.3)), words) for _ in range(problems)]
    batch = as_batch(rows, max(len(row[0]) for row in rows), words.end).to(next(model.parameters()).device)
    asked = (batch.labels != IGNORED) & ~batch.is_answer
    depths, places = batch.depth[asked], asked.nonzero(as_tuple=True)
    thought, found = model.begin(batch.input_ids), {}
    for step in range(1, max(steps) + 1):
        thought = model.think(thought)
        if step in steps:
            right = model.read(thought, rows=places).logits.argmax(-1) == batch.labels[asked]
            found[step] = {depth: (int(right[depths == depth].sum()), int((depths == depth).sum())) for depth in depths.unique().tolist()}
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--difficulty", type=int, default=16)
    parser.add_argument("--steps", default="1,2,4,8,16,20")
    parser.add_argument("--tasks", default=",".join(WORDED))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = load(options.model, dtype=options.dtype)
    tokenizer, device = load_tokenizer("smollm2-135m"), next(model.parameters()).device
    found: dict[str, Counts] = {}
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for task in options.tasks.split(","):
            steps = [int(part) for part in options.steps.split(",")]
            found[task] = by_depth(model, tokenizer, task, options.difficulty, options.problems, steps, options.seed)
            options.out.write_text(json.dumps({**{key: str(value) for key, value in vars(options).items()}, "known": found}) + "\n")
            for step, counts in found[task].items():
                print(task, step, " ".join(f"{depth}:{right}/{count}" for depth, (right, count) in counts.items()), flush=True)
