"""The report holds what was seen, exactly; it is one small file; and what cannot be shown is shown as that."""

import base64
import hashlib
import itertools
import json
import math
import re
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import planted
import pytest
import torch
from maps import Map, turn
from planted import circle, cycle, embed, slider

import latentweaver as lw
from latentweaver.cli import main
from latentweaver.inspect import Trajectory, draw_portrait, find_flips, head_lens, label_path, read_steps, record, report
from latentweaver.inspect.report_findings import SETTLED, Findings, Said, from_trajectory, settled_at
from latentweaver.inspect.report_packing import Array, encode, pack
from latentweaver.inspect.report_page import LIMIT, html

NASTY = "</script><script>document.title='caught'</script><!--@@BLOB@@"


def facts_of(page: str) -> dict:
    facts = json.loads(re.search(r'<script type="application/json" id="facts">(.*?)</script>', page, re.DOTALL)[1])
    for name, place in facts["arrays"].items():
        if place["kind"] == "json":
            facts[name] = json.loads(blob_of(page)[place["offset"] :][: place["shape"][0]])
    return facts


def blob_of(page: str) -> bytes:
    return zlib.decompress(base64.b64decode(re.search(r'id="blob">(.*?)</script>', page, re.DOTALL)[1]))


def unpacked(page: str) -> dict[str, np.ndarray]:
    """The arrays of a page, read by the format's definition."""
    raw, out = blob_of(page), {}
    for name, place in facts_of(page)["arrays"].items():
        shape, kind, offset = place["shape"], place["kind"], place["offset"]
        if kind == "json":
            continue
        count = math.prod(shape)
        ranges = None
        if kind in ("linear", "log"):
            ranges = np.frombuffer(raw, "<f4", 2 * shape[0], offset).reshape(-1, 2).astype(float)
            offset += 8 * shape[0]
        number = np.dtype({"linear": "<u2", "log": "<u2"}.get(kind, f"<{kind}"))
        planes = np.frombuffer(raw, np.uint8, count * number.itemsize, offset).reshape(number.itemsize, count)
        values = np.ascontiguousarray(planes.T).view(number).reshape(shape)
        if kind.startswith("u"):
            values = np.where(values == 0, np.nan, values.astype(float) - 1)
        elif ranges is not None:
            low, high = (ranges[:, i].reshape(-1, *[1] * (len(shape) - 1)) for i in (0, 1))
            number_of = low + (values - 1.0) / 65532 * (high - low)
            there = np.exp(number_of) if kind == "log" else number_of
            zero = 0.0 if kind == "log" else there
            values = np.select([values == 65535, values == 65534, values == 0], [np.nan, np.inf, zero], there)
        out[name] = values
    return out


def numbers(nested) -> np.ndarray:
    """Nested lists of the JSON file, "NaN" and "Infinity" among them, as an array."""
    return np.array(nested, dtype=object).astype(float) if np.size(nested) else np.zeros(np.shape(nested))


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    """A tiny random model, looked at: the findings, the page, the JSON and the folder."""
    torch.manual_seed(0)
    config = lw.RecurrentDepthConfig(
        vocab_size=61, hidden_size=32, intermediate_size=64, num_attention_heads=2, prelude_layers=1, core_layers=2, coda_layers=1,
        num_steps=4, initializer_range=0.2,
    )  # fmt: skip
    model = lw.RecurrentDepthForCausalLM(config).eval()
    ids = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(1))
    folder = tmp_path_factory.mktemp("report")
    found = report(
        model, ids, folder / "report.html", steps=24, row=1, tokens=[2, 5, 8], generated=2, starts=2, control=3, pair=(4, 5),
        text=lambda token: f"{NASTY}{token}", json=folder / "report.json", states=folder / "states.safetensors", title=NASTY,
    )  # fmt: skip
    page = (folder / "report.html").read_text()
    return model, ids[[1]], found, page, json.loads((folder / "report.json").read_text()), folder


