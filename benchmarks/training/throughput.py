"""Training throughput of a retrofit of SmolLM2-135M's shape (random weights): tokens a second, and the share of the card's peak.

Every variant is a run of `training.train` on synthetic batches: some short updates to compile, then rounds of timed ones. Counted are the
products of matrices that an update needs (forward once, backward twice, no recomputation), attention's over the causal half.

python benchmarks/training/throughput.py OUT.json --variants "plain;compiled"
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import gc
import json
import math
import os
import platform
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from latentweaver.models.config import RecurrentDepthConfig
from latentweaver.models.recurrent_depth import RecurrentDepthForCausalLM
from latentweaver.tasks.batches import Batch
from latentweaver.training import ranks
from latentweaver.training.loop import Settings, train
from latentweaver.training.objectives import IGNORED, LastStep

EVERY = 4
"""Updates to a line of the log, which measures the states and so takes time."""

PEAK = {"H100": 989.4e12, "H200": 989.4e12}
"""Dense bfloat16 products a second of the SXM cards (NVIDIA's data sheets, without sparsity)."""


@dataclass(frozen=True)
class Case:
    """One way to train.

    Attributes:
        layers: blocks of prelude, core and coda.
        rows, length: shape of a batch.
        labelled: share of the tokens that have a label.
        steps: steps without gradient, and with.
        settings: fields of `Settings`.
    """

    layers: tuple[int, int, int] = (4, 8, 4)
    rows: int = 64
    length: int = 512
    labelled: float = 1.0
    steps: tuple[int, int] = (4, 4)
    settings: tuple[tuple[str, Any], ...] = (("precision", "bf16-stream"), ("compile", "steps"))


BLOCKS = (("precision", "bf16"), ("compile", True))
STEPS = (("precision", "bf16-stream"), ("compile", "steps"))
VARIANTS = {
    "plain": Case(settings=(("precision", "bf16"), ("compile", False))),
    "compiled blocks": Case(settings=BLOCKS),
    "compiled steps": Case(settings=STEPS),
    "plain, 1 label in 8": Case(labelled=0.125, settings=(("precision", "bf16"), ("compile", False))),
    "compiled blocks, 1 label in 8": Case(labelled=0.125, settings=BLOCKS),
    "compiled steps in float32 stream, 1 label in 8": Case(labelled=0.125, settings=(("precision", "bf16"), ("compile", "steps"))),
    "compiled steps, 1 label in 8": Case(labelled=0.125),
    "compiled steps, 1 label in 8, 128 tokens": Case(rows=256, length=128, labelled=0.125),
    "compiled steps, 1 label in 8, 11-8-11": Case(layers=(11, 8, 11), labelled=0.125),
    "compiled steps, 1 label in 8, twice the rows": Case(labelled=0.125, rows=128),
    "compiled blocks, 1 label in 8, twice the rows": Case(labelled=0.125, rows=128, settings=BLOCKS),
}


def model_of(case: Case, width: int = 576, vocabulary: int = 49152) -> RecurrentDepthForCausalLM:
    prelude, core, coda = case.layers
    torch.manual_seed(0)
    return RecurrentDepthForCausalLM(
        RecurrentDepthConfig(
            vocab_size=vocabulary, hidden_size=width, intermediate_size=width * 8 // 3, num_attention_heads=width // 64,
            num_key_value_heads=width // 192, prelude_layers=prelude, core_layers=core, coda_layers=coda, num_steps=sum(case.steps),
            block="pre", norm_before_coda=False, initial_state="zeros", tie_word_embeddings=True, max_position_embeddings=2048,
            rope_theta=100000.0, rms_norm_eps=1e-5,
        )
    )  # fmt: skip


class Batches:
    """The same random batch over and over.

    Args:
        before: what every process does before it takes the batch of a number.
    """

    def __init__(self, case: Case, vocabulary: int, before: dict[int, Callable[[], None]]) -> None:
        self.before = before
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, vocabulary, (case.rows, case.length + 1), generator=generator)
        labels = ids[:, 1:].clone()
        labels[torch.rand(labels.shape, generator=generator) >= case.labelled] = IGNORED
        self.batch = Batch(ids[:, :-1], labels, torch.zeros_like(labels), labels != IGNORED)
        if torch.cuda.is_available():
            self.batch = self.batch.pin_memory()

    def __getitem__(self, index: int) -> Batch:
        self.before.get(index, lambda: None)()
        return self.batch


