"""Huginn's checkpoints load exactly: the same states, logits, exits, tokens, losses and gradients as its own code."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

import latentweaver as lw
from latentweaver.checkpoints.formats import huginn_config
from latentweaver.checkpoints.reading import build
from latentweaver.halting import KL, ArgmaxStability, Cosine, EntropyChange, HaltingRule, StateChange, View
from latentweaver.runtime.cost import cost_of

TOLERANCE = 1e-5
NAMES = ("huginn_tiny", "huginn_tiny4")
DEPTHS = (1, 2, 4, 8, 16)


@pytest.fixture(params=NAMES)
def huginn(request, original):
    return original(request.param)


@pytest.fixture
def model(huginn):
    return huginn.load()


def far(ours, theirs) -> float:
    return (ours - theirs).abs().max().item()


class TestStatesAndLogits:
    def test_every_depth(self, huginn, model):
        io = huginn.io
        with torch.no_grad():
            thought = model.begin(io["input_ids"], initial_state=io["initial_state"])
            assert far(thought.anchor["input"], io["prelude_out"]) <= TOLERANCE
            for step in range(1, max(DEPTHS) + 1):
                thought = model.think(thought)
                if step in DEPTHS:
                    assert (thought.step == step).all()
                    assert far(thought.state, io[f"raw_state_r{step}"]) <= TOLERANCE
                    assert far(model.model.norm(thought.state), io[f"latent_states_r{step}"]) <= TOLERANCE
                    assert far(model.read(thought).logits, io[f"logits_r{step}"]) <= TOLERANCE

    def test_one_call_equals_the_verbs(self, huginn, model):
        io = huginn.io
        with torch.no_grad():
            logits = model(io["input_ids"], num_steps=8, initial_state=io["initial_state"]).logits
        assert far(logits, io["logits_r8"]) <= TOLERANCE

    def test_from_a_state_of_zeros(self, huginn, model):
        with torch.no_grad():
            logits = model(huginn.io["input_ids"], num_steps=4, initial_state="zeros").logits
        assert far(logits, huginn.io["logits_zero_state_r4"]) <= TOLERANCE


class TestGreedyRuns:
    """`prompt_len` tokens of the first row, continued by twelve, from a state of zeros."""

    def run(self, huginn, model, rows=1, **options):
        ids = huginn.io["input_ids"][:rows, : huginn.notes["prompt_len"]]
        settings = {"max_new_tokens": huginn.notes["generated"], "do_sample": False, "initial_state": "zeros"}
        return model.generate(ids, **settings, return_dict_in_generate=True, output_logits=True, **options)

    def expected(self, huginn, name):
        return huginn.notes["greedy_generations_init_scale_0"][name]

    @pytest.mark.parametrize(
        "options", [{}, {"use_cache": False}, {"cache_implementation": "static"}], ids=["cache", "no cache", "static cache"]
    )
    def test_with_and_without_cache(self, huginn, model, options):
        out = self.run(huginn, model, num_steps=4, **options)
        assert out.sequences[0].tolist() == self.expected(huginn, "full_r4") == self.expected(huginn, "nocache_r4")
        assert far(torch.stack(out.logits, 1), huginn.io["gen_logits_full_r4"]) <= TOLERANCE

    def test_in_a_batch(self, huginn, model):
        out = self.run(huginn, model, rows=2, num_steps=4)
        assert out.sequences.tolist() == self.expected(huginn, "full_r4_batch")
        assert far(torch.stack(out.logits, 1), huginn.io["gen_logits_full_r4_batch"]) <= TOLERANCE

    def test_warm_start_from_the_normed_state_as_one_of_its_loops_does(self, huginn, model):
        """Ours hands on the raw state; by the verbs either can be had."""
        ids, cache = huginn.io["input_ids"][:1, : huginn.notes["prompt_len"]], model.new_cache()
        tokens, logits, state, text = ids, [], "zeros", ids[0].tolist()
        with torch.no_grad():
            for _ in range(huginn.notes["generated"]):
                thought = lw.think_for(model, model.begin(tokens, initial_state=state, cache=cache), 4)
                logits.append(model.read(thought).logits[:, -1])
                state, tokens = model.model.norm(thought.state)[:, -1:], logits[-1].argmax(-1, keepdim=True)
                text.append(int(tokens))
        assert text == self.expected(huginn, "continuous_r4")
        assert far(torch.stack(logits, 1), huginn.io["gen_logits_continuous_r4"]) <= TOLERANCE

    @pytest.mark.parametrize(
        ("name", "policy"),
        [
            ("latest-m4-compress-s4", "shared"),
            ("latest-m4-compress-s8", "shared:2"),
            ("latest-m4-compress-anchor", "anchor:8"),
            ("latest-m4-compress-r4", lambda step, layer: (step, 0)),
        ],
    )
    def test_shared_caches(self, original, name, policy):
        huginn = original("huginn_tiny4")
        out = self.run(huginn, huginn.load(), num_steps=8, cache_policy=policy)
        assert out.sequences[0].tolist() == self.expected(huginn, f"cache_{name}_r8")
        assert far(torch.stack(out.logits, 1), huginn.io[f"gen_logits_cache_{name}_r8"]) <= TOLERANCE

    def test_speculation_is_only_faster(self, original):
        huginn = original("huginn_tiny4")
        tokens = self.run(huginn, huginn.load(), num_steps=8).sequences[0].tolist()
        assert tokens == self.expected(huginn, "full_r8") == self.expected(huginn, "speculative_draft2_verify8_look4")

    @pytest.mark.parametrize(
        ("name", "rule"),
        [("latent-diff", StateChange()), ("entropy-diff", EntropyChange()), ("kl", KL()), ("argmax-stability", ArgmaxStability())],
    )
    def test_adaptive_depth(self, original, name, rule):
        huginn = original("huginn_tiny4")
        out = self.run(huginn, huginn.load(), num_steps=24, halting=rule)
        assert out.sequences[0].tolist() == self.expected(huginn, f"adaptive_{name}_latest-m4_max24")
        assert len(set(out.steps[0].tolist())) > 1, "the rule should have stopped at different depths"


RULES: dict[str, HaltingRule] = {
    "latent-diff": StateChange(),
    "cosine": Cosine(),
    "entropy-diff": EntropyChange(),
    "kl": KL(),
    "minp-kl": KL(1e-5, min_p=0.1),
    "argmax-stability": ArgmaxStability(),
}


@pytest.mark.parametrize("name", RULES)
def test_exit_traces_and_steps(huginn, model, name):
    rule, expected = RULES[name], huginn.notes["exit_criteria_auto"][name]
    assert getattr(rule, "threshold", getattr(rule, "patience", None)) == expected["auto_threshold"]
    io = huginn.io
    with torch.no_grad():
        thought = model.begin(io["input_ids"], initial_state=io["initial_state"])
        memory, trace, exits = rule.start(thought), [], []
        for step in range(1, len(expected["values"]) + 1):
            thought = model.think(thought)
            value, memory = rule.measure(memory, View(model, thought))
            value = rule.of_row(value)[0]
            trace.append(value.item())
            exits += [step] * bool(rule.enough(value))
    assert trace == pytest.approx(expected["values"], abs=TOLERANCE, rel=1e-6)
    assert (exits[0] if exits else None) == expected["first_exit_step"]


@pytest.mark.parametrize(("without", "with_gradient"), [(4, 4), (0, 3)])
def test_truncated_backpropagation(huginn, model, without, with_gradient):
    io, tag = huginn.io, f"n{without}_k{with_gradient}"
    model.train()
    hidden = model.model(io["input_ids"], num_steps=(without, with_gradient), initial_state=io["initial_state"]).last_hidden_state
    loss = torch.nn.functional.cross_entropy(model.lm_head(hidden).float().flatten(0, 1), io["labels"].flatten())
    assert loss.item() == pytest.approx(io[f"loss_{tag}"].item(), abs=TOLERANCE)
    loss.backward()
    inner = model.model
    attention = inner.core[0].attention
    stacked = torch.cat([attention.q_proj.weight.grad, attention.k_proj.weight.grad, attention.v_proj.weight.grad])
    assert far(inner.injection.weight.grad, io[f"grad_adapter_{tag}"]) <= TOLERANCE
    assert far(inner.embed_tokens.weight.grad, io[f"grad_wte_{tag}"]) <= TOLERANCE
    assert far(stacked, io[f"grad_core0_Wqkv_{tag}"]) <= TOLERANCE
    norms = huginn.notes["grad_norms"][tag]
    for layer, block in enumerate(inner.core):
        theirs = f"transformer.core_block.{layer}."
        assert block.mlp.gate_up_proj.weight.grad.norm().item() == pytest.approx(norms[theirs + "mlp.fc.weight"], rel=1e-4)
        assert block.mlp_post_norm.weight.grad.norm().item() == pytest.approx(norms[theirs + "norm_4.weight"], rel=1e-4)
        biases = math.hypot(block.attention.q_proj.bias.grad.norm().item(), block.attention.k_proj.bias.grad.norm().item())
        assert biases == pytest.approx(norms[theirs + "attn.qk_bias"], rel=1e-4)


class TestCheckpoints:
    def test_in_several_files_with_an_index(self, huginn, model, tmp_path):
        tensors = sorted(load_file(huginn.folder / "model.safetensors").items())
        parts = {"model-00001-of-00002.safetensors": dict(tensors[::2]), "model-00002-of-00002.safetensors": dict(tensors[1::2])}
        for name, part in parts.items():
            save_file(part, tmp_path / name)
        weight_map = {tensor: name for name, part in parts.items() for tensor in part}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        (tmp_path / "config.json").write_text((huginn.folder / "config.json").read_text())
        again = lw.load(tmp_path, device="cpu")
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, again.get_parameter(name))

    def test_a_tied_head_may_be_left_out(self, huginn, model, tmp_path):
        tensors = load_file(huginn.folder / "model.safetensors")
        del tensors["lm_head.weight"], tensors["freqs_cis"]
        save_file(tensors, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text((huginn.folder / "config.json").read_text())
        ids = huginn.io["input_ids"]
        assert torch.equal(lw.load(tmp_path, device="cpu")(ids).logits, model(ids).logits)

    def test_field_names_of_the_other_dialect(self, huginn, model):
        config = json.loads((huginn.folder / "config.json").read_text())
        for ours, theirs in (("num_attention_heads", "n_heads"), ("hidden_size", "n_embd"), ("num_hidden_layers", "n_layers")):
            config[ours] = config.pop(theirs)
        assert huginn_config(config).to_diff_dict() == huginn_config(json.loads((huginn.folder / "config.json").read_text())).to_diff_dict()

    def test_the_published_model_builds_with_its_number_of_parameters(self):
        published = {
            "n_embd": 5280, "n_heads": 55, "n_layers": 8, "n_layers_in_prelude": 2, "n_layers_in_recurrent_block": 4, "n_layers_in_coda": 2,
            "intermediate_size": 17920, "vocab_size": 65536, "padded_vocab_size": 65536, "padding_multiple": 4096, "block_size": 4096,
            "rope_base": 50000, "norm_eps": 1e-6, "qk_bias": True, "bias": False, "tie_embeddings": True, "mean_recurrence": 32,
            "mean_backprop_depth": 8, "injection_type": "linear", "state_init": "like-init", "head_dim": 96, "test_time_noise": 0,
        }  # fmt: skip
        model = build(huginn_config(published))
        assert sum(parameter.numel() for parameter in model.parameters()) == 3_564_976_800
        assert cost_of(model).per_step == 1_637_349_120
        assert model.config.num_hidden_layers == 132
