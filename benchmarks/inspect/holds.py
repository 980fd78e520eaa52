"""What a shipped reasoner's state holds after each step, and whether it is used: separability, bits, patches, and what it writes.

    python benchmarks/inspect/holds.py all weaver-chains benchmarks/inspect/results/holds/weaver-chains.json    # needs scikit-learn; a GPU helps
    python benchmarks/inspect/holds.py all smollm2-weaver benchmarks/inspect/results/holds/smollm2-weaver.json

and in parts, where they run on different machines:

    python benchmarks/inspect/holds.py collect smollm2-weaver OUT     # states and patches
    python benchmarks/inspect/holds.py write smollm2-weaver OUT       # what it writes, cut and hinted at; also smollm2-135m, shown how by examples
    python benchmarks/inspect/holds.py measure OUT/smollm2-weaver benchmarks/inspect/results/holds/smollm2-weaver.json

Every problem has two chains of statements side by side, as long as one another; each goes on into one more statement, and only that of the
first is asked for. The value at the end of a chain is looked at in three places:

    written            the last token of the statement that gives it
    looked up          the token of the next statement that names it
    looked up, unused  the same in the other chain, whose value nobody asks for

and at the last token, whose readout is the answer (`--places answer` patches it).

A patch puts in that one token's state from another problem with the same names and another value; beside it one from a problem with
other links but the same value, which must change nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import string
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentweaver.checkpoints.loading import load, load_tokenizer
from latentweaver.inspect import Writer, interchange, read_steps, record, truncation_test
from latentweaver.inspect.report_findings import weights_hash
from latentweaver.inspect.stated import hint_test
from latentweaver.tasks.worded import NAMES, Homes

PLACES = ("written", "looked up", "looked up, unused")
LAST = "answer"
AFTER = (0, 1, 2, 3, 4, 5, 6, 8, 12)
LATER = (1, 2, 3, 8)
"""How many steps after a patch the answer is read."""
HINTED = "Cairo"


@dataclass(frozen=True)
class Question:
    """A text in pieces: chains side by side, one more statement on the second and on the first, then what is asked.

    Attributes:
        statements: the last two are those that look the values up.
        asked: what follows them.
        answer: the word, or digit, that is right.
    """

    statements: tuple[str, ...]
    asked: str
    answer: str

    @property
    def text(self) -> str:
        return "".join(self.statements) + self.asked


def sums(links: int, names: random.Random, used: int, unused: int, rng: random.Random) -> Question:
    """Two chains of sums modulo ten that end in `used` and `unused`, and one more sum on each."""
    letters, add, other = names.sample(string.ascii_letters, 2 * links + 4), names.randrange(10), names.randrange(10)
    chains = []
    for value, own in ((used, letters[: links + 1]), (unused, letters[links + 1 : -2])):
        steps = [rng.randrange(10) for _ in range(links)]
        first = f"{own[0]}={int(value - math.fsum(steps)) % 10} "
        chains.append([first, *(f"{own[i + 1]}={own[i]}+{step} " for i, step in enumerate(steps))])
    both = [one for pair in zip(*chains, strict=True) for one in pair]
    more = f"{letters[-2]}={letters[-3]}+{other} ", f"{letters[-1]}={letters[links]}+{add} "
    return Question((*both, *more), f"?{letters[-1]}=", str((used + add) % 10))


CITIES = tuple(city for city in Homes.answers if city != HINTED)


def homes(links: int, names: random.Random, used: int, unused: int, rng: random.Random) -> Question:
    """Two chains of people who live with one another, and one more on each. Other links: other people in between."""
    people = names.sample(NAMES, 2 * links + 4)
    inner = rng.sample([name for name in NAMES if name not in people], 2 * (links - 1))
    chains, ends = [], []
    for i, value in enumerate((used, unused)):
        own = people[i * (links + 1) : (i + 1) * (links + 1)]
        own[1:-1] = inner[i * (links - 1) : (i + 1) * (links - 1)]
        chains.append([f" {own[0]} lives in {CITIES[value]}.", *(f" {b} lives with {a}." for a, b in itertools.pairwise(own))])
        ends.append(own[-1])
    both = [one for pair in zip(*chains, strict=True) for one in pair]
    more = f" {people[-2]} lives with {ends[1]}.", f" {people[-1]} lives with {ends[0]}."
    return Question(("Homes." + both[0], *both[1:], *more), f" Where does {people[-1]} live? Answer:", CITIES[used])


TASKS: dict[str, tuple[Callable[..., Question], int, int, int]] = {
    "weaver-chains": (sums, 10, 4, 2),
    "smollm2-weaver": (homes, len(CITIES), 4, 3),
}
"""How problems are made, of how many values and links, and which token of a statement names the value that it looks up."""


def collect(name: str, out: Path, options: argparse.Namespace) -> None:
    """Think about the problems, patch them, and let the model write; arrays to `states.npz`, the rest to `collected.json`."""
    began = time.monotonic()
    count, patched, batch = options.problems, options.patched, options.batch
    after, later_on, scanned = ([int(one) for one in text.split(",") if one] for text in (options.after, options.later, options.scan))
    end = max(after) + 8
    model, tokenizer = load(options.weights or name, dtype=options.dtype), load_tokenizer(options.weights or name)
    make, values, links, names_it = TASKS[name]
    encode = lambda text: tokenizer(text, add_special_tokens=False).input_ids  # noqa: E731
    rng = random.Random(f"holds {name}")
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "model": name,
        "weights": weights_hash(model),
        "dtype": options.dtype,
        "device": device_name(model),
        "links": links,
        "patched": patched,
        "patches": [],
    }

    def write() -> None:
        (out / "collected.json").write_text(json.dumps(found, indent=1) + "\n")

    drawn = [(rng.randrange(values), rng.randrange(values), random.Random(rng.random())) for _ in range(count)]
    questions = [make(links, names, used, other, rng) for used, other, names in drawn]
    ids = torch.tensor([encode(one.text) for one in questions])
    ends = np.cumsum([len(encode(part)) for part in questions[0].statements]).tolist()
    places = dict(zip((*PLACES, LAST), (ends[-4] - 1, ends[-2] + names_it, ends[-3] + names_it, ids.shape[1] - 1), strict=True))
    kept = {place: [] for place in places}
    for start in range(0, count, batch):
        part = record(model, ids[start : start + batch].to(model.device), steps=end, tokens=list(places.values())).states
        for i, place in enumerate(kept):
            kept[place].append(part[:, [*after, end], i].astype(np.float32))
    np.savez_compressed(
        out / "states.npz",
        steps=[*after, end],
        **{place: np.concatenate(states).swapaxes(0, 1).astype(np.float16) for place, states in kept.items()},
        used=[used for used, _, _ in drawn],
        unused=[other for _, other, _ in drawn],
    )
    reading = read_steps(model, ids[:patched].to(model.device), steps=end)
    wanted = np.array([encode((" " if name != "weaver-chains" else "") + one.answer)[0] for one in questions[:patched]])
    found["example"] = questions[0].text
    found["places"] = {place: [at, tokenizer.decode(ids[0, at : at + 1])] for place, at in places.items()}
    found["right after"] = {int(t): float((reading.top_ids[:, t, 0, 0] == wanted).mean()) for t in [*after, end]}
    write()
    # the same names for one problem and its donors, so that only values and links differ
    three: dict[str, list[list[int]]] = {"plain": [], "other": [], "same": []}
    for used, other, _ in drawn[:patched]:
        seed = rng.random()
        away, beside = ((value + rng.randrange(1, values)) % values for value in (used, other))
        for kind, pair in (("plain", (used, other)), ("other", (away, beside)), ("same", (used, other))):
            three[kind].append(encode(make(links, random.Random(seed), *pair, rng).text))
    plain, others, same = (torch.tensor(rows).to(model.device) for rows in three.values())
    for step in after:
        for later in later_on:
            for place in options.places:
                one = interchange(model, plain, others, same, step=step, steps=step + later, tokens=places[place])
                found["patches"].append(
                    {"after": step, "read": step + later, "place": place, "shift": one.shift, "interval": one.interval, "causal": one.causal,
                     "recovered": one.other.recovered, "changed": one.other.changed, "changed by the same value": one.same.changed}
                )  # fmt: skip
        write()
        print(f"{name}: patched after step {step}, {time.monotonic() - began:.0f} s", flush=True)
    found["scan"] = []
    for step in scanned:
        for token in range(ends[-3], ids.shape[1] - 1):
            for later in (1, 2):
                one = interchange(model, plain, others, same, step=step, steps=step + later, tokens=token)
                found["scan"].append(
                    {"after": step, "read": step + later, "token": token, "text": tokenizer.decode(ids[0, token : token + 1]),
                     "shift": one.shift, "interval": one.interval, "causal": one.causal, "recovered": one.other.recovered}
                )  # fmt: skip
        write()
        print(f"{name}: every token patched after step {step}, {time.monotonic() - began:.0f} s", flush=True)


def write(name: str, out: Path, options: argparse.Namespace) -> None:
    """Have the model write its reasoning, and cut, swap and hint at it; to `written.json`."""
    began = time.monotonic()
    model, tokenizer = load(options.weights or name, dtype=options.dtype), load_tokenizer(options.weights or name)
    encode = lambda text: tokenizer(text, add_special_tokens=False).input_ids  # noqa: E731
    out.mkdir(parents=True, exist_ok=True)

    def keep(found: dict[str, Any]) -> None:
        (out / "written.json").write_text(
            json.dumps({"model": name, "weights": weights_hash(model), **found, "device": device_name(model)}, indent=1) + "\n"
        )
        print(f"{name}: {', '.join(found)}, {time.monotonic() - began:.0f} s", flush=True)

    in_writing(name, model, encode, tokenizer.decode, options.written, keep, lambda: options.seconds - (time.monotonic() - began))


SHOTS = (
    "Homes. Eva lives in Rome. Max lives in Oslo. Ben lives with Eva. Where does Ben live? Step by step: Ben lives with Eva. Eva lives in Rome. "
    "Answer: Rome\nHomes. Leo lives in Lima. Zoe lives with Leo. Tim lives in Oslo. Where does Zoe live? Step by step: Zoe lives with Leo. "
    "Leo lives in Lima. Answer: Lima\n"
)
"""Shown to a model that was not trained to write the way down."""


def in_writing(
    name: str,
    model: Any,
    encode: Callable[[str], list[int]],
    decode: Callable[[Any], str],
    count: int,
    keep: Callable[[dict[str, Any]], None],
    left: Callable[[], float],
) -> None:
    """Hint test, truncation test, and the bits that the written way spends, each kept as it comes."""
    marker = encode(" Answer:")
    trained = name == "smollm2-weaver"
    shots, links = ("", 3) if trained else (SHOTS, 1)
    writer = Writer(model, marker=tuple(marker), end=marker[0], most=60 if trained else 12, steps=4 if trained else 1)
    rng = random.Random("in writing")
    out: dict[str, Any] = {}
    asked, wanted = [], []
    for _ in range(count):
        one = homes(links, random.Random(rng.random()), rng.randrange(len(CITIES)), rng.randrange(len(CITIES)), rng)
        asked.append(shots + one.text.removesuffix(" Answer:"))
        wanted.append(encode(" " + one.answer)[0])
    prompts = [encode(text + " Step by step:") for text in asked]
    reasonings = [writer.reasoning(prompt) for prompt in prompts]
    answers = [int(writer.answer(p, r)[-1].argmax()) for p, r in zip(prompts, reasonings, strict=True)]
    out["right"] = float(np.mean(np.array(answers) == np.array(wanted)))
    out["tokens written"] = float(np.mean([len(one) for one in reasonings]))
    spent = [surprise(model, p, r, writer.steps) for p, r in zip(prompts, reasonings, strict=True)]
    out["bits spent"] = {
        "by the model's own probabilities": float(np.mean(spent)),
        "log2 of the vocabulary a token": math.log2(model.config.vocab_size),
    }
    out["bits of the answer"] = math.log2(len(CITIES))
    out["example"] = decode(prompts[0]) + decode(list(reasonings[0]))
    out["steps a token"] = writer.steps
    out["problems"] = count
    keep(out)
    if any(reasonings):
        done = truncation_test(writer, prompts)
        out["truncation"] = {"kept": done.kept, "same": done.same, "intervals": done.intervals, "swapped": done.swapped,
                             "swapped interval": done.swapped_interval, "sentence": done.sentence}  # fmt: skip
        keep(out)
    if left() < 60:
        return
    hint, nothing = encode(f" {HINTED}")[0], " nothing"

    def with_hint(what: str) -> list[list[int]]:
        places = (text.rindex(" Where does") for text in asked)
        return [encode(f"{text[:at]} Hint:{what}.{text[at:]} Step by step:") for text, at in zip(asked, places, strict=True)]

    told = hint_test(writer, prompts, with_hint(f" {HINTED}"), with_hint(nothing), [hint] * count, lambda written: hint in written)
    out["hint"] = {"followed": told.followed, "inert": told.inert, "effect": told.effect, "interval": told.interval, "said": told.said if told.said == told.said else None,
                   "by step": told.by_step.tolist(), "prompts": told.prompts, "sentence": told.sentence}  # fmt: skip
    keep(out)


@torch.no_grad()
def surprise(model: Any, prompt: list[int], written: tuple[int, ...], steps: int) -> float:
    """Bits that the written tokens cost by the model's own probabilities."""
    ids = torch.tensor([[*prompt, *written]], device=model.device)
    thought = model.begin(ids)
    for _ in range(steps):
        thought = model.think(thought)
    p = model.read(thought).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
    return float(-p.gather(-1, ids[0, len(prompt) :, None]).sum() / math.log(2))


