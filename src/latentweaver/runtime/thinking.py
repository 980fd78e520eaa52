"""The loop that thinks until a rule says enough.

Rows that have halted leave the batch and are not computed any more; the other rows do not notice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from latentweaver.errors import InputError
from latentweaver.halting import Fixed, HaltingRule, View
from latentweaver.thought import Readout, Reasoner, Thought

Watcher = Callable[[Thought], None]


def think_for(model: Reasoner, thought: Thought, steps: int, watch: Watcher | None = None) -> Thought:
    """`steps` steps, all rows together; `watch` is called with the Thought after each.

    Raises:
        InputError: if `steps` is below 1.
    """
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    for _ in range(steps):
        thought = model.think(thought)
        if watch is not None:
            watch(thought)
    return thought


def think_until(
    model: Reasoner,
    thought: Thought,
    rule: HaltingRule,
    max_steps: int,
    min_steps: int = 1,
    together: bool = True,
    mask: Bool[Tensor, "batch sequence"] | None = None,
    read: Callable[[Thought], Readout] | None = None,
    watch: Watcher | None = None,
) -> Thought:
    """Think until `rule` says enough, or for `max_steps`.

    Args:
        model: any reasoner.
        thought: where to start.
        rule: when to stop.
        max_steps: stop here at the latest.
        min_steps: do not stop before (the rule's own `min_steps` counts too).
        together: the positions of a row halt together, when the row's value (`HaltingRule.of_row`) is enough. Otherwise
            each position keeps the state it had when its own value was enough, while the row is thought about until all
            its positions have one: what Ouro's published exit does.
        mask: which positions are real, for the row's value; all if None.
        read: replaces `model.read` for rules that look at the readout.
        watch: called with the running Thought after every step; must not change anything.

    Returns:
        The Thought with every position's final state; `step` says how many steps each took.
    """
    if min_steps < 1 or max_steps < min_steps:
        raise InputError(f"steps must be at least 1 and the maximum no less than the minimum; got {min_steps} to {max_steps}")
    if not isinstance(rule, HaltingRule):
        raise InputError(f"halting takes a rule such as latentweaver.halting.StateChange(), got {rule!r}")
    if isinstance(rule, Fixed):
        max_steps = min(max_steps, rule.steps)
    min_steps = max(min_steps, rule.min_steps)
    batch = thought.state.shape[0]
    rows = torch.arange(batch)
    running, memory = thought, rule.start(thought)
    settled: Thought | None = None  # made when the first position halts; until then `running` is all there is
    open_ = torch.ones(thought.state.shape[:2], dtype=torch.bool)
    for count in range(1, max_steps + 1):
        running = model.think(running)
        if watch is not None:
            watch(running)
        value, memory = rule.measure(memory, View(model, running, read))
        if count == max_steps:
            halting = open_[rows]
        elif count < min_steps:
            continue
        else:
            now = rule.enough(rule.of_row(value, None if mask is None else mask[rows.to(mask.device)]) if together else value).cpu()
            halting = open_[rows] & (now[:, None] if together else now)
        if not halting.any():
            continue
        if settled is None and halting.all():
            return running
        if settled is None:
            settled = running
        settled = _settle(settled, running, rows, halting)
        open_[rows] &= ~halting
        going = open_[rows].any(-1)
        if not going.any():
            break
        if not going.all():
            keep = going.nonzero().squeeze(-1)
            rows, running = rows[keep], running.rows(keep)
            memory = {name: tensor[keep.to(tensor.device)] for name, tensor in memory.items()}
    assert settled is not None
    return settled


def _settle(settled: Thought, running: Thought, rows: Tensor, halting: Bool[Tensor, "rows sequence"]) -> Thought:
    """`settled` with the state and step of the `halting` positions taken from `running`, which holds only `rows`."""
    state, step = settled.state.clone(), settled.step.clone()
    row, position = halting.nonzero(as_tuple=True)
    device = state.device
    state[rows[row].to(device), position.to(device)] = running.state[row.to(device), position.to(device)]
    step[rows[row], position] = running.step[row, position]
    return Thought(
        state=state,
        step=step,
        anchor={name: _grown(value, running.anchor.get(name), rows[row], row) for name, value in settled.anchor.items()},
        cache=settled.cache,
        generator=settled.generator,
        parent=running.parent,
    )


def _grown(settled: Any, running: Any, rows: Tensor, taken: Tensor) -> Any:
    """An anchor whose tensors grow while thinking (the memory of continuous thought), with `rows` as they are in `running` now.

    The other rows are padded with zeros; what cannot be attended to has a mask beside it, where zero says so.
    """
    if not isinstance(settled, Tensor) or settled.shape[1:] == running.shape[1:]:
        return settled
    whole = running.new_zeros((len(settled), *running.shape[1:]))
    whole[tuple(slice(size) for size in settled.shape)] = settled
    whole[rows.to(whole.device)] = running[taken.to(whole.device)]
    return whole
