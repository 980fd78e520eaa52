"""The contestants of `generation.py`: each a process of its own that answers requests on its standard input.

Every one is a function from the prompt to a greedy continuation. It takes the CPU and the wall time as each token is
chosen, so that one call gives the prefill (up to the first token) and the decoding (the tokens after it). This file also runs
under the reference's own interpreter, where our library is not installed; each class imports what it needs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Stamp = tuple[float, float]
"""CPU seconds of the process, wall seconds."""


def now() -> Stamp:
    return time.process_time(), time.perf_counter()


class Clock:
    """A stopping criterion for transformers' `generate` that never stops, and notes when it is asked."""

    def __init__(self) -> None:
        self.stamps = [now()]

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self.stamps.append(now())
        return input_ids.new_zeros(input_ids.shape[0], dtype=bool)


def generate(model: Any, ids: Any, new: int, **options: Any) -> tuple[Any, list[Stamp]]:
    import torch
    from transformers import StoppingCriteriaList

    ids = torch.tensor(ids)
    clock = Clock()
    options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0, **options}
    tokens = model.generate(ids, stopping_criteria=StoppingCriteriaList([clock]), **options)
    return tokens[:, ids.shape[1] :].tolist(), clock.stamps


class Ours:
    """latentweaver, on a checkpoint folder of any kind it knows."""

    def __init__(self, folder: str, dtype: str, **_: Any) -> None:
        import latentweaver as lw

        self.model = lw.load(folder, dtype="float32" if dtype == "int8" else dtype, device="cpu")
        if dtype == "int8":
            from latentweaver.runtime.int8 import quantize

            quantize(self.model)

    def __call__(self, ids: list[list[int]], new: int, steps: int, policy: str = "full") -> tuple[Any, list[Stamp]]:
        return generate(self.model, ids, new, num_steps=steps, initial_state="zeros", cache_policy=policy, eos_token_id=None)


class Huginn:
    """The Huginn remote-code file, under the transformers it was written for; `folder` holds weights in its own format."""

    def __init__(self, folder: str, dtype: str, reference: str, **_: Any) -> None:
        import torch

        self.model = huginn_class(reference).from_pretrained(folder, torch_dtype=getattr(torch, dtype)).eval()

    def __call__(self, ids: list[list[int]], new: int, steps: int, policy: str = "full") -> tuple[Any, list[Stamp]]:
        lookup = {"full": "full", "shared": "compress-s4"}[policy]
        return generate(self.model, ids, new, num_steps=steps, init_scale=0.0, cache_lookup_strategy=lookup, use_cache=True)


def huginn_class(reference: str) -> Any:
    """The class in the file at `reference`, imported with the configuration file beside it as one package."""
    package = Path(tempfile.mkdtemp()) / "huginn_reference"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("raven_modeling_minimal.py", "raven_config_minimal.py"):
        (package / name).symlink_to(Path(reference).resolve().parent / name)
    sys.path.insert(0, str(package.parent))
    return importlib.import_module("huginn_reference.raven_modeling_minimal").RavenForCausalLM


def make_huginn(folder: str, reference: str, shape: dict[str, Any]) -> int:
    """Save a randomly initialised Huginn of that shape; returns the number of parameters."""
    import torch

    torch.manual_seed(0)
    huginn = huginn_class(reference)
    model = huginn(huginn.config_class(**shape, torch_dtype="float32"))
    with torch.no_grad():  # at initialisation the branches hardly matter, and every prompt goes on alike
        for name, parameter in model.named_parameters():
            if name.endswith("proj.weight"):
                parameter.normal_(0, parameter.shape[1] ** -0.5)
            elif name.endswith("qk_bias"):
                parameter.normal_(0, 0.1)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


class Transformers:
    """transformers' own `generate` on a GGUF file."""

    def __init__(self, gguf: str, dtype: str, **_: Any) -> None:
        self.model = from_gguf(gguf, dtype)

    def __call__(self, ids: list[list[int]], new: int, steps: int, policy: str = "full") -> tuple[Any, list[Stamp]]:
        return generate(self.model, ids, new, eos_token_id=None)


def from_gguf(gguf: str, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    path = Path(gguf)
    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=getattr(torch, dtype)).eval()


