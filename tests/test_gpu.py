"""What runs differently on a GPU says the same as on a CPU; skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from latentweaver import RecurrentDepthConfig, RecurrentDepthForCausalLM, halting, kernels
from latentweaver.runtime.engine import Engine
from latentweaver.runtime.int8 import quantize
from latentweaver.runtime.request import Request
from latentweaver.runtime.wavefront_graph import compiled

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

PROMPT = torch.tensor([[5, 9, 2, 7, 1, 30]])
PLAIN = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0, "eos_token_id": None, "num_steps": 6}
FORMS = {
    "huginn": {"attention_bias": "qk"},
    "ouro": {"norm_in_loop": True, "injection": "none", "initial_state": "input", "block": "peri", "prelude_layers": 0, "coda_layers": 0},
    "retrofit": {"block": "pre", "injection": "add", "norm_before_coda": False, "num_key_value_heads": 2, "initial_state": "zeros"},
}


@pytest.fixture(autouse=True)
def full_precision():
    torch.backends.cuda.matmul.allow_tf32 = False


def model_of(form: str = "huginn", device: str = "cuda") -> RecurrentDepthForCausalLM:
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96, "max_position_embeddings": 128}
    return RecurrentDepthForCausalLM(RecurrentDepthConfig(**{**shape, **FORMS[form]}, initializer_range=0.1)).eval().to(device)


def run(model, ids=PROMPT, **options):
    return model.generate(ids.to(model.device), return_dict_in_generate=True, output_logits=True, **options)


def same(found, plain, tolerance=5e-4):
    assert found.sequences.tolist() == plain.sequences.tolist()
    logits = [torch.stack(output.logits).cpu() for output in (found, plain)]
    assert float((logits[0] - logits[1]).abs().max()) < tolerance
    assert len(set(plain.sequences[0].tolist())) > 3, "a text of one token would hide mistakes"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("out", "width"), [(1, 64), (7, 33), (512, 5280), (5281, 96), (300, 2049)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_our_product_of_one_row_is_the_librarys(dtype, tolerance, out, width, bias):
    torch.manual_seed(0)
    x, weight = (torch.randn(*shape, device="cuda").to(dtype) for shape in ((1, 1, width), (out, width)))
    added = torch.randn(out, device="cuda").to(dtype) if bias else None
    exact = F.linear(x.double(), weight.double(), None if added is None else added.double())
    with torch.no_grad(), kernels.one_row_on_gpu():
        found = kernels.linear(x, weight, added)
    assert found.dtype is dtype and found.shape == (1, 1, out)
    assert float((found - exact).abs().max() / exact.abs().max()) < tolerance


@pytest.mark.parametrize("form", FORMS)
class TestOneTextOnBothDevices:
    def test_alone_and_in_a_padded_batch(self, form):
        same(run(model_of(form), **PLAIN), run(model_of(form, "cpu"), **PLAIN))
        ids = torch.arange(18).view(2, 9)
        mask = torch.ones_like(ids)
        mask[0, :4] = 0
        here, there = (run(model, ids, attention_mask=mask.to(model.device), **PLAIN) for model in (model_of(form), model_of(form, "cpu")))
        same(here, there)

    @pytest.mark.parametrize("policy", ["shared", "anchor:2"])
    def test_with_a_cache_that_keeps_less(self, form, policy):
        same(run(model_of(form), cache_policy=policy, **PLAIN), run(model_of(form, "cpu"), cache_policy=policy, **PLAIN))

    def test_with_tokens_that_halt_by_themselves(self, form):
        ids = torch.arange(12).view(3, 4)
        options = {**PLAIN, "num_steps": 24, "halting": halting.StateChange(0.1)}
        here, there = run(model_of(form), ids, **options), run(model_of(form, "cpu"), ids, **options)
        same(here, there)
        assert here.steps.tolist() == there.steps.tolist()

    @pytest.mark.parametrize("options", [{"draft_steps": 2}, {"draft_steps": 2, "wavefront": True}], ids=["draft", "wavefront"])
    def test_guessed_ahead(self, form, options):
        model = model_of(form)
        same(run(model, **PLAIN, **options), run(model, **PLAIN))

    def test_beside_other_requests(self, form):
        model = model_of(form)
        engine = Engine(model, slots=4, capacity=64, max_steps=24)
        asked = [
            Request(prompt=[5, 9, 2, 7, 1, 30], max_new_tokens=12, num_steps=6),
            Request(prompt=[3, 1], max_new_tokens=20, num_steps=3),
            Request(prompt=[40, 41, 42], max_new_tokens=16, num_steps=24, halting=halting.StateChange(0.1)),
            Request(prompt=[7] * 20, max_new_tokens=9, num_steps=11),
            Request(prompt=[8], max_new_tokens=15, num_steps=1),
        ]
        handles = [engine.submit(request) for request in asked]
        while not engine.idle:
            engine.tick()
        for request, handle in zip(asked, handles, strict=True):
            options = {"num_steps": request.num_steps, "halting": request.halting, "max_new_tokens": request.max_new_tokens}
            alone = run(model, torch.tensor([request.prompt]), **{**PLAIN, **options})
            assert handle.tokens == alone.sequences[0, len(request.prompt) :].tolist()


@pytest.mark.parametrize(
    ("form", "products", "draft_steps"), [("huginn", "own", None), ("huginn", "own", 2), ("ouro", "own", None), ("retrofit", "library", 2)]
)
def test_beats_recorded_as_one_graph_say_what_plain_decoding_says(form, products, draft_steps):
    model = model_of(form)
    plain = run(model, **PLAIN)
    beats = compiled(model, 6, draft_steps, capacity=64, products=products)
    for _ in range(2):  # the second time everything is replayed
        same(run(model, beats=beats, **PLAIN), plain)
    assert beats.graph is not None


def test_eight_bits_say_the_same_on_both_devices():
    same(run(quantize(model_of()), **PLAIN), run(quantize(model_of(device="cpu")), **PLAIN))


def test_bfloat16_stays_near_float32():
    first = {**PLAIN, "initial_state": "zeros"}  # noise is drawn from the bits of the embedding
    near = run(model_of().to(torch.bfloat16), **first).logits[0]
    exact = run(model_of(), **first).logits[0]
    assert float((near - exact).norm() / exact.norm()) < 0.05
