"""Training on one CPU thread beside Huginn's own code: forward and backward of 4 x 128 tokens, 46.6 M parameters, random weights.

    python benchmarks/training/cpu.py OUT.json --reference raven_modeling_minimal.py --reference-python old-env/bin/python

The reference needs an environment of its own with transformers 4.56.2 (its configuration file must lie beside it). Both are
processes that stay loaded and take turns; the best turn of each counts, in CPU seconds, because other work on the machine comes and goes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

BATCH, LENGTH, VOCABULARY = 4, 128, 32000
CASES = [(dtype, steps) for dtype in ("float32", "bfloat16") for steps in ((0, 8), (24, 8))]
BLOCK = 4 * 512 * 512 + 3 * 512 * 1728


def flops_per_token(without: int, with_gradient: int) -> float:
    """What the products of matrices need, forward once and backward twice; attention over the causal half."""
    block = 2 * BLOCK + 2 * 2 * 512 * LENGTH / 2
    step = 4 * block + 2 * 2 * 512 * 512
    return without * step + 3 * (with_gradient * step + 4 * block + 2 * 512 * VOCABULARY)


class Ours:
    """What `train` does with the settings compile="steps" and attention="eager" and the objective LastStep(compile=True)."""

    def __init__(self, reference: str) -> None:
        import torch

        from latentweaver.models.config import RecurrentDepthConfig
        from latentweaver.models.recurrent_depth import RecurrentDepthForCausalLM
        from latentweaver.tasks.batches import Batch
        from latentweaver.training.loop import compile_blocks, compile_steps
        from latentweaver.training.objectives import LastStep
        from latentweaver.training.products import wide_products

        config = RecurrentDepthConfig(tie_word_embeddings=True, embedding_scale=512**0.5, attention_bias="qk", rope_layout="interleaved")
        self.model = RecurrentDepthForCausalLM(config)
        self.model.set_attn_implementation("eager")
        compile_blocks(self.model)
        compile_steps(self.model)
        self.wide, self.objective = wide_products, LastStep(compile=True)
        ids = torch.randint(0, VOCABULARY, (BATCH, LENGTH))
        self.batch = Batch(ids, ids.roll(-1, 1), torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool))

    def __call__(self, steps: tuple[int, int]) -> None:
        with self.wide():
            self.objective(self.model, self.batch, steps, seed=0).loss.backward()


class Huginn:
    """The reference's forward with labels."""

    def __init__(self, reference: str) -> None:
        import torch
        from contestants import huginn_class

        huginn = huginn_class(reference)
        shape = {"n_embd": 512, "n_heads": 8, "n_layers": 8, "intermediate_size": 1728, "vocab_size": VOCABULARY}
        self.model = huginn(huginn.config_class(**shape, torch_dtype="float32"))
        self.ids = torch.randint(0, VOCABULARY, (BATCH, LENGTH))

    def __call__(self, steps: tuple[int, int]) -> None:
        import torch

        depth = tuple(torch.tensor(number) for number in steps)
        self.model(self.ids, labels=self.ids.roll(-1, 1), num_steps=depth).loss.backward()


def serve(name: str, reference: str) -> None:
    """Answer requests (dtype, n, k) with CPU and wall seconds."""
    import torch
    import transformers

    torch.set_num_threads(1)
    torch.manual_seed(0)
    contestant: Any = {"ours": Ours, "reference": Huginn}[name](reference)
    model = contestant.model.train()
    print(
        json.dumps(
            {"parameters": sum(p.numel() for p in model.parameters()), "torch": torch.__version__, "transformers": transformers.__version__}
        ),
        flush=True,
    )
    for line in sys.stdin:
        dtype, without, with_gradient = json.loads(line)
        model.to(getattr(torch, dtype))
        model.zero_grad(set_to_none=True)
        start = time.process_time(), time.perf_counter()
        contestant((without, with_gradient))
        print(json.dumps([time.process_time() - start[0], time.perf_counter() - start[1]]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--reference", required=True)
    parser.add_argument("--reference-python", default=sys.executable)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.reference)
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    processes = {
        name: subprocess.Popen(
            [python, __file__, str(options.out), "--reference", options.reference, "--serve", name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        )
        for name, python in (("ours", sys.executable), ("reference", options.reference_python))
    }  # fmt: skip

    def answer(name: str) -> Any:
        line = processes[name].stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise SystemExit(f"{name} ended with code {processes[name].wait()}; run it by hand to see why: {processes[name].args}")
        return json.loads(line)

    about = {name: answer(name) for name in processes}
    results = []
    for dtype, steps in CASES:
        best: dict[str, list[float]] = {name: [float("inf")] * 2 for name in processes}
        for _ in range(options.turns + 1):  # the first compiles; it is never the best
            for name, process in processes.items():
                process.stdin.write(json.dumps([dtype, *steps]) + "\n")  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
                best[name] = [min(pair) for pair in zip(best[name], answer(name), strict=True)]
        tokens, flops = BATCH * LENGTH, flops_per_token(*steps)
        case: dict[str, Any] = {"dtype": dtype, "steps": steps, "gflop_per_token": flops / 1e9}
        for name, (cpu, wall) in best.items():
            case[name] = {"tokens_per_cpu_second": tokens / cpu, "tokens_per_second": tokens / wall, "gflops": flops * tokens / cpu / 1e9}
        case["ratio"] = best["reference"][0] / best["ours"][0]
        results.append(case)
        print(json.dumps(case), flush=True)
    record = {"machine": processor(), "python": platform.python_version(), "contestants": about, "results": results}
    options.out.write_text(json.dumps(record, indent=1) + "\n")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
