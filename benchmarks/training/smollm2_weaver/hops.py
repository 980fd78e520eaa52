"""How many steps in a row a model follows: of every value that a text determines, whether it is known, by its depth.

A text of serial depth 16 has values of every depth up to that. All are read after so many steps that each could be known.

python benchmarks/training/smollm2_weaver/hops.py MODEL OUT.json [--steps 20] [--problems 32]
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any, cast

import torch

from latentweaver.checkpoints.loading import load, load_tokenizer
from latentweaver.evaluate.intervals import wilson
from latentweaver.tasks.batches import IGNORED
from latentweaver.tasks.problem import draw
from latentweaver.tasks.worded import WORDED
from latentweaver.tasks.worded.stream import Words, as_batch, row_of
from latentweaver.tasks.worded.writing import WordedProblem


@torch.no_grad()
def by_depth(model: Any, tokenizer: Any, task: str, difficulty: int, problems: int, steps: int, seed: int) -> dict[int, tuple[int, int]]:
    """For every depth: values known after `steps` steps, and values asked for."""
    words, rng = Words(tokenizer), random.Random(f"hops {task} {seed}")
    rows = [row_of(cast(WordedProblem, draw(WORDED[task](), "test", difficulty, rng, 0.3)), words) for _ in range(problems)]
    batch = as_batch(rows, max(len(row[0]) for row in rows), words.end).to(next(model.parameters()).device)
    asked = (batch.labels != IGNORED) & ~batch.is_answer
    thought = model.begin(batch.input_ids)
    for _ in range(steps):
        thought = model.think(thought)
    right = model.read(thought, rows=asked.nonzero(as_tuple=True)).logits.argmax(-1) == batch.labels[asked]
    depths = batch.depth[asked]
    return {depth: (int(right[depths == depth].sum()), int((depths == depth).sum())) for depth in depths.unique().tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--problems", type=int, default=32)
    parser.add_argument("--difficulty", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = load(options.model, dtype="float32")
    tokenizer, device = load_tokenizer("smollm2-135m"), next(model.parameters()).device
    found = {}
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for task in WORDED:
            table = by_depth(model, tokenizer, task, options.difficulty, options.problems, options.steps, options.seed)
            found[task] = {depth: [*pair, *wilson(*pair)] for depth, pair in table.items()}
            print(task, " ".join(f"{depth}:{100 * right / count:.0f}" for depth, (right, count) in table.items()), flush=True)
    options.out.write_text(json.dumps({**{key: str(value) for key, value in vars(options).items()}, "by_depth": found}) + "\n")