@torch.no_grad()
def test_page_and_json_hold_what_the_model_did(looked):
    model, ids, _, page, said, _ = looked
    thought = model.begin(ids, generator=torch.Generator().manual_seed(0))
    states, logprobs = [], []
    for step in range(25):
        thought = model.think(thought) if step else thought
        states.append(thought.state[0, [2, 5, 8]].numpy())
        logprobs.append(model.read(thought).logits[0, [2, 5, 8]].log_softmax(-1).numpy())
    states, logprobs = np.stack(states, 1), np.stack(logprobs, 1)  # [tokens, kept, ...]
    speed = np.linalg.norm(np.diff(states, axis=1), axis=-1) / np.linalg.norm(states[:, 1:], axis=-1)
    answers = logprobs[:, -1].argmax(-1)
    own = np.take_along_axis(logprobs, answers[:, None, None], -1)
    wanted = {
        "speed": np.pad(speed, ((0, 0), (1, 0)), constant_values=np.nan),
        "answer_probability": np.exp(own[..., 0]),
        "answer_rank": (logprobs > own).sum(-1),
        "control_rank": (logprobs > logprobs[..., [3]]).sum(-1),
        "entropy": -(np.exp(logprobs) * logprobs).sum(-1),
        "pair_difference": logprobs[..., 4] - logprobs[..., 5],
        "top_logprobs": -np.sort(-logprobs, -1)[..., :5],
    }
    arrays, lists = unpacked(page), said["arrays"]
    for name, values in wanted.items():
        assert np.allclose(arrays[name], values, rtol=2e-4, atol=2e-5, equal_nan=True), name
        assert np.allclose(numbers(lists[name]), values, rtol=2e-4, atol=2e-5, equal_nan=True), name
    vocabulary = np.array([entry["id"] for entry in said["vocabulary"]])
    assert np.array_equal(vocabulary[numbers(lists["top"])[..., 0].astype(int)], logprobs.argmax(-1))
    for i, token in enumerate(said["tokens"]):
        portrait, label, flips = draw_portrait(states[i][1:]), label_path(states[i]), find_flips(logprobs[i])
        assert token["label"]["text"] == str(label) and token["label"]["reasons"] == list(label.reasons)
        assert np.allclose(np.abs(arrays["points"][i][1:]), np.abs(portrait.points), atol=1e-4)
        start = (states[i][0] - states[i][1:].mean(0)) @ portrait.components.T  # drawn, but not fitted to
        assert np.allclose(np.abs(arrays["points"][i][0]), np.abs(start), atol=1e-4)
        assert np.allclose(token["portrait"]["explained"], portrait.explained, atol=1e-4)
        assert (token["flips"]["steps"], token["flips"]["last"]) == (list(flips.steps), flips.last)
        assert (token["id"], token["answer"]["id"]) == (int(ids[0, [2, 5, 8][i]]), int(answers[i]))
    assert [token["generated"] for token in said["tokens"]] == [False, False, True]
    assert facts_of(page)["tokens"] == said["tokens"]  # one truth for both


