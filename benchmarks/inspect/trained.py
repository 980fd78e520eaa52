"""What the instrument says of trained nets whose task tells the truth: addition modulo p, clocks, counters, a backdoor.

    python benchmarks/inspect/trained.py benchmarks/inspect/results/trained/1.json [--only addition,ones] [--weights NETS] [--seconds 400]

    python benchmarks/inspect/trained.py benchmarks/inspect/results/trained/1.json --probe         # needs scikit-learn

Every run is a process of its own, on a GPU if there is one. A net that lies in NETS is measured and not trained again. The states of the
backdoor's thoughts are kept beside the record, and probed afterwards. A net that has not learned its task is in the record too, with its accuracy; what it does inside is then no
evidence of anything.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nets import Addition, Backdoor, Clock, Ones, looped
from safetensors.torch import load_model, save_model

from latentweaver.evaluate.intervals import wilson
from latentweaver.inspect import examine, label, record
from latentweaver.inspect.labels import ROTATIONS, Label
from latentweaver.inspect.patching import interchange, verdict

STEPS = 128

RUNS: dict[str, tuple[Any, int]] = {
    **{f"addition {p} seed {seed}": (Addition(p, seed=seed), 4000) for p in (23, 53, 113) for seed in (0, 1)},
    **{f"addition {p} more decay": (Addition(p, weight_decay=1.5), 4000) for p in (23, 53, 113)},
    "addition 53 shuffled": (Addition(53, shuffled=True), 4000),
    **{f"clock {p} seed {seed}": (Clock("cycle", p, 32, seed), 1500) for p in (5, 7, 12) for seed in (0, 1)},
    **{f"count up seed {seed}": (Clock("up", 128, 96, seed), 1600) for seed in (0, 1)},
    **{f"count down seed {seed}": (Clock("down", 96, 96, seed), 1600) for seed in (0, 1)},
    **{f"ones seed {seed}": (Ones(seed=seed), 3000) for seed in (0, 1)},
    **{f"backdoor seed {seed}": (Backdoor(seed=seed), 2500) for seed in (0, 1)},
}


def share(right: torch.Tensor) -> dict[str, Any]:
    """A share with its interval."""
    count, of = int(right.sum()), right.numel()
    return {"share": count / of, "interval": wilson(count, of), "of": of}


def counted(found: list[Label]) -> dict[str, Any]:
    """How many rows have each label, and how widely those that have it still move: the median of spread over norm."""
    spread: dict[str, list[float]] = {}
    for one in found:
        if (e := one.evidence) is not None and e.norm > 0:
            spread.setdefault(str(one), []).append(e.spread / e.norm)
    return {
        "labels": dict(Counter(str(one) for one in found).most_common()),
        "spread": {name: float(np.median(each)) for name, each in spread.items()},
    }


@torch.no_grad()
def by_step(model: Any, ids: torch.Tensor, wanted: torch.Tensor, steps: tuple[int, ...]) -> dict[int, dict[str, Any]]:
    """How often the last token is answered right after some numbers of steps."""
    thought, out = model.begin(ids), {}
    for step in range(1, max(steps) + 1):
        thought = model.think(thought)
        if step in steps:
            out[step] = share(model.read(thought).logits[:, -1].argmax(-1) == wanted)
    return out


@torch.no_grad()
def end_states(model: Any, ids: torch.Tensor, steps: int = 32) -> np.ndarray:
    """The last token's state after `steps`, `[rows, width]`."""
    thought = model.begin(ids)
    for _ in range(steps):
        thought = model.think(thought)
    return thought.state[:, -1].double().cpu().numpy()


def agreement(states: np.ndarray, kinds: np.ndarray) -> tuple[float, float]:
    """Mean cosine between states of the same kind, and of all, the common mean taken off."""
    x = states - states.mean(0)
    x /= np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-300)
    within = [((part.sum(0) ** 2).sum() - len(part)) / (len(part) * (len(part) - 1)) for part in (x[kinds == k] for k in np.unique(kinds))]
    return float(np.mean(within)), float(((x.sum(0) ** 2).sum() - len(x)) / (len(x) * (len(x) - 1)))


