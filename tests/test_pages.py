"""Weights in large pages are the same weights; only where they lie has changed."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

import latentweaver as lw
from latentweaver import RecurrentDepthConfig, RecurrentDepthForCausalLM
from latentweaver.kernels import pages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


def model_of(megabytes: int) -> RecurrentDepthForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "num_attention_heads": 4, "vocab_size": megabytes * 1024, "tie_word_embeddings": True}
    return RecurrentDepthForCausalLM(RecurrentDepthConfig(prelude_layers=1, core_layers=1, coda_layers=1, **shape)).eval()


def large_kilobytes(tensor: torch.Tensor) -> int:
    """Kilobytes of large pages in the piece of memory that a tensor lies in."""
    inside, address = False, tensor.data_ptr() + tensor.nbytes // 2
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in (first := line.split()[0]) and not first.endswith(":"):
            start, end = (int(number, 16) for number in first.split("-"))
            inside = start <= address < end
        elif inside and first == "AnonHugePages:":
            return int(line.split()[1])
    return 0


def test_the_weights_are_the_same_and_share_what_they_shared() -> None:
    model = model_of(8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters = list(model.parameters())
    assert pages.in_large_pages(model) is model
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(now is then for now, then in zip(model.parameters(), parameters, strict=True))  # an optimizer made before still holds them
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert all(tensor.data_ptr() % 64 == 0 and tensor.is_contiguous() for tensor in model.parameters())


def test_they_lie_in_large_pages() -> None:
    # a system set to "never" has none to give, whatever is asked of it; the other tests of this file hold there too
    if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("the system gives no large pages")
    model = pages.in_large_pages(model_of(16))
    assert large_kilobytes(model.lm_head.weight) >= 8 * 1024


def test_a_loaded_model_lies_in_them_and_survives_its_file(tmp_path: Path) -> None:
    model_of(4).save_pretrained(tmp_path)
    model = lw.load(tmp_path, device="cpu")
    (tmp_path / "model.safetensors").write_bytes(b"")  # a mapped file cut short ends the process that reads on
    tokens = model.generate(torch.arange(4)[None], max_new_tokens=3, num_steps=2, do_sample=False, pad_token_id=0)
    model.save_pretrained(tmp_path / "again")
    again = lw.load(tmp_path / "again", device="cpu")
    assert torch.equal(again.generate(torch.arange(4)[None], max_new_tokens=3, num_steps=2, do_sample=False, pad_token_id=0), tokens)


def test_where_memory_is_short_or_the_model_small_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    small = nn.Linear(64, 64)
    places = [parameter.data_ptr() for parameter in small.parameters()]
    assert [parameter.data_ptr() for parameter in pages.in_large_pages(small).parameters()] == places
    model = model_of(4)
    monkeypatch.setattr(pages, "_free_memory", lambda: 2 * model.num_parameters() * 4 - 2**20)
    places = [parameter.data_ptr() for parameter in model.parameters()]
    assert [parameter.data_ptr() for parameter in pages.in_large_pages(model).parameters()] == places


def test_no_two_weights_look_like_one_to_torch_and_the_memory_goes_with_the_last() -> None:
    """An export's loop refuses weights that share a storage; and a model that is replaced must not stay in memory."""
    model = pages.in_large_pages(model_of(32))
    assert len({parameter.untyped_storage().data_ptr() for parameter in model.parameters()}) == len(list(model.parameters()))
    held = psutil.Process().memory_info().rss
    del model
    gc.collect()
    assert psutil.Process().memory_info().rss < held - 24 * 2**20
