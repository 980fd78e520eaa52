"""Accuracy of a chains model against steps and depth, on problems of the test side, as JSON with intervals.

python benchmarks/training/evaluate_chains.py MODEL OUT.json --depths 1,2,4 --steps 1,20,80 --problems 1000 --seed 101
"""

from __future__ import annotations

import argparse

import torch

from latentweaver import tasks
from latentweaver.evaluate import accuracy_against_steps
from latentweaver.models.recurrent_depth import RecurrentDepthForCausalLM


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--depths", type=numbers, required=True)
    parser.add_argument("--steps", type=numbers, required=True)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--seed", type=int, default=100)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = RecurrentDepthForCausalLM.from_pretrained(options.model, dtype=torch.float32).to(device).eval()
    table = accuracy_against_steps(
        model, tasks.Chains(), options.steps, options.depths, problems=options.problems, seed=options.seed, batch_size=250
    )
    table.to_json(options.out)
    print(f"{options.model}, seed {options.seed}, {options.problems} problems a cell\n{table}", flush=True)
