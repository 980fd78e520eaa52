"""How close decoding on a GPU comes to the time that reading the weights takes: huginn-0125's full shape, random weights, one text.

    python benchmarks/decoding_gpu.py OUT.json [--parts bandwidth plain graph ...] [--seconds 240] [--tiny]
    python benchmarks/decoding_gpu.py OUT.json --reference FOLDER       (under transformers 4.56.2; FOLDER holds its two files)

The limit of decoding one token after another: prelude, coda and head read once a token, the core and its injection once a step,
at the fastest rate at which this GPU reads memory (the better of a sum over 8 GiB and of a copy, which counts both ways).

The weights are random, with branches as strong as the states, so the tokens mean nothing; for the time of a pass this does not
matter. For depth-parallel decoding it does: its gain hangs on how often a guess after few steps holds. So the injection is given
MEMORY times the state beside the anchor, which makes a step a contraction, as it is in a trained model: what is said after 8 of
32 steps then mostly holds. These are weights made to settle, not a trained model's; the share of guesses that held stands beside
every speed, and "unsettled" is the other end: memory 1, where next to none hold.

Parts run one after another in a process of their own, from which each result is written as it comes; where one dies, the next
go on in a fresh process.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch

HUGINN = {
    "n_embd": 5280, "n_heads": 55, "intermediate_size": 17920, "vocab_size": 65536, "padded_vocab_size": 65536, "block_size": 4096,
    "n_layers_in_prelude": 2, "n_layers_in_recurrent_block": 4, "n_layers_in_coda": 2, "mean_recurrence": 32, "rope_base": 50000,
    "norm_eps": 1e-6, "qk_bias": True, "tie_embeddings": True, "injection_type": "linear", "state_init": "like-init",
}  # fmt: skip
TINY = {**HUGINN, "n_embd": 64, "n_heads": 4, "intermediate_size": 96, "vocab_size": 128, "padded_vocab_size": 128, "mean_recurrence": 32}
PARTS = ("bandwidth", "plain", "graph", "products", "own", "wavefront 8", "reference", "profile", "unsettled", "wavefront 16", "same text",
         "library", "library wavefront 8", "wavefront 4", "compiled")  # fmt: skip
PROMPT, NEW = 32, 48
MEMORY = 0.4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", nargs="+", default=[part for part in PARTS if part != "reference"], choices=PARTS)
    parser.add_argument("--seconds", type=float, default=3600, help="begin nothing after so long, and end what runs then")
    parser.add_argument("--tiny", action="store_true", help="a small shape, to see that it runs")
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        measure(arguments)
        return
    end = time.perf_counter() + arguments.seconds
    left = ["reference"] if arguments.reference else list(arguments.parts)
    while left and time.perf_counter() < end:
        command = [sys.executable, __file__, str(arguments.out), "--here", "--parts", *left, *["--tiny"] * arguments.tiny]
        command += ["--reference", str(arguments.reference)] if arguments.reference else []
        try:
            done = subprocess.run(command, timeout=max(end - time.perf_counter(), 1)).returncode
        except subprocess.TimeoutExpired:
            done = "out of time"
        found = load(arguments.out)
        running = next((part for part in left if part not in found), None)
        if running is not None:
            keep(arguments.out, running, {"failed": done})
            found[running] = None
        left = [part for part in left if part not in found]
    print(table(load(arguments.out)))


def load(out: Path) -> dict[str, Any]:
    if out.exists():
        return json.loads(out.read_text())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {"date": date.today().isoformat(), "device": gpu, "torch": torch.__version__, "python": platform.python_version()}


def keep(out: Path, part: str, result: Any) -> None:
    out.write_text(json.dumps({**load(out), part: result}, indent=1) + "\n")
    print(part, result, flush=True)


def table(found: dict[str, Any]) -> str:
    """Milliseconds a token beside the limit, and what guesses were worth."""
    lines = [str({name: value for name, value in found.items() if not isinstance(value, dict)})]
    rate = max(found.get("bandwidth", {}).get(name, 0) for name in ("read", "copy"))
    for part in PARTS:
        result = found.get(part, {})
        for name, case in (result if "ms a token" not in result else {part: result}).items():
            if isinstance(case, dict) and "ms a token" in case:
                limit = found["shape"]["bytes a token"] / rate / 1e6 if rate and "shape" in found else float("nan")
                line = f"{name:22} {case['ms a token']:8.2f} ms a token, {limit / case['ms a token']:6.1%} of the limit ({limit:.2f} ms)"
                if case.get("stages", 1) > 1:
                    line += f"; accepted length {case['accepted length']:.2f} of {case['stages']}"
                lines.append(line)
    return "\n".join(lines)


def measure(arguments: argparse.Namespace) -> None:
    """The parts, in this process."""
    shape = TINY if arguments.tiny else HUGINN
    device = "cuda" if torch.cuda.is_available() else "cpu"
    steps, model = shape["mean_recurrence"], None
    for part in arguments.parts if not arguments.reference else ["reference"]:
        began = time.perf_counter()
        if part == "bandwidth":
            result = bandwidth(device, 2**20 if arguments.tiny else 2**31)
        elif part == "products":
            result = products(device, shape)
        elif part == "same text":
            result = same_text(device)
        elif part == "reference":
            result = reference(arguments.reference, shape, device, partial(keep, arguments.out, part))
        else:
            if model is None:
                from latentweaver.runtime.cost import cost_of

                model = ours(shape, device)
                keep(arguments.out, "shape", {"bytes a token": cost_of(model).bytes_read(steps), "parameters": model.num_parameters()})
            result = decode(model, part, shape)
        keep(arguments.out, part, {**result, "seconds in all": round(time.perf_counter() - began, 1)})


def decode(model: Any, part: str, shape: dict[str, Any]) -> dict[str, Any]:
    """One way of decoding with our model."""
    from latentweaver.runtime.wavefront_graph import GraphBeats

    steps, capacity = shape["mean_recurrence"], PROMPT + NEW
    if part == "plain":
        return timed(model, shape, new=16, warm=3, num_steps=steps)
    if part == "graph":
        return timed(model, shape, beats=GraphBeats(model, steps, steps, capacity), num_steps=steps)
    if part == "profile":
        return profile(model, beats(model, "own", steps, capacity))
    if part in ("own", "library", "compiled"):
        return timed(model, shape, beats=beats(model, part, steps, capacity), num_steps=steps)
    if part == "unsettled":
        half = model.model.injection.weight[:, : model.config.hidden_size]
        with torch.no_grad():
            half /= MEMORY
        result = timed(model, shape, beats=beats(model, "own", steps // 4, capacity), num_steps=steps)
        with torch.no_grad():
            half *= MEMORY
        return result
    draft = max(steps * int(part.split()[-1]) // 32, 1)
    return timed(model, shape, beats=beats(model, "library" if "library" in part else "own", draft, capacity), num_steps=steps)


def same_text(device: str) -> dict[str, Any]:
    """In float32 and a smaller shape: of how many tokens graphs and wavefronts agree with plain decoding, which is all or a mistake."""
    shape = {**HUGINN, "n_embd": 576, "n_heads": 6, "intermediate_size": 1792, "mean_recurrence": 16}
    model = ours(shape, device).float()
    steps, capacity = shape["mean_recurrence"], PROMPT + NEW
    plain = timed(model, shape, num_steps=steps)["tokens"]
    found = {"kinds of token": len(set(plain))}
    for draft in (steps, steps // 4):
        tokens = timed(model, shape, beats=beats(model, "own", draft, capacity), num_steps=steps)["tokens"]
        found[f"draft {draft}"] = sum(a == b for a, b in zip(plain, tokens, strict=True))
    return {**found, "of": len(plain)}


def beats(model: Any, products: str, draft_steps: int, capacity: int) -> Any:
    """Compiled beats with the matrix products of torch's library, of Inductor (tuned), or our own."""
    from latentweaver.runtime import wavefront_graph

    torch._dynamo.reset()  # which compiles a function for eight shapes at most
    return wavefront_graph.compiled(model, model.config.num_steps, draft_steps, capacity, products=products)


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
    """Branches as strong as the states (at initialisation they hardly matter, and every text goes on alike); steps that contract."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        width = parameter.shape[-1]
        if "norm" in name:
            parameter.fill_(1)
        elif name.endswith("bias"):
            parameter.normal_(0, 0.1)
        elif "embed" in name or "wte" in name:
            parameter.normal_(0, (0.4 / width) ** 0.5)
        elif "injection" in name or "adapter" in name:  # [state, anchor], each of half the width
            parameter.normal_(0, (width / 2) ** -0.5)
            parameter[:, : width // 2] *= MEMORY
        else:
            parameter.normal_(0, width**-0.5)


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
    result["kinds of token"] = len(set(result["tokens"]))
    report = getattr(out, "speculated", None)
    if report is not None:
        stages, beats = shape["mean_recurrence"] // options["beats"].draft_steps, report.rounds
        result |= {"stages": stages, "accepted length": report.tokens * stages / beats}
        result |= {"beats": beats, "guessed": report.guessed, "ms a beat": min(rates) * (len(clock.stamps) - 2) / beats}
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
    """GB/s of weights that each matrix product of a block reads, for few rows: torch's, and ours for one; eight matrices in turn."""
    width, inside = shape["n_embd"], shape["intermediate_size"]
    result: dict[str, Any] = {}
    for name, (out, into) in {"square": (width, width), "gate_up": (2 * inside, width), "down": (width, inside)}.items():
        weights = [torch.randn(out, into, device=device, dtype=torch.bfloat16) for _ in range(8)]
        moved = sum(weight.nbytes for weight in weights) / 1e9
        for rows in (1, 2, 4, 8):
            x = torch.randn(rows, into, device=device, dtype=torch.bfloat16)
            result[f"{name} {rows} torch"] = round(moved / replayed(torch.nn.functional.linear, x, weights))
            if device == "cuda" and rows == 1:
                from latentweaver.kernels import gpu

                result[f"{name} 1 own"] = round(moved / replayed(gpu.linear, x, weights))
    return result


