"""The chains recipe on one process, then on two, then on one again, beside a run that one process made alone.

Two processes write shards (torch's distributed checkpoints), one writes a file; each resumes what the other wrote. The processes are
forked from one that has imported everything, and are given what `torchrun` would give them. Every part prints when it gets where; one that
takes longer than `--patience` prints where each of its threads stands, and ends.

python benchmarks/training/several_gpus.py FOLDER [--device cpu]
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import torch

from latentweaver import recipes
from latentweaver.recipes import chains  # noqa: F401  # imported before the forks, with all it needs
from latentweaver.training import checkpoint

FIELDS = {
    "width": 64, "inner": 176, "heads": 2, "statements": 6, "depth": 4, "high_steps": 6, "backprop": 3, "batch_size": 16,
    "updates": 60, "checkpoint_every": 20, "log_every": 1, "evaluate_every": 60, "evaluate_problems": 4, "warm_updates": 10, "rise_updates": 20,
}  # fmt: skip
FORK = multiprocessing.get_context("fork")
BEGAN = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGAN:6.1f} s] {text}", flush=True)


def part(name: str, folder: Path, stop: int, rank: int, size: int, port: int, device: str | None, patience: float) -> None:
    """Go on with the run in `folder`, as one of `size` processes, and end hard when update `stop` has been reported."""
    faulthandler.dump_traceback_later(patience, exit=True)
    torch.set_num_threads(1)
    if size > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip

    def report(line: dict[str, Any]) -> None:
        if line["update"] % 20 == 1 or line["update"] == stop:
            say(f"{name}: update {line['update']}")
        if line["update"] == stop:
            os._exit(9)

    if rank:
        say(f"{name}: process {rank} begins")
    recipes.train("chains", folder, resume=True, report=report, device=device, **FIELDS)
    say(f"{name}: process {rank} ends")


def begin(name: str, folder: Path, stop: int, size: int, device: str | None, patience: float) -> list[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    say(f"{name}: begins")
    processes = [FORK.Process(target=part, args=(name, folder, stop, rank, size, port, device, patience)) for rank in range(size)]
    for process in processes:
        process.start()
    return processes


def end(name: str, processes: list[Any], wanted: int) -> None:
    """Wait for the first process; what the others do once it has ended hard does not matter.

    Raises:
        SystemExit: if it ended otherwise than `wanted`.
    """
    first, *others = processes
    first.join()
    for other in others:
        other.join(20 if wanted == 0 else 0)
        other.kill()
    if first.exitcode != wanted:
        sys.exit(f"{name}: ended with {first.exitcode}, not {wanted}")


def lines(place: Path) -> list[dict[str, Any]]:
    """The log of a run."""
    return [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", help="cpu for processes without a GPU")
    parser.add_argument("--patience", type=float, default=35, help="seconds that a part may take")
    options = parser.parse_args()
    common = options.device, options.patience
    alone, parts = options.folder / "alone", options.folder / "parts"
    say("imported")
    beside = begin("alone", alone, -1, 1, *common)
    for name, size, stop, kept in (
        ("one", 1, 25, checkpoint.NAME),
        ("two", 2, 45, "training-000040"),
        ("one again", 1, -1, checkpoint.NAME),
    ):
        end(name, begin(name, parts, stop, size, *common), wanted=9 if stop > 0 else 0)
        found = sorted(path.name for path in parts.glob("training*"))
        say(f"{name}: left {found}")
        if found != [kept]:
            sys.exit(f"{name}: {kept} alone was to be there")
    end("alone", beside, wanted=0)
    losses = [[line["loss"] for line in lines(place)] for place in (alone, parts)]
    worst = max(abs(mine - theirs) / mine for mine, theirs in zip(*losses, strict=True))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() and options.device != "cpu" else "CPU"
    say(f"{len(losses[0])} updates on {device}, torch {torch.__version__}; the losses differ by at most {worst:.1e} of themselves")


if __name__ == "__main__":
    main()
