"""The results in the README, written from the recorded files: `python benchmarks/readme.py` puts them in, `--check` only compares."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from marks import update

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
DEPTHS, STEPS = (1, 4, 8, 16, 32, 48), (1, 4, 8, 16, 32, 64)


def chains() -> str:
    """Accuracy of `weaver-chains` at each depth and number of steps, both training seeds."""
    folder = HERE / "training" / "chains"
    seeds = [json.loads((folder / f"accuracy-seed{seed}.json").read_text())["cells"] for seed in (0, 1)]
    known = sorted({cell["steps"] for cell in seeds[0]})
    steps = [step for step in STEPS if step in known]
    head = " | ".join("1 step" if step == 1 else f"{step} steps" for step in steps)
    lines = [f"| depth | {head} |", f"|--:|{'--:|' * len(steps)}"]
    for depth in DEPTHS:
        row = []
        for step in steps:
            cells = [next(c for c in seed if (c["difficulty"], c["steps"]) == (depth, step)) for seed in seeds]
            row.append(" / ".join(f"{100 * cell['accuracy']:.1f}" for cell in cells))
        lines.append(f"| {depth} | {' | '.join(row)} |")
    return "\n".join(lines)


def controls() -> str:
    """The recipe of `weaver-chains` beside its controls, at the best number of steps that each was measured at."""
    wanted = {
        "chains": "the recipe",
        "answers-only": "no value supervised but the answer",
        "no-loop": "no loop: the same blocks once",
        "no-loop-deep": "no loop: ten blocks in place of two",
    }
    depths = (1, 2, 4, 8, 16, 32)
    lines = [f"| run | updates | {' | '.join(f'depth {depth}' for depth in depths)} |", f"|---|--:|{'--:|' * len(depths)}"]
    for name, label in wanted.items():
        record = json.loads((HERE / "training" / "chains" / "controls" / f"control-{name}.json").read_text())
        cells = record["accuracy"]["cells"]
        row = [f"{100 * max(cell['accuracy'] for cell in cells if cell['difficulty'] == depth):.1f}" for depth in depths]
        lines.append(f"| {label} | {record['updates']} | {' | '.join(row)} |")
    return "\n".join(lines)


def training() -> str:
    """Training on one CPU thread beside Huginn's own code."""
    record = json.loads((HERE / "training" / "throughput" / "cpu.json").read_text())
    lines = ["| type | steps without, with gradient | ours | Huginn's code | ratio |", "|---|---|--:|--:|--:|"]
    for case in record["results"]:
        ours, theirs = (case[name]["tokens_per_cpu_second"] for name in ("ours", "reference"))
        lines.append(f"| {case['dtype']} | {', '.join(map(str, case['steps']))} | {ours:.0f} | {theirs:.0f} | {ours / theirs:.2f} |")
    return "\n".join(lines)


def generation() -> str:
    """Tokens per CPU second beside Huginn's own code."""
    record = json.loads((HERE / "results" / "huginn.json").read_text())
    lines = ["| case | type | ours | Huginn's code | ratio | of what the machine could give |", "|---|---|--:|--:|--:|--:|"]
    for case in record["results"]:
        ours, theirs = case["ours"]["cpu"], case["reference"]["cpu"]
        share = f"{100 * ours / case['bound']:.0f} %"
        lines.append(f"| {case['case']} | {case['dtype']} | {ours:.1f} | {theirs:.1f} | {ours / theirs:.2f} | {share} |")
    return "\n".join(lines)


def smollm2() -> str:
    """SmolLM2-135M at one step beside other ways to run it."""
    record = json.loads((HERE / "results" / "smollm2.json").read_text())
    lines = ["| engine | tokens per CPU second |", "|---|--:|"]
    lines += [f"| {name} | {result['cpu']:.1f} |" for name, result in record["results"].items()]
    return "\n".join(lines)


def on_a_gpu() -> str:
    """Milliseconds a token of the ways to decode on a GPU that matter, from the table of the record."""
    rows = [line.split("|")[1:4] for line in (HERE / "results" / "decoding_gpu.md").read_text().splitlines() if "%" in line and "|" in line]
    wanted = ("the original's code", "**")
    shown = [[cell.strip().replace("**", "") for cell in row] for row in rows if row[0].strip().startswith(wanted)]
    return "\n".join(["| how | ms a token | of the limit |", "|---|--:|--:|", *(f"| {' | '.join(row)} |" for row in shown)])


def text() -> str:
    """Everything between the marks."""
    return f"""**`weaver-chains`** (3.3 M parameters, shipped) adds chains of dependent digits. Accuracy in per cent on 500 fresh problems a cell, two
training seeds; chance is 10 %; the 95 % interval of 100.0 begins at 99.2. It was trained on depths up to 16 with at most 20 steps.

{chains()}

A chain of depth d is answered from step d + 1 on, and stays answered. What made it learn, what did not, logs and intervals:
[benchmarks/training/chains](benchmarks/training/chains/README.md). Beside it its controls, side by side on one card for the same seven minutes
(unfinished schedules but for the third; best number of steps of each):

{controls()}

**Generation** beside Huginn's own code, same random weights, 46.6 M parameters, tokens per CPU second, one thread of an
AMD EPYC (Zen 4), 25 November 2026 ([benchmarks/results/huginn.md](benchmarks/results/huginn.md)); the greedy tokens are equal in float32:

{generation()}

**Training** beside Huginn's own code, tokens per CPU second, one busy thread of a Zen 5, 24 November 2026
([benchmarks/training/throughput](benchmarks/training/throughput/README.md)); on a Zen 4 the ratios are 1.14, 1.17, 1.24 and 1.30, where
products alone would allow 1.36, 1.32, 1.52 and 1.50. On an H100 a looped model of SmolLM2's width (86 M parameters, 8 steps, 4 with
gradient) trains at 243,000 tokens/s with compiled steps, 30 % of the card's peak, and on two at 459,000, 1.89 times one:

{training()}

**On an H100**, huginn-0125's full shape (3.56 B parameters, 32 steps, bfloat16, one text; [the record](benchmarks/results/decoding_gpu.md)):

{on_a_gpu()}

Reading the weights takes 35.3 ms. The weights are random and made to settle, so that guesses after 8 steps hold 3.48 times in 4.

**SmolLM2-135M** at one step, one text, one thread of an AMD EPYC (Zen 4), 25 November 2026
([benchmarks/results/smollm2.md](benchmarks/results/smollm2.md)):

{smollm2()}"""


if __name__ == "__main__":
    update({README: {"results": text()}}, check="--check" in sys.argv)
