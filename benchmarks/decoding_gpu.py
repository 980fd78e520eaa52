"""How close decoding on a GPU comes to the time that reading the weights takes: huginn-0125's full shape, random weights, one text.

    python benchmarks/decoding_gpu.py OUT.json [--parts bandwidth products plain graph compiled wavefront] [--tiny]
    python benchmarks/decoding_gpu.py OUT.json --reference FOLDER       (under transformers 4.56.2; FOLDER holds its two files)

The limit of decoding one token after another: prelude, coda and head read once a token, the core and its injection once a step,
at the fastest rate at which this GPU reads memory (the better of a sum over 8 GiB and of a copy, which counts both ways).
Weights are random, with branches as strong as the states, so the tokens mean nothing; for the time of a pass this does not
matter. For depth-parallel decoding it does: there the gain hangs on how often a guess after few steps holds, which random
weights say nothing about. So the time of a beat and the share of guesses that held are reported apart.
Every part is a process of its own, so that none finds the memory of another.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

HUGINN = {
    "n_embd": 5280, "n_heads": 55, "intermediate_size": 17920, "vocab_size": 65536, "padded_vocab_size": 65536, "block_size": 4096,
    "n_layers_in_prelude": 2, "n_layers_in_recurrent_block": 4, "n_layers_in_coda": 2, "mean_recurrence": 32, "rope_base": 50000,
    "norm_eps": 1e-6, "qk_bias": True, "tie_embeddings": True, "injection_type": "linear", "state_init": "like-init",
}  # fmt: skip
TINY = {**HUGINN, "n_embd": 64, "n_heads": 4, "intermediate_size": 96, "vocab_size": 128, "padded_vocab_size": 128, "mean_recurrence": 8}
PARTS = ("bandwidth", "products", "plain", "graph", "compiled", "wavefront")
PROMPT, NEW = 32, 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--tiny", action="store_true", help="a small shape, to see that it runs")
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments)))
        return
    found = json.loads(arguments.out.read_text()) if arguments.out.exists() else about()
    for part in ["reference"] if arguments.reference else arguments.parts:
        command = [sys.executable, __file__, str(arguments.out), "--one", part]
        command += ["--tiny"] * arguments.tiny + (["--reference", str(arguments.reference)] if arguments.reference else [])
        began = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        found[part] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": done.returncode}
        print(f"{part} ({time.perf_counter() - began:.0f} s): {found[part]}", flush=True)
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


def about() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {"date": date.today().isoformat(), "device": gpu, "torch": torch.__version__, "python": platform.python_version()}


def measure(part: str, arguments: argparse.Namespace) -> Any:
    shape = TINY if arguments.tiny else HUGINN
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if part == "bandwidth":
        return bandwidth(device, 2**20 if arguments.tiny else 2**31)
    if part == "products":
        return products(device, shape)
    if part == "reference":
        return reference(arguments.reference, shape, device)
    from latentweaver.runtime.cost import cost_of
    from latentweaver.runtime.wavefront_graph import GraphBeats, compiled

    model = ours(shape, device)
    steps = shape["mean_recurrence"]
    result: dict[str, Any] = {"bytes a token": cost_of(model).bytes_read(steps), "parameters": sum(p.numel() for p in model.parameters())}
    capacity = PROMPT + NEW
    if part == "plain":
        result["plain"] = timed(model, shape, new=16, num_steps=steps)
    elif part == "graph":
        result["graph"] = timed(model, shape, beats=GraphBeats(model, steps, steps, capacity), num_steps=steps)
    elif part == "compiled":
        import latentweaver.runtime.wavefront_graph as graphs

        for name, options in (("library products", {}), ("compiled products", {"coordinate_descent_tuning": True})):
            torch._dynamo.reset()
            graphs.OPTIONS = {"triton.cudagraphs": False, **options}
            result[name] = timed(model, shape, beats=compiled(model, steps, None, capacity), num_steps=steps)
    else:
        for draft in (steps // 4, steps // 8, steps // 2):
            if draft:
                result[f"draft {draft}"] = timed(model, shape, beats=compiled(model, steps, draft, capacity), num_steps=steps)
    return result


def ours(shape: dict[str, Any], device: str) -> Any:
    """Our model of that shape, random weights made where it runs."""
    from latentweaver.checkpoints.formats import FORMATS
    from latentweaver.checkpoints.reading import build
    from latentweaver.models.blocks import RotaryTable

    config = FORMATS["huginn_raven"].config({"model_type": "huginn_raven", **shape})
    model = build(config, torch.bfloat16).to_empty(device=device).eval()
    model.tie_weights()
    randomise(model)
    for module in model.modules():
        if isinstance(module, RotaryTable):
            module.inverse_frequency.copy_(module.inverse_frequencies(config)[0])
    return model


@torch.no_grad()
def randomise(model: torch.nn.Module) -> None:
    """Branches as strong as the states: at initialisation they hardly matter, and every text goes on alike."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.fill_(1)
        elif name.endswith("bias"):
            parameter.normal_(0, 0.1)
        elif "embed" in name or "wte" in name:
            parameter.normal_(0, math.sqrt(0.4 / parameter.shape[-1]))
        else:
            parameter.normal_(0, parameter.shape[-1] ** -0.5)


