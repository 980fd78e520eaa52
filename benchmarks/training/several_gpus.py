"""The chains recipe on one process, then on two, then on one again, beside a run that one process made alone.

python benchmarks/training/several_gpus.py FOLDER              runs all four parts (two GPUs, or CPU processes) and compares
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from latentweaver import recipes

FIELDS = {
    "updates": 60, "checkpoint_every": 20, "log_every": 1, "evaluate_every": 60, "evaluate_problems": 16, "warm_updates": 10,
    "rise_updates": 20,
}  # fmt: skip


def part(folder: str, stop: int) -> None:
    """Go on with the run in `folder` and end hard when update `stop` has been reported."""

    def report(line: dict) -> None:
        if line["update"] == stop:
            os._exit(9)

    recipes.train("chains", folder, resume=True, report=report, **{**FIELDS, **json.loads(os.environ.get("FIELDS", "{}"))})


def lines(place: Path) -> list[str]:
    """The log of a run."""
    return (place / "log.jsonl").read_text().splitlines()


def main(folder: Path) -> None:
    alone, parts = folder / "alone", folder / "parts"
    one = [sys.executable, __file__]
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    begun = subprocess.Popen([*one, str(alone), "-1"], stderr=subprocess.PIPE, text=True)  # beside the others
    for launch, stop in ((one, 25), (two, 45), (one, -1)):
        ended = subprocess.run([*launch, str(parts), str(stop)], capture_output=True, text=True)
        if ended.returncode and stop < 0:
            sys.exit(ended.stderr)
        print(f"{launch[-2] if launch is two else 1} process(es): update {json.loads(lines(parts)[-1])['update']} reached", flush=True)
    _, errors = begun.communicate()
    if begun.returncode:
        sys.exit(errors)
    losses = [[json.loads(line)["loss"] for line in lines(place)] for place in (alone, parts)]
    worst = max(abs(mine - theirs) / mine for mine, theirs in zip(*losses, strict=True))
    print(f"{len(losses[0])} updates; the losses differ by at most {worst:.1e} of themselves")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        part(sys.argv[1], int(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
