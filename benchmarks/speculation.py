"""What guessing ahead in depth is worth on this machine, and what 8-bit weights are: every way beside plain decoding, in turns.

    python benchmarks/speculation.py guesses       to results/speculation.{json,md}
    python benchmarks/speculation.py int8          to results/int8.{json,md}

One thread, CPU seconds of the process (the machine may carry other load), the best of the turns. Models: the reasoners that
come with the package or are installed, and a Huginn form with random weights, whose guesses say nothing about a trained model's.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

import latentweaver as lw
from latentweaver.runtime.int8 import quantize

HERE = Path(__file__).parent
SETTINGS = {
    "weaver-chains": (16, 32, (2, 4)),
    "smollm2-135m": (8, 24, (1, 2)),
    "smollm2-weaver": (8, 24, (1, 2)),
    "huginn form": (32, 12, (4, 8)),
}
"""By model: steps, new tokens, and after how many steps it guesses."""

PROSE = "Write a short story about a lighthouse keeper who finds a letter in a bottle."


def huginn() -> Any:
    """The shape of `generation.py`, 2-4-2 blocks of width 512, with branches as strong as the states."""
    shape = {"vocab_size": 32000, "hidden_size": 512, "intermediate_size": 1728, "num_attention_heads": 8}
    torch.manual_seed(0)
    model = lw.RecurrentDepthForCausalLM(
        lw.RecurrentDepthConfig(**shape, num_steps=32, attention_bias="qk", embedding_scale=512**0.5)
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("proj.weight"):
                parameter.normal_(0, parameter.shape[1] ** -0.5)
    return model


def cpu_seconds(model: Any, ids: Any, new: int, **options: Any) -> tuple[Any, float]:
    """A greedy text, and the CPU seconds from its first token to its last."""
    stamps: list[float] = []

    class Clock:
        def put(self, value: Any) -> None:
            stamps.append(time.process_time())

        def end(self) -> None: ...

    out = model.generate(
        ids, max_new_tokens=new, min_new_tokens=new, do_sample=False, temperature=None, top_p=None, top_k=None, pad_token_id=0,
        attention_mask=torch.ones_like(ids), streamer=Clock(), return_dict_in_generate=True, **options,
    )  # fmt: skip
    return out, stamps[-1] - stamps[1]


def prompt(name: str) -> Any:
    """What each model goes on from."""
    if name == "huginn form":
        return torch.randint(32000, (1, 32), generator=torch.Generator().manual_seed(0))
    tokenizer = lw.load_tokenizer(name)
    if not tokenizer.chat_template:
        return tokenizer("r=3 k=r+4 q=k+r ?q=", return_tensors="pt").input_ids
    message = [{"role": "user", "content": PROSE}]
    return tokenizer.apply_chat_template(message, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]


def guesses(names: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Plain decoding and every way of guessing, in turns, greedy, float32."""
    rows = []
    for name in names:
        model = huginn() if name == "huginn form" else lw.load(name, dtype="float32", device="cpu")
        (steps, new, drafts), ids = SETTINGS[name], prompt(name)
        ways: dict[str, dict[str, Any]] = {"plain": {}}
        for draft in drafts:
            ways[f"draft 4 tokens with {draft}, verify"] = {"draft_steps": draft, "draft_tokens": 4}
            ways[f"wavefront, guess after {draft}"] = {"draft_steps": draft, "wavefront": True}
        found: dict[str, dict[str, Any]] = {}
        for _ in range(2):
            for way, options in ways.items():
                out, seconds = cpu_seconds(model, ids, new, num_steps=steps, **options)
                entry = found.setdefault(way, {"seconds": seconds})
                entry["seconds"] = min(seconds, entry["seconds"])
                entry["text"] = out.sequences[0].tolist()
                if out.speculated is not None:
                    entry |= {"accepted": out.speculated.accepted_length, "passes": out.speculated.passes_per_token}
        plain = found["plain"]
        for way, entry in found.items():
            row = {"model": name, "steps": steps, "way": way, "tokens per CPU s": (new - 1) / entry["seconds"]}
            row |= {"gain": plain["seconds"] / entry["seconds"], "same text": entry["text"] == plain["text"]}
            row |= {"accepted length": entry.get("accepted", 1.0), "passes a token": entry.get("passes", float(steps))}
            rows.append(row)
            print(row, flush=True)
    return guesses_table(rows), rows


def guesses_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "Accepted length: tokens that a verification (or a beat of the wavefront) brought. Passes: through the core; plain decoding takes `steps`.",
        "",
        "| model | steps | way | tokens per CPU s | gain | same text | accepted length | passes a token |",
        "|---|--:|---|--:|--:|---|--:|--:|",
    ]
    for r in rows:
        lines.append(
            f"| {r['model']} | {r['steps']} | {r['way']} | {r['tokens per CPU s']:.1f} | {r['gain']:.2f} | {'yes' if r['same text'] else 'no'} "
            f"| {r['accepted length']:.2f} | {r['passes a token']:.1f} |"
        )
    return "\n".join(lines)


