"""How the tokens of a reasoner move, and whether that says which answers are right.

    python benchmarks/inspect/reasoners.py weaver-chains benchmarks/inspect/results/reasoners/weaver-chains.json
    python benchmarks/inspect/reasoners.py smollm2-weaver benchmarks/inspect/results/reasoners/smollm2-weaver.json --dtype float64
    python benchmarks/inspect/reasoners.py smollm2-135m benchmarks/inspect/results/reasoners/smollm2-135m.json --problems 200

Every token of some prompts, and the token that is answered after of all of them, think for 128 steps and are labelled. Then: among
problems of all difficulties, and among those of one difficulty alone, do answers whose token has settled come out right more
often? Beside it what needs no looking inside (the answer's own probability), and labels dealt anew.

The shipped reasoners are asked fresh problems of the test side, other models additions of two numbers ("What is 17 + 26?"). weaver-mazes
answers at a place of the maze itself; weaver-graphs thinks in new positions, so its one path is the last state after each thought (--steps 96: its
context ends soon after).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentweaver import tasks
from latentweaver.checkpoints.loading import load, load_tokenizer
from latentweaver.commands.search import task_of
from latentweaver.evaluate.intervals import wilson
from latentweaver.inspect import Recorder, examine, label_path
from latentweaver.inspect.probes import auroc
from latentweaver.inspect.report_findings import weights_hash
from latentweaver.tasks.worded import WORDED

DEPTHS = tuple(range(1, 49))
FAMILIES = {"settle": ("fixed_point", "converging"), "circle": ("orbit", "quasi_orbit"), "drift": ("slider", "helix"),
            "wander": ("wander",), "undetermined": ("undetermined",)}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A prompt and its answer as tokens, and how hard it is.

    Attributes:
        kind: problems of one kind and difficulty are alike.
        place: where in the prompt it is answered; after it if None.
        cue: tokens that are put behind the thoughts to have the answer said; for models that think in new positions.
    """

    prompt: list[int]
    answer: list[int]
    difficulty: int
    kind: str = ""
    place: int | None = None
    cue: tuple[int, ...] = ()

    @property
    def tokens(self) -> list[int]:
        return self.prompt + self.answer if self.place is None and not self.cue else self.prompt


def chains(tokenizer: Any, count: int, seed: int) -> list[Asked]:
    """Problems of `weaver-chains`, the same number of every depth; the deepest are beyond what it was trained on."""
    rng, task = random.Random(seed), tasks.Chains()
    out = []
    for i in range(count):
        problem = tasks.draw(task, "test", DEPTHS[i % len(DEPTHS)], rng)
        out.append(Asked(tokenizer(problem.prompt).input_ids, tokenizer(problem.answer).input_ids, problem.difficulty))
    return out