@torch.no_grad()
def test_other_starts_are_other_starts(looked):
    model, ids, found, page, _, _ = looked
    assert found.starts.kind == "noise"
    ends = [found.states[-1]]
    for seed in (1000, 2000):
        thought = lw.think_for(model, model.begin(ids, generator=torch.Generator().manual_seed(seed)), 24)
        ends.append(thought.state[0, [2, 5, 8]].numpy())
    assert np.allclose(found.starts.states[:, -1], ends[1:], atol=1e-6)
    unit = np.stack(ends) / np.linalg.norm(np.stack(ends), axis=-1, keepdims=True)
    cosines = [(unit[i] * unit[j]).sum(-1) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert np.allclose(found.starts.independence, np.mean(cosines, 0), atol=1e-5)
    away = np.linalg.norm(found.states - ends[2], axis=-1) / np.linalg.norm(ends[2], axis=-1)
    assert np.allclose(unpacked(page)["distance"], away.T, rtol=1e-4)
    assert "another start ended after 24 steps" in facts_of(page)["distance_to"]


def test_fixed_starts_are_perturbed():
    still = Map(lambda x, _: 0.9 * x, 4, start=torch.ones(4, dtype=torch.float64))
    found = lw.inspect.report_findings.gather(still, torch.zeros(1, 2, dtype=torch.long), steps=60, starts=2, bench=0)
    assert found.starts.kind == "perturbed"
    assert not np.array_equal(found.starts.states[0, 0], found.states[0])
    assert found.starts.spread == pytest.approx(0.9**60, rel=1e-6)
    assert "beside its own" in found.distance_to


def test_the_bench_takes_the_last_token_and_then_what_goes_round():
    twist = torch.eye(6, dtype=torch.float64) * 0.5
    twist[:2, :2] = turn(2 * math.pi / 5)
    start = torch.zeros(3, 6, dtype=torch.float64)
    start[0] = start[2] = torch.tensor([0, 0, 1.0, 1, 1, 1])
    start[1, 0] = 1
    ring = Map(lambda x, _: x @ twist.T, 6, start=start)
    found = lw.inspect.report_findings.gather(ring, torch.zeros(1, 3, dtype=torch.long), steps=128, starts=0, bench=2)
    assert str(found.labels[1]) == "orbit(5)"
    assert set(found.examined) == {1, 2}
    assert found.examined[1].verdict == "orbit(5)"


def test_settling_is_counted_from_the_last_long_step():
    steps = np.arange(7)
    assert settled_at(np.array([np.nan, 1, 0.01, 0.2, 0.01, 0.01, 0.01]), steps) == 4
    assert settled_at(np.array([np.nan, 0.01, 0.02, 0, 0, 0, 0]), steps) == 1
    assert settled_at(np.array([np.nan, 1, 0.01, 0.01, 0.01, 0.01, SETTLED]), steps) is None
    assert settled_at(np.array([np.nan, 1, 0.01, 0.01, 0.01, 0.01, np.nan]), steps) is None
    assert settled_at(np.array([np.nan]), steps[:1]) is None


def test_recordings_are_saved_and_read_back_bit_for_bit(looked, tmp_path):
    model, ids, found, *_, folder = looked
    again = Trajectory.load(folder / "states.safetensors")
    assert np.array_equal(again.states[0], found.states)
    whole = record(model, ids, steps=6, keep=("states", "top", "entropy"), track=[3], every=2)
    whole.save(tmp_path / "whole")
    back = Trajectory.load(tmp_path / "whole")
    for name in ("states", "steps", "taken", "positions", "token_ids", "real", "entropy", "top_ids", "top_logprobs", "tracked_logprobs"):
        assert getattr(whole, name).dtype == getattr(back, name).dtype
        assert np.array_equal(getattr(whole, name), getattr(back, name))
    assert (back.dtype, back.tracked, back.model, back.final) == ("float32", (3,), "RecurrentDepthForCausalLM", None)
    record(model, ids, steps=2, keep="entropy").save(tmp_path / "no states")
    assert Trajectory.load(tmp_path / "no states").states is None
    (tmp_path / "other").write_bytes(b"not a recording")
    for path in ("other", "nowhere"):
        with pytest.raises(lw.InputError, match="cannot read a Trajectory"):
            Trajectory.load(tmp_path / path)
    lw.Thought.start(torch.zeros(1, 1, 1)).save(tmp_path / "thought")
    with pytest.raises(lw.InputError, match="holds no Trajectory"):
        Trajectory.load(tmp_path / "thought")


def test_a_recording_alone_gives_a_report(looked, tmp_path):
    model, ids, *_ = looked
    record(model, ids, steps=12, keep=("states", "top", "entropy")).report(tmp_path / "r.html", text=str, json=tmp_path / "r.json")
    said = json.loads((tmp_path / "r.json").read_text())
    assert said["title"] == "".join(str(token) for token in ids[0].tolist())
    assert {"speed", "distance", "top", "entropy"} <= set(said["arrays"])
    assert "its own last state" in said["distance_to"]  # and says that this falls for every path
    with pytest.raises(lw.InputError, match="kept no states"):
        record(model, ids, steps=2, keep="entropy").report(tmp_path / "r.html")
    with pytest.raises(lw.InputError, match="no row 3"):
        record(model, ids, steps=2).report(tmp_path / "r.html", row=3)
    with pytest.raises(lw.InputError, match="there is no folder"):
        record(model, ids, steps=2).report(tmp_path / "nowhere" / "r.html")


def test_any_reasoner(tmp_path):
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    from own_reasoner import Reachability

    found = report(Reachability(5), torch.tensor([[0, 1, 1, 2, 2, 3, 0]]), tmp_path / "r.html", steps=8)
    assert [label.name for label in found.labels] == ["fixed_point"]
    assert found.provenance.weights == ""
    assert facts_of((tmp_path / "r.html").read_text())["tokens"][0]["text"] == "the thought"


def test_thoughts_that_are_tokens_of_their_own(tmp_path):
    """A continuous thought has one state, not one for each token of the input; and its noise takes any generator."""
    from transformers import AutoModelForCausalLM, GPT2Config

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=48))
    found = report(lw.continuous_thought(base.eval()), torch.arange(8)[None], tmp_path / "r.html", steps=12, starts=1, bench=0)
    assert found.ids is None and found.states.shape == (13, 1, 32)
    assert facts_of((tmp_path / "r.html").read_text())["tokens"][0]["text"] == "the thought"