class PlainLoop:
    """What one writes in an afternoon: a Llama with a static cache, fused projections and nothing else, in plain torch."""

    def __init__(self, gguf: str, dtype: str, **_: Any) -> None:
        import torch

        base = from_gguf(gguf, "float32")
        self.config = base.config
        self.int8 = dtype == "int8"
        pack = self.rows_to_int8 if self.int8 else lambda weight: weight.to(getattr(torch, dtype)).contiguous()
        self.embedding = base.model.embed_tokens.weight.detach()
        self.head = pack(base.lm_head.weight.detach())
        self.norm = base.model.norm.weight.detach()
        self.layers = []
        for layer in base.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            qkv = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]).detach()
            gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).detach()
            matrices = [pack(m.detach()) for m in (qkv, attention.o_proj.weight, gate_up, mlp.down_proj.weight)]
            norms = [layer.input_layernorm.weight.detach(), layer.post_attention_layernorm.weight.detach()]
            self.layers.append((*matrices, *norms))
        theta = self.config.rope_parameters["rope_theta"]
        self.frequencies = 1.0 / theta ** (torch.arange(0, self.width, 2).float() / self.width)

    @property
    def width(self) -> int:
        return self.config.hidden_size // self.config.num_attention_heads

    @staticmethod
    def rows_to_int8(weight: Any) -> Any:
        scale = weight.abs().amax(1) / 127
        return (weight / scale[:, None]).round().char(), scale.bfloat16()

    def product(self, x: Any, weight: Any) -> Any:
        import torch

        if self.int8:
            return torch.ops.aten._weight_int8pack_mm(x[0].bfloat16(), *weight)[None].float()  # fast for bfloat16 only
        return torch.nn.functional.linear(x, weight)

    def forward(self, ids: Any, start: int, cache: Any) -> Any:
        import torch
        from torch.nn import functional as F

        heads, groups, width, eps = self.config.num_attention_heads, self.config.num_key_value_heads, self.width, self.config.rms_norm_eps
        new = ids.shape[1]
        x = F.embedding(ids, self.embedding)
        angle = torch.arange(start, start + new)[:, None] * self.frequencies
        cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([-angle.sin(), angle.sin()], -1)
        for layer, (qkv, out, gate_up, down, norm_1, norm_2) in enumerate(self.layers):
            mixed = self.product(F.rms_norm(x, norm_1.shape, norm_1, eps), qkv).view(1, new, -1, width).transpose(1, 2)
            q_and_k, v = mixed[:, : heads + groups], mixed[:, heads + groups :]
            q_and_k = q_and_k * cos + q_and_k.roll(width // 2, -1) * sin
            cache[layer, 0, :, :, start : start + new] = q_and_k[:, heads:]
            cache[layer, 1, :, :, start : start + new] = v
            keys, values = cache[layer, :, :, :, : start + new]
            y = F.scaled_dot_product_attention(q_and_k[:, :heads], keys, values, is_causal=new > 1, enable_gqa=True)
            x = x + self.product(y.transpose(1, 2).reshape(1, new, -1), out)
            gate, up = self.product(F.rms_norm(x, norm_2.shape, norm_2, eps), gate_up).chunk(2, -1)
            x = x + self.product(F.silu(gate) * up, down)
        return self.product(F.rms_norm(x[:, -1:], self.norm.shape, self.norm, eps), self.head)[:, -1]

    def __call__(self, ids: list[list[int]], new: int, steps: int, policy: str = "full") -> tuple[Any, list[Stamp]]:
        import torch

        prompt = torch.tensor(ids)
        stamps, start, tokens = [now()], 0, prompt
        cache = torch.empty(len(self.layers), 2, 1, self.config.num_key_value_heads, prompt.shape[1] + new, self.width)
        out = []
        with torch.inference_mode():
            for _ in range(new):
                logits = self.forward(tokens, start, cache)
                start += tokens.shape[1]
                tokens = logits.argmax(-1)[:, None]
                out.append(int(tokens))
                stamps.append(now())
        return [out], stamps


class LlamaCpp:
    """llama.cpp through llama-cpp-python, on the same weights requantised to `dtype`."""

    def __init__(self, gguf: str, dtype: str, **_: Any) -> None:
        import llama_cpp

        kinds = {"float32": "ALL_F32", "bfloat16": "MOSTLY_BF16", "int8": "MOSTLY_Q8_0"}
        kind = getattr(llama_cpp, f"LLAMA_FTYPE_{kinds[dtype]}")
        path = str(Path(tempfile.mkdtemp()) / "model.gguf")
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype, options.allow_requantize, options.nthread = kind, True, 1
        if llama_cpp.llama_model_quantize(gguf.encode(), path.encode(), options):
            raise RuntimeError(f"llama.cpp could not requantise {gguf}")
        self.model = llama_cpp.Llama(path, n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)

    def __call__(self, ids: list[list[int]], new: int, steps: int, policy: str = "full") -> tuple[Any, list[Stamp]]:
        import numpy

        self.model.reset()
        stamps, out, tokens = [now()], [], ids[0]
        for _ in range(new):
            self.model.eval(tokens)
            row = 0 if not self.model._logits_all else self.model.n_tokens - 1
            tokens = [int(numpy.argmax(self.model.scores[row]))]
            out += tokens
            stamps.append(now())
        return [out], stamps


CONTESTANTS = {"ours": Ours, "reference": Huginn, "transformers": Transformers, "plain loop": PlainLoop, "llama.cpp": LlamaCpp}


@contextlib.contextmanager
def answers() -> Iterator[Any]:
    """The standard output, for answers only: whatever a library prints goes to the standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    yield out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=[*CONTESTANTS, "make"])
    parser.add_argument("options", type=json.loads)
    arguments = parser.parse_args()
    with answers() as out:
        if arguments.name == "make":
            print(json.dumps(make_huginn(**arguments.options)), file=out, flush=True)
            return
        with contextlib.suppress(ImportError):
            import torch

            torch.set_num_threads(arguments.options.get("threads", 1))
        contestant = CONTESTANTS[arguments.name](**arguments.options)
        loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"version": versions()}), file=out, flush=True)
        for line in sys.stdin:
            tokens, stamps = contestant(**json.loads(line))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            print(json.dumps({"tokens": tokens, "stamps": stamps, "loaded": loaded, "peak": peak}), file=out, flush=True)


def versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("torch", "transformers", "latentweaver", "llama_cpp_python"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


if __name__ == "__main__":
    main()