def fourier(states: np.ndarray, residues: np.ndarray, p: int) -> tuple[float, list[int]]:
    """The share of the power of the mean state, as a function of the residue, that its five strongest frequencies hold, and which."""
    means = np.stack([states[residues == c].mean(0) for c in range(p)])
    power = (np.abs(np.fft.rfft(means - means.mean(0), axis=0)) ** 2).sum(-1)[1:]
    strongest = np.argsort(-power)[:5]
    return float(power[strongest].sum() / power.sum()), (strongest + 1).tolist()


def addition(task: Addition, model: Any, device: str) -> dict[str, Any]:
    """V12: do the states of a + b = c coincide, on few frequencies, and is the residue read right from the trained depth on?"""
    prompts, answers = (x.to(device) for x in task.pairs(held_out=True))
    learned, told = (x.to(device) for x in task.pairs(held_out=False))
    every = torch.cat([prompts, learned])
    residues = (every[:, :2].sum(-1) % task.p).cpu().numpy()
    labels = list(label(record(model, prompts[:200], steps=STEPS, tokens=-1)))
    out: dict[str, Any] = {
        "held out": by_step(model, prompts, answers, (1, 2, 4, 8, 16, 32, 128)),
        "learned": by_step(model, learned[:2000], told[:2000], (8,)),
        **counted(labels),
    }
    for name, one in (("trained", model), ("untrained", looped(task.vocabulary, 99).to(device).eval())):
        states = end_states(one, every)
        same, everything = agreement(states, residues)
        power, strongest = fourier(states, residues, task.p)
        out[name] = {"cosine, same sum": same, "cosine, all": everything, "power of 5 frequencies": power, "frequencies": strongest}
    round_ = [i for i, one in enumerate(labels) if one.name in ROTATIONS]
    benched = [examine(model, prompts, row=i, steps=STEPS, seeds=0) for i in round_[:6]]
    out["what goes round, on the bench"] = dict(Counter(f"{one.passive}, {one.kick.outcome}, {one.verdict}" for one in benched))
    found = examine(model, prompts[:1].cpu() if device == "cpu" else prompts[:1])
    out["examined"] = {"verdict": found.verdict, "kick": found.kick.outcome, "path independence": found.reseed.path_independence}
    return out


@torch.no_grad()
def clock(task: Clock, model: Any, device: str) -> dict[str, Any]:
    """V12b and V13, trained: a net that says something else after every step must move, and its label must fit what it says."""
    starts = torch.arange(task.starts, device=device)[:, None]
    longest = task.longest if task.kind == "up" else STEPS
    thought, right = model.begin(starts), []
    for step in range(1, longest + 1):
        thought = model.think(thought)
        right.append(model.read(thought).logits[:, -1].argmax(-1) == task.rule(starts[:, 0], step))
    said = torch.stack(right, 1)
    asked = starts if task.kind != "down" else starts[-32:]  # those that have far to count
    path = record(model, asked, steps=longest if task.kind != "down" else 96)
    labels = list(label(path))
    out: dict[str, Any] = {
        "right, trained steps": share(said[:, : task.longest]),
        "right, all steps": share(said),
        "right throughout": share(said.all(1)),
        "steps": longest,
        **counted(labels),
    }
    if task.kind == "down":
        out["labels of 128 steps"] = counted(list(label(record(model, starts, steps=STEPS))))["labels"]
    if task.kind == "cycle":
        always = [str(one) for one, ok in zip(labels, said.all(1), strict=True) if ok]
        out["orbit(p) where right throughout"] = f"{always.count(f'orbit({task.p})')} of {len(always)}"
        found = examine(model, starts[:1])
        out["examined"] = {"verdict": found.verdict, "kick": found.kick.outcome}
    else:
        out |= straightness(path.states[:, :, 0], task, asked[:, 0].cpu().numpy())
    return out


def straightness(states: np.ndarray, task: Clock, n: np.ndarray) -> dict[str, Any]:
    """How much of a counter's state is a line: the count read along its mean slope on starts that the slope was not taken from."""
    counts = np.stack([task.rule(torch.from_numpy(n), t).numpy() for t in range(states.shape[1])], 1)
    moving = np.ones_like(counts, bool) if task.kind == "up" else counts > 0
    train = np.arange(len(n)) % 2 == 0
    return line(states[train][moving[train]], counts[train][moving[train]], states[~train][moving[~train]], counts[~train][moving[~train]])


