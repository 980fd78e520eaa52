"""The loop: draw a batch and a depth, ask, descend; write down, keep a checkpoint, go on.

Update u is a function of the weights before it and of (seed, u): batch, depth, first state and torch's generators come from
these two numbers. So a run that was killed and resumed makes the same updates, bit for bit, as one that never stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from latentweaver.errors import InputError, LatentweaverError
from latentweaver.training import checkpoint, ranks, working
from latentweaver.training.depth import DepthSampler
from latentweaver.training.objectives import Objective, Terms
from latentweaver.training.optimisers import Kind, optimisers, trapezoid
from latentweaver.training.products import wide_products
from latentweaver.training.recorded import Recorded
from latentweaver.training.watch import Watch


class Diverged(LatentweaverError):
    """The loss or its gradient is no longer a number. The last checkpoint is from before."""


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        updates: how many updates to make in all.
        seed: what batches, depths, first states and dropout are functions of, beside the update's number.
        optimiser: "adamw", or "muon" for the matrices inside the blocks.
        lr: peak learning rate.
        weight_decay: on matrices.
        clip: largest norm of the gradient.
        warmup: updates over which the learning rate rises.
        cooldown: share of the updates, at the end, over which it falls.
        accumulate: batches to an update.
        precision: "bf16" for autocast, "fp32" for none; "bf16-stream" for autocast with the residual stream in bfloat16 too, which
            autocast alone leaves in float32.
        compile: compile the model's blocks, or "steps": every step as one, which is faster and takes longer to compile.
        record: record the forward and backward of every shape of batch as a CUDA graph and play it back (see `recorded`): on a GPU, where
            launching kernels takes longer than running them. For objectives of `latent_objectives` on one device.
        recompute: keep no activations inside blocks and compute them again on the way back: less memory, a third more time.
        workers: processes that make batches; 0 to make them in this one.
        checkpoint_every: updates between checkpoints.
        log_every: updates between lines of the log.
        evaluate_every: updates between evaluations, if there are any.
        device: where to train; None for the first GPU, else the CPU. Under `torchrun` every process has a GPU of its own.
        attention: the attention function by transformers' name for it; None for the model's own. "eager" is the fastest on a CPU
            where sequences are short.
        shard_blocks: on several processes, shard every block by itself (see `ranks.shard`).
    """

    updates: int
    seed: int = 0
    optimiser: Kind = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup: int = 100
    cooldown: float = 0.3
    accumulate: int = 1
    precision: Literal["bf16", "bf16-stream", "fp32"] = "fp32"
    compile: bool | Literal["steps"] = False
    record: bool = False
    recompute: bool = False
    workers: int = 0
    checkpoint_every: int = 500
    log_every: int = 10
    evaluate_every: int = 500
    device: str | None = None
    attention: str | None = None
    shard_blocks: bool = False

    def __post_init__(self) -> None:
        for name in ("updates", "accumulate", "checkpoint_every", "log_every", "evaluate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.lr > 0:
            raise InputError(f"lr must be above 0, got {self.lr}")
        if self.precision not in ("bf16", "bf16-stream", "fp32"):
            raise InputError(f"precision must be 'bf16', 'bf16-stream' or 'fp32', got {self.precision!r}")

    @classmethod
    def of(cls, recipe: Any, **others: Any) -> Settings:
        """The settings among the fields of a recipe: those it has by the same names, the rest as they are here, `others` before both."""
        shared = {field.name: getattr(recipe, field.name) for field in fields(cls) if hasattr(recipe, field.name)}
        return cls(**{**shared, **others})

    def that_matter(self) -> dict[str, Any]:
        """The fields a resumed run must share with the run it resumes; the others only say where and how often."""
        free = (
            "workers",
            "checkpoint_every",
            "log_every",
            "evaluate_every",
            "device",
            "compile",
            "record",
            "recompute",
            "attention",
            "shard_blocks",
        )
        return {name: value for name, value in asdict(self).items() if name not in free}


Line = dict[str, Any]


def train(
    model: nn.Module,
    objective: Objective,
    depth: DepthSampler,
    batches: Any,
    settings: Settings,
    folder: str | Path,
    resume: bool = False,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    report: Callable[[Line], None] | None = None,
) -> list[Line]:
    """Train `model` in place.

    Args:
        model: a reasoner that is a torch module.
        objective: what is asked of its thoughts.
        depth: how many steps each update takes.
        batches: batch i is `batches[i]`, any i from 0.
        settings: how to train.
        folder: where the checkpoint and `log.jsonl` go.
        resume: go on from the folder's checkpoint, if there is one; otherwise the folder must not hold one.
        evaluate: measures the model now and then; what it returns is written to the log.
        report: is given each line of the log.

    Returns:
        The lines of the log that this call wrote.

    Raises:
        Diverged: if loss or gradient is not a number. The last checkpoint is intact.
        InputError: a folder that holds another run, or settings that this model or objective cannot have.
        CheckpointError: a checkpoint to resume that cannot be read, or was made with other settings.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    device = ranks.join(settings.device)
    with wide_products() if device.type == "cpu" else nullcontext():
        return _train(model, objective, depth, batches, settings, folder, resume, evaluate, report, device)


def _train(
    model: nn.Module,
    objective: Objective,
    depth: DepthSampler,
    batches: Any,
    settings: Settings,
    folder: Path,
    resume: bool,
    evaluate: Callable[[nn.Module], dict[str, float]] | None,
    report: Callable[[Line], None] | None,
    device: torch.device,
) -> list[Line]:
    model.to(device).train()
    if settings.recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]  # a transformers model
    if settings.compile:
        compile_blocks(model)
    if settings.compile == "steps":
        compile_steps(model)
    if settings.attention is not None:
        model.set_attn_implementation(settings.attention)  # type: ignore[operator]  # a transformers model
    bf16 = settings.precision != "fp32"
    asked = ranks.Asked(model, objective, torch.bfloat16 if bf16 and not settings.shard_blocks else None)
    if ranks.size() > 1:
        ranks.shard(asked, settings.shard_blocks)
    steppers = optimisers(model, settings.optimiser, settings.lr, settings.weight_decay)
    done = 0
    if checkpoint.there(folder):
        if not resume:
            raise InputError(f"{folder} already holds a training run; resume it, or choose another folder")
        done = checkpoint.load(folder, model, steppers, settings.that_matter())
        if ranks.rank() == 0:
            _forget(folder, done)

    def descend(batch: Any, steps: tuple[int, int], seed: int) -> tuple[torch.Tensor, Terms]:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16), _stream(model, settings.precision):
            asks, terms = asked(batch, steps, seed=seed)
        (asks / settings.accumulate).backward()
        working.drop(model)
        return asks.detach(), terms

    if settings.record and (ranks.size() > 1 or not getattr(objective, "draws_nothing", False)):
        raise InputError(f"record=True is for one device and an objective that draws nothing; {type(objective).__name__} may draw")
    record = settings.record and device.type == "cuda"
    learn = Recorded(descend, model) if record else descend
    watch, lines, began = Watch(), [], time.monotonic()
    source = _read(batches, range(done * settings.accumulate, settings.updates * settings.accumulate), settings.workers, device)
    coming = next(source, None)
    for update in range(done, settings.updates):
        torch.manual_seed(settings.seed * 1_000_003 + update)
        rate = settings.lr * trapezoid(update, settings.updates, settings.warmup, settings.cooldown)
        steps, total, terms = depth(update), torch.zeros((), device=device), Terms(torch.zeros(()))
        for part in range(settings.accumulate):
            batch = ranks.share(coming).to(device)
            ranks.reduce_gradients(asked, part + 1 == settings.accumulate)
            loss, terms = learn(batch, steps, settings.seed * 1_000_003 + update * settings.accumulate + part)
            total += loss / settings.accumulate
            coming = next(source, None)  # made while the device is at work on this one
        told = ranks.clip(model.parameters(), settings.clip, total)
        for stepper in steppers:
            for group in stepper.param_groups:
                group["lr"] = rate
            stepper.step()
            stepper.zero_grad(set_to_none=not record)
        loss, norm = told.tolist()  # the wait for the device; by now it has been given all of the update to do
        if wrong := watch.finite(loss, norm):
            _write(folder, {"update": update, "loss": str(loss), "warning": wrong})
            raise Diverged(f"at update {update} {wrong}. The last checkpoint in {folder} is intact")
        made, last = update + 1, update + 1 == settings.updates
        warnings = [warning] if (warning := watch.spike(loss)) else []
        line: Line = {"update": made, "loss": loss, "norm": norm, "lr": rate, "depth": list(steps)}
        due = made % settings.log_every == 0 or last
        if due:
            line |= {name: float(ranks.average(value)) for name, value in terms.report.items()}
            if terms.states is not None:
                measured, collapsed = watch.collapse(*terms.states)
                line |= measured
                warnings += collapsed
        if evaluate is not None and (made % settings.evaluate_every == 0 or last):
            model.eval()
            with ranks.whole(asked):
                line |= evaluate(model)
            model.train()
            due = True
        if warnings:
            line["warning"] = "; ".join(warnings)
        if due or warnings:
            line["seconds"] = round(time.monotonic() - began, 3)
            _write(folder, line)
            lines.append(line)
            if report is not None and ranks.rank() == 0:
                report(line)
        if made % settings.checkpoint_every == 0 or last:
            checkpoint.save(folder, model, steppers, made, settings.that_matter())
    ranks.gather(asked)
    return lines


def compile_blocks(model: nn.Module) -> None:
    """Compile each block by itself: all steps share the compiled code, whatever their number."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for block in ranks.looped_blocks(model):
        block.compile()


def compile_steps(model: nn.Module) -> None:
    """Compile whole steps: what is between two blocks is fused too, and the host has less to do.

    Compiled is `step` of every module that has one, from tensors to a tensor.

    Raises:
        InputError: if there is none.
    """
    steps: list[Any] = [module for module in model.modules() if callable(getattr(module, "step", None))]
    if not steps:
        raise InputError(f"{type(model).__name__} has no module with a `step` to compile; use compile=True")
    for module in steps:
        module.step = torch.compile(module.step)


@contextmanager
def _stream(model: Any, precision: str) -> Iterator[None]:
    """With "bf16-stream" the embedding says bfloat16, and what comes after it keeps that type."""
    hook = None
    if precision == "bf16-stream":
        hook = model.get_input_embeddings().register_forward_hook(lambda module, given, embedded: embedded.bfloat16())
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()


class _Listed(torch.utils.data.Dataset):
    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]


def _read(batches: Any, order: range, workers: int, device: torch.device) -> Iterator[Any]:
    """The batches in order, made ahead of time by worker processes if there are any."""
    if not workers:
        return (batches[index] for index in order)
    loader = torch.utils.data.DataLoader(
        _Listed(batches), batch_size=None, sampler=order, num_workers=workers, pin_memory=device.type == "cuda", prefetch_factor=4
    )
    return iter(loader)


def _write(folder: Path, line: Line) -> None:
    if ranks.rank() != 0:
        return
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def _forget(folder: Path, after: int) -> None:
    """Take out of the log what was written after update `after`, which is about to be made again, and a line cut off by a kill."""
    log = folder / "log.jsonl"
    kept = []
    for text in log.read_text().splitlines() if log.exists() else ():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if line["update"] <= after:
            kept.append(text + "\n")
    beside = folder / "log.jsonl.new"
    beside.write_text("".join(kept))
    beside.replace(log)
