"""How fast the weights of a core are read by the products of few rows: torch's own `F.linear` beside ours, in turns.

    python benchmarks/products.py

The weights are those of a core of four blocks (width 512, MLP 1728, linear injection), read in order again and again as a loop
reads them. Every way takes its turn in every round; the table gives the median of the rounds, in GB of weights a CPU second
on one thread. Results go to benchmarks/results/products.json.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from latentweaver import kernels

SHAPES = [(1024, 512), *[(512, 512), (512, 512), (512, 512), (512, 512), (512, 3456), (1728, 512)] * 4]
ROUNDS = 25


def run(linear: Callable[..., Any], weights: list[tuple[torch.Tensor, torch.Tensor | None]], inputs: dict[int, torch.Tensor]) -> float:
    start = time.process_time()
    for weight, scale in weights:
        linear(inputs[weight.shape[1]], weight, None, scale)
    return time.process_time() - start


def plain(x: torch.Tensor, weight: torch.Tensor, bias: None, scale: None) -> torch.Tensor:
    return F.linear(x, weight, bias)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cores: dict[str, list[tuple[torch.Tensor, torch.Tensor | None]]] = {
        "float32": [(torch.randn(out, width), None) for width, out in SHAPES],
        "bfloat16": [(torch.randn(out, width).bfloat16(), None) for width, out in SHAPES],
        "int8": [(torch.randint(-127, 128, (out, width), dtype=torch.int8), torch.rand(out)) for width, out in SHAPES],
    }
    measured = []
    for name, weights in cores.items():
        size = sum(weight.nbytes for weight, _ in weights)
        dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
        for rows in (1, 2, 4, 8, 16, 128):
            inputs = {width: torch.randn(rows, width).to(dtype) for width in (512, 1024, 1728)}
            taken: dict[str, list[float]] = {"F.linear": [], "ours": []}
            with kernels.native():
                for _ in range(ROUNDS if rows < 128 else 5):
                    if name != "int8":
                        taken["F.linear"].append(run(plain, weights, inputs))
                    taken["ours"].append(run(kernels.linear, weights, inputs))
            rates = {who: size / statistics.median(seconds) / 1e9 for who, seconds in taken.items() if seconds}
            measured.append({"weights": name, "MB": size / 1e6, "rows": rows, "GB/s": rates})
            gflops = {who: 2 * rows * rate / weights[0][0].element_size() for who, rate in rates.items()}
            print(
                f"{name:9} {size / 1e6:5.1f} MB  {rows:3} rows  "
                + "  ".join(f"{who} {rates[who]:5.1f} GB/s ({gflops[who]:3.0f} GFLOP/s)" for who in rates)
            )
    about = {
        "date": date.today().isoformat(),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "rounds": ROUNDS,
    }
    Path(__file__).with_name("results").joinpath("products.json").write_text(json.dumps({**about, "measured": measured}, indent=1) + "\n")


if __name__ == "__main__":
    main()
