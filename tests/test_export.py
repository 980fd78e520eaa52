"""`lw export`: the graph takes any number of steps, any prompt, and goes on from its own memory, in the runtime of others."""

from __future__ import annotations

import pytest
import torch

import latentweaver as lw
from latentweaver.cli import main
from latentweaver.errors import InputError
from latentweaver.kernels.pages import in_large_pages
from latentweaver.runtime import onnx
from latentweaver.runtime.onnx import Looped, Session, compare, empty_memory, export

FORMS = {
    "huginn": {"initial_state": "noise"},
    "ouro": {"norm_in_loop": True, "injection": "none", "initial_state": "input", "block": "peri", "prelude_layers": 0, "coda_layers": 0},
    "retrofit": {"block": "pre", "injection": "add", "norm_before_coda": False, "num_key_value_heads": 2, "initial_state": "zeros"},
}


def write(call, model, ids, steps, new=6):
    """A greedy text by an exported graph: the loop that its user writes."""
    once, core = empty_memory(model)
    text, tokens = ids, ids
    for _ in range(new):
        logits, more_once, more_core = call(input_ids=tokens, num_steps=torch.tensor(steps), past_once=once, past_core=core)
        once, core = torch.cat([once, more_once], 3), torch.cat([core, more_core], 3)
        tokens = logits.argmax(-1, keepdim=True)
        text = torch.cat([text, tokens], 1)
    return text


@pytest.mark.slow
@pytest.mark.parametrize("form", ["huginn", "retrofit"])
def test_onnxruntime_gives_the_models_own_logits_and_text(tiny, tmp_path, form):
    model = in_large_pages(tiny(**FORMS[form], initializer_range=0.1))  # as `load` leaves it
    path = tmp_path / "new" / "model.onnx"
    export(model, path)
    assert max(compare(model, path, (1, 2, 7)).values()) < 1e-4
    if form == "retrofit":
        ids = torch.tensor([[5, 9, 2, 7, 1]])
        options = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None, "cache_policy": "shared", "max_new_tokens": 6}
        for steps in (2, 5):
            assert write(Session(path), model, ids, steps).tolist() == model.generate(ids, num_steps=steps, **options).tolist()


def test_steps_are_steps(tiny, monkeypatch):
    """What is exported, run by Python: every form, from a prompt and on from its memory."""

    def while_loop(going, body, carried):
        while going(*carried):
            carried = body(*carried)
        return carried

    monkeypatch.setattr(onnx, "while_loop", while_loop)
    for fields in FORMS.values():
        model = tiny(**{**fields, "initial_state": "zeros"}, initializer_range=0.1)
        ids = torch.tensor([[5, 9, 2, 7]])
        options = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None, "cache_policy": "shared", "max_new_tokens": 12}
        for steps in (1, 4):
            with torch.no_grad():
                text = write(Looped(model), model, ids, steps, 12)
            assert text.tolist() == model.generate(ids, num_steps=steps, **options).tolist()


def test_what_cannot_be_exported_is_said_in_one_line(tiny, tmp_path, capsys, monkeypatch):
    with pytest.raises(InputError, match="picture"):
        Looped(tiny(causal=False))
    lw.save(tiny(), tmp_path / "model")
    main(["quantize", str(tmp_path / "model"), "--out", str(tmp_path / "small")])
    capsys.readouterr()
    for arguments, said in (
        ((tmp_path / "small", tmp_path / "out"), "8 bits"),
        ((tmp_path / "model", tmp_path / "model"), "exists already"),
        (("nowhere", tmp_path / "out"), "no model"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["export", str(arguments[0]), "--out", str(arguments[1])])
        error = capsys.readouterr().err
        assert stop.value.code == 2 and said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
