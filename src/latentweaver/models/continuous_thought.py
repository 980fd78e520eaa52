"""Continuous thought: a pretrained decoder that feeds its last hidden state back as its next input (COCONUT, arXiv 2412.06769).

    begin   h_0 = f(embed(prompt), <start>), the last one
    think   h_t = f(feed(h_(t-1)) | everything before)      one position longer; f ends with the decoder's final norm
    read    logits = head(f(<end> | everything before))     or head(h_T) where there is no end marker

`feed` is the identity in COCONUT; `feedback.py` has the others (a projection, a soft token, and the pause token as control).

What may surprise: the state is the one *after* the final norm, because that is what is fed back. The memory (keys and values of
every position so far) is part of the Thought's value, in its anchor: so thinking twice from one Thought gives the same, branches
go different ways without noticing each other, and a Thought can be saved and restored (see `decoder.py`).

In a training batch the latent token marks where thoughts go: `question <start> <latent>*n <end> rest`. `trace` computes every
column once: all that stands before the first thoughts in one pass, each further thought in a pass of one column, the rest in
one. With every row shifted so that first thoughts align, rows may have any numbers of thoughts and padding on any side.
Gradients flow through thoughts, keys and values. In one line, and this is what it equals: for each latent position p of a row,
in order, embedding[p] = f(embedding[:p])[-1]; then one plain forward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from latentweaver.errors import InputError
from latentweaver.halting import HaltingRule
from latentweaver.models.continuous_thought_config import ContinuousThoughtConfig
from latentweaver.models.decoder import Memory, check_decoder, context_of, read_on
from latentweaver.models.feedback import FEEDBACKS, noise_keys
from latentweaver.models.layout import Layout
from latentweaver.models.markers import MARKERS, add_markers, marker_ids
from latentweaver.models.writing import Writer
from latentweaver.runtime.generation import ThinkingGeneration
from latentweaver.thought import Readout, Thought


@dataclass(frozen=True)
class Trace:
    """Every column of a batch with its thoughts in place.

    Attributes:
        hidden: hidden states after the final norm, `[batch, sequence, width]`; 0 at padding that was never computed.
        inputs: what was fed, `[batch, sequence, width]`: embeddings, and thoughts at the latent tokens.
        memory: keys, values and mask of all columns, in the order in which they were computed.
        layers: hidden states after the embedding and every layer, each `[batch, sequence, width]`, if they were asked for.
    """

    hidden: Float[Tensor, "batch sequence width"]
    inputs: Float[Tensor, "batch sequence width"]
    memory: Memory
    layers: tuple[Tensor, ...] = ()


class ContinuousThoughtForCausalLM(ThinkingGeneration, PreTrainedModel, GenerationMixin):
    """A decoder of transformers that thinks by feeding its last hidden state back. Make one with `continuous_thought`."""

    config_class: Any = ContinuousThoughtConfig
    config: ContinuousThoughtConfig
    base_model_prefix = "base"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: ContinuousThoughtConfig, base: nn.Module | None = None) -> None:
        super().__init__(config)
        if base is not None:
            for module in base.modules():
                setattr(module, "_is_hf_initialized", True)  # noqa: B010  post_init below must not touch weights that are there
        self.base: Any = AutoModelForCausalLM.from_config(config.text_config) if base is None else base
        self.feedback: Any = FEEDBACKS[config.feedback](config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The projection starts as transformers starts a linear layer; the decoder has its own initialisation."""
        std = getattr(self.config.text_config, "initializer_range", None) or 0.02
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, std)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def get_input_embeddings(self) -> Any:
        return self.base.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        return self.base.get_output_embeddings()

    def head(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... vocabulary"]:
        """The language-model head."""
        return self.base.get_output_embeddings()(hidden)

    # The three verbs -------------------------------------------------------------------------------------------------

    def begin(
        self,
        input_ids: Int[Tensor, "batch sequence"],
        attention_mask: Bool[Tensor, "batch sequence"] | Int[Tensor, "batch sequence"] | None = None,
        initial_state: Float[Tensor, "batch 1 width"] | None = None,
        generator: torch.Generator | int | None = None,
        *,
        after: Thought | None = None,
    ) -> Thought:
        """Read the input; the state is the last real token's. The start marker is put behind a prompt that has none.

        Args:
            input_ids: tokens, `[batch, sequence]`. Latent tokens among them are thought, as in training.
            attention_mask: 1 for real tokens and 0 for padding, on any side.
            initial_state: a vector to think on from in place of the last hidden state, `[batch, 1, width]`.
            generator: seeds the noise of soft tokens.
            after: read on after this Thought instead of from the beginning; no marker is added.

        Raises:
            InputError: empty input, input longer than the context, a state or mask of the wrong shape.
        """
        if input_ids.dim() != 2 or input_ids.numel() == 0:
            raise InputError(f"input_ids must be [batch, sequence] with at least one token, got shape {list(input_ids.shape)}")
        mask = _mask(attention_mask, input_ids)
        if after is not None:
            length = self._room(after.anchor["length"] + input_ids.shape[1])
            hidden, memory = read_on(self.base, self.get_input_embeddings()(input_ids), mask, after.anchor)
            return replace(after, anchor={**after.anchor, **memory, "length": length, "open": False}).branch(hidden[:, -1:])
        start, end = self.config.start_token_id, self.config.end_token_id
        if start is not None and not (input_ids == start).any():
            input_ids, mask = F.pad(input_ids, (0, 1), value=start), F.pad(mask, (0, 1), value=True)
        length = self._room(int(mask.sum(-1).max()))
        key = noise_keys(input_ids, mask, _seed(generator))
        trace = self.trace(input_ids, mask, key)
        place = torch.arange(input_ids.shape[1], device=mask.device)
        last = (mask * place).argmax(-1)
        state = trace.hidden[torch.arange(len(last), device=last.device), last][:, None]
        if initial_state is not None:
            if initial_state.shape != state.shape:
                raise InputError(f"initial_state must be {list(state.shape)} [batch, 1, width], got {list(initial_state.shape)}")
            state = initial_state.to(state)
        is_open = end is not None and not bool((input_ids == end).any())
        return Thought.start(state, anchor={**trace.memory, "length": length, "open": is_open, "key": key})

    def think(self, thought: Thought) -> Thought:
        """One more thought: the state, fed back as the next input.

        Raises:
            InputError: if the context has no position left.
        """
        anchor = thought.anchor
        length = self._room(anchor["length"] + 1)
        mask = anchor["mask"]
        column = self.feedback(self, thought.state, mask.sum(-1, keepdim=True), anchor["key"])
        state, memory = read_on(self.base, column, mask.new_ones(len(mask), 1), anchor)
        return replace(thought, anchor={**anchor, **memory, "length": length}).advance(state)

    def thoughts(self, thought: Thought, count: int) -> Float[Tensor, "batch thoughts width"]:
        """The states that the next `count` steps feed back, in their order."""
        states = []
        for _ in range(count):
            thought = self.think(thought) if states else thought
            states.append(thought.state)
        return torch.cat(states, 1) if states else thought.state[:, :0]

    def feed(self, thought: Thought, thoughts: Float[Tensor, "batch thoughts width"]) -> Thought:
        """As many steps as there are `thoughts`, with these fed back in place of the model's own: `thoughts` gives those."""
        for state in thoughts.split(1, 1) if thoughts.shape[1] else ():
            thought = self.think(thought.branch(state))
        return thought

    def read(self, thought: Thought, logits_to_keep: int = 0) -> Readout:
        """What the model would say if it stopped now: `[batch, 1, vocabulary]`, at the end marker if there is one."""
        hidden = self.close(thought).state
        return Readout(logits=self.head(hidden).float(), hidden=hidden)

    def close(self, thought: Thought) -> Thought:
        """The Thought after its end marker was read, ready to go on with an answer; itself if that has happened."""
        end = self.config.end_token_id
        if end is None or not thought.anchor["open"]:
            return thought
        return self.begin(torch.full((len(thought.state), 1), end, device=thought.state.device), after=thought)

    # Batches with thoughts in them -----------------------------------------------------------------------------------

    def trace(
        self,
        input_ids: Int[Tensor, "batch sequence"],
        attention_mask: Tensor | None = None,
        key: Int[Tensor, "batch"] | None = None,
        layers: bool = False,
        place: tuple[int, int] | None = None,
    ) -> Trace:
        """All columns of a batch, latent tokens replaced by thoughts (see the top of this file), with all `layers` if wanted.

        With `place`, the column of the first thoughts and the most thoughts of a row, which stand in one column already
        (`TokenBatch` has them so), nothing is looked up in tensors, for which a host would have to wait.

        Raises:
            InputError: if a row's latent tokens are not next to each other, or its first token is one.
        """
        mask = _mask(attention_mask, input_ids)
        embeds = self.get_input_embeddings()(input_ids)
        seen: list[tuple[Tensor, ...]] | None = [] if layers else None
        one_pass = self.config.feedback == "pause" and self.config.pause_passes == "one"
        if one_pass or place == (0, 0):
            layout = None
        elif place is not None:
            layout = Layout.at(input_ids, mask, self.config.latent_token_id, *place)
        else:
            layout = Layout.of(input_ids, mask, self.config.latent_token_id)
        if layout is None:
            hidden, memory = read_on(self.base, embeds, mask, layers=seen)
            return Trace(hidden, embeds, memory, tuple(seen[0]) if seen else ())
        key = noise_keys(input_ids, mask, 0) if key is None else key
        embeds, mask, latent = layout.aligned(embeds), layout.aligned(mask), layout.aligned(layout.latent)
        hidden, inputs, memory = self._thoughts(embeds, mask, latent, layout.edge, layout.thoughts, key, seen)
        whole = tuple(layout.restored(torch.cat(parts, 1)) for parts in zip(*(seen or ()), strict=True))
        return Trace(layout.restored(hidden), layout.restored(inputs), memory, whole)

    def _thoughts(
        self, embeds: Tensor, mask: Tensor, latent: Tensor, edge: int, thoughts: int, key: Tensor, layers: list[tuple[Tensor, ...]] | None
    ) -> tuple[Tensor, Tensor, Memory]:
        """Hidden states, inputs and memory of aligned columns: thoughts are at `edge` to `edge + thoughts`."""
        hidden, memory = read_on(self.base, embeds[:, :edge], mask[:, :edge], layers=layers)
        computed, fed = [hidden], [embeds[:, :edge]]
        for place in range(edge, edge + thoughts):
            until = place + 1 if place + 1 < edge + thoughts else embeds.shape[1]
            thought = self.feedback(self, hidden[:, -1:], memory["mask"].sum(-1, keepdim=True), key)
            column = torch.where(latent[:, place, None, None], thought, embeds[:, place : place + 1])
            columns = torch.cat([column, embeds[:, place + 1 : until]], 1)
            hidden, memory = read_on(self.base, columns, mask[:, place:until], memory, layers)
            computed.append(hidden)
            fed.append(columns)
        return torch.cat(computed, 1), torch.cat(fed, 1), memory

    def forward(
        self,
        input_ids: Int[Tensor, "batch sequence"] | None = None,
        attention_mask: Tensor | None = None,
        labels: Int[Tensor, "batch sequence"] | None = None,
        logits_to_keep: int | Int[Tensor, "kept"] = 0,
        num_steps: int | None = None,
        halting: HaltingRule | None = None,
        initial_state: Tensor | None = None,
        generator: torch.Generator | int | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of every position (and the loss, with `labels`), with thoughts at the latent tokens.

        Text without latent tokens is read as the decoder alone would read it: the dial belongs to `generate`.
        """
        if input_ids is None or inputs_embeds is not None:
            raise InputError("continuous thought needs input_ids, which say where thoughts go; got inputs_embeds")
        key = noise_keys(input_ids, _mask(attention_mask, input_ids), _seed(generator))
        hidden = self.trace(input_ids, attention_mask, key).hidden
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.head(hidden[:, keep])
        loss = None
        if labels is not None:
            known = labels[:, 1:] != -100
            loss = _cross_entropy(logits[:, :-1][known], labels[:, 1:][known], kwargs.get("num_items_in_batch"))
        return CausalLMOutputWithPast(loss=loss, logits=logits)

    def answer_loss(
        self, input_ids: Int[Tensor, "batch sequence"], attention_mask: Tensor | None, labels: Int[Tensor, "batch sequence"]
    ) -> Float[Tensor, ""]:
        """The same loss as `forward`'s, with the head applied only where there is a label."""
        return self.labelled_loss(self.trace(input_ids, attention_mask).hidden, labels)

    def labelled_loss(self, hidden: Float[Tensor, "batch sequence width"], labels: Int[Tensor, "batch sequence"]) -> Float[Tensor, ""]:
        """Mean cross-entropy of the next token over the labels that are not -100."""
        known = labels[:, 1:] != -100
        return _cross_entropy(self.head(hidden[:, :-1][known]), labels[:, 1:][known])

    def wanted_loss(
        self,
        hidden: Float[Tensor, "batch sequence width"],
        asked: Int[Tensor, "batch most"],
        wanted: Int[Tensor, "batch most"],
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of the tokens `wanted` at the columns `asked`, where -100 is nothing."""
        said = hidden.gather(1, asked[..., None].expand(-1, -1, hidden.shape[-1]))
        return _cross_entropy(self.head(said).flatten(0, 1), wanted.flatten())

    # Generation ------------------------------------------------------------------------------------------------------

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """transformers' `generate`: the prompt is read, `num_steps` thoughts are had, then the answer is written token by token.

        A prompt with latent tokens or an end marker in it brings its own thoughts, and `num_steps=0` has none. `halting`, `min_steps`,
        `watch`, `initial_state` and `generator` are as in `ThinkingGeneration.generate`.

        Raises:
            InputError: also for beams, or what only a looped model has (`cache_policy`, `warm_start`).
        """
        for name in ("cache_policy", "warm_start"):
            if kwargs.get(name):
                raise InputError(f"{name} is for models that think about every token; continuous thought thinks once, before the answer")
        if kwargs.get("num_beams", 1) > 1:
            raise InputError("beam search is not supported with continuous thought; sample with num_return_sequences instead")
        return super().generate(*args, **kwargs)

    def has_thoughts(self, input_ids: Int[Tensor, "batch sequence"]) -> bool:
        """Whether a prompt brings its own thoughts: latent tokens, or the marker that ends them."""
        own = (self.config.latent_token_id, self.config.end_token_id)
        return any(token is not None and bool((input_ids == token).any()) for token in own)

    def _prepare_cache_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """None: the memory is part of the Thought."""

    def _writer(self, input_ids: Tensor, generation_config: GenerationConfig, options: dict[str, Any]) -> Any:
        return Writer(self, options)

    def _room(self, length: int) -> int:
        """`length`, if the context has that many positions."""
        limit = context_of(self.config.text_config)
        if length > limit:
            raise InputError(f"prompt, thoughts and answer need {length} positions, the model's context has {limit}")
        return length


def continuous_thought(base: PreTrainedModel, tokenizer: Any = None, **fields: Any) -> ContinuousThoughtForCausalLM:
    """Make a decoder of transformers think in continuous thoughts. Its weights are used, not copied.

    Args:
        base: a causal language model (GPT-2, Llama, SmolLM2, ...).
        tokenizer: where the markers are looked up; without it, give `latent_token_id` and so on, or go without markers.
        fields: fields of `ContinuousThoughtConfig`; and `markers`, the names of the tokens "latent", "start" and "end", if they
            are not COCONUT's. Leave one out for none. `add_markers` adds them to a tokenizer.

    Raises:
        InputError: a base without the needed interface, or markers that the tokenizer does not know.
    """
    return wrap(ContinuousThoughtForCausalLM, base, tokenizer, **fields)


Model = TypeVar("Model", bound=ContinuousThoughtForCausalLM)


def wrap(kind: type[Model], base: PreTrainedModel, tokenizer: Any, markers: dict[str, str] = MARKERS, **fields: Any) -> Model:
    """What `continuous_thought` does, for a class of models."""
    check_decoder(base)
    if tokenizer is not None:
        fields = {**marker_ids(tokenizer, markers), **fields}
    config: Any = kind.config_class(base.config, dtype=next(base.parameters()).dtype, **fields)
    model = kind(config, base)
    model.feedback.to(base.get_input_embeddings().weight)
    model.generation_config = base.generation_config or model.generation_config
    return model.train(base.training)


def _mask(attention_mask: Tensor | None, input_ids: Tensor) -> Bool[Tensor, "batch sequence"]:
    if attention_mask is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    if attention_mask.shape[0] != input_ids.shape[0] or attention_mask.shape[-1] < input_ids.shape[1] or attention_mask.dim() != 2:
        raise InputError(f"attention_mask must be {list(input_ids.shape)}, got {list(attention_mask.shape)}")
    return attention_mask[:, -input_ids.shape[1] :].to(input_ids.device).bool()


def _seed(generator: torch.Generator | int | None) -> int:
    if isinstance(generator, torch.Generator):
        return int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    return 0 if generator is None else int(generator)


def _cross_entropy(
    logits: Float[Tensor, "tokens vocabulary"], labels: Int[Tensor, "tokens"], count: Tensor | int | None = None
) -> Float[Tensor, ""]:
    """Mean over the tokens, or over `count` of them (what transformers' Trainer passes when it accumulates gradients)."""
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if count is None:
        return F.cross_entropy(precise, labels)
    return F.cross_entropy(precise, labels, reduction="sum") / count


__all__ = ["MARKERS", "ContinuousThoughtForCausalLM", "Trace", "add_markers", "continuous_thought", "wrap"]

AutoModelForCausalLM.register(ContinuousThoughtConfig, ContinuousThoughtForCausalLM, exist_ok=True)
