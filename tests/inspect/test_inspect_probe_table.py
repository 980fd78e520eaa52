"""A probe after each step, with its controls: what is planted is found where it was planted, and what is not is not."""

import json

import numpy as np
import pytest
import torch

import latentweaver as lw
from latentweaver.cli import main
from latentweaver.inspect.labelled import known_on_the_way, read_labelled, states_after
from latentweaver.inspect.probe_table import draw_probe_table, probe_steps
from latentweaver.inspect.probes import calibrated_recall
from latentweaver.tasks import Chains, Maze
from latentweaver.tasks.chains import evaluate


def planted(items=300, classes=2, seed=0, from_step=2):
    """A label that stands in the states of four steps from `from_step` on, three items to a group."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=items)
    states = rng.normal(size=(4, items, 12))
    states[from_step:] += 3 * rng.normal(size=(classes, 12))[y]
    return states, y, np.arange(items) // 3


@pytest.mark.parametrize("classes", [2, 5])
def test_what_is_planted_is_found_from_its_step_on(classes):
    states, y, groups = planted(classes=classes)
    rng = np.random.default_rng(9)
    texts = [" ".join(rng.choice(["some", "plain", "words"], size=4)) for _ in y]
    table = probe_steps(states, y, groups, texts=texts, untrained=rng.normal(size=states.shape))
    assert table.metric == ("AUROC" if classes == 2 else "accuracy")
    assert table.readable_from == 2
    for row in table.rows:
        for control in (row.shuffled, row.untrained, table.text, table.length):
            assert control.low < table.chance + 0.05
        assert (row.probe.low > 0.9) == (row.step >= 2)
    assert table.leaking == 0
    assert len(str(table).splitlines()) == 5


def test_what_the_text_gives_away_is_not_called_readable():
    states, y, groups = planted(from_step=0)
    table = probe_steps(states, y, groups, texts=["trap" if one else "harmless" for one in y])
    assert table.rows[-1].probe.low > 0.9
    assert table.text.value == 1
    assert table.readable_from is None


def test_recall_is_measured_where_neither_probe_nor_threshold_has_been():
    rng = np.random.default_rng(1)
    y = np.tile([0, 1], 4000)
    states = rng.normal(size=(8000, 6))
    states[:, 0] += 2 * y
    alarm = calibrated_recall(states, y, np.arange(8000) // 2)
    assert 0.003 <= alarm.false_alarms <= 0.02
    assert alarm.recall == pytest.approx(0.372, abs=0.06)  # 1 - Phi(2.326 - 2)
    assert alarm.low < alarm.recall < alarm.high
    assert alarm.calibration == 1000
    assert calibrated_recall(states[:200], y[:200], np.arange(200)) is None


def test_values_on_the_way_are_those_that_the_text_implies():
    items = known_on_the_way(Chains(statements=20), depth=3, count=20)
    for item in items:
        assert item.group.startswith(item.text)
        known, _, last = item.text.rpartition(" ")
        name = last[-1] if last else known.split()[-1][0]  # a value that is looked up, or that of a whole statement
        assert evaluate(f"{known} ?{name}=") == (item.label, 2 if last else 3)
    assert len({item.group for item in items}) == 20
    with pytest.raises(lw.InputError, match="nothing about values on the way"):
        known_on_the_way(Maze(), depth=3, count=2)


class Remembers:
    """The state is the sum of the tokens so far, the last bit of which appears after step 1; padding counts for nothing."""

    def begin(self, input_ids, attention_mask=None, initial_state=None, generator=None):
        total = (input_ids * attention_mask).cumsum(-1)[..., None].double()
        return lw.Thought.start(torch.cat([total, 0 * total], -1))

    def think(self, thought):
        total = thought.state[..., :1]
        return thought.advance(torch.cat([total, total % 2], -1))

    def read(self, thought):
        return lw.Readout(logits=thought.state.float())


def test_states_of_texts_of_any_length_in_their_own_order():
    texts = ["12", "999", "1", "55555", "7"]
    states = states_after(Remembers(), lambda text: [int(c) for c in text], texts, [0, 2], batch_size=2)
    assert states[0, :, 0].tolist() == [3, 27, 1, 25, 7]
    assert states[1, :, 1].tolist() == [1, 1, 1, 1, 1]
    with pytest.raises(lw.InputError, match="no tokens"):
        states_after(Remembers(), lambda text: [], ["a"], [0])


def test_bad_input(tmp_path):
    file = tmp_path / "items.jsonl"
    for text, wanted in (
        ("", "holds no items"),
        ('{"text": "a", "label": 1}\n{"text": "b"}', "line 2"),
        ("not json", "line 1"),
        ('{"text": "a", "label": 1}\n{"text": "b", "label": "x"}', "several kinds"),
        ('{"text": "a", "label": null}', "line 1"),
    ):
        file.write_text(text)
        with pytest.raises(lw.InputError, match=wanted):
            read_labelled(file)
    with pytest.raises(lw.InputError, match="cannot read"):
        read_labelled(tmp_path / "none.jsonl")
    states, y, groups = planted(30)
    with pytest.raises(lw.InputError, match="nothing to tell apart"):
        probe_steps(states, np.zeros(30), groups)
    with pytest.raises(lw.InputError, match="not finite at step 2"):
        probe_steps(np.where(np.arange(4)[:, None, None] == 2, np.nan, states), y, groups)
    with pytest.raises(lw.InputError, match=r"\.png or \.svg"):
        draw_probe_table(probe_steps(states[:1], y, groups), tmp_path / "plot.gif")


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [([], "either --data"), (["--task", "chains", "--steps", "x"], "--steps"), (["--task", "tennis"], "unknown task"), (["--task", "chains", "--items", "0"], "--items")],
)  # fmt: skip
def test_one_line_and_exit_code_2(flags, wanted, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["probe", "weaver-chains", *flags])
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert wanted in said
    assert said.count("\n") == 1


@pytest.mark.slow
def test_values_of_the_shipped_reasoner_appear_when_they_have_been_worked_out(tmp_path, capsys):
    main(["probe", "weaver-chains", "--task", "chains", "--depth", "2", "--items", "160", "--steps", "0,1,4", "--json", str(tmp_path / "t.json"), "--plot", str(tmp_path / "t.svg")])  # fmt: skip
    found = json.loads((tmp_path / "t.json").read_text())
    assert [row["step"] for row in found["rows"]] == [0, 1, 4]
    assert found["rows"][0]["probe"]["low"] < 0.2
    assert found["rows"][-1]["probe"]["low"] > 0.7
    assert max(row["untrained"]["low"] for row in found["rows"]) < 0.2
    assert found["readable_from"] == 4
    assert "<svg" in (tmp_path / "t.svg").read_text()
    assert "readable beyond every control from step 4 on" in " ".join(capsys.readouterr().out.split())


def test_a_file_of_texts(tmp_path, capsys):
    rng = np.random.default_rng(0)
    items = [{"text": f"a={rng.integers(10)} b={digit} ?b=", "label": int(digit) > 4, "group": f"{i // 2}"} for i, digit in enumerate(rng.integers(10, size=60))]  # fmt: skip
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join(json.dumps(item) for item in items))
    main(["probe", "weaver-chains", "--data", str(file), "--steps", "0,3", "--no-untrained", "--json", str(tmp_path / "t.json")])
    found = json.loads((tmp_path / "t.json").read_text())
    assert found["classes"] == ["False", "True"]
    assert found["groups"] == 30
    assert found["text"]["value"] == 1  # the digit stands in the text
    assert found["readable_from"] is None
    assert "of 'True' against 'False'" in " ".join(capsys.readouterr().out.split())
