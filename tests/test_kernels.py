"""The compiled operations agree with the plain torch expressions that define them, and step aside where they do not apply."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from latentweaver import RecurrentDepthConfig, RecurrentDepthForCausalLM, kernels
from latentweaver.kernels.library import library
from latentweaver.runtime.int8 import quantize

pytestmark = pytest.mark.skipif(library() is None, reason="no compiler, or no AVX2")

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
SHAPES = [(512, 8, 8), (576, 9, 3), (40, 2, 1), (24, 4, 2)]  # width, heads, key heads: also ones that fill no vector register


def agree(operation, dtype: torch.dtype) -> bool:
    with torch.no_grad():
        plain = operation().float()
    with kernels.native():
        fast = operation().float()
    return float((plain - fast).abs().max() / plain.abs().max()) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("batch", [1, 2, 3, 7, 8, 13])
@pytest.mark.parametrize(("width", "heads", "groups"), SHAPES)
def test_every_operation_equals_its_plain_form(width: int, heads: int, groups: int, batch: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(dtype)

    x, residual, weight, matrix, bias = (
        draw(batch, 1, width),
        draw(batch, 1, width),
        draw(width),
        draw(3 * width + 1, width),
        draw(3 * width + 1),
    )
    assert agree(lambda: kernels.linear(x, matrix, bias), dtype)
    assert agree(lambda: kernels.linear(x, matrix), dtype)
    assert agree(lambda: kernels.rms_norm(x, weight, 1e-6, residual), dtype)
    assert agree(lambda: kernels.swiglu(x), dtype)
    head = width // heads // 2 * 2
    q = draw(batch, 1, heads, head)
    for rows in (1, batch):
        cos, sin = draw(rows, 1, 1, head), draw(rows, 1, 1, head)
        for layout in ("half", "interleaved"):
            assert agree(lambda cos=cos, sin=sin, layout=layout: kernels.rotate(q, cos, sin, layout), dtype)
    memory = draw(2, batch, groups, 50, head)
    keys, values, query = memory[0, :, :, :37], memory[1, :, :, :37], q.transpose(1, 2)
    mask = torch.rand(batch, 1, 1, 37) > 0.5
    mask[..., -1] = True
    for seen in (None, mask):
        plain = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen, enable_gqa=True, scale=0.2).transpose(1, 2)
        with kernels.native():
            fast = kernels.attend_one(query, keys, values, seen, 0.2)
        assert fast is not None
        assert float((plain - fast).abs().max()) < TOLERANCE[dtype] * 3


@pytest.mark.parametrize("out", [1, 2, 3, 5, 767, 768, 769, 770, 2304])
def test_a_product_of_any_number_of_rows_of_weights(out: int) -> None:
    """The rows of weights are cut into pieces of 768, three streams each; none may be left out or read beyond."""
    matrix, scale = torch.randn(out, 40), torch.rand(out)
    whole = torch.randint(-127, 128, (out, 40), dtype=torch.int8)
    for rows in (1, 2, 5, 8):
        x = torch.randn(rows, 40)
        assert agree(lambda x=x: kernels.linear(x, matrix), torch.float32)
        assert agree(lambda x=x: kernels.linear(x, whole, None, scale), torch.float32)


FORMS = {
    "Huginn": {"block": "sandwich", "rope_layout": "interleaved", "attention_bias": "qk"},
    "Ouro": {"block": "peri", "injection": "none", "norm_in_loop": True, "num_key_value_heads": 2},
    "Llama": {"block": "pre", "num_key_value_heads": 2, "attention_bias": "qkv", "injection": "add"},
    "Qwen": {"block": "pre", "num_key_value_heads": 1, "attention_bias": "all", "mlp_bias": True, "qk_norm": True, "injection": "diagonal"},
}


def small(**form) -> RecurrentDepthForCausalLM:
    """A model with weights that leave none of its branches negligible."""
    torch.manual_seed(0)
    shape = {"vocab_size": 100, "hidden_size": 72, "num_attention_heads": 4, "head_dim": 18, "intermediate_size": 101}
    model = RecurrentDepthForCausalLM(RecurrentDepthConfig(**{**shape, **form})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, parameter.shape[1] ** -0.5) if parameter.dim() > 1 else parameter.normal_(1, 0.2)
    return model


def logits_and_tokens(model: RecurrentDepthForCausalLM, mask: torch.Tensor | None = None, **options) -> tuple[torch.Tensor, list]:
    ids = torch.arange(27).view(3, 9)
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "num_steps": 3, "pad_token_id": 0, **options}
    out = model.generate(ids, attention_mask=mask, return_dict_in_generate=True, output_logits=True, **options)
    return torch.stack(out.logits, 1), out.sequences.tolist()


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch):
    """A function that has what follows run in plain torch."""
    return lambda: monkeypatch.setattr(kernels, "library", lambda: None)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_generation_is_the_same_with_and_without(form: str, padded: bool, without_native) -> None:
    model, mask = small(**FORMS[form]), None
    if padded:
        mask = torch.ones(3, 9, dtype=torch.long)
        mask[0, :3] = 0
    fast, fast_tokens = logits_and_tokens(model, mask)
    without_native()
    plain, plain_tokens = logits_and_tokens(model, mask)
    assert float((fast - plain).abs().max()) < 1e-4
    assert not torch.equal(fast, plain)
    assert fast_tokens == plain_tokens


def test_hooks_inside_a_block_are_called() -> None:
    model, calls = small(), []
    model.model.core[0].mlp.register_forward_hook(lambda *_: calls.append(1))
    logits_and_tokens(model)
    assert len(calls) == 8 * 3


def test_hooks_on_a_block_and_a_block_replaced_are_called() -> None:
    model, calls = small(), []
    model.model.core[0].register_forward_hook(lambda *_: calls.append("hook"))
    forward = model.model.coda[-1].forward
    model.model.coda[-1].forward = lambda *args, **kwargs: (calls.append("own"), forward(*args, **kwargs))[1]
    logits_and_tokens(model)
    assert calls.count("hook") == 8 * 3
    assert calls.count("own") == 8


def test_weights_changed_between_two_generations_count() -> None:
    model = small()
    before, _ = logits_and_tokens(model)
    layer = model.model.core[0].mlp.down_proj
    layer.weight = torch.nn.Parameter(layer.weight * 2)
    assert not torch.equal(before[:, 1:], logits_and_tokens(model)[0][:, 1:])


def test_nothing_is_native_outside_of_the_block_that_asks_for_it() -> None:
    x, weight = torch.randn(1, 1, 64), torch.randn(64, 64)
    with torch.no_grad():
        assert torch.equal(kernels.linear(x, weight), F.linear(x, weight))


@pytest.mark.parametrize("form", FORMS)
def test_eight_bit_weights_give_the_same_with_and_without(form: str, without_native) -> None:
    model = small(**FORMS[form], initial_state="input")  # noise is drawn from the embedding, which is rounded too
    full, _ = logits_and_tokens(model)
    fast, fast_tokens = logits_and_tokens(quantize(model))
    without_native()
    plain, plain_tokens = logits_and_tokens(model)
    assert float((fast - plain).abs().max()) < 1e-4
    assert fast_tokens == plain_tokens
    assert float((fast[:, 0] - full[:, 0]).norm() / full[:, 0].norm()) < 0.15


def test_norms_in_float64_are_exact_to_its_own_rounding() -> None:
    """Who watches a state settle far below the rounding of float32 needs every operation to go along."""
    x, weight = torch.randn(3, 5, 64, dtype=torch.float64), torch.randn(64, dtype=torch.float64)
    exact = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight
    assert float((kernels.rms_norm(x, weight, 1e-6) - exact).abs().max()) < 1e-14


# without a C compiler `kernels.linear` is torch's, and no shapes are made few; CI has a compiler and runs it
@pytest.mark.skipif(library() is None, reason="without a C compiler products are torch's own")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_lengths_of_prompt_are_few_shapes_of_product(monkeypatch, dtype):
    """oneDNN keeps code for each number of rows: 260 MB after a hundred lengths of prompt, if each were a shape of its own."""
    shapes, plain = set(), torch.nn.functional.linear
    monkeypatch.setattr(kernels.F, "linear", lambda x, *rest: (shapes.add(x.shape[0]), plain(x, *rest))[1])
    monkeypatch.setattr(kernels, "_onednn", lambda x, *rest: (shapes.add(x.shape[0]), plain(x, *rest))[1])
    weight, bias = torch.randn(5, 8, dtype=dtype), torch.randn(5, dtype=dtype)
    with kernels.native():
        for rows in range(17, 500):
            x = torch.randn(1, rows, 8, dtype=dtype)
            found = kernels.linear(x, weight, bias)
            assert found.shape == (1, rows, 5)
            assert torch.allclose(found, plain(x, weight, bias), atol=1e-5 if dtype is torch.float32 else 5e-2)
    assert len(shapes) < 20


def test_the_gpus_product_of_one_row_in_tritons_interpreter() -> None:
    """On this CPU, where there is Triton (any PyTorch built for CUDA brings it); `test_gpu.py` runs the compiled one."""
    pytest.importorskip("triton")
    program = """
import torch
from torch.nn import functional as F
from latentweaver.kernels import gpu
torch.manual_seed(0)
for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
    for out, width in ((1, 64), (7, 33), (301, 96), (30, 2049)):
        x, weight, bias = torch.randn(1, 1, width).to(dtype), torch.randn(out, width).to(dtype), torch.randn(out).to(dtype)
        for added in (None, bias):
            exact = F.linear(x.double(), weight.double(), None if added is None else added.double())
            found = torch.ops.latentweaver.one_row(x, weight, added)
            assert found.dtype is dtype
            assert float((found - exact).abs().max() / exact.abs().max()) < tolerance, (dtype, out, width)
"""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
