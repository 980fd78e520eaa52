"""How fast a model thinks on this machine: what `lw bench` measures.

Decoding is bound by the weights that it reads: prelude, coda and head once a token, the core once a step (see `cost`). So beside
tokens per second stands the share of the machine's own reading speed that those bytes amount to. More than 1 is possible where
the weights fit a cache that is faster than memory.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from latentweaver.errors import InputError
from latentweaver.halting import HaltingRule
from latentweaver.runtime.cost import cost_of


@dataclass(frozen=True)
class Speed:
    """One setting's measurement.

    Attributes:
        steps: the dial asked for.
        batch: rows decoded together.
        first_token_seconds: from the call to the first token, the prompt's reading included.
        tokens_per_second: of all rows together, after the first token.
        steps_per_token: that tokens took on average.
        megabytes_per_pass: weights read to write one token of every row.
        core_megabytes: the part of them that every step reads again: what would have to fit the last-level cache.
        gigabytes_per_second: of weights read while decoding, counting each use once for the whole batch.
        share_of_bandwidth: the same as a part of the machine's reading speed.
    """

    steps: int
    batch: int
    first_token_seconds: float
    tokens_per_second: float
    steps_per_token: float
    megabytes_per_pass: float
    core_megabytes: float
    gigabytes_per_second: float
    share_of_bandwidth: float

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def bandwidth(device: torch.device | str = "cpu", megabytes: int = 512) -> float:
    """Gigabytes per second that a sum over `megabytes` reads, best of eight."""
    data = torch.ones(megabytes * 2**18, device=device)
    best = min(_timed(data.sum, data.device) for _ in range(8))
    return data.nbytes / best / 1e9


def processor() -> str:
    """What this machine's processor is called, for records of measurements."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def last_level_cache() -> int | None:
    """Bytes of the processor's last-level cache, as Linux tells them; None where it does not."""
    sizes = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
        if kind != "Instruction" and size.endswith("K"):
            sizes[int(level)] = int(size[:-1]) * 1024
    return sizes[max(sizes)] if sizes else None


def bench(
    model: Any,
    steps: Sequence[int] = (1, 4, 16),
    batches: Sequence[int] = (1, 8),
    prompt: int = 32,
    tokens: int = 32,
    halting: HaltingRule | None = None,
    policy: str = "shared",
) -> list[Speed]:
    """Measure every setting of the dial at every batch size, with random prompts and greedy decoding.

    Args:
        model: a recurrent-depth language model (one with `parts`).
        steps: settings of the dial; with `halting` the most that a token may take.
        batches: rows decoded together.
        prompt: tokens of each prompt.
        tokens: tokens to write; at least 2, since the first is counted apart.
        halting: a rule that may stop earlier.
        policy: which steps' keys are kept.

    Raises:
        InputError: if a number is below what it must be, or prompt and tokens exceed the model's context; if the model is of another kind.
    """
    if not hasattr(model, "parts"):
        raise InputError(f"a {type(model).__name__} has no core whose steps could be measured (it has no parts)")
    for name, least, value in (("prompt", 1, prompt), ("tokens", 2, tokens), *(("batch", 1, b) for b in batches)):
        if value < least:
            raise InputError(f"{name} must be at least {least}, got {value}")
    device = next(model.parameters()).device
    fastest = bandwidth(device)
    return [_measure(model, dial, batch, prompt, tokens, halting, policy, fastest) for dial in steps for batch in batches]


def _measure(
    model: Any, steps: int, batch: int, prompt: int, tokens: int, halting: HaltingRule | None, policy: str, fastest: float
) -> Speed:
    device = next(model.parameters()).device
    ids = torch.randint(model.config.vocab_size, (batch, prompt), generator=torch.Generator().manual_seed(0)).to(device)
    clock = _Clock(device)
    options = {"num_steps": steps, "halting": halting, "cache_policy": policy, "do_sample": False, "pad_token_id": 0}
    # no end token: every row writes all its tokens
    options |= {"attention_mask": torch.ones_like(ids), "eos_token_id": None, "temperature": None, "top_p": None, "top_k": None}
    model.generate(ids, max_new_tokens=2, **options)  # whatever happens only once
    began = clock.now()
    model.generate(ids, max_new_tokens=tokens, streamer=clock, **options)
    first, rest = clock.times[0] - began, clock.times[-1] - clock.times[0]
    taken = torch.stack(clock.steps[1:]).float()
    cost = cost_of(model)
    # rows leave one by one, but the core is read as long as one is thinking
    read = sum(cost.bytes_read(int(most)) for most in taken.amax(1))
    speed = read / rest / 1e9
    core = cost.bytes_read(2) - cost.bytes_read(1)
    sizes = (read / (tokens - 1) / 1e6, core / 1e6)
    return Speed(steps, batch, first, batch * (tokens - 1) / rest, float(taken.mean()), *sizes, speed, speed / fastest)


class _Clock:
    """A streamer that notes when tokens came and what steps they took."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: list[float] = []
        self.steps: list[torch.Tensor] = []

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def put_steps(self, steps: torch.Tensor) -> None:
        self.steps.append(steps.cpu())

    def put(self, tokens: torch.Tensor) -> None:
        if self.steps:  # the first call brings the prompt
            self.times.append(self.now())

    def end(self) -> None: ...


def _timed(work: Any, device: torch.device) -> float:
    clock = _Clock(device)
    began = clock.now()
    work()
    return clock.now() - began