class Clock:
    """A streamer that notes when each token was there."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def put(self, value: Any) -> None:
        self.stamps.append(now())

    def end(self) -> None: ...


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(model: Any, shape: dict[str, Any], new: int = NEW, warm: int = 6, **options: Any) -> dict[str, Any]:
    """Milliseconds a token after the first, greedy, best of two texts; what came before is compiled and recorded in a call of its own."""
    ids = torch.randint(1, 100, (1, PROMPT), generator=torch.Generator().manual_seed(0)).to(model.device)
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "attention_mask": torch.ones_like(ids), **options}
    began = now()
    model.generate(ids, max_new_tokens=warm, **options)
    result: dict[str, Any] = {"first call s": round(now() - began, 1)}
    rates = []
    for _ in range(2):
        clock = Clock()
        out = model.generate(ids, max_new_tokens=new, min_new_tokens=new, streamer=clock, return_dict_in_generate=True, **options)
        rates.append((clock.stamps[-1] - clock.stamps[1]) / (len(clock.stamps) - 2) * 1e3)  # the first stamp is the prompt's
    result |= {"ms a token": min(rates), "both": rates, "tokens": out.sequences[0, PROMPT:].tolist()}
    report = getattr(out, "speculated", None)
    if report is not None:
        result |= {"accepted length": report.accepted_length, "passes a token": report.passes_per_token, "rounds": report.rounds}
        result |= {"guessed": report.guessed, "ms a beat": min(rates) * (len(clock.stamps) - 2) / report.rounds}
    if torch.cuda.is_available():
        result["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
    return result


def bandwidth(device: str, count: int) -> dict[str, float]:
    """GB/s of a sum (read) and of a copy (read and written), best of ten."""
    data = torch.ones(count, device=device)
    other = torch.empty_like(data)

    def best(work: Any, moved: int) -> float:
        work()
        seconds = []
        for _ in range(10):
            began = now()
            work()
            seconds.append(now() - began)
        return moved / min(seconds) / 1e9

    return {"read": best(data.sum, data.nbytes), "copy": best(lambda: other.copy_(data), 2 * data.nbytes)}


def products(device: str, shape: dict[str, Any]) -> dict[str, Any]:
    """GB/s of weights that each matrix product of a block reads, for few rows, by torch and compiled; eight matrices in turn, one graph."""
    width, inside = shape["n_embd"], shape["intermediate_size"]
    compiled = torch.compile(torch.nn.functional.linear, dynamic=False, options={"coordinate_descent_tuning": True})
    result: dict[str, Any] = {}
    for name, (out, into) in {"square": (width, width), "gate_up": (2 * inside, width), "down": (width, inside)}.items():
        weights = [torch.randn(out, into, device=device, dtype=torch.bfloat16) for _ in range(8)]
        for rows in (1, 4, 8):
            x = torch.randn(rows, into, device=device, dtype=torch.bfloat16)
            for how, product in (("torch", torch.nn.functional.linear), *([("compiled", compiled)] if rows == 1 else [])):

                def work(product: Any = product, x: Any = x, weights: Any = weights) -> None:
                    for weight in weights:
                        product(x, weight)

                with torch.no_grad():
                    seconds = replayed(work)
                result[f"{name} {rows} {how}"] = round(sum(w.nbytes for w in weights) / seconds / 1e9)
    return result


def replayed(work: Any) -> float:
    """Seconds of some work as a CUDA graph, best of ten; on a CPU as it is."""
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        work = graph.replay
    seconds = []
    for _ in range(10):
        began = now()
        work()
        seconds.append(now() - began)
    return min(seconds)


def reference(folder: Path, shape: dict[str, Any], device: str) -> dict[str, Any]:
    """Huginn's own code, as its authors publish it, greedy from a state of zeros."""
    import transformers

    package = Path(tempfile.mkdtemp()) / "huginn_reference"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("raven_modeling_minimal.py", "raven_config_minimal.py"):
        (package / name).symlink_to(folder.resolve() / name)
    sys.path.insert(0, str(package.parent))
    huginn = importlib.import_module("huginn_reference.raven_modeling_minimal").RavenForCausalLM
    fields = {name: value for name, value in shape.items() if name != "padded_vocab_size"}
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = huginn(huginn.config_class(**fields)).to(torch.bfloat16).eval()
    torch.set_default_dtype(torch.float32)
    model.freqs_cis = model._precompute_freqs_cis().to(device)
    randomise(model)
    result: dict[str, Any] = {"transformers": transformers.__version__}
    result["full cache"] = timed(model, shape, new=12, warm=3, num_steps=shape["mean_recurrence"], init_scale=0.0, use_cache=True)
    result["compress-s4"] = timed(
        model,
        shape,
        new=12,
        warm=3,
        num_steps=shape["mean_recurrence"],
        init_scale=0.0,
        use_cache=True,
        cache_lookup_strategy="compress-s4",
    )
    return result


if __name__ == "__main__":
    main()
