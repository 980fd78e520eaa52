"""Pretrained decoders as bases: from a folder, or SmolLM2-135M's real weights from its GGUF."""

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import latentweaver as lw
from latentweaver.checkpoints.bases import load_decoder, reworded
from latentweaver.errors import CheckpointError, InputError
from latentweaver.models.markers import MARKERS, add_markers, marker_ids
from latentweaver.recipes.wording import word_tokenizer


def test_a_folder(base: PreTrainedModel, tmp_path) -> None:
    base.save_pretrained(tmp_path)
    word_tokenizer(["a", "b"], MARKERS.values()).save_pretrained(tmp_path)
    decoder, tokenizer = load_decoder(str(tmp_path))
    for name, tensor in base.state_dict().items():
        assert torch.equal(tensor, decoder.state_dict()[name]), name
    before = decoder.get_input_embeddings().weight.clone()
    add_markers(decoder, tokenizer)  # it has them already
    assert torch.equal(decoder.get_input_embeddings().weight, before)
    assert set(marker_ids(tokenizer)) == {"latent_token_id", "start_token_id", "end_token_id"}


def test_another_vocabulary_begins_as_what_its_words_meant(base: Any) -> None:
    """A word is the mean of its pieces, or of those of the word that stands in for it; special tokens are the end of a text."""
    old = word_tokenizer(["blue", "green", "sky"], [])
    old.add_special_tokens({"eos_token": "<end>"})
    own = word_tokenizer(["sky", "gerpus"], ["<|latent|>"])
    before = base.get_input_embeddings().weight.clone()
    reworded(base, old, own, {"gerpus": "blue green"})
    rows = {word: base.get_input_embeddings().weight[number] for word, number in own.get_vocab().items()}
    was = {word: before[number] for word, number in old.get_vocab().items()}
    assert len(rows) == len(base.get_input_embeddings().weight) == base.config.vocab_size
    assert torch.equal(rows["sky"], was["sky"])
    torch.testing.assert_close(rows["gerpus"], (was["blue"] + was["green"]) / 2)
    assert torch.equal(rows["<|latent|>"], was["<end>"])
    assert base.config.eos_token_id == own.eos_token_id
    ids = own("sky gerpus", return_tensors="pt").input_ids
    assert base(input_ids=ids).logits.shape == (1, 2, len(own))


def test_what_thinks_already_is_no_base(base: PreTrainedModel, tmp_path) -> None:
    lw.continuous_thought(base).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="thinks already"):
        load_decoder(str(tmp_path))
    with pytest.raises(CheckpointError, match="no model 'nothing'"):
        load_decoder("nothing")


@pytest.mark.slow
def test_smollm2_thinks() -> None:
    """Exact on real weights: a batch with thoughts equals the definition, position by position, and answers can be written."""
    base, tokenizer = load_decoder("smollm2-135m")
    with pytest.raises(InputError, match=r"no token <\|latent\|>"):
        lw.continuous_thought(base, tokenizer)
    add_markers(base, tokenizer)
    model = lw.continuous_thought(base, tokenizer).eval()
    question = tokenizer("Every gerpus is a terpus. Bob is a gerpus. Is Bob a", return_tensors="pt").input_ids
    latent, start, end = (model.config.latent_token_id, model.config.start_token_id, model.config.end_token_id)
    ids = torch.cat([question, torch.tensor([[start, latent, latent, end]])], 1)
    with torch.no_grad():
        embeds = base.get_input_embeddings()(ids)
        for place in (ids[0] == latent).nonzero()[:, 0].tolist():
            embeds[:, place] = base.base_model(inputs_embeds=embeds[:, :place]).last_hidden_state[:, -1]
        expected = base(inputs_embeds=embeds).logits
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-3, atol=1e-3)
        thought = model.think(model.think(model.begin(question)))
        torch.testing.assert_close(model.read(thought).logits[:, -1], expected[:, -1], rtol=1e-3, atol=1e-3)
    assert model.generate(question, num_steps=2, max_new_tokens=3, do_sample=False).shape[1] == question.shape[1] + 3