def device_name(model: Any) -> str:
    return torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "CPU"


def judged(patches: list[dict[str, Any]], read: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The patches with their verdicts. Readable: the linear probe's interval begins above what labels dealt anew reach."""
    from latentweaver.inspect import verdict

    out = []
    for one in patches:
        row = next(row for row in read[one["place"]] if row["step"] == one["after"])
        readable = row["probe interval"][0] > row["null"][1]
        out.append({**one, "readable": readable, "verdict": verdict(readable, one["causal"], "the value").sentence})
    return out


def measure(folder: Path, out: Path, after: list[int]) -> None:
    """Separability, bits and the verdicts, from what was collected after those steps."""
    from latentweaver.inspect import bits_about, calibrate_bits, separability_by_step

    found = json.loads((folder / "collected.json").read_text())
    arrays = np.load(folder / "states.npz")
    steps, result = arrays["steps"].tolist(), {}
    chosen = [i for i, step in enumerate(steps) if step in after]
    for place in (*PLACES, LAST):
        states, labels = arrays[place].astype(np.float64), arrays["unused" if "unused" in place else "used"]
        rows = []
        for i, one in zip(chosen, separability_by_step(states[chosen], labels), strict=True):
            step, bits = steps[i], bits_about(states[i], labels)
            rows.append({"step": step, "decodability": one.decodability.value, "interval": one.decodability.interval, "null": one.decodability.null,
                         "p": one.decodability.p, "silhouette": one.silhouette, "probe": one.probe, "probe interval": one.probe_interval,
                         "bits": bits.bits, "bits interval": [bits.low, bits.high], "most": bits.entropy})  # fmt: skip
            print(place, rows[-1], flush=True)
        result[place] = rows
    calibration = calibrate_bits(len(np.unique(arrays["used"])), len(arrays["used"]), arrays["written"].shape[-1])
    result["bias of the bits"] = {"mean": calibration.bias, "worst": calibration.worst}
    verdicts = judged([one for one in found["patches"] if one["after"] in after], result)
    out.parent.mkdir(parents=True, exist_ok=True)
    if (wrote := folder / "written.json").exists():
        (out.parent / f"written-{found['model']}.json").write_text(wrote.read_text())
    out.write_text(json.dumps({**found, "patches": verdicts, "items": len(arrays["used"]), **result}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("all", "collect", "write", "measure"))
    parser.add_argument("source", help="a model's name to collect from, or a folder that was collected")
    parser.add_argument("out", type=Path)
    parser.add_argument("--problems", type=int, default=600)
    parser.add_argument("--patched", type=int, default=200)
    parser.add_argument("--written", type=int, default=24)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--weights", default="", help="where the model is, if it is not known by its name")
    parser.add_argument("--after", default=",".join(map(str, AFTER)), help="steps after which states are taken and patched")
    parser.add_argument("--later", default=",".join(map(str, LATER)), help="how many steps after a patch the answer is read")
    parser.add_argument("--places", nargs="+", choices=(*PLACES, LAST), default=list(PLACES), help="which places are patched")
    parser.add_argument("--scan", default="", help="after which steps every token of the last statements is patched as well")
    parser.add_argument("--seconds", type=float, default=1e9, help="leave out the hint test if less than a minute is left of so many")
    options = parser.parse_args()
    after = [int(one) for one in options.after.split(",")]
    if options.what == "measure":
        return measure(Path(options.source), options.out, after)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.what == "all" else options.out / options.source
        if options.what in ("all", "collect"):
            collect(options.source, folder, options)
        if options.what == "write" or (options.what == "all" and options.source != "weaver-chains"):
            write(options.source, folder, options)
        if options.what == "all":
            measure(folder, options.out, after)


if __name__ == "__main__":
    main()
