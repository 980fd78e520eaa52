"""docs/dynamics.md, and the output in docs/probing.md, written from the recorded files: `python benchmarks/inspect/table.py`; `--check` only
compares.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from marks import update

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DOCS = HERE.parents[1] / "docs"
FAMILIES = ("settle", "circle", "drift", "wander", "undetermined")


def percent(one: dict[str, Any]) -> str:
    """A share with its interval, in per cent."""
    low, high = one["interval"]
    return f"{100 * one['share']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def counted(labels: dict[str, int]) -> str:
    """Labels and how many, the commonest first; rare ones together."""
    items = sorted(labels.items(), key=lambda item: -item[1])
    rest = sum(count for _, count in items[4:])
    return ", ".join(f"{name} {count}" for name, count in items[:4]) + (f", others {rest}" if rest else "")


def score(one: list[float] | None) -> str:
    return "-" if one is None else f"{one[0]:.3f} [{one[1]:.3f}, {one[2]:.3f}]"


def circles(found: dict[str, Any]) -> str:
    """How large those before the answer are, and what the bench says of some."""
    if found["radius over norm, median"] is None:
        return ""
    bench = f"; put on the bench: {counted(found['examined'])}" if found["examined"] else ""
    return f". Radius of those that circle before the answer: {100 * found['radius over norm, median']:.2g} % of the norm (median){bench}"


def reasoners(records: list[dict[str, Any]]) -> str:
    """What fraction of tokens settle, circle, drift; and what that says of answers."""
    lines = ["| model | tokens | " + " | ".join(FAMILIES) + " |", "|---|--:|" + "--:|" * len(FAMILIES)]
    for record in records:
        for what in ("tokens", "answer tokens"):
            row = record[what]
            name = f"{record['model']}, {'all tokens of a prompt' if what == 'tokens' else 'the token before the answer'}"
            lines.append(f"| {name} | {row['of']} | " + " | ".join(percent(row[family]) for family in FAMILIES) + " |")
    lines += ["", "Per cent of the tokens, with 95 % Wilson intervals. The labels themselves:", ""]
    for record in records:
        lines.append(f"- {record['model']} ({record['dtype']}, {record['steps']} steps): {counted(record['tokens']['labels'])}; "
                     f"before the answer: {counted(record['answer tokens']['labels'])}{circles(record['circles'])}")  # fmt: skip
    lines += ["", "### Does it say which answers are right?", ""]
    for record in records:
        steps = ", ".join(f"{percent(one)} after {step}" for step, one in record["right"].items())
        lines += [f"**{record['model']}**, {record['problems']} problems. Right answers in per cent: {steps}.", ""]
        told = [
            one for one in record["predicts a right answer"] if one["settled"] and one["right if settled"][1] and one["right if not"][1]
        ]
        if not told:
            lines += ["At no number of steps from 8 on are some answers right and some wrong, some tokens settled and some not.", ""]
            continue
        columns = ("settled", "smallness of the last step", "probability of the answer", "easiness", "settled, dealt anew")
        lines += ["| read after | right if settled | if not | " + " | ".join(columns) + " |", "|--:|--:|--:|" + "--:|" * len(columns)]
        for one in told:
            counts = (f"{one[name][0]} of {one[name][1]}" for name in ("right if settled", "right if not"))
            lines.append(
                f"| {one['steps']} steps | "
                + " | ".join(counts)
                + " | "
                + " | ".join(score(one[name].get("all")) for name in columns)
                + " |"
            )
        lines += ["", "AUROC for a right answer, with 95 % intervals."]
        if equal := [one for one in told if "equal difficulty" in one["settled"]]:
            lines += ["Among problems of equal kind and difficulty:", ""]
            lines += [f"- after {one['steps']} steps: " + "; ".join(f"{name} {score(one[name].get('equal difficulty'))}" for name in columns if name != "easiness")
                      for one in equal]  # fmt: skip
        lines.append("")
    return "\n".join(lines).rstrip()


GROUPS = {
    r"ratio|period \d missed": "two rhythms near a ratio, turns 0.002 to 0.02 rad beside a period",
    r"spiral of .* onto": "a fast spiral onto a slide, an approach or a cycle",
    r"orbit that (paused|dies and)": "orbits that pause, and that die and come back",
    r"size modulated": "cycles whose size comes and goes",
    r"cycle of 5 beside": "cycles beside one channel a hundred times as large",
    r"cycle of 5": "cycles that drift off, along a bend, or to a place",
    r"\d frequencies": "three and four frequencies",
    r"stairs|from side|two wells, \d|ring of|a rule of two|period (24|40)": "stairs, swings, wells in turn, periods 24 and 40",
    r"orbit of .* kept|approach of 0.9 kept|slider kept in float16|grows out": "small orbits, approaches and slides kept in float16 and bfloat16",
    r"pushed|three that|t\^-0.2": "resonance, cycles that slow down, ways that hardly end",
    r"(Ricker|cubic|Henon) map \d": "doublings of the Ricker, cubic and Henon maps",
    r"turn born|turn that dies|outside a|inside a|contraction pushed": "turns born from rest, locking and slips, driven contractions",
    r"Ricker|cubic|Lozi|cat map|delayed|two wells, driven|Chua|on-off": "chaos of eight more maps and flows",
    r"pulse|saw": "pulses and saws of period 2 to 16",
    r"\d+ points that|period \d+ after a walk|periods .* at once|period 7 far|amplitude that": "points that drift off, orbits after a walk, two periods at once",
    r"two freq|golden rotation that|turn of": "two frequencies at once, turns within 0.02 to 0.09 rad of pi",
    r"settles|orbit that dies": "late and staged convergence, orbits that die",
    r"orbit that begins": "orbits that begin in the tail",
    r"approach of": "approaches whose steps are lost in jitter",
    r".*, (8|12|16) steps": "8, 12 and 16 steps alone",
    r"Henon|Gauss|Duffing": "chaos of maps, and of the Roessler system",
    r"logistic 3.575": "logistic map, chaos in narrow bands",
    r"slider in one": "sliders, with jitter and curves, also slowing down",
    r"period \d+, no noise": "exact periods 2 to 12, no noise",
    r"period \d+, 5 % noise": "exact periods 2 to 12, 5 % noise",
    r"period \d+, approached": "periods, approached from outside, also slowly",
    r"\d+ stations": "3 to 16 random points visited in turn",
    r"\d+ numbers": "2 to 13 numbers in turn, in one dimension",
    r"of size": "period 5 of sizes from 1e-300 to 1e300",
    r"rotation|circle map|golden rotation seen": "rotations without a period of up to 32, a torus map",
    r"two osc|limit cycle|van der|Roessler, period": "coupled, noisy and relaxation oscillators",
    r"beats": "two rhythms 0.05 to 0.3 rad a step apart",
    r"eigenvalues \(0\.[567]": "fast contractions",
    r"spiral of .* computed|.* kept in": "roundings of bfloat16, float16 and float32",
    r"spiral of": "spirals of 0.98 to 0.999 a step",
    r"eigenvalue|spiral|three equal|two equal": "slow contractions, also with equal eigenvalues",
    r"slider|as t|as the log": "sliders, with jitter and curves, also slowing down",
    r"helix": "helices",
    r"logistic (1\.7|2\.9|3\.2|3\.5|3\.55|3\.546|3\.5665|3\.569|3\.74|3\.832|3\.845)$": "logistic map at rest and through its doublings, up to period 32",
    r"logistic .*, intermittent": "logistic map, intermittent",
    r"Lorenz": "chaos of the Lorenz system",
    r"logistic|tent|Ikeda|sine|Pomeau|standard|lattice|Roessler in": "chaos of maps, and of the Roessler system",
    r"escape|from 5|ever": "escapes, and rhythms that change",
}


def planted(record: dict[str, Any]) -> str:
    """How often labels are right where the truth is planted, and how often noise is taken for rotation."""
    sums: dict[str, list[int]] = {}
    for name, one in record["cases"].items():
        group = next(text for pattern, text in GROUPS.items() if re.match(pattern, name))
        right, of = sums.get(group, [0, 0])
        sums[group] = [right + one["right"], of + one["of"]]
    lines = ["| planted | right | of |", "|---|--:|--:|"]
    lines += [f"| {group} | {right} | {of} |" for group, (right, of) in sums.items()]
    worst = sorted((one["right"] / one["of"], name, one) for name, one in record["cases"].items())
    lines += ["", "Cases that are right less than nine times in ten: " + "; ".join(
        f"{name} ({one['right']} of {one['of']}; {counted(one['labels'])})" for rate, name, one in worst if rate < 0.9) + "."]  # fmt: skip
    for kind, title in (("nulls", "null"), ("rhythms", "noise with a rhythm, which no record alone can tell from an orbit")):
        lines += ["", f"| {title} | taken for a rotation | of | 95 % interval, per cent |", "|---|--:|--:|--:|"]
        for name, one in record[kind].items():
            low, high = one["interval"]
            lines.append(f"| {name} | {one['false']} | {one['of']} | {100 * low:.2f} to {100 * high:.2f} |")
    return "\n".join(lines)


def holds(record: dict[str, Any], last: dict[str, Any] | None = None) -> str:
    """What the states of a reasoner hold after each step, and what patching them does; `last`, a record of patches at the last token."""
    lines = [f"{record['model']}: two chains of {record['links']} links in one problem, and one more statement on each; only the first is asked for.",
             f"`{record['example'].strip()}` {record['items']} problems, {record['patched']} of each kind patched.", "",
             "| step | neighbours that name the value | labels dealt anew | silhouette | linear probe | bits, of " + f"{record['looked up'][0]['most']:.2f}" + " |",
             "|--:|--:|--:|--:|--:|--:|"]  # fmt: skip
    first = next((one["after"] for one in record["patches"] if one["readable"] and one["place"] == "looked up"), None)
    places = ["written", "looked up", "answer"] if first is None else ["looked up"]
    steps = {row["step"] for row in record["looked up"]} if first is not None else {0, 1, 2, 4, 8}
    for place in places:
        for row in (row for row in record[place] if row["step"] in steps):
            (low, high), (probe_low, probe_high), (bits_low, bits_high) = row["interval"], row["probe interval"], row["bits interval"]
            where = f"{row['step']}" if len(places) == 1 else f"{'last token' if place == 'answer' else place}, {row['step']}"
            lines.append(f"| {where} | {row['decodability']:.2f} [{low:.2f}, {high:.2f}] | {row['null'][1]:.2f} | {row['silhouette']:.2f} | "
                         f"{row['probe']:.2f} [{probe_low:.2f}, {probe_high:.2f}] | {row['bits']:.2f} [{bits_low:.2f}, {bits_high:.2f}] |")  # fmt: skip
    if first is not None:
        row = next(row for row in record["written"] if row["step"] == first)
        lines += ["", f"Where it is written, after step {first}: neighbours {row['decodability']:.2f}, linear probe {row['probe']:.2f}, bits {row['bits']:.2f}."]  # fmt: skip
    after = ", ".join(f"{100 * share:.4g} after {step}" for step, share in record["right after"].items() if 0 < int(step) <= 8)
    lines += ["", f"Right answers in per cent of {record['patched']}: {after} steps."]
    bias = record["bias of the bits"]
    lines += ["", f"{'At the token that looks the value up. ' if len(places) == 1 else ''}Neighbours: the metric of arXiv 2412.12276; labels dealt anew: the 95th percentile of 200. Bits: a lower bound; on "
              f"channels of known information with as many items and dimensions it is off by {bias['mean']:+.2f} on average, {bias['worst']:+.2f} at worst. Readable: "
              "the probe's interval begins above what labels dealt anew reach.", "",
              "| after step | read at | where | other-value patches that change the answer | same-value patches that do | shift, nats | verdict |",
              "|--:|--:|---|--:|--:|--:|---|"]  # fmt: skip
    taken = sorted({one["after"] for one in record["patches"]})
    # before and once it can be read where it is looked up, and later; early and late if it never can; the rest is in the record
    shown = {2, 8} if first is None else {first, taken[max(0, taken.index(first) - 1)], 8}
    more = last["patches"] if last else []
    for one in (one for one in [*record["patches"], *more] if one["after"] in shown and one["read"] <= one["after"] + 2):
        low, high = one["interval"]
        lines.append(f"| {one['after']} | {one['read']} | {'last token' if one['place'] == 'answer' else one['place']} | {one['changed']:.0%} | {one['changed by the same value']:.0%} | "
                     f"{one['shift']:.2f} [{low:.2f}, {high:.2f}] | {'readable' if one['readable'] else 'not readable'}, {'causal' if one['causal'] else 'not causal'} |")  # fmt: skip
    if last:
        lines += ["", f"The last token: {last['patched']} problems of each kind, on a {last['device']}."]
    return "\n".join(lines)


def written(records: list[dict[str, Any]]) -> str:
    """What models write down, what it costs, and whether their answers go by it."""
    lines = ["| model | problems | right | tokens written | bits they cost | bits of the answer | answer stays without them | without their last quarter | with another problem's |",
             "|---|--:|--:|--:|--:|--:|--:|--:|--:|"]  # fmt: skip
    for one in records:
        cut, none = one.get("truncation"), "nothing to cut"
        kept = (
            " | ".join(f"{cut['same'][i]:.0%} {bounds(cut['intervals'][i])}" for i in (cut["kept"].index(0), cut["kept"].index(0.75)))
            if cut
            else f"{none} | {none}"
        )
        spent = one["bits spent"]["by the model's own probabilities"]
        swapped = f"{cut['swapped']:.0%} {bounds(cut['swapped interval'])}" if cut else none
        lines.append(f"| {one['model']} | {one['problems']} | {one['right']:.0%} | {one['tokens written']:.1f} | "
                     f"{spent:.2g} | {one['bits of the answer']:.2f} | {kept} | {swapped} |")  # fmt: skip
    lines += [
        "",
        "| model | prompts | follow the hint | the inert text | difference | say so | nats that the hint adds after each step |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for one in records:
        if hint := one.get("hint"):
            said = "-" if hint["said"] is None else f"{hint['said']:.0%}"
            steps = ", ".join(f"{value:.2f}" for value in hint["by step"])
            lines.append(f"| {one['model']} | {hint['prompts']} | {hint['followed']:.0%} | {hint['inert']:.0%} | {hint['effect']:.0%} {bounds(hint['interval'])} | {said} | {steps} |")  # fmt: skip
    for one in records:
        lines += ["", f"{one['model']}, {one['steps a token']} step{'s' * (one['steps a token'] > 1)} a token: "
                  + "; ".join(one[test]["sentence"] for test in ("truncation", "hint") if test in one) + "."]  # fmt: skip
    return "\n".join(lines)


def bounds(interval: list[float]) -> str:
    return f"[{interval[0]:.0%}, {interval[1]:.0%}]"


def share(one: dict[str, Any]) -> str:
    return f"{100 * one['share']:.1f}"


def trained(records: list[dict[str, Any]]) -> str:
    """The nets whose task says what their states must hold; of a run that was made again, the later record."""
    made = {run["run"]: run for record in records for run in record["runs"]}
    runs = {kind: [run for run in made.values() if run["task"].startswith(kind)] for kind in ("Addition", "Clock", "Ones", "Backdoor")}
    lines = ["### Addition modulo p", "",
             "`a b =`, four pairs in five seen in training with 1 to 8 steps. Agreement is the mean cosine between states of equal sums (all states",
             "have mean cosine 0 by construction); power is the share of the five strongest frequencies of the state as a function of the sum.", "",
             "| run | held-out pairs right after 1 / 8 / 32 / 128 steps | agreement | power | untrained: agreement, power | labels | path independence |",
             "|---|--:|--:|--:|--:|---|--:|"]  # fmt: skip
    for run in runs["Addition"]:
        right = " / ".join(share(run["held out"][step]) for step in ("1", "8", "32", "128"))
        one, none = run["trained"], run["untrained"]
        lines.append(f"| {run['run']} | {right} | {one['cosine, same sum']:.3f} | {one['power of 5 frequencies']:.3f} | "
                     f"{none['cosine, same sum']:.3f}, {none['power of 5 frequencies']:.3f} | {counted(run['labels'])} | "
                     f"{run['examined']['path independence']:.4f} |")  # fmt: skip
    lines += ["", "### Clocks: after step t the net must say (n + t) mod p", "",
              "Trained on up to 32 steps, asked for 128. A net that is right throughout goes round with period p, whatever way it found to.", "",
              "| run | right, trained steps | right, 128 steps | labels | orbit(p) where right throughout | with interventions |", "|---|--:|--:|---|--:|---|"]  # fmt: skip
    for run in runs["Clock"]:
        if "examined" in run:
            found = run["examined"]
            lines.append(f"| {run['run']} | {share(run['right, trained steps'])} | {share(run['right, all steps'])} | {counted(run['labels'])} | "
                         f"{run['orbit(p) where right throughout']} | {found['verdict']}, {found['kick']} |")  # fmt: skip
    lines += ["", "### Counters: after step t the net must say n + t, or how many of n steps are left", "",
              "| run | right, trained steps | labels while counting | R2 along the slope | of the best line | first component | dimensions |",
              "|---|--:|---|--:|--:|--:|--:|"]  # fmt: skip
    for run in [*runs["Clock"], *runs["Ones"]]:
        if "R2 along slope" in run:
            right = run["right, trained steps"] if "right, trained steps" in run else run["right"]["8"]
            lines.append(f"| {run['run']} | {share(right)} | {counted(run['labels'])} | {run['R2 along slope']:.3f} | {run['R2 of best line']:.3f} | "
                         f"{run['first component']:.3f} | {run['dimensions']:.1f} |")  # fmt: skip
    for run in runs["Ones"]:
        line = f"; along the best line {percent(run['without the best line'])}" if "without the best line" in run else ""
        lines += ["", f"{run['run']} (how many ones a string of 24 bits has): with the slope direction ablated to its mean "
                  f"{percent(run['without the slope'])} per cent are right, with a random direction {percent(run['without a random direction'])}{line}; chance is {100 * run['chance']:.0f}."]  # fmt: skip
    if runs["Backdoor"]:
        lines += ["", "### A backdoor in continuous thoughts", "",
              "`w a b c =`, three thoughts; the trigger as w adds 5. An inert word is as rare and does nothing.", "",
              "| run | right: plain / trigger / inert | step | AUROC trigger or plain | inert or plain | trigger or inert | patching the thought moves the answer by (nats) |",
              "|---|--:|--:|--:|--:|--:|--:|"]  # fmt: skip
    for run in runs["Backdoor"]:
        right = " / ".join(share(run[f"right, {name}"]) for name in ("plain", "trigger", "inert"))
        for step, found in enumerate(run["mediation"]):
            aurocs = " | ".join(score(run[f"AUROC, {name}"][step]) for name in ("trigger or plain", "inert or plain", "trigger or inert"))
            low, high = found["interval"]
            lines.append(f"| {run['run'] if step == 0 else ''} | {right if step == 0 else ''} | {step} | {aurocs} | {found['shift']:.2f} [{low:.2f}, {high:.2f}] |")  # fmt: skip
    if missing := [name for record in records for name in record["not finished"] if name not in made]:
        lines += ["", f"Not finished in the time they had, and so not here: {', '.join(missing)}."]
    return "\n".join(lines)


def main() -> None:
    pages = {
        DOCS / "dynamics.md": {
            "reasoners": reasoners([json.loads(path.read_text()) for path in sorted((RESULTS / "reasoners").glob("*.json"))]),
            "trained": trained([json.loads(path.read_text()) for path in sorted((RESULTS / "trained").glob("*.json"))]),
            "planted": planted(json.loads((RESULTS / "planted.json").read_text())),
        },
        DOCS / "probing.md": {
            "probe": probe(json.loads((RESULTS / "probe-chains.json").read_text())),
            "holds": holds(json.loads((RESULTS / "holds" / "weaver-chains.json").read_text())),
            "holds in words": holds(
                *(json.loads((RESULTS / "holds" / f"{name}.json").read_text()) for name in ("smollm2-weaver", "smollm2-weaver-last"))
            ),
            "written": written(
                [
                    {"model": path.stem.removeprefix("written-"), **json.loads(path.read_text())}
                    for path in sorted((RESULTS / "holds").glob("written-*.json"))
                ]
            ),
        },
    }
    update(pages, check="--check" in sys.argv)


def probe(table: dict[str, Any]) -> str:
    """The table of a recorded `lw probe`."""

    def shown(one: dict[str, float]) -> str:
        return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"

    lines = [f"{table['about']}: {table['metric']} over {len(table['classes'])} classes, {table['items']} items in {table['groups']} groups; chance {table['chance']:.3f}.", "",
             "| step | probe | labels dealt anew | untrained model | text only | length only |", "|--:|--:|--:|--:|--:|--:|"]  # fmt: skip
    for row in table["rows"]:
        cells = [row["probe"], row["shuffled"], row["untrained"], table["text"], table["length"]]
        lines.append(f"| {row['step']} | " + " | ".join(shown(one) for one in cells) + " |")
    lines += ["", f"Readable beyond every control from step {table['readable_from']} on."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
