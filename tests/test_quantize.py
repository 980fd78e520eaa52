"""`lw quantize`: a smaller folder that every command takes, and that says so when it is broken."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import latentweaver as lw
from latentweaver.cli import main
from latentweaver.evaluate import accuracy_against_steps
from latentweaver.runtime.cost import cost_of
from latentweaver.runtime.engine import Engine
from latentweaver.runtime.request import Request
from latentweaver.tasks import task


@pytest.fixture
def folders(tiny, tmp_path):
    """A tiny model, its head tied or not, and what `lw quantize` makes of it."""

    def make(**fields):
        model = tiny(**{"initial_state": "zeros", **fields})
        lw.save(model, tmp_path / "full")
        main(["quantize", str(tmp_path / "full"), "--int8", "--out", str(tmp_path / "small")])
        return tmp_path / "full", tmp_path / "small"

    return make


def size(folder):
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_a_quarter_of_the_size_and_says_much_the_same(folders, tied, dtype):
    full, small = folders(tie_word_embeddings=tied, hidden_size=64, intermediate_size=256, initializer_range=0.05)
    assert size(small) < 0.35 * size(full)
    one, other = lw.load(full, dtype=dtype), lw.load(small, dtype=dtype)
    assert other.dtype is one.dtype and cost_of(other).weight_bytes == 1
    assert other.model.core[0].mlp.down_proj.scale.dtype is torch.float32, "the compiled products take no other"
    ids = torch.randint(61, (2, 9))
    before, after = one(ids).logits.float(), other(ids).logits.float()
    assert 0 < float((before - after).norm() / before.norm()) < 0.2
    assert (other.lm_head.weight is other.model.embed_tokens.weight) == tied


@torch.no_grad()
def test_every_way_of_loading_gives_the_same_model(folders):
    _, small = folders()
    ids = torch.randint(61, (1, 9))
    ours, theirs = lw.load(small), AutoModelForCausalLM.from_pretrained(small)
    assert torch.equal(ours(ids).logits, theirs(ids).logits)


def test_the_engine_and_speculation_run_it(folders):
    _, small = folders(initializer_range=0.1)
    model = lw.load(small)
    ids = torch.tensor([[5, 9, 2, 7]])
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None, "num_steps": 4}
    text = model.generate(ids, **options)
    assert torch.equal(model.generate(ids, **options, draft_steps=2), text)
    engine = Engine(model, slots=2, capacity=32, max_steps=4)
    said = engine.submit(Request(ids[0].tolist(), max_new_tokens=8, num_steps=4))
    while not engine.idle:
        engine.tick()
    assert said.tokens == text[0, 4:].tolist()


@pytest.mark.slow
def test_the_shipped_reasoner_keeps_its_accuracy(tmp_path):
    main(["quantize", "weaver-chains", "--out", str(tmp_path / "small")])
    full, small = (
        accuracy_against_steps(lw.load(model, device="cpu"), task("chains"), (12,), (6,), 200).cells[0]
        for model in ("weaver-chains", tmp_path / "small")
    )
    assert full.accuracy > 0.9 and abs(full.accuracy - small.accuracy) < 0.03
    assert lw.load_tokenizer(tmp_path / "small").vocab_size


class TestWhatIsWrongIsSaidInOneLine:
    def refused(self, capsys, *arguments):
        with pytest.raises(SystemExit) as stop:
            main(["quantize", *map(str, arguments)])
        said = capsys.readouterr().err
        assert stop.value.code == 2 and said.count("\n") == 1
        return said

    def test_a_folder_that_exists(self, folders, capsys):
        full, small = folders()
        before = size(small)
        assert "exists already" in self.refused(capsys, full, "--out", small)
        assert size(small) == before

    def test_twice(self, folders, tmp_path, capsys):
        _, small = folders()
        assert "8 bits already" in self.refused(capsys, small, "--out", tmp_path / "smaller")

    def test_another_kind(self, folders, tmp_path, capsys):
        full, _ = folders()
        assert "only kind" in self.refused(capsys, full, "--no-int8", "--out", tmp_path / "other")

    def test_a_model_that_is_not_there(self, tmp_path, capsys):
        assert "no model" in self.refused(capsys, "nowhere", "--out", tmp_path / "other")

    def test_pickles_are_not_opened(self, folders, tmp_path, capsys):
        full, _ = folders()
        torch.save(load_file(full / "model.safetensors"), full / "pytorch_model.bin")
        (full / "model.safetensors").unlink()
        assert "pickles" in self.refused(capsys, full, "--out", tmp_path / "other")


class TestABrokenFolder:
    def broken(self, folders, change):
        _, small = folders()
        tensors = load_file(small / "model.safetensors")
        change(tensors)
        save_file(tensors, small / "model.safetensors", metadata={"format": "pt"})
        return small

    def test_a_missing_scale(self, folders):
        folder = self.broken(folders, lambda t: t.pop("model.core.0.mlp.down_proj.scale"))
        with pytest.raises(lw.CheckpointError, match=r"is missing model\.core\.0\.mlp\.down_proj\.scale"):
            lw.load(folder)

    def test_a_matrix_that_is_not_in_8_bits(self, folders):
        name = "model.core.0.mlp.down_proj.weight"
        folder = self.broken(folders, lambda t: t.update({name: t[name].float()}))
        with pytest.raises(lw.CheckpointError, match="must hold 8-bit whole numbers in " + name):
            lw.load(folder)

    def test_a_config_that_does_not_say_so(self, folders):
        _, small = folders()
        config = json.loads((small / "config.json").read_text())
        (small / "config.json").write_text(json.dumps({**config, "int8": False}))
        with pytest.raises(lw.CheckpointError, match="tensors that the model does not have"):
            lw.load(small)