# The file


def test_fetches_nothing_and_lets_nothing_run_but_its_own_script(looked):
    page = looked[3]
    assert not re.search(r"""(?:src|href|url|import|fetch)\s*[=(]\s*["'`]?\s*(?:https?:)?//""", page)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    script, style = (re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1] for tag in ("script", "style"))
    for source in (script, style):
        assert base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() in policy


def test_text_of_a_prompt_stays_text(looked):
    _, _, found, page, said, _ = looked
    assert NASTY not in page and facts_of(page)["title"] == NASTY
    assert page.count("</script>") == 3
    assert facts_of(page)["tokens"][0]["text"] == said["tokens"][0]["text"] == f"{NASTY}{found.ids[0]}"


def test_the_same_looks_give_the_same_file(looked, tmp_path):
    model, ids, _, page, _, _ = looked
    both = []
    for name in "ab":
        report(model, ids, tmp_path / name, steps=6, starts=1, bench=0)
        both.append((tmp_path / name).read_bytes())
    assert both[0] == both[1]
    weights = facts_of(page)["provenance"]["weights"]
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    try:
        changed = lw.inspect.report_findings.weights_hash(model)
    finally:
        with torch.no_grad():
            model.lm_head.weight[0, 0] -= 1
    assert len(weights) == 16 and changed != weights


def noise(n: int = 300, kept: int = 129, k: int = 5) -> Findings:
    """Findings that nothing can compress: the worst that can come."""
    rng = np.random.default_rng(0)
    one = from_trajectory(Trajectory.of(planted.walk(128, rng, 8)[:, None]))
    drawn = lambda *shape: rng.normal(size=(n, kept, *shape))  # noqa: E731
    ids = rng.integers(0, 49152, (n, kept, k))
    ranks = rng.integers(0, 49152, (n, kept)).astype(float)
    return replace(
        one, positions=np.arange(n), generated=(False,) * n, states=rng.normal(size=(kept, n, 8)), settled=(3,) * n,
        speed=np.abs(drawn()), distance=np.abs(drawn()), labels=one.labels * n,
        portraits=tuple(replace(one.portraits[0], ghost=rng.normal(size=(128, 6))) for _ in range(n)),
        said=Said(ids, drawn(k), ids[:, -1, 0], kept - 1, drawn(), drawn(), ranks, np.abs(drawn())),
    )  # fmt: skip


def test_300_tokens_of_noise_over_128_steps_stay_below_a_megabyte_and_a_half():
    found = noise()
    page = html(found, "noise")
    assert len(page.encode()) <= LIMIT == 1_500_000
    facts = facts_of(page)
    assert len(facts["tokens"]) == 300
    assert any("only every" in line for line in facts["not_shown"])  # and it says what it left out
    assert np.allclose(unpacked(page)["speed"], found.speed[:, facts["steps"]], rtol=1e-3)
    with pytest.raises(lw.InputError, match="choose fewer tokens"):
        html(noise(2), "noise", limit=80_000)


