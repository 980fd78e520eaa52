"""Training and answering counted in floating-point operations, so that methods that do unlike things can be given the same.

A decoder's columns are counted as it is asked to compute them, padding left out, by a model of the method's kind whose passes count in
place of computing. Two operations for each weight of a column, attention to all that a row has, the head where something is asked; a
training update takes three times its forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from latentweaver.models import continuous_thought, latent_block
from latentweaver.models.decoder import read_on
from latentweaver.tasks.token_batch import IGNORED


@dataclass
class Columns:
    """Counts what a decoder is asked to compute, in place of computing it: columns, and pairs of a column with what it looks at."""

    columns: int = 0
    pairs: int = 0
    heads: int = 0

    def __call__(self, base: Any, inputs: torch.Tensor, mask: torch.Tensor, memory: Any = None, layers: Any = None) -> Any:
        whole = mask if memory is None else torch.cat([memory["mask"], mask], 1)
        self.columns += int(mask.sum())
        self.pairs += int((mask.sum(1) * whole.sum(1)).sum())
        if layers is not None:
            layers.append((inputs,))
        return inputs, {"mask": whole}


def flops_of(decoder: Any, columns: int, pairs: int, heads: int) -> float:
    """Operations of a forward pass: two for each weight of a column, and attention to all that a row has, masked or not."""
    config, body = decoder.config, decoder.base_model
    if hasattr(body, "core"):
        once = matrices(body.prelude) + matrices(body.coda)
        looped = matrices(body.core) + matrices(body.injection)
        weights = once + config.num_steps * looped
        layers = config.prelude_layers + config.coda_layers + config.num_steps * config.core_layers
    else:
        weights, layers = matrices(body.layers), config.num_hidden_layers
    attention = 4 * config.num_attention_heads * config.head_dim * layers
    return 2.0 * weights * columns + float(attention) * pairs + 2.0 * config.hidden_size * config.vocab_size * heads


def matrices(part: torch.nn.Module) -> int:
    """The numbers in a part's matrices."""
    return sum(parameter.numel() for parameter in part.parameters() if parameter.dim() == 2)


def training_flops(recipe: Any, batches: Iterator[Any]) -> float:
    """Operations of training for one problem, forward and backward, averaged over some batches of a recipe."""
    lesson, model, decoder = recipe.lesson, _counting(recipe), recipe.parts[0]
    total, rows = 0.0, 0
    for batch in batches:
        counter = _counted(model, lesson.objective(), batch)
        total += 3 * flops_of(decoder, counter.columns, counter.pairs, counter.heads)
        rows += len(batch.student.input_ids if hasattr(batch, "student") else batch.input_ids)
    return total / rows


def _counting(recipe: Any) -> Any:
    """A model of the method's kind of almost no size: it is there for its columns alone."""
    shape: dict[str, Any] = {"hidden_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 2}
    config = transformers.LlamaConfig(vocab_size=len(recipe.tokenizer), bos_token_id=None, eos_token_id=None, **shape)
    model = recipe.lesson.model(transformers.LlamaForCausalLM(config), recipe.iterations)
    model.wanted_loss = lambda hidden, asked, wanted: hidden.sum()  # the head is counted by what is asked
    return model


def _counted(model: Any, objective: Any, batch: Any) -> Columns:
    counter = Columns()
    modules: list[Any] = [continuous_thought, latent_block]
    for module in modules:
        module.read_on = counter
    try:
        with torch.no_grad():
            objective(model, batch, (0, 1), 0)
    finally:
        for module in modules:
            module.read_on = read_on
    for part in (batch.student, batch.teacher) if hasattr(batch, "student") else (batch,):
        counter.heads += int((part.wanted != IGNORED).sum())
    return counter


def answer_flops(decoder: Any, prompts: list[int], said: list[Any], thoughts: int, iterations: int) -> float:
    """Operations of an answer, on average: question, thoughts and tokens, each column once, a refined block as often as it is."""
    total = 0.0
    for prompt, each in zip(prompts, said, strict=True):
        columns = prompt + thoughts * (iterations - 1) + len(each.tokens) - 1
        total += flops_of(decoder, columns, columns * (prompt + len(each.tokens)) // 2, len(each.tokens))
    return total / len(said)