def directions(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How the mean state moves with the count, and the direction along which ridge regression reads it."""
    away, off = x - x.mean(0), y - y.mean()
    slope = (off[:, None] * away).mean(0)
    return slope, np.linalg.solve(away.T @ away + 1e-3 * len(x) * x.var() * np.eye(x.shape[1]), len(x) * slope)


def line(x: np.ndarray, y: np.ndarray, fresh: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """R2 of the count along the slope of the states, along the best linear readout, and how many dimensions the mean states need."""
    slope, best = directions(x, y)

    def r2(direction: np.ndarray) -> float:
        a, b = np.polyfit(x @ direction, y, 1)
        return float(1 - ((wanted - a * (fresh @ direction) - b) ** 2).sum() / ((wanted - wanted.mean()) ** 2).sum())

    means = np.stack([x[y == k].mean(0) for k in np.unique(y)])
    values = np.linalg.svd(means - means.mean(0), compute_uv=False) ** 2
    return {"R2 along slope": r2(slope), "R2 of best line": r2(best), "first component": float(values[0] / values.sum()),
            "dimensions": float(values.sum() ** 2 / (values**2).sum())}  # fmt: skip


@torch.no_grad()
def ones(task: Ones, model: Any, device: str) -> dict[str, Any]:
    """V13: is the count a direction, and is that direction used? Ablated to its mean before the answer is read, beside random ones."""
    prompts, answers = (x.to(device) for x in task.draw(2000, 1))
    fresh, wanted = (x.to(device) for x in task.draw(2000, 2))
    states, held = end_states(model, prompts, 8), end_states(model, fresh, 8)
    y = answers.cpu().numpy().astype(float)
    slope, best = directions(states, y)
    thought = model.begin(fresh)
    for _ in range(8):
        thought = model.think(thought)

    def without(direction: np.ndarray) -> torch.Tensor:
        """Which answers are right with that direction ablated to its mean."""
        d = torch.from_numpy(direction / np.linalg.norm(direction)).to(thought.state)
        away = (thought.state - torch.from_numpy(states.mean(0)).to(thought.state)) @ d
        return model.read(thought.branch(thought.state - away[..., None] * d)).logits[:, -1].argmax(-1) == wanted

    rng = np.random.default_rng(0)
    return {
        "right": by_step(model, fresh, wanted, (1, 2, 4, 8, 32, 128)),
        **line(states, y, held, wanted.cpu().numpy().astype(float)),
        "without the slope": share(without(slope)),
        "without the best line": share(without(best)),
        "without a random direction": share(torch.cat([without(rng.normal(size=len(slope))) for _ in range(20)])),
        "chance": 1 / (task.length + 1),
        **counted(list(label(record(model, fresh[:200], steps=STEPS, tokens=-1)))),
    }


def backdoor(task: Backdoor, model: Any, device: str) -> dict[str, Any]:
    """V23: is the trigger readable in each thought, how much of that is just a rare word, and does the answer go through the thought?"""
    generator = torch.Generator().manual_seed(5)
    number = torch.randperm(1000, generator=generator)[:600]
    digits = torch.stack([number // 100, number // 10 % 10, number % 10], 1)
    plain = torch.randint(12, 12 + task.plain, (600,), generator=generator)
    fixed = {"trigger": torch.full((600,), task.trigger), "inert": torch.full((600,), task.inert)}
    sides = {name: task.prompts(word, digits) for name, word in (("plain", plain), *fixed.items())}
    out: dict[str, Any] = {
        f"right, {name}": by_step(model, ids.to(device), answers.to(device), (task.thoughts,))[task.thoughts]
        for name, (ids, answers) in sides.items()
    }
    path = {name: record(model, ids.to(device), steps=task.thoughts).states[:, :, 0] for name, (ids, _) in sides.items()}
    out["states"] = {name: states.astype(np.float16).tolist() for name, states in path.items()}
    out["mediation"] = []
    for step in range(task.thoughts + 1):
        found = interchange(
            model, sides["trigger"][0].to(device), sides["plain"][0].to(device), sides["trigger"][0].roll(7, 0).to(device),
            step=step, steps=task.thoughts, tokens=None,
        )  # fmt: skip
        out["mediation"].append({"step": step, "shift": found.shift, "interval": found.interval, "same changed": found.same.changed,
                                 "other changed": found.other.changed, "causal": found.causal})  # fmt: skip
    return out


def probed(run: dict[str, Any], states: dict[str, np.ndarray]) -> None:
    """Add to a backdoor's record what a probe reads of its thoughts, and the verdict on each."""
    from latentweaver.inspect.probes import probe

    count = len(states["plain"])
    y, groups = np.repeat([1, 0], count), np.tile(np.arange(count), 2)
    for one, two in (("trigger", "plain"), ("inert", "plain"), ("trigger", "inert")):
        each = (
            probe(np.concatenate([states[one][:, t], states[two][:, t]]).astype(float), y, groups).probe
            for t in range(states[one].shape[1])
        )
        run[f"AUROC, {one} or {two}"] = [[score.auroc, score.low, score.high] for score in each]
    for step, found in enumerate(run["mediation"]):
        found["verdict"] = verdict(run["AUROC, trigger or inert"][step][1] > 0.5, found["causal"], "the trigger").sentence


MEASURES: dict[type, Any] = {Addition: addition, Clock: clock, Ones: ones, Backdoor: backdoor}


def run(name: str, out: Path, updates: float, weights: Path | None) -> None:
    """Train one net (unless its weights are there), measure it, and write its record."""
    torch.set_num_threads(1)
    task, wanted = RUNS[name]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    began, count = time.monotonic(), max(2, math.ceil(wanted * updates))
    kept = None if weights is None else weights / f"{name.replace(' ', '-')}.safetensors"
    if kept is not None and kept.exists():
        model = task.model().to(device).eval()
        load_model(model, kept)
    else:
        with tempfile.TemporaryDirectory() as folder:
            model = task.train(Path(folder), count, device)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            save_model(model, str(kept))
    trained = time.monotonic() - began
    found = {
        "run": name,
        "task": repr(task),
        "updates": count,
        "device": device,
        "seconds": round(trained),
        **MEASURES[type(task)](task, model, device),
    }
    if states := found.pop("states", None):
        np.savez_compressed(out.with_suffix(".npz"), **{name: np.array(one, np.float16) for name, one in states.items()})
    out.write_text(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="runs whose name begins with one of these, separated by commas")
    parser.add_argument("--updates", type=float, default=1.0, help="share of each run's updates")
    parser.add_argument("--seconds", type=float, default=1e9, help="runs that take longer are stopped and left out")
    parser.add_argument("--at-once", type=int, default=6, help="how many processes at a time")
    parser.add_argument("--weights", type=Path, help="folder that keeps the nets: one that lies there is not trained again")
    parser.add_argument("--probe", action="store_true", help="probe the states that were kept beside OUT")
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        return run(options.one, options.out, options.updates, options.weights)
    if options.probe:
        record = json.loads(options.out.read_text())
        for one in record["runs"]:
            if one["run"].startswith("backdoor"):
                probed(one, dict(np.load(options.out.with_name(f"{one['run'].replace(' ', '-')}.npz"))))
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        return
    chosen = [name for name in RUNS if name.startswith(tuple(options.only.split(",")))]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    places = {name: options.out.with_name(f"{name.replace(' ', '-')}.json") for name in chosen}
    end, waiting, running = time.monotonic() + options.seconds, list(chosen), []
    while (waiting or running) and time.monotonic() < end:
        running = [process for process in running if process.poll() is None]
        while waiting and len(running) < options.at_once:
            name = waiting.pop(0)
            command = [sys.executable, __file__, str(places[name]), "--one", name, "--updates", str(options.updates)]
            if options.weights is not None:
                command += ["--weights", str(options.weights)]
            running.append(subprocess.Popen(command))
        time.sleep(0.5)
    for process in running:
        process.kill()
    done = [json.loads(place.read_text()) for place in places.values() if place.exists()]
    for place in places.values():
        place.unlink(missing_ok=True)
    missing = [name for name in chosen if name not in {one["run"] for one in done}]
    options.out.write_text(json.dumps({"torch": torch.__version__, "runs": done, "not finished": missing}, indent=1) + "\n")
    print(f"{len(done)} runs in {options.out}, not finished: {missing}")


if __name__ == "__main__":
    main()