def test_300_tokens_that_think_as_models_do_keep_every_step(tmp_path):
    """Paths that settle, of a real loop: everything fits, at 16 bits."""
    shrink = torch.linspace(0.5, 0.97, 16, dtype=torch.float64)
    many = Map(lambda x, thought: shrink * x + 0.1 * torch.tanh(thought.anchor["ids"][..., None] / 50 + x.mean(-1, keepdim=True)), 16)
    ids = torch.randint(0, 500, (1, 300), generator=torch.Generator().manual_seed(0))
    report(many, ids, tmp_path / "r.html", steps=128, starts=1, bench=0)
    page = (tmp_path / "r.html").read_text()
    assert len(page.encode()) <= 1_500_000
    assert len(facts_of(page)["steps"]) == 129
    assert unpacked(page)["speed"].shape == (300, 129)


def test_packing_keeps_whole_numbers_and_rounds_the_rest_by_little():
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(size=(4, 50), scale=8))
    values[0, 0], values[1, 1], values[2, 2] = np.nan, 0, np.inf
    low, high, codes = encode(values, logarithmic=True)
    back = np.exp(low[:, None] + (codes - 1.0) / 65532 * (high - low)[:, None])
    finite = np.isfinite(values) & (values > 0)
    assert np.abs(back / np.where(finite, values, 1) - 1)[finite].max() < 1e-3
    assert (codes[0, 0], codes[1, 1], codes[2, 2]) == (65535, 0, 65534)
    whole = np.array([[0, 7, 70000, np.nan]])
    blob, index = pack({"whole": Array(whole, "whole"), "linear": Array(-values[:1])}, exact=True)
    page = f'<script type="application/json" id="facts">{json.dumps({"arrays": index})}</script><script id="blob">{blob}</script>'
    assert np.array_equal(unpacked(page)["whole"], whole, equal_nan=True)
    assert np.array_equal(unpacked(page)["linear"], -values[:1].astype("f4"), equal_nan=True)


# What cannot be shown


class Breaks(Map):
    """The second token turns into NaN at step 7."""

    def __init__(self):
        super().__init__(self.go, 4, start=torch.eye(3, 4, dtype=torch.float64) + 0.5)

    def go(self, state, thought):
        factor = torch.full((3, 1), 0.9, dtype=torch.float64)
        factor[1] = torch.nan if int(thought.step[0, 0]) == 6 else 0.9
        return state * factor


def test_nan_is_nan_and_never_nought(tmp_path):
    found = report(Breaks(), torch.zeros(1, 3, dtype=torch.long), tmp_path / "r.html", steps=20, control=1, json=tmp_path / "r.json")
    said = json.loads((tmp_path / "r.json").read_text())
    page = unpacked((tmp_path / "r.html").read_text())
    for name in ("speed", "entropy", "distance", "control_rank", "top_logprobs"):
        assert np.isnan(page[name][1, 7:]).all() and not np.isnan(page[name][0, 1:]).any(), name
        assert np.array_equal(np.isnan(page[name]), np.isnan(numbers(said["arrays"][name]))), name
    broken = said["tokens"][1]
    assert broken["label"]["name"] == "undetermined" and "from step 7 on" in broken["label"]["reasons"][0]
    assert broken["settled"] is None and broken["flips"] is None and broken["answer"] == {"id": None, "text": "NaN"}
    assert broken["starts"]["same_answer"] == "NaN"
    assert np.isnan(page["answer_probability"][1]).all()  # there is no final answer whose probability could be followed
    assert not isinstance(found.portraits[1], str)  # its first seven states are finite, and drawn
    assert np.isnan(page["points"][1, 7:]).all() and np.isfinite(page["points"][1, :7]).any()


class Explodes(Map):
    """The first token doubles until it leaves float32 at step 27, and then takes the others, which settle, along."""

    def __init__(self):
        super().__init__(self.go, 4, start=torch.tensor([[1e30, 2e30, 3e30, 4e30], [1.0, 2, 3, 4], [4.0, 3, 2, 1]]).double())

    def go(self, state, thought):
        large = (state * torch.tensor([[2.0], [0.5], [0.5]]) + torch.tensor([[0.0, 0, 0, 0], [1, 2, 3, 4], [4, 3, 2, 1]])).float().double()
        return torch.where(large[:, :1].isinf().any(), torch.nan, large)