def flops_per_token(case: Case, config: RecurrentDepthConfig) -> float:
    """Multiplications and additions that a token needs in an update, averaged over the batch."""
    width, head = config.hidden_size, config.head_dim
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    block = 2 * width * (2 * queries + 2 * keys + 3 * config.intermediate_size) + 2 * 2 * queries * case.length / 2
    (prelude, core, coda), (without, with_gradient) = case.layers, case.steps
    step = core * block + 2 * width * 2 * width
    once = (prelude + coda) * block + case.labelled * 2 * width * config.vocab_size
    return without * step + 3 * (with_gradient * step + once)


class Done(Exception):
    """What was wanted has been measured; nothing is saved."""


def end() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # for those whose turn it is now
    raise Done


@dataclass(frozen=True)
class Shallow:
    """Two steps for the first updates, which compile all there is in little memory; then those of the case."""

    until: int
    steps: tuple[int, int]

    def __call__(self, update: int) -> tuple[int, int]:
        return (1, 1) if update < self.until else self.steps


class Turn:
    """Several runs of this file on one machine: all compile at once, then take turns, so that each is timed alone.

    Args:
        folder: where they meet; None for one that is by itself.
        number: how many there are.
        patience: seconds from the start of this one to wait for the others.
    """

    def __init__(self, folder: Path | None, number: int, patience: float = 120.0) -> None:
        self.folder, self.number, self.patience = folder, number, patience
        self.began, self.taken = time.monotonic(), 0

    def take(self) -> None:
        """Wait until all are ready, then for the others' timing. Every process of a run waits here: one that went ahead would wait on
        its card, in a kernel of NCCL, for those that did not."""
        if self.folder is None:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        self.taken += 1
        ours = self.folder / f"turn-{os.getppid()}-{self.taken}"  # the processes of a run have one parent, torchrun
        if ranks.rank() > 0:
            while not ours.exists():
                time.sleep(0.01)
            return
        (self.folder / f"ready-{os.getpid()}").touch()
        while len(list(self.folder.glob("ready-*"))) < self.number and time.monotonic() - self.began < self.patience:
            time.sleep(0.1)
        time.sleep(0.2)  # those that wait already come first
        self.lock = (self.folder / "lock").open("w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        if ranks.size() > 1:
            ours.touch()

    def give(self) -> None:
        if self.folder is not None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            fcntl.flock(self.lock, fcntl.LOCK_UN)


def measure(
    case: Case,
    warm: int,
    timed: int,
    rounds: int,
    width: int,
    vocabulary: int,
    turn: Turn | None = None,
    profile: Path | None = None,
    record: Callable[[dict[str, Any]], None] = lambda found: None,
) -> dict[str, Any]:
    """A run of `warm` short updates, then `rounds` times EVERY to fill the card's memory after a wait, and `timed` ones; with `profile`
    EVERY more under torch's profiler, their kernels written there. After every round `record` is given what is known."""
    turn = turn or Turn(None, 1)
    torch._dynamo.reset()
    model = model_of(case, width, vocabulary)
    warm, timed = (EVERY * math.ceil(number / EVERY) for number in (warm, timed))
    stops = [warm + (number + 1) * (EVERY + timed) for number in range(rounds)]
    last = stops[-1] + (EVERY if profile is not None else 0)
    settings = Settings(
        updates=last + 2,
        log_every=EVERY,
        checkpoint_every=10**6,
        evaluate_every=10**6,
        lr=1e-4,
        **dict(case.settings),
    )
    stamps: dict[int, float] = {}
    losses: list[float] = []
    profiler = torch.profiler.profile()

    def report(line: dict[str, Any]) -> None:
        update = line["update"]
        stamps[update] = time.perf_counter()
        losses.append(line["loss"])
        if update in stops:
            record(found())
        if update > stops[-1]:
            profiler.stop()  # waits for the device
        elif update == stops[-1] and profile is not None:
            profiler.start()
            return
        if update >= stops[-1] or update in stops:
            turn.give()

    def found() -> dict[str, Any]:
        return summary(case, model, [(stamps[stop] - stamps[stop - timed]) / timed for stop in stops if stop in stamps], losses)

    # the batch after the next is asked for when an update has been reported
    before = {start + 1: turn.take for start in (warm, *stops[:-1])}
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Done):
        train(
            model,
            LastStep(compile=dict(case.settings)["compile"] == "steps"),
            Shallow(warm, case.steps),
            Batches(case, vocabulary, {**before, last + 1: end}),
            settings,
            folder,
            report=report,
        )
    if ranks.rank() > 0:
        return {}
    if profile is not None:
        profile.write_text(kernels_of(profiler))
    return found()


