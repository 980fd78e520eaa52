"""Training throughput of continuous thought beside the original, on ProsQA's form, one CPU thread each.

    git clone https://github.com/facebookresearch/coconut          (MIT; read where it lies, never copied)
    python -m venv ref && ref/bin/pip install torch transformers==4.46.2
    python benchmarks/continuous_thought.py --reference coconut/coconut.py --python ref/bin/python --output result.json

Both train the same GPT-2 of the same weights on the same batches (AdamW, float32, six thoughts, no steps left: the curriculum's
last stage), in turns, each in a process of its own. What is reported is the CPU time of a training step, forward, backward and
update, and its ratio; the losses must agree, or nothing is reported. The time does not depend on what tokens mean, so words are
split into as many pieces as GPT-2's tokenizer needs on average, without that tokenizer.

The original's cost grows with the square of the tokens in a batch: it takes the batch apart into single vectors at every pass.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

VOCABULARY = 50_260
START, END, LATENT, PAD = 50_257, 50_258, 50_259, 50_256
SHAPES = {  # layers, width, heads, rows in a batch
    "2x128-b4": (2, 128, 4, 4),
    "2x128-b8": (2, 128, 4, 8),
    "2x128-b16": (2, 128, 4, 16),
    "2x128-b32": (2, 128, 4, 32),
    "4x256-b16": (4, 256, 4, 16),
    "12x768-b4": (12, 768, 12, 4),
}


def tokens(text: str) -> list[int]:
    """About as many tokens as GPT-2 makes: three for a concept ("ger", "p", "us"), one for any other word or mark."""
    ids: list[int] = []
    for word in text.replace(".", " .").replace("?", " ?").split():
        name = random.Random(word).randrange(1000, 40_000)
        ids += [name, 431, 385] if word.endswith("pus") else [name]
    return ids


def make_batches(count: int, rows: int, thoughts: int, seed: int) -> list[list[tuple[list[int], list[int]]]]:
    """Rows of (tokens, labels) at the curriculum's last stage."""
    from latentweaver.tasks.prosqa import ProsQA
    from latentweaver.training.curriculum import Example, Markers, Staged

    staged = Staged(Markers(LATENT, START, END), max_latent_stage=thoughts, first_stage=thoughts + 1)
    rng, task = random.Random(seed), ProsQA()
    batches = []
    for _ in range(count):
        items = [task.draw(rng) for _ in range(rows)]
        examples = [Example(tokens(i.question + "\n"), [], [21017, *tokens(i.answer), PAD]) for i in items]
        batches.append([staged.row(example, 0, rng) for example in examples])
    return batches


def make_weights(path: Path, shape: tuple[int, int, int, int]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(gpt2_config(shape))
    torch.save(model.state_dict(), path)


def gpt2_config(shape: tuple[int, int, int, int]) -> Any:
    from transformers import GPT2Config

    layers, width, heads, _ = shape
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2Config(vocab_size=VOCABULARY, n_embd=width, n_layer=layers, n_head=heads, **dropout)


def padded(rows: list[list[list[int]]]) -> dict[str, Any]:
    """First latent tokens in one column, as both sides want it."""
    import torch

    edge = max(ids.index(LATENT) for ids, _ in rows)
    shift = [edge - ids.index(LATENT) for ids, _ in rows]
    longest = max(s + len(ids) for s, (ids, _) in zip(shift, rows, strict=True))
    fill = lambda which, value: torch.tensor(  # noqa: E731
        [[value] * s + which(row) + [value] * (longest - s - len(row[0])) for s, row in zip(shift, rows, strict=True)]
    )
    mask = fill(lambda row: [1] * len(row[0]), 0)
    return {
        "input_ids": fill(lambda row: row[0], PAD),
        "labels": fill(lambda row: row[1], -100),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0) * mask,
    }


