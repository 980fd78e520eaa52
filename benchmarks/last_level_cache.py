"""A loop reads the same weights again and again: how fast, when they fit the processor's last-level cache, and when they do not.

    python benchmarks/last_level_cache.py [--threads 1] [--out benchmarks/results]

Random weights in Huginn's form at width 512, one row, one block of prelude and coda each; the core has as many blocks as make it a
quarter, half, the whole, twice and four times as large as the last-level cache of this machine, in float32, bfloat16 and 8 bits.
What is reported is the core alone: the time from one step of a token to the next, everything in it (also what Python does between two
steps). Beside it stands how fast this thread reads memory, and how fast it reads a buffer of a quarter of the cache: the two limits.
The settings take turns, five rounds of three tokens at 40 steps. Of these steps the tenth that was fastest counts, the slowest of it: the
cache belongs to all cores, and whoever else runs empties it. With one thread CPU time counts. The median of all steps stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from latentweaver.kernels.pages import in_large_pages
from latentweaver.models.config import RecurrentDepthConfig
from latentweaver.models.recurrent_depth import RecurrentDepthForCausalLM
from latentweaver.runtime.bench import last_level_cache, processor
from latentweaver.runtime.cost import cost_of
from latentweaver.runtime.int8 import quantize

SHARES = (0.25, 0.5, 1.0, 2.0, 4.0)
KINDS = ("float32", "bfloat16", "int8")
STEPS, ROUNDS, TOKENS = 40, 5, 3


def model_of(kind: str, megabytes: float) -> Any:
    """A model whose core takes about so many megabytes."""

    def made(layers: int) -> RecurrentDepthForCausalLM:
        torch.manual_seed(0)
        config = RecurrentDepthConfig(vocab_size=256, prelude_layers=1, coda_layers=1, core_layers=layers, max_position_embeddings=256)
        return RecurrentDepthForCausalLM(config).eval()

    width = {"float32": 4, "bfloat16": 2, "int8": 1}[kind]
    one, two = (cost_of(made(layers)).per_step * width / 2**20 for layers in (1, 2))
    model = made(max(1, round((megabytes - one) / (two - one)) + 1))
    if kind == "bfloat16":
        model = model.to(torch.bfloat16)
    return quantize(model) if kind == "int8" else in_large_pages(model)  # as `load` and `quantize` leave them


def core_bytes(model: Any) -> int:
    """Bytes that a step reads, whatever their type."""
    parts = [model.parts()[role] for role in ("injection", "core")]
    return sum(tensor.nbytes for part in parts for tensor in (*part.parameters(), *part.buffers()))


def now() -> float:
    """Seconds: of this thread's work where it is the only one, else of the clock."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def reading(megabytes: int) -> float:
    """Gigabytes per second that a sum over so many megabytes reads, best of 24."""
    data, best = torch.ones(megabytes * 2**18), float("inf")
    for _ in range(24):
        began = now()
        data.sum()
        best = min(best, now() - began)
    return data.nbytes / best / 1e9


@torch.no_grad()
def steps_of(model: Any) -> list[float]:
    """Seconds from one step to the next of the core alone, at one row; without each token's first, which comes after its prelude."""
    ids = torch.arange(4)[None]
    stamps: list[float] = []
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=TOKENS + 1,
        num_steps=STEPS,
        do_sample=False,
        cache_policy="shared",
        eos_token_id=None,
        pad_token_id=0,
        watch=lambda thought: stamps.append(now()),
    )
    tokens = [stamps[first : first + STEPS] for first in range(STEPS, len(stamps), STEPS)]  # the first reads the prompt
    return [after - before for token in tokens for before, after in pairwise(token)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=float, help="megabytes of the last-level cache, where it cannot be found out")
    parser.add_argument("--out", type=Path, help="folder for the record")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cache = options.cache or (last_level_cache() or 0) / 2**20
    if not cache:
        parser.error("the size of the last-level cache is not known here; give --cache MEGABYTES")
    models = {(kind, share): model_of(kind, share * cache) for kind in KINDS for share in SHARES}
    taken: dict[tuple[str, float], list[float]] = {setting: [] for setting in models}
    memory = inside = 0.0
    for _ in range(ROUNDS):
        memory = max(memory, reading(512))
        inside = max(inside, reading(max(1, int(cache / 4))))
        for setting, model in models.items():
            taken[setting] += steps_of(model)
    print(
        f"last-level cache {cache:.0f} MB, {options.threads} thread(s); read: {memory:.1f} GB/s from memory, {inside:.1f} GB/s within the cache"
    )
    rows = []
    for (kind, share), seconds in taken.items():
        size = core_bytes(models[kind, share])
        tenth, median = sorted(seconds)[len(seconds) // 10], statistics.median(seconds)
        rows.append(
            {
                "kind": kind,
                "core_megabytes": size / 2**20,
                "of_cache": size / 2**20 / cache,
                "gigabytes_per_second": size / tenth / 1e9,
                "median_gigabytes_per_second": size / median / 1e9,
            }
        )
        rows[-1]["of_memory_speed"] = rows[-1]["gigabytes_per_second"] / memory
        print(
            "{kind:9} core {core_megabytes:6.1f} MB ({of_cache:4.2f} of the cache)  {gigabytes_per_second:6.1f} GB/s, {of_memory_speed:.2f} of memory's; median step {median_gigabytes_per_second:6.1f}".format(
                **rows[-1]
            )
        )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        record = {
            "benchmark": "last_level_cache",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"processor": processor(), "threads": options.threads, "cache_megabytes": cache, "load": os.getloadavg()[0]},
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "memory_gigabytes_per_second": memory,
            "cache_gigabytes_per_second": inside,
            "rows": rows,
        }
        (options.out / "last_level_cache.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