def summary(case: Case, model: RecurrentDepthForCausalLM, rounds: list[float], losses: list[float]) -> dict[str, Any]:
    """What is known of a run after some rounds, from the seconds that an update took in each."""
    seconds = statistics.median(rounds)
    tokens = case.rows * case.length
    flops = flops_per_token(case, model.config) * tokens / seconds
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu"
    peak = next((value for name, value in PEAK.items() if name in device), None)
    return {
        "layers": case.layers, "rows": case.rows, "length": case.length, "labelled": case.labelled, "steps": case.steps,
        "settings": dict(case.settings), "loss": losses[-1], "parameters": model.num_parameters(), "processes": ranks.size(), "seconds_per_update": seconds, "rounds": rounds, "tokens_per_second": tokens / seconds,
        "gflop_per_token": flops_per_token(case, model.config) / 1e9, "tflops": flops / 1e12,
        "share_of_peak": flops / peak / ranks.size() if peak else None,
        "gigabytes": torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None,
        "device": device, "torch": torch.__version__,
    }  # fmt: skip


def kernels_of(profiler: Any) -> str:
    """Time on the card by kernel: milliseconds, number of starts, name."""
    found = sorted(((e.self_device_time_total / 1e3, e.count, e.key) for e in profiler.key_averages()), reverse=True)
    found = [row for row in found if row[0] > 0]
    lines = [f"{milliseconds:9.3f} {count:6d} {name[:160]}" for milliseconds, count, name in found[:60]]
    return "\n".join([f"{sum(row[0] for row in found):9.3f} in all", *lines]) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--variants", default=";".join(VARIANTS))
    parser.add_argument("--warm", type=int, default=4)
    parser.add_argument("--timed", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=1, help="how often to time as many, the others taking turns")
    parser.add_argument("--meet", type=Path, help="a folder where several runs meet, to compile together and be timed alone")
    parser.add_argument("--number", type=int, default=1, help="how many meet")
    parser.add_argument("--patience", type=float, default=120, help="seconds to wait for the others")
    parser.add_argument("--profile", type=Path, help="where to write the kernels of one more update")
    parser.add_argument("--rows", type=int, help="in place of each variant's, for a rehearsal")
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--vocabulary", type=int, default=49152)
    options = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    results: dict[str, Any] = {}

    def record(name: str, found: dict[str, Any]) -> None:
        results[name] = found
        if ranks.rank() == 0:
            options.out.write_text(json.dumps(results, indent=1) + "\n")

    for name in options.variants.split(";"):
        case = VARIANTS[name]
        if options.rows:
            case = replace(case, rows=options.rows)
        for patience in (20, 0):  # another run that meets here may have the card's memory for a moment
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            try:
                turn = Turn(options.meet, options.number, options.patience)
                numbers = options.warm, options.timed, options.rounds, options.width, options.vocabulary
                record(name, measure(case, *numbers, turn, options.profile, functools.partial(record, name)))
                break
            except torch.OutOfMemoryError:
                record(name, {**results.get(name, {}), "error": "out of memory"})
                if ranks.size() > 1:  # the other process would wait for this one in NCCL, on a card that others are timed on
                    os._exit(1)
                gc.collect()
                torch.cuda.empty_cache()
                time.sleep(patience if options.meet else 0)
            except Exception:
                record(name, {**results.get(name, {}), "error": traceback.format_exc()[-1500:]})
                break
        gc.collect()
        if ranks.rank() == 0:
            print(name, json.dumps(results[name]), flush=True)
