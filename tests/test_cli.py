"""The `lw` command on a tiny model: what it prints, and that bad input ends in one clear line and exit code 2."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

import latentweaver as lw
from latentweaver.cli import main
from latentweaver.commands.think import settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint with a tokenizer of single letters."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from tiny_models import tiny_config

    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    letters = ["<pad>", "<unk>", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456"]
    core = Tokenizer(models.WordLevel({letter: place for place, letter in enumerate(letters)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", unk_token="<unk>").save_pretrained(path)
    lw.RecurrentDepthForCausalLM(tiny_config(initializer_range=0.2)).save_pretrained(path)
    return path


@pytest.fixture
def lw_command(capsys):
    """Run `lw` with these arguments; exit code, standard output and standard error."""

    def run(*arguments):
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def test_thinking(lw_command, folder):
    code, out, _ = lw_command("think", "hello", "--model", folder, "--steps", "2", "--tokens", "5")
    assert code == 0 and out.startswith("steps 2\n")
    assert "5 tokens, 10 steps (2.0 a token)" in out
    assert "█" * 5 in out


def test_several_settings_side_by_side(lw_command, folder):
    _, out, _ = lw_command("think", "hello", "--model", folder, "--steps", "1,3,auto", "--tokens", "4", "--max-steps", "6")
    assert re.findall(r"^steps (\S+)$", out, re.M) == ["1", "3", "auto"]
    assert "4 tokens, 4 steps" in out and "4 tokens, 12 steps" in out


def test_the_answer_is_what_generate_writes(lw_command, folder):
    _, out, _ = lw_command("think", "hello", "--model", folder, "--steps", "3", "--tokens", "6")
    tokenizer = lw.load_tokenizer(folder)
    ids = tokenizer("hello", return_tensors="pt").input_ids
    expected = lw.load(folder).generate(ids, num_steps=3, max_new_tokens=6, do_sample=False, generator=torch.Generator().manual_seed(0))
    assert out.splitlines()[1] == tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)


def test_the_trace_ends_where_the_answer_is(lw_command, folder):
    _, out, _ = lw_command("think", "hello", "--model", folder, "--steps", "4", "--tokens", "3", "--trace")
    lines = out.splitlines()
    traces = [line for line in lines if re.match(r" +\d+  1", line)]
    assert len(traces) == 3
    assert "".join(re.findall(r"'(.+?)'", line)[-1] for line in traces) == lines[1]
    assert all(re.search(r"(^|[ -])4: '", line) for line in traces), "each line covers all four steps"


def test_seeds_and_sampling(lw_command, folder):
    def said(*options):
        return lw_command("think", "hello", "--model", folder, "--tokens", "8", *options)[1].splitlines()[1]

    assert said() == said() and said("--seed", "1") != said("--seed", "2")
    assert said("--temperature", "1") == said("--temperature", "1")


def test_info(lw_command, folder):
    _, out, _ = lw_command("info", folder)
    model = lw.load(folder)
    assert f"{sum(parameter.numel() for parameter in model.parameters()):,}" in out
    assert "prelude 1, core 2, coda 1" in out and "at 1 step " in out and "at 3 steps" in out and "at 12 steps" in out


def test_models_lists_the_names_and_how_to_get_them(lw_command, monkeypatch, tmp_path):
    monkeypatch.setenv("LATENTWEAVER_CACHE", str(tmp_path))
    assert "smollm2-135m" in lw_command("models")[1]


def test_the_shipped_reasoner_answers_once_it_has_thought_long_enough(lw_command):
    """r=3, k=7, q=10: the last digit is known after two dependent sums, and said a step later."""
    code, out, _ = lw_command("think", "r=3 k=r+4 q=k+r ?q=", "--model", "weaver-chains", "--steps", "1,3,12", "--tokens", "2")
    assert code == 0
    answers = re.findall(r"^steps (\d+)\n(.*)$", out, re.M)
    assert answers[1:] == [("3", "0"), ("12", "0")] and answers[0][1] != "0"


def test_settings_of_the_dial():
    assert settings("1, 4,16") == ["1", "4", "16"]
    assert settings("first:32,8") == ["first:32,8"] and settings(None) == [None]


class TestBadInput:
    def refuse(self, outcome, *said):
        code, _, err = outcome
        assert code == 2
        assert err.startswith("lw: ") and err.count("\n") == 1, "one clear line, no traceback"
        for part in said:
            assert part in err

    def test_of_the_dial(self, lw_command, folder):
        for steps in ("0", "-2", "many", "first:3", "1,,2", "2.5"):
            self.refuse(lw_command("think", "hi", "--model", folder, f"--steps={steps}"))
        self.refuse(lw_command("think", "hi", "--model", folder, "--steps", "auto", "--max-steps", "0"), "at least 1, got 0")
        self.refuse(lw_command("think", "hi", "--model", folder, "--steps", "auto", "--threshold", "-1"), "threshold", "-1")
        self.refuse(lw_command("think", "hi", "--model", folder, "--cache", "huge"), "huge")

    def test_of_the_question(self, lw_command, folder):
        self.refuse(lw_command("think", "", "--model", folder), "empty")
        self.refuse(lw_command("think", " \n", "--model", folder), "empty")
        self.refuse(lw_command("think", "a" * 80, "--model", folder), "context", "64")

    def test_of_the_options(self, lw_command, folder):
        self.refuse(lw_command("think", "hi", "--model", folder, "--tokens", "0"), "--tokens")
        self.refuse(lw_command("think", "hi", "--model", folder, "--temperature=-1"), "--temperature")
        self.refuse(lw_command("think", "hi", "--model", folder, "--dtype", "float7"), "float7")
        self.refuse(lw_command("think", "hi", "--model", folder, "--device", "abacus"), "abacus")

    def test_of_the_command_itself(self, lw_command):
        self.refuse(lw_command("ponder", "hi"), "ponder")
        self.refuse(lw_command("think", "hi", "--loudly"), "--loudly")
        self.refuse(lw_command("think"), "Missing")
        self.refuse(lw_command("train", "chains", "--depth", "deep"), "--depth", "deep")
        self.refuse(lw_command("train", "ropes"), "ropes", "chains")

    @pytest.mark.parametrize(
        ("arguments", "flag"),
        [
            (("eval", "none", "--task", "chains"), "--json"),
            (("eval", "none", "--task", "chains"), "--plot"),
            (("bench", "none"), "--json"),
            (("ablate", "none", "--task", "prosqa"), "--json"),
            (("probe", "none", "--task", "chains"), "--json"),
            (("probe", "none", "--task", "chains"), "--plot"),
            (("maze", "none"), "--plot"),
            (("inspect", "hi", "--model", "none"), "--json"),
        ],
    )
    def test_of_files_before_the_model_is_even_looked_for(self, lw_command, tmp_path, arguments, flag):
        place = tmp_path / "nowhere" / "file.png"
        self.refuse(lw_command(*arguments, flag, place), f"cannot write {place}: there is no folder {place.parent}; make it")
        if flag == "--plot":
            self.refuse(lw_command(*arguments, flag, tmp_path / "file.pdf"), "file.pdf: a picture is .png")

    def test_of_the_model(self, lw_command, folder, tmp_path):
        self.refuse(lw_command("think", "hi", "--model", "nobody"), "nobody", "smollm2-135m")
        self.refuse(lw_command("info", tmp_path), "config.json")
        broken = tmp_path / "broken"
        lw.load(folder).save_pretrained(broken)
        self.refuse(lw_command("think", "hi", "--model", broken), "tokenizer")
        tensors = load_file(broken / "model.safetensors")
        tensors["model.norm.weight"][0] = torch.nan
        save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
        self.refuse(lw_command("think", "hi", "--model", broken), "NaN", "model.norm.weight")
        config = json.loads((broken / "config.json").read_text())
        (broken / "config.json").write_text(json.dumps({**config, "model_type": "other"}))
        self.refuse(lw_command("info", broken), "unknown model type 'other'")