def test_what_was_said_before_everything_broke_is_shown(tmp_path, capsys):
    found = report(Explodes(), torch.zeros(1, 3, dtype=torch.long), tmp_path / "r.html", steps=40, json=tmp_path / "r.json", bench=0)
    said = json.loads((tmp_path / "r.json").read_text())
    last = said["read_to"]
    assert last == 26 and np.isfinite(found.states[last]).all() and np.isnan(found.states[last + 1]).all()
    assert [label.name for label in found.labels] == ["wander", "undetermined", "undetermined"]
    assert [label.candidate for label in found.labels] == [None, "fixed_point", "fixed_point"]
    assert found.labels[0].flags == ("growing", "not finite")
    assert [token["answer"]["id"] for token in said["tokens"]] == found.said.top_ids[:, last, 0].tolist()
    probability = numbers(said["arrays"]["answer_probability"])
    assert np.isfinite(probability[:, : last + 1]).all() and np.isnan(probability[:, last + 1 :]).all()
    assert np.isfinite(found.speed[0, 1 : last + 1]).all()
    assert any(f"After step {last} no state is finite" in line for line in said["not_shown"])


def test_one_step_is_one_step(tmp_path):
    found = report(Breaks(), torch.zeros(1, 3, dtype=torch.long), tmp_path / "r.html", steps=1)
    assert [label.name for label in found.labels] == ["undetermined"] * 3
    assert found.portraits[0] == "1 finite state after the start: a portrait needs at least 4"
    assert found.examined == {}


def test_a_model_that_does_not_think_is_said_not_to(tmp_path):
    found = report(Map(lambda x, _: x, 3), torch.zeros(1, 2, dtype=torch.long), tmp_path / "r.html", steps=20)
    assert all("still" in label.flags for label in found.labels)
    assert found.portraits[0].startswith("the state never moved")
    with pytest.raises(lw.InputError, match="without a recurrence"):
        report(torch.nn.Linear(2, 2), torch.zeros(1, 2, dtype=torch.long), tmp_path / "r.html")


def test_no_tokens(tmp_path):
    with pytest.raises(lw.InputError, match="no tokens"):
        report(Breaks(), torch.zeros(1, 0, dtype=torch.long), tmp_path / "r.html")
    none = Trajectory(np.zeros((1, 5, 0, 4)), np.arange(5), np.array([5]), np.zeros(0, int), None, np.ones((1, 0), bool), "float32")
    none.report(tmp_path / "r.html")
    assert facts_of((tmp_path / "r.html").read_text())["tokens"] == []


def test_planted_paths_keep_their_names(tmp_path):
    rng = np.random.default_rng(0)
    paths = [embed(core, rng, noise=0.01) for core in (cycle(7, 128, rng), circle(planted.GOLDEN, 128, rng), slider(128, rng))]
    Trajectory.of(np.stack([*paths, planted.walk(128, rng)], 1)).report(tmp_path / "r.html", json=tmp_path / "r.json")
    tokens = json.loads((tmp_path / "r.json").read_text())["tokens"]
    assert [token["label"]["text"] for token in tokens] == ["orbit(7)", "quasi_orbit", "slider", "wander"]
    assert [token["portrait"]["like_a_walk"] for token in tokens] == [False, False, False, True]


# The command


def lw_command(*arguments) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code
    return 0


def test_the_command_writes_report_json_and_states(tmp_path, capsys):
    code = lw_command(
        "inspect", "r=3 k=r+4 ?k=", "--model", "weaver-chains", "--steps", 12, "--starts", 1, "--tokens=-3:", "--generate", 1,
        "--pair", "3", "7", "--out", tmp_path / "r.html", "--json", tmp_path / "r.json", "--states", tmp_path / "s",
    )  # fmt: skip
    out = capsys.readouterr().out
    said = json.loads((tmp_path / "r.json").read_text())
    assert code == 0
    assert "3 tokens, 12 steps" in out and "says" in out and "r.html" in out
    assert [token["text"] for token in said["tokens"]] == ["k", "=", "7"]
    assert [token["generated"] for token in said["tokens"]] == [False, False, True]
    assert said["tokens"][1]["answer"]["text"] == "7"  # 3 + 4
    assert said["pair"] == ["3", "7"] and said["title"] == "r=3 k=r+4 ?k="
    assert said["provenance"]["model"] == "weaver-chains" and len(said["provenance"]["weights"]) == 16
    assert Trajectory.load(tmp_path / "s").states.shape[1:3] == (13, 3)