def prose(limit: int) -> str:
    """Our own documentation, as text that no model was trained on."""
    return "\n".join(path.read_text() for path in sorted((HERE.parent / "docs").glob("*.md")))[:limit]


@torch.no_grad()
def int8(names: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """float32, bfloat16 and 8 bits: bytes, tokens per CPU second in turns, and what the answers lost."""
    rows = []
    for name in names:
        models = {
            "float32": lw.load(name, dtype="float32", device="cpu"),
            "bfloat16": lw.load(name, dtype="bfloat16", device="cpu"),
            "int8": quantize(lw.load(name, dtype="float32", device="cpu")),
        }
        ids = prompt(name)
        quality = chains(models) if name == "weaver-chains" else text(models, name)
        for steps in (1, 4, 16):
            best: dict[str, float] = {}
            for _ in range(2):
                for kind, model in models.items():
                    _, seconds = cpu_seconds(model, ids, 24, num_steps=steps)
                    best[kind] = min(seconds, best.get(kind, seconds))
            for kind, model in models.items():
                size = sum({t.data_ptr(): t.nbytes for t in model.state_dict().values()}.values())
                row = {"model": name, "weights": kind, "MB": size / 1e6, "steps": steps, "tokens per CPU s": 23 / best[kind]}
                rows.append({**row, "against float32": best["float32"] / best[kind], "quality": quality[kind]})
                print(rows[-1], flush=True)
    lines = ["| model | weights | MB | steps | tokens per CPU s | against float32 | quality |", "|---|---|--:|--:|--:|--:|---|"]
    for r in rows:
        lines.append(
            f"| {r['model']} | {r['weights']} | {r['MB']:.0f} | {r['steps']} | {r['tokens per CPU s']:.1f} | {r['against float32']:.2f} | {r['quality']} |"
        )
    return "\n".join(lines), rows


def chains(models: dict[str, Any]) -> dict[str, str]:
    """Accuracy on chains of 4, 8 and 16 at 20 steps, 300 problems each, the same for all."""
    from latentweaver.evaluate import accuracy_against_steps
    from latentweaver.tasks import task

    said = {}
    for kind, model in models.items():
        table = accuracy_against_steps(model, task("chains"), (20,), (4, 8, 16), 300)
        said[kind] = "chains of 4, 8, 16: " + ", ".join(f"{100 * cell.accuracy:.1f} %" for cell in table.cells)
    return said


def text(models: dict[str, Any], name: str) -> dict[str, str]:
    """Perplexity of our documentation at the model's own number of steps, and the KL divergence from float32's predictions."""
    ids = lw.load_tokenizer(name)(prose(12000), return_tensors="pt").input_ids[:, :2048]
    pieces = ids[:, : ids.shape[1] // 512 * 512].view(-1, 512)
    logs = {kind: torch.cat([m(piece[None]).logits[0, :-1].float().log_softmax(-1) for piece in pieces]) for kind, m in models.items()}
    target, true = pieces[:, 1:].reshape(-1, 1), logs["float32"]
    said = {}
    for kind, log in logs.items():
        kl = float((true.exp() * (true - log)).sum(-1).mean())
        agree = float((true.argmax(-1) == log.argmax(-1)).float().mean())
        said[kind] = (
            f"perplexity {float((-log.gather(1, target)).mean().exp()):.3f}, KL {kl:.5f} nats, {100 * agree:.1f} % the same likeliest token"
        )
    return said


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) < 2 or sys.argv[1] not in ("guesses", "int8"):
        raise SystemExit(__doc__)
    what = sys.argv[1]
    names = sys.argv[2:] or (["weaver-chains", "smollm2-135m", "huginn form"] if what == "guesses" else ["weaver-chains", "smollm2-135m"])
    began = time.process_time()
    table, rows = (guesses if what == "guesses" else int8)(names)
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    about = {
        "date": date.today().isoformat(),
        "machine": f"{cpu}, {os.cpu_count()} cores, one thread used",
        "load": os.getloadavg()[0],
        "versions": f"latentweaver {lw.__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        "command": " ".join(["speculation.py", *sys.argv[1:]]),
        "CPU seconds in all": round(time.process_time() - began),
    }
    head = f"{about['date']}, {about['machine']}, load {about['load']:.1f} from other work. `{about['command']}`. {about['versions']}."
    out = HERE / "results" / ("speculation" if what == "guesses" else "int8")
    out.with_suffix(".json").write_text(json.dumps({**about, "results": rows}, indent=1) + "\n")
    out.with_suffix(".md").write_text(f"{head}\n\n{table}\n")
    print(f"\n{head}\n\n{table}")


if __name__ == "__main__":
    main()
