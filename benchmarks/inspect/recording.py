"""What looking costs: recording states beside plain thinking, and a report of 300 tokens over 128 steps.

    python benchmarks/inspect/recording.py benchmarks/inspect/results/recording.json [--model weaver-chains] [--pairs 5]

One thread, CPU time of the process, plain and recorded in turns. Memory is what the process had at most, less what it had before.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch

import latentweaver as lw
from latentweaver.checkpoints.loading import load, load_tokenizer
from latentweaver.inspect import Trajectory, record, report
from latentweaver.runtime.thinking import think_for


def spent(call) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def peak() -> float:
    """Most memory so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="weaver-chains")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--steps", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load(options.model, dtype="float32"), load_tokenizer(options.model)
    ids = torch.randint(len(tokenizer), (1, options.tokens), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = lambda: think_for(model, model.begin(ids), options.steps)  # noqa: E731
        plain()
        before = peak()
        kept = record(model, ids, steps=options.steps)
        memory = peak() - before
        assert kept.states is not None, "states are what record keeps"
        assert kept.final is not None, "and the last Thought"
        assert torch.equal(plain().state, kept.final.state), "looking changed what was thought"
        pairs = [(spent(plain), spent(lambda: record(model, ids, steps=options.steps))) for _ in range(options.pairs)]
    ratios = [recorded / thought for thought, recorded in pairs]
    found = {
        "model": options.model, "tokens": options.tokens, "steps": options.steps, "torch": torch.__version__, "machine": platform.processor() or platform.machine(),
        "seconds of CPU, plain": [thought for thought, _ in pairs], "recorded": [recorded for _, recorded in pairs],
        "ratio": {"median": statistics.median(ratios), "all": ratios},
        "MB of states": kept.states.nbytes / 1e6, "MB more while recording": memory,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "r.html"
        before, wall = peak(), time.perf_counter()
        cpu = spent(lambda: report(model, ids, page, steps=options.steps, text=lambda token: tokenizer.decode([token])))
        found["report"] = {
            "seconds of CPU": cpu,
            "seconds": time.perf_counter() - wall,
            "bytes": page.stat().st_size,
            "MB more": peak() - before,
        }
        cpu = spent(lambda: Trajectory.report(kept, Path(folder) / "t.html"))
        found["report of a recording"] = {"seconds of CPU": cpu, "bytes": (Path(folder) / "t.html").stat().st_size}
    found["latentweaver"] = lw.__version__
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
