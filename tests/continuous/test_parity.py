"""COCONUT exactly: thoughts, logits, loss, gradients and greedy answers of the original.

The numbers in tests/fixtures/coconut_tiny_* come from facebookresearch/coconut 27273cb (MIT), run unmodified under transformers
4.46.2 on tiny random models; the tolerances are the ones noted there, relative to the largest value of a tensor.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from latentweaver.models.continuous_thought import ContinuousThoughtForCausalLM, continuous_thought

FIXTURES = Path(__file__).parents[1] / "fixtures"
CASES = ["stage0_no_latents", "stage2_c1", "stage2_c2", "final_pad_c2", "final_nopad_c1_ragged", "no_cot", "mixed_stage_ragged"]
TOLERANCE = {("gpt2", "f64"): 1e-9, ("llama", "f64"): 2e-5, ("gpt2", "f32"): 1e-4, ("llama", "f32"): 2e-3}


class Fixture:
    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.notes = json.loads((FIXTURES / f"coconut_tiny_{kind}.json").read_text())
        self.tensors = load_file(FIXTURES / f"coconut_tiny_{kind}.safetensors")

    def model(self, dtype: torch.dtype = torch.float32) -> ContinuousThoughtForCausalLM:
        config = AutoConfig.for_model(**self.notes["model_config"])
        config._attn_implementation = "eager" if self.kind == "gpt2" else "sdpa"
        base = AutoModelForCausalLM.from_config(config)
        weights = {name.removeprefix("model."): t for name, t in self.tensors.items() if name.startswith("model.")}
        missing, unexpected = base.load_state_dict(weights, strict=False)
        assert missing == ["lm_head.weight"]
        assert not unexpected
        if dtype == torch.float64:
            for module in list(base.modules()):
                for name, child in module.named_children():
                    if isinstance(child, LlamaRMSNorm):  # transformers normalises in float32, whatever the input
                        norm = nn.RMSNorm(len(child.weight), child.variance_epsilon)
                        norm.weight = child.weight
                        setattr(module, name, norm)
        ids = self.notes["token_ids"]
        model = continuous_thought(base, latent_token_id=ids["latent"], start_token_id=ids["start_latent"], end_token_id=ids["end_latent"])
        return model.to(dtype).eval()

    def case(self, name: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(f"{name}."): t for key, t in self.tensors.items() if key.startswith(f"{name}.")}


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def fixture(request: pytest.FixtureRequest) -> Fixture:
    return Fixture(request.param)


def assert_near(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> None:
    ours, theirs = ours.detach(), theirs.detach()
    scale = float(theirs.abs().max())
    assert float((ours - theirs).abs().max()) <= tolerance * max(scale, 1)


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("name", CASES)
def test_thoughts_logits_and_loss(fixture: Fixture, name: str, precision: str) -> None:
    model = fixture.model(torch.float64 if precision == "f64" else torch.float32)
    case, tolerance = fixture.case(name), TOLERANCE[fixture.kind, precision]
    real = case["attention_mask"].bool()
    trace = model.trace(case["input_ids"], case["attention_mask"])
    assert_near(trace.inputs[real], case[f"inputs_embeds_{precision}"][real], tolerance)
    if precision == "f64" and len(case["thoughts_f64"]):
        assert_near(trace.inputs[case["input_ids"] == model.config.latent_token_id], case["thoughts_f64"], tolerance)
    output = model(case["input_ids"], case["attention_mask"], labels=case["labels"])
    assert_near(output.logits[real], case[f"logits_{precision}"][real], tolerance)
    assert_near(output.loss, case[f"loss_{precision}"].squeeze(), tolerance)
    assert_near(model.answer_loss(case["input_ids"], case["attention_mask"], case["labels"]), output.loss, 1e-6)


@pytest.mark.parametrize("name", CASES)
def test_gradients(fixture: Fixture, name: str) -> None:
    model, case = fixture.model(torch.float64), fixture.case(name)
    model.answer_loss(case["input_ids"], case["attention_mask"], case["labels"]).backward()
    gradients = {key.removeprefix("base."): p.grad for key, p in model.named_parameters()}
    expected = {key.removeprefix("grad."): t for key, t in case.items() if key.startswith("grad.")}
    assert expected.keys() == gradients.keys()
    for key, theirs in expected.items():
        assert_near(gradients[key], theirs, TOLERANCE[fixture.kind, "f64"])


def test_greedy_runs(fixture: Fixture) -> None:
    model = fixture.model()
    runs = fixture.notes["generate"]
    assert len(runs) == 15
    for run in runs:
        tokens = model.generate(
            torch.tensor([run["input_ids"]]), max_new_tokens=run["max_new_tokens"], do_sample=False, eos_token_id=0, pad_token_id=0
        )[0].tolist()
        theirs = run["output_tokens"]
        # the original stops before the end token, and does not look for it in the first place
        assert tokens[: len(theirs)] == theirs
        assert len(theirs) == len(run["input_ids"]) + run["max_new_tokens"] or tokens[len(theirs) :] == [0]


def test_padding_on_any_side_and_any_alignment(fixture: Fixture) -> None:
    """The original needs first thoughts in one column; rows padded on the right or the left give the same."""
    model, case = fixture.model(torch.float64), fixture.case("mixed_stage_ragged")
    rows = [ids[mask] for ids, mask in zip(case["input_ids"], case["attention_mask"].bool(), strict=True)]
    longest = max(map(len, rows)) + 2
    expected = model(case["input_ids"], case["attention_mask"]).logits[case["attention_mask"].bool()]
    for side in ("right", "left"):
        ids, mask = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest, dtype=torch.long)
        for row, real in enumerate(rows):
            place = slice(0, len(real)) if side == "right" else slice(longest - len(real), None)
            ids[row, place], mask[row, place] = real, 1
        logits = model(ids, mask).logits[mask.bool()]
        assert_near(logits, expected, 1e-6 if fixture.kind == "llama" else 1e-9)