def words(tokenizer: Any, count: int, seed: int) -> list[Asked]:
    """Four tasks in plain English, as many of each depth, few of their statements beside the point."""
    rng, out = random.Random(seed), []
    for i in range(count):
        name, depth = ("swaps", "homes", "logic", "sums")[i % 4], (2, 4, 8, 12, 16)[i // 4 % 5]
        problem = tasks.draw(WORDED[name](), "test", depth, rng, rng.uniform(0, 0.2))
        out.append(Asked(tokenizer(problem.prompt).input_ids, tokenizer(f" {problem.answer}").input_ids, problem.difficulty, name))
    return out


def mazes(tokenizer: Any, count: int, seed: int) -> list[Asked]:
    """Mazes, asked for the way to the goal at a place 1 to 20 moves from it; it was trained on up to 12."""
    rng, task, out = random.Random(seed), tasks.Flood(), []
    for i in range(count):
        problem = tasks.draw(task, "test", 1 + i % 20, rng)
        mark = max(problem.marks, key=lambda mark: mark.depth)
        out.append(Asked(tokenizer(problem.prompt).input_ids, tokenizer(mark.value).input_ids, mark.depth, place=mark.place))
    return out


def graphs(model: Any, count: int, seed: int) -> list[Asked]:
    """Graphs like those that it was trained on, drawn anew."""
    task, rng = task_of(model), random.Random(seed)
    assert task is not None, "weaver-graphs says what it was trained for"
    drawn = [task.draw(rng) for _ in range(count)]
    return [Asked(task.prompt(one, rng), [one.target], task.hops, cue=(task.answer,)) for one in drawn]


def additions(tokenizer: Any, count: int, seed: int) -> list[Asked]:
    """Additions of two numbers of one or two digits, after two that are solved; as difficulty the digits that are added."""
    rng, out = random.Random(seed), []
    for i in range(count):
        digits = 1 + i % 2
        a, b = (rng.randrange(10 ** (digits - 1), 10**digits) for _ in range(2))
        prompt = f"Question: What is 21 + 14?\nAnswer: 35\nQuestion: What is 5 + 8?\nAnswer: 13\nQuestion: What is {a} + {b}?\nAnswer:"
        whole = tokenizer(f"{prompt} {a + b}\n").input_ids
        start = len(tokenizer(prompt).input_ids)
        out.append(Asked(whole[:start], whole[start:], digits))
    return out


PROBLEMS: dict[str, Callable[[Any, int, int], list[Asked]]] = {"weaver-chains": chains, "smollm2-weaver": words, "weaver-mazes": mazes}


def problems(name: str, model: Any, count: int, seed: int) -> list[Asked]:
    if name == "weaver-graphs":
        return graphs(model, count, seed)
    return PROBLEMS.get(name, additions)(load_tokenizer(name), count, seed)


def said(model: Any, thought: Any, part: Sequence[Asked]) -> list[torch.Tensor]:
    """Log-probabilities at the places of each answer, `[answer tokens, vocabulary]`, for rows padded on the left."""
    if part[0].cue:
        cue = torch.tensor([one.cue for one in part], device=model.device)
        return list(model.read(model.begin(cue, after=thought)).logits[:, -1:].log_softmax(-1).cpu())
    logits, out = model.read(thought).logits, []
    for row, one in enumerate(part):
        first = answered_at(one)
        out.append(logits[row, [first + i for i in range(len(one.answer))]].log_softmax(-1).cpu())
    return out


def answered_at(one: Asked) -> int:
    """The first place of the answer, counted from the end of the row."""
    if one.cue:
        return -1
    return -len(one.answer) - 1 if one.place is None else one.place - len(one.prompt)


def padded(rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids as one batch, padded on the left, and its mask."""
    longest = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest, dtype=torch.long)
    for row, tokens in enumerate(rows):
        ids[row, longest - len(tokens) :], mask[row, longest - len(tokens) :] = torch.tensor(tokens), 1
    return ids, mask


def named(path: tuple[np.ndarray, str]) -> str:
    return str(label_path(*path))


def shares(names: Sequence[str]) -> dict[str, Any]:
    """The share of each family of labels with its interval, and the labels themselves."""
    out: dict[str, Any] = {"of": len(names), "labels": dict(Counter(names).most_common())}
    for family, members in FAMILIES.items():
        count = sum(name.split("(")[0] in members for name in names)
        out[family] = {"share": count / len(names), "interval": wilson(count, len(names))}
    return out


def predicts(right: np.ndarray, scores: np.ndarray, alike: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """AUROC of a score for right answers: over all problems, and between problems of equal kind and difficulty only; each with its interval."""
    out: dict[str, Any] = {}
    if 0 < right.sum() < len(right):
        one = auroc(right, scores, np.arange(len(right)))
        out["all"] = [one.auroc, one.low, one.high]
        mixed = [k for k in np.unique(alike) if 0 < right[alike == k].sum() < (alike == k).sum()]
        kept = np.isin(alike, mixed)
        if kept.any():
            out["equal difficulty"] = within(right[kept], scores[kept], alike[kept], np.random.default_rng(seed))
    return out


def within(right: np.ndarray, scores: np.ndarray, strata: np.ndarray, rng: np.random.Generator) -> list[float]:
    """The share of pairs of equal difficulty, one right and one wrong, that the score orders rightly; interval by bootstrap."""

    def value(index: np.ndarray) -> float:
        won = pairs = 0.0
        for k in np.unique(strata):
            chosen = index[strata[index] == k]
            yes, no = scores[chosen[right[chosen] == 1]], scores[chosen[right[chosen] == 0]]
            won += (yes[:, None] > no[None]).sum() + 0.5 * (yes[:, None] == no[None]).sum()
            pairs += len(yes) * len(no)
        return won / pairs if pairs else np.nan

    drawn = [value(rng.integers(len(right), size=len(right))) for _ in range(300)]
    return [value(np.arange(len(right))), float(np.nanquantile(drawn, 0.025)), float(np.nanquantile(drawn, 0.975))]


def predictions(
    depth: int, right: np.ndarray, paths: list[tuple[np.ndarray, str]], logprobs: np.ndarray, difficulty: np.ndarray, alike: np.ndarray
) -> dict[str, Any]:
    """What the first `depth` steps of the paths say about the answers read then."""
    settled = np.array([label_path(*path).name in FAMILIES["settle"] for path in paths], float)
    moved = np.array([np.linalg.norm(x[-1] - x[-2]) / max(np.linalg.norm(x[-1]), 1e-300) for x, _ in paths])
    return {
        "steps": depth,
        "right if settled": [int((right * settled).sum()), int(settled.sum())],
        "right if not": [int((right * (1 - settled)).sum()), int((1 - settled).sum())],
        "settled": predicts(right, settled, alike),
        "smallness of the last step": predicts(right, -moved, alike),
        "probability of the answer": predicts(right, logprobs, alike),
        "easiness": predicts(right, -difficulty.astype(float), alike),
        "settled, dealt anew": predicts(right, np.random.default_rng(0).permutation(settled), alike),
    }


def radius(path: np.ndarray) -> float:
    """Root mean square distance of the tail from its mean, over the norm of that mean."""
    tail = path[len(path) // 2 :]
    return float(np.sqrt(((tail - tail.mean(0)) ** 2).sum(-1).mean()) / np.linalg.norm(tail.mean(0)))


def asked_again(model: Any, one: Asked, steps: int) -> str:
    """The verdict of replay, extend and kick on the token before the answer."""
    found = examine(
        model, torch.tensor([one.prompt], device=model.device), token=-1 if one.place is None else one.place, steps=steps, seeds=0
    )
    return f"{found.verdict}, {found.kick.outcome}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--problems", type=int, default=600)
    parser.add_argument("--whole", type=int, default=60, help="of so many problems every token is labelled")
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--examined", type=int, default=12, help="of so many circling answer tokens the map is asked as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop asking the map after so long")
    options = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(1)
    model = load(options.model, dtype=options.dtype)
    asked = problems(options.model, model, options.problems, options.seed)
    depths = sorted({d for d in (1, 2, 4, 8, 16, 32, 64) if d < options.steps} | {options.steps})
    paths, inside, leading, right, sure = [], [], [], [], []
    order = sorted(range(len(asked)), key=lambda i: (i >= options.whole, len(asked[i].prompt)))  # rows of like length together
    asked = [asked[i] for i in order]
    for start in range(0, len(asked), options.batch):
        part = asked[start : start + options.batch]
        ids, mask = (x.to(model.device) for x in padded([one.tokens for one in part]))
        first = min(answered_at(one) for one in part)
        places = None if start < options.whole or part[0].place is not None or part[0].cue else list(range(first, 0))
        recorder, readouts = Recorder(model, places, steps=options.steps, memory=2**34), {}
        with torch.no_grad():
            thought = model.begin(ids, attention_mask=mask)
            recorder(thought)
            for step in range(1, options.steps + 1):
                thought = model.think(thought)
                recorder(thought)
                if step in depths:
                    readouts[step] = said(model, thought, part)
        found = recorder.trajectories()[0]
        for row, one in enumerate(part):
            logprobs = [readouts[step][row] for step in depths]
            right.append(np.array([bool((at.argmax(-1) == torch.tensor(one.answer)).all()) for at in logprobs]))
            sure.append([float(at[0].max()) for at in logprobs])
            paths.append((np.array(found.states[row, :, answered_at(one)]), found.dtype))
            if start + row < options.whole:
                last = -1 if one.place is not None or one.cue else answered_at(one)
                count = 1 if one.cue else len(one.tokens)
                inside += [(np.array(found.states[row, :, token]), found.dtype) for token in range(-count, last + 1)]
                leading += [token == -count and not one.cue for token in range(-count, last + 1)]
        print(f"{min(start + options.batch, len(asked))} of {len(asked)} problems, {time.monotonic() - began:.0f} s", flush=True)
    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        answer_names = list(pool.map(named, paths, chunksize=8))
        token_names = list(pool.map(named, inside, chunksize=8))
    print(f"labelled, {time.monotonic() - began:.0f} s", flush=True)
    logprobs = np.array(sure)
    right_at, difficulty = np.array(right), np.array([one.difficulty for one in asked])
    alike = np.unique([f"{one.kind} {one.difficulty}" for one in asked], return_inverse=True)[1]
    circling = [i for i, name in enumerate(answer_names) if name.split("(")[0] in FAMILIES["circle"]]
    again = []
    for i in circling[: options.examined]:
        if time.monotonic() - began > options.seconds:
            break
        again.append(asked_again(model, asked[i], options.steps))
    result = {
        "model": options.model,
        "weights": weights_hash(model),
        "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "CPU",
        "first tokens of prompts": dict(Counter(name for name, first in zip(token_names, leading, strict=True) if first)),
        "dtype": paths[0][1],
        "steps": options.steps,
        "problems": len(asked),
        "tokens": shares(token_names),
        "answer tokens": shares(answer_names),
        "right": {d: {"share": float(right_at[:, i].mean()), "interval": wilson(int(right_at[:, i].sum()), len(asked))} for i, d in enumerate(depths)},
        "circles": {
            "radius over norm, median": float(np.median([radius(paths[i][0]) for i in circling])) if circling else None,
            "examined": dict(Counter(again).most_common()),
        },
        "predicts a right answer": [
            predictions(d, right_at[:, i].astype(int), [(x[: d + 1], dtype) for x, dtype in paths], logprobs[:, i], difficulty, alike)
            for i, d in enumerate(depths)
            if d >= 8
        ],
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