def test_the_command_reads_a_graph_as_the_model_was_taught_it(tmp_path, capsys):
    graph = "a>b a>c b>d c>e e>f g>h h>i from a: f or i"
    assert (
        lw_command(
            "inspect",
            graph,
            "--model",
            "weaver-graphs",
            "--steps",
            2,
            "--starts",
            0,
            "--bench",
            0,
            "--out",
            tmp_path / "r.html",
            "--json",
            tmp_path / "r.json",
        )
        == 0
    )
    assert "says 'f'" in capsys.readouterr().out  # three edges away: what two thoughts have reached
    assert lw_command("inspect", "hello", "--model", "weaver-graphs", "--out", tmp_path / "r.html") != 0
    assert "a graph is written as" in capsys.readouterr().err


def test_one_token_and_one_step_are_said_in_the_singular(tmp_path, capsys):
    code = lw_command(
        "inspect",
        "r=3 ?r=",
        "--model",
        "weaver-chains",
        "--steps",
        1,
        "--starts",
        0,
        "--bench",
        0,
        "--tokens=-1",
        "--out",
        tmp_path / "r.html",
    )
    assert code == 0 and capsys.readouterr().out.startswith("1 token, 1 step: 1 undetermined\n")


def test_the_command_reads_through_a_lens_that_it_tunes(tmp_path):
    letters = "abcdefghij"
    (tmp_path / "texts.txt").write_text("".join(f"{a}={i} {b}={a}+2 ?{b}=\n" for i, (a, b) in enumerate(itertools.pairwise(letters))))
    code = lw_command(
        "inspect", "r=3 k=r+4 ?k=", "--model", "weaver-chains", "--steps", 3, "--starts", 0, "--bench", 0, "--tokens=-1",
        "--tune-on", tmp_path / "texts.txt", "--out", tmp_path / "r.html", "--json", tmp_path / "r.json",
    )  # fmt: skip
    said = json.loads((tmp_path / "r.json").read_text())
    assert code == 0
    tuned, coda = map(float, re.search(r"on 2 others (\S+) nats from the last word, the coda (\S+)\)", said["lens"]).groups())
    assert tuned < coda
    assert any("read through a lens tuned on" in line for line in said["not_shown"])


@torch.no_grad()
def test_states_can_be_read_through_the_plain_head(looked, tmp_path):
    model, ids, _, _, coda, _ = looked
    assert coda["lens"] is None
    head = head_lens(model)
    report(model, ids, tmp_path / "r.html", steps=6, tokens=[8], starts=0, bench=0, lens=("the plain head", head), json=tmp_path / "r.json")
    said = json.loads((tmp_path / "r.json").read_text())
    reading = read_steps(model, ids, steps=6, tokens=[8], lens=head, generator=torch.Generator().manual_seed(0))
    assert np.allclose(numbers(said["arrays"]["top_logprobs"])[0], reading.top_logprobs[0, :, 0])
    assert said["lens"] == "the plain head" and said["tokens"][0]["answer"]["id"] == reading.answers[0, 0]
    assert any("read through the plain head" in line for line in said["not_shown"])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["  "], "the question is empty"),
        (["r=1 ?r=", "--steps", 0], "steps must be at least 1"),
        (["r=1 ?r=", "--tokens", "first"], "--tokens must be"),
        (["r=1 ?r=", "--tokens", "99"], "of a sequence of 7"),
        (["r=1 ?r=", "--pair", "1", "12"], "--pair takes two texts of one token"),
        (["r=1 ?r=", "--out", "nowhere/r.html"], "there is no folder nowhere"),
        (["r=1 ?r=", "--generate", "-1"], "--generate must not be negative"),
        (["r=1 ?r=", "--model", "nobody"], "nobody"),
        (["r=1 ?r=", "--tune-on", "nowhere.txt"], "cannot read nowhere.txt"),
        (["r=1 ?r=", "--tune-on", "nowhere.txt", "--lens", "head"], "leave --lens out"),
    ],
)
def test_bad_input_to_the_command_ends_in_one_line(arguments, complaint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert lw_command("inspect", "--model", "weaver-chains", "--steps", 2, *arguments) == 2
    err = capsys.readouterr().err
    assert complaint in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
