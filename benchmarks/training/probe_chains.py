"""Several variants of the chains recipe side by side on one GPU, each a process, for a fixed time: which one learns.

python benchmarks/training/probe_chains.py OUT SECONDS name:field=value,field=value ...
"""

from __future__ import annotations

import ast
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

from latentweaver import recipes


class TimeIsUp(Exception):
    pass


def one(folder: Path, seconds: float, overrides: dict) -> None:
    began = time.monotonic()

    def report(line: dict) -> None:
        if time.monotonic() - began > seconds:
            raise TimeIsUp

    with contextlib.suppress(TimeIsUp):
        recipes.train("chains", folder=folder, report=report, **overrides)


def parse(spec: str) -> tuple[str, dict]:
    name, _, text = spec.partition(":")
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    overrides = {}
    for field, _, value in pairs:
        try:
            overrides[field] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            overrides[field] = value
    return name, overrides


def summary(out: Path) -> None:
    """The evaluations of every variant, and its last line."""
    for log in sorted(out.glob("*/log.jsonl")):
        print(f"== {log.parent.name}")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        for line in lines:
            if "depth_2" in line or line is lines[-1]:
                print(
                    {
                        key: round(value, 3) if isinstance(value, float) else value
                        for key, value in line.items()
                        if key not in ("lr", "norm")
                    }
                )


if __name__ == "__main__":
    out, seconds, *specs = sys.argv[1:]
    if len(specs) == 1 and specs[0].startswith("one "):
        name, overrides = parse(specs[0][4:])
        one(Path(out) / name, float(seconds), overrides)
        sys.exit()
    running = [subprocess.Popen([sys.executable, __file__, out, seconds, "one " + spec]) for spec in specs]
    for process in running:
        process.wait()
    summary(Path(out))