def profile(model: Any, beats: Any) -> dict[str, Any]:
    """Where the time of a token goes: milliseconds and calls of each kernel in one replay."""
    ids = torch.ones((1, PROMPT), dtype=torch.long, device=model.device)
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
    model.generate(ids, max_new_tokens=6, num_steps=beats.num_steps, beats=beats, **options)
    if beats.graph is None:
        return {}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        beats.graph.replay()
        torch.cuda.synchronize()
    spent = sorted(seen.key_averages(), key=lambda event: -event.self_device_time_total)[:24]
    return {event.key[:90]: [round(event.self_device_time_total / 1e3, 3), event.count] for event in spent}


def replayed(product: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> float:
    """Seconds of x times each of the weights, as a CUDA graph, best of ten; on a CPU as it is."""

    @torch.no_grad()
    def work() -> None:
        for weight in weights:
            product(x, weight)

    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
    seconds = []
    for _ in range(10):
        began = now()
        graph.replay() if torch.cuda.is_available() else work()
        seconds.append(now() - began)
    return min(seconds)


def reference(folder: Path, shape: dict[str, Any], device: str, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Huginn's own code, as its authors publish it, greedy from a state of zeros; `keep` is called with what there is so far."""
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
    options = {"num_steps": shape["mean_recurrence"], "init_scale": 0.0, "use_cache": True}
    for name, strategy in (("full cache", {}), ("compress-s4", {"cache_lookup_strategy": "compress-s4"})):
        result[name] = timed(model, shape, new=12, warm=3, **options, **strategy)
        keep(result)
    return result


if __name__ == "__main__":
    main()