def worker(side: str, job: dict[str, Any]) -> None:
    """Train on the job's batches and print CPU and wall time of each step, and the losses."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    base = AutoModelForCausalLM.from_config(gpt2_config(job["shape"]))
    base.load_state_dict(torch.load(job["weights"]))
    base.train()
    if side == "ours":
        import latentweaver as lw

        model = lw.continuous_thought(base, latent_token_id=LATENT, start_token_id=START, end_token_id=END)
        model.train()
        step = lambda batch: model.answer_loss(batch["input_ids"], batch["attention_mask"], batch["labels"])  # noqa: E731
    else:
        spec = importlib.util.spec_from_file_location("reference", job["reference"])
        module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
        spec.loader.exec_module(module)  # type: ignore[union-attr]
        model = module.Coconut(base, LATENT, START, END, PAD)
        step = lambda batch: model(**batch).loss  # noqa: E731
    # each as its own training loop has it: the original's is torch's default, ours the fused one (`training/optimisers.py`)
    optimiser = torch.optim.AdamW(base.parameters(), 1e-4, weight_decay=0.01, fused=True if side == "ours" else None)
    lines = []
    for rows in job["batches"]:
        batch = padded(rows)
        cpu, wall = time.process_time(), time.perf_counter()
        loss = step(batch)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        lines.append({"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "loss": float(loss.detach())})
    import transformers

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps({"steps": lines, "tokens": int(batch["attention_mask"].sum()), "columns": batch["input_ids"].numel(), **versions}))


def run(side: str, python: str, job: Path) -> dict[str, Any]:
    command = [python, __file__, "--worker", side, "--job", str(job)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(name: str, steps: int, thoughts: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turns on one shape."""
    shape = SHAPES[name]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pt"
        make_weights(weights, shape)
        sides: dict[str, list[dict[str, Any]]] = {"ours": [], "reference": []}
        notes: dict[str, Any] = {}
        for turn in range(arguments.turns):
            job = Path(folder) / "job.json"
            content = {"shape": shape, "weights": str(weights), "reference": arguments.reference}
            job.write_text(json.dumps({**content, "batches": make_batches(steps, shape[3], thoughts, turn)}))
            for side, python in (("ours", sys.executable), ("reference", arguments.python)):
                result = run(side, python, job)
                sides[side] += result["steps"][1:]  # the first one warms up
                notes[side] = {key: result[key] for key in ("torch", "transformers")}
                notes["tokens"], notes["columns"] = result["tokens"], result["columns"]
    gap = max(abs(a["loss"] - b["loss"]) for a, b in zip(sides["ours"], sides["reference"], strict=True))
    if gap > 1e-2:
        sys.exit(f"{name}: the losses differ by {gap:.2g}, so the two do not do the same work")
    cpu = {side: statistics.median(step["cpu"] for step in lines) for side, lines in sides.items()}
    ratio = cpu["reference"] / cpu["ours"]
    print(
        f"{name:>10}  ours {cpu['ours']:8.3f} s   reference {cpu['reference']:8.3f} s   {ratio:6.1f}x   losses within {gap:.1e}", flush=True
    )
    return {"shape": name, "cpu_seconds": cpu, "ratio": ratio, "largest_loss_gap": gap, "steps": sides, **notes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", help="path to the original's coconut.py")
    parser.add_argument("--python", help="an interpreter with transformers 4.46.2 and torch")
    parser.add_argument("--shapes", default="2x128-b4,2x128-b8,2x128-b16", help=f"out of {', '.join(SHAPES)}")
    parser.add_argument("--steps", type=int, default=3, help="training steps in each turn, the first of which is not counted")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--thoughts", type=int, default=6)
    parser.add_argument("--output", help="write the result here as JSON")
    parser.add_argument("--worker", choices=("ours", "reference"), help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, json.loads(Path(arguments.job).read_text()))
        return
    if not arguments.reference or not arguments.python:
        parser.error("--reference and --python say where the original and its interpreter are")
    machine = {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count(), "python": platform.python_version()}
    lines: list[dict[str, Any]] = []
    for name in arguments.shapes.split(","):
        lines.append(compare(name, arguments.steps, arguments.thoughts, arguments))
        if arguments.output:  # after every shape: the large ones take long
            content = {"date": time.strftime("%Y-%m-%d"), "machine": machine, "thoughts": arguments.thoughts, "results": lines}
            Path(arguments.output).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
