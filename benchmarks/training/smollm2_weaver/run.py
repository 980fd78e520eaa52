"""One run of `smollm2-weaver` or its control within a number of minutes, and everything that is said about it.

The number of updates is what fits: a few updates at two depths say what a step costs, before the run. Written to OUT: `delta/`, `log.jsonl`,
`run.json` (recipe, machine, versions, tokens, FLOPs, seconds), `direct.json` and `written.json` (see evaluate.py).

python benchmarks/training/smollm2_weaver/run.py OUT --minutes 8 [--twin] [--updates N] [--set lr=0.002 ...]
"""

from __future__ import annotations

import argparse
import ast
import json
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from evaluate import evaluate, options_of

from latentweaver.checkpoints.loading import load
from latentweaver.recipes.smollm2_weaver import SmolLM2NoLoop, SmolLM2Weaver
from latentweaver.training.depth import Fixed
from latentweaver.training.loop import train
from latentweaver.training.solvable import Solvable

LABELLED = 0.35
"""About the share of the tokens that has a label, for the head's part of the FLOPs."""


class OutOfTime(Exception):
    """The run is stopped where it is, so that what it has learned is not lost."""


def flops_per_token(recipe: SmolLM2Weaver, config: Any, steps: float, with_gradient: float, length: float) -> float:
    """Multiplications and additions that a token costs in an update: products of matrices, attention over the causal half.

    Forward once, and backward once for what comes before and once for the weights, if they are trained.
    """
    width, queries, keys = config.hidden_size, config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    block = 2 * width * (2 * queries + 2 * keys + 3 * config.intermediate_size) + 2 * queries * length
    step = config.core_layers * block + 4 * width * width
    prelude = config.prelude_layers * block * (3 if recipe.prelude_rank else 1)
    coda = config.coda_layers * block * (3 if recipe.coda_rank else 2)
    head = 2 * LABELLED * 2 * width * config.vocab_size  # frozen
    return (steps - with_gradient) * step + 3 * with_gradient * step + prelude + coda + head


def seconds_of_update(recipe: SmolLM2Weaver, model: Any, tokenizer: Any, depths: list[tuple[int, int]], timed: int) -> list[float]:
    """Seconds an update takes at each depth, once everything is compiled."""
    result = []
    for depth in depths:
        warm = 6
        stamps: list[float] = []
        settings = replace(recipe.settings(), updates=warm + timed, log_every=1, lr=1e-9)
        with tempfile.TemporaryDirectory() as folder:
            train(
                model,
                Solvable(recipe.solvable_only),
                Fixed(*depth),
                recipe.stream(tokenizer),
                settings,
                folder,
                report=lambda _, stamps=stamps: stamps.append(time.monotonic()),
            )
        result.append((stamps[-1] - stamps[warm - 1]) / timed)
    return result


def updates_that_fit(recipe: SmolLM2Weaver, seconds: float, cheap: float, costly: float, depths: list[tuple[int, int]]) -> int:
    """The most updates whose depths, as the recipe draws them, take no longer than `seconds`."""
    units = [n + 3 * k for n, k in depths]
    slope = (costly - cheap) / (units[1] - units[0]) if units[1] > units[0] else 0.0

    def total(updates: int) -> float:
        sampler = replace(recipe, updates=updates).depths()
        every = max(updates // 500, 1)
        drawn = [sampler(update) for update in range(0, updates, every)]
        return updates * sum(cheap + slope * (n + 3 * k - units[0]) for n, k in drawn) / len(drawn)

    low, high = 10, 1_000_000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total(middle) <= seconds else (low, middle)
    return low


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything, evaluation included")
    parser.add_argument("--evaluation", type=float, default=1.5, help="minutes kept for the evaluation")
    parser.add_argument("--twin", action="store_true", help="the control without a loop")
    parser.add_argument("--updates", type=int, help="in place of what fits")
    parser.add_argument("--tokens-of", type=Path, help="as many updates as another run's run.json says")
    parser.add_argument("--flops-of", type=Path, help="as many updates as take the FLOPs of another run's run.json")
    options_of(parser)
    parser.add_argument("--set", action="append", default=[], help="a field of the recipe, NAME=VALUE")
    options = parser.parse_args()
    began = time.monotonic()
    deadline = began + 60 * (options.minutes - options.evaluation)
    torch.set_float32_matmul_precision("high")
    options.out.mkdir(parents=True, exist_ok=True)
    fields = {name: ast.literal_eval(value) for name, _, value in (text.partition("=") for text in options.set)}
    recipe = (SmolLM2NoLoop if options.twin else SmolLM2Weaver)(**fields)
    tokenizer, model = recipe.tokenizer(), recipe.model()
    measured: dict[str, Any] = {}
    if options.tokens_of:
        options.updates = json.loads(options.tokens_of.read_text())["updates_made"]
    elif options.flops_of:
        length = sum(recipe.lengths) / len(recipe.lengths)
        steps, k = recipe.high_steps, recipe.backprop  # of the control, both 1
        each = flops_per_token(recipe, model.config, steps, k, length) * recipe.tokens
        options.updates = round(json.loads(options.flops_of.read_text())["flops"] / each)
    if not options.updates:
        fresh = {name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad}
        depths = [(0, 1), (0, 1)] if options.twin else [(0, 2), (8, 4)]
        cheap, costly = seconds_of_update(recipe, model, tokenizer, depths, 12)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in fresh:
                    parameter.copy_(fresh[name])
        left = deadline - time.monotonic() - 10
        measured = {"depths": depths, "seconds": [cheap, costly], "seconds_left": left}
        print(json.dumps(measured), flush=True)
        recipe = replace(recipe, updates=updates_that_fit(recipe, 0.93 * left, cheap, costly, depths))
    else:
        recipe = replace(recipe, updates=options.updates)
    print(recipe, flush=True)
    made = [0]

    def report(line: dict[str, Any]) -> None:
        made[0] = line["update"]
        if line["update"] % 100 == 0:
            print(json.dumps(line), flush=True)
        if time.monotonic() > deadline:
            raise OutOfTime

    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        try:
            recipe.train(model, tokenizer, Path(folder), False, report)
        except OutOfTime:
            print(f"stopped after {made[0]} of {recipe.updates} updates", flush=True)
        seconds = time.monotonic() - start
        shutil.copy(Path(folder) / "log.jsonl", options.out / "log.jsonl")
    recipe.save(model, options.out / "delta")
    config = model.config
    device = next(model.parameters()).device
    del model
    sampler, length = recipe.depths(), sum(recipe.lengths) / len(recipe.lengths)
    drawn = [sampler(update) for update in range(made[0])]
    tokens = sum(recipe.tokens // length * length for length in recipe.lengths) / len(recipe.lengths)
    flops = sum(flops_per_token(recipe, config, n + k, k, length) for n, k in drawn) * tokens
    about = {
        "recipe": asdict(recipe), "updates_made": made[0], "tokens": tokens * made[0], "flops": flops, "seconds": seconds,
        "tokens_per_second": tokens * made[0] / seconds, "mean_steps": sum(map(sum, drawn)) / max(len(drawn), 1), "measured": measured,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__},
        "command": ["OUT", *sys.argv[2:]],
    }  # fmt: skip
    (options.out / "run.json").write_text(json.dumps(about, indent=1) + "\n")
    print(json.dumps({key: about[key] for key in ("updates_made", "tokens", "flops", "seconds", "tokens_per_second")}), flush=True)

    trained = load(options.out / "delta", dtype="float32", device=device)
    evaluate(trained, tokenizer, recipe.tasks, options.out, options, not options.twin)
