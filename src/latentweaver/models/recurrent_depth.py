"""Recurrent depth: a transformer whose middle is applied as often as wanted.

    begin   e = prelude(embed(tokens) * scale);  s_0 = noise, zeros or e
    think   s_t = core(inject(s_(t-1), e))       the same weights at every step
    read    logits = head(norm(coda(s_T)))

One class, two published forms and everything between them (`RecurrentDepthConfig` says which):

    Huginn (arXiv 2502.05171)   prelude 2, core 4, coda 2; linear injection; sandwich norms; noise as the first state; the
                                final norm is applied before the coda too, with the same weights
    Ouro (arXiv 2510.25741)     the whole stack is the core; no injection; the final norm ends every pass; a learned exit gate

What may surprise: the state of a Thought is the raw one, before any final norm, also where it is handed on to the next token
(Huginn's own code hands on the normed one in two of its three decoding loops). Left padding changes nothing: positions are
counted from a row's first real token. Noise belongs to the token, not to the row of the batch (see `cores.noise_like`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from latentweaver.errors import InputError
from latentweaver.halting import HaltingRule
from latentweaver.models.blocks import Block, Linear, RMSNorm, RotaryTable, Take, run
from latentweaver.models.config import RecurrentDepthConfig
from latentweaver.models.cores import INJECTIONS, Injection, copies_of, noise_like
from latentweaver.runtime.cache import LoopCache
from latentweaver.runtime.generation import ThinkingGeneration, dial
from latentweaver.runtime.int8 import quantize
from latentweaver.runtime.slots import Pass, Slots
from latentweaver.runtime.speculation import OPTIONS as SPECULATION
from latentweaver.runtime.thinking import think_until
from latentweaver.thought import Readout, Thought

Steps = int | tuple[int, int]
"""How many steps: a number, or (without gradient, with gradient) for truncated backpropagation."""


class RecurrentDepthPreTrainedModel(PreTrainedModel):
    config_class = RecurrentDepthConfig
    config: RecurrentDepthConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Scaled initialisation (arXiv 2312.16903): small, and smaller still where a branch joins the residual stream."""
        config = self.config
        std = config.initializer_range or (2 / (5 * config.hidden_size)) ** 0.5
        if isinstance(module, nn.Linear):
            module.weight.normal_(0, std)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(0, std)
        elif isinstance(module, RMSNorm):
            module.weight.fill_(1)
        elif isinstance(module, Injection):
            module.start(std)
        elif isinstance(module, RotaryTable):
            module.inverse_frequency.copy_(module.inverse_frequencies(config)[0])
        if isinstance(module, Block):
            effective_depth = config.prelude_layers + config.coda_layers + config.core_layers * config.num_steps
            for projection in (module.attention.o_proj, module.mlp.down_proj):
                projection.weight.normal_(0, std / (2 * effective_depth) ** 0.5)


class RecurrentDepthModel(RecurrentDepthPreTrainedModel):
    """Everything but the head: embedding, prelude, injection, core, coda and final norm."""

    def __init__(self, config: RecurrentDepthConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.rotary = RotaryTable(config)
        self.prelude = nn.ModuleList(Block(config) for _ in range(config.prelude_layers))
        self.injection = INJECTIONS[config.injection](config)
        self.core = nn.ModuleList(Block(config) for _ in range(config.core_layers))
        self.coda = nn.ModuleList(Block(config) for _ in range(config.coda_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.exit_gate = nn.Linear(config.hidden_size, 1) if config.exit_gate else None
        self.gradient_checkpointing = False
        self.post_init()

    # The three verbs -------------------------------------------------------------------------------------------------

    def begin(
        self,
        input_ids: Int[Tensor, "batch sequence"] | None = None,
        attention_mask: Tensor | None = None,
        initial_state: str | Float[Tensor, "batch sequence width"] | None = None,
        generator: torch.Generator | int | None = None,
        *,
        inputs_embeds: Float[Tensor, "batch sequence width"] | None = None,
        position_ids: Int[Tensor, "batch sequence"] | None = None,
        cache: Cache | None = None,
        attention: Mapping[str, Any] | None = None,
    ) -> Thought:
        """Embed the input and run the prelude; the first state.

        Args:
            input_ids: tokens, `[batch, sequence]`.
            attention_mask: 1 for real tokens and 0 for padding, `[batch, sequence]`; with a cache it covers the earlier
                positions too. A ready four-dimensional mask is used as it is.
            initial_state: "noise", "zeros", "input", or a tensor `[batch, sequence, width]`; None for the config's.
            generator: seeds the noise: a generator (one number is drawn from it), or the seed itself; None for seed 0.
            inputs_embeds: embeddings in place of tokens.
            position_ids: positions, if they are not simply counted from each row's first real token.
            cache: memory of earlier positions; the Thought adds its own to it.
            attention: keyword arguments for the attention function.

        Raises:
            InputError: empty input, input longer than the context, a state or mask of the wrong shape.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("give either input_ids or inputs_embeds")
        if input_ids is not None:
            if input_ids.dim() != 2 or input_ids.numel() == 0:
                raise InputError(f"input_ids must be [batch, sequence] with at least one token, got shape {list(input_ids.shape)}")
            inputs_embeds = self.embed_tokens(input_ids)
        assert inputs_embeds is not None
        if inputs_embeds.dim() != 3 or inputs_embeds.numel() == 0:
            raise InputError(f"inputs_embeds must be [batch, sequence, width] with at least one position, got {list(inputs_embeds.shape)}")
        attention = {} if attention is None else dict(attention)
        batch, sequence, _ = inputs_embeds.shape
        past = 0 if cache is None else cache.get_seq_length()
        if attention_mask is not None and attention_mask.dim() == 2 and attention_mask.shape != (batch, past + sequence):
            raise InputError(f"attention_mask must be {[batch, past + sequence]}, got {list(attention_mask.shape)}")
        given = position_ids is not None
        if position_ids is None:
            position_ids = _positions(attention_mask, past, inputs_embeds)
        limit = self.config.max_position_embeddings
        if past + sequence > limit and not (given and int(position_ids.max()) < limit):  # packed texts may be longer together
            raise InputError(f"the input is {past + sequence} tokens long, the model's context is {limit} (max_position_embeddings)")
        # transformers takes position_ids that start anew within a row for packed sequences, and keeps them apart
        packed = position_ids if attention_mask is None and past == 0 and batch == 1 else None
        if not self.config.causal:
            if past or isinstance(cache, Pass):
                raise InputError("this model reads a picture as a whole (causal is False in its configuration); it cannot go on writing")
            mask = create_bidirectional_mask(self.config, inputs_embeds, attention_mask)
        else:  # a Pass knows whose keys each row may see
            mask = None if isinstance(cache, Pass) else create_causal_mask(self.config, inputs_embeds, attention_mask, cache, packed)
        if isinstance(cache, LoopCache):
            cache.extend(sequence, batch)
        rotary = self.rotary(position_ids, inputs_embeds.dtype)
        x = inputs_embeds * self.config.embedding_scale if self.config.embedding_scale != 1 else inputs_embeds
        x = run(self.prelude, x, rotary, mask, cache, range(len(self.prelude)), **attention)
        tokens = input_ids if self.training else None  # see `noise_like`
        state = self._initial_state(initial_state, x, inputs_embeds, position_ids, generator, attention_mask, cache, tokens)
        anchor = {"input": x, "cos": rotary[0], "sin": rotary[1], "mask": mask, "attention": attention}
        return Thought.start(state, anchor=anchor, cache=cache)

    def think(self, thought: Thought) -> Thought:
        """One step: the core on the state, with the anchor put back in.

        Raises:
            InputError: if positions of a cached Thought are at different steps, which have different slots.
        """
        anchor = thought.anchor
        step = 0
        cached = thought.cache is not None or "cache" in anchor["attention"]  # transformers' paged one
        if cached and not isinstance(thought.cache, Pass):  # which knows each row's step itself
            step = int(thought.step[0, 0])
            if (thought.step != step).any():
                raise InputError(
                    "positions of a cached Thought must be at the same step to think on; take the rows apart or begin without a cache"
                )
        rotary = (anchor["cos"], anchor["sin"])
        return thought.advance(self.step(thought.state, anchor["input"], rotary, anchor["mask"], thought.cache, step, anchor["attention"]))

    def step(
        self,
        state: Float[Tensor, "batch sequence width"],
        anchor: Float[Tensor, "batch sequence width"],
        rotary: tuple[Tensor, Tensor],
        mask: Any,
        cache: Any,
        number: int,
        attention: Mapping[str, Any],
    ) -> Float[Tensor, "batch sequence width"]:
        """What `think` does to tensors: the next state. `number` is the step's, for the cache's slots."""
        x = self.injection(state, anchor)
        first = self.config.slot(number, 0)
        x = run(self.core, x, rotary, mask, cache, range(first, first + len(self.core)), **attention)
        return self.norm(x) if self.config.norm_in_loop else x

    def hidden(self, thought: Thought, last: int = 0, rows: Int[Tensor, "some"] | None = None) -> Float[Tensor, "batch sequence width"]:
        """What the head is applied to: the state through the coda and the final norm.

        Args:
            thought: what to read.
            last: only so many positions at the end of each row; 0 for all.
            rows: only these rows, of one position each. With a `Pass` it must know them (`Pass.asked`).
        """
        take: Take | None = (lambda x: x[rows]) if rows is not None else (lambda x: x[:, -last:]) if last else None
        if self.config.norm_in_loop and not self.coda:
            return thought.state if take is None else take(thought.state)
        anchor = thought.anchor
        x = self.norm(thought.state) if self.config.norm_before_coda and not self.config.norm_in_loop else thought.state
        rotary = (anchor["cos"], anchor["sin"])
        mask, options = anchor["mask"], anchor["attention"]
        first, count = self.config.prelude_layers, len(self.coda)
        if take is None or not count or not _can_take(x, mask, last, rows, thought.cache, options):
            x = run(self.coda, x, rotary, mask, thought.cache, range(first, first + count), **options)
        else:
            x = run(self.coda[:-1], x, rotary, mask, thought.cache, range(first, first + count - 1))
            mask = mask[:, :, -1:] if last and mask is not None else mask
            x, take = self.coda[-1](x, rotary, mask, thought.cache, first + count - 1, take=take), None
        return self.norm(x if take is None else take(x))

    def exit_logit(self, thought: Thought) -> Float[Tensor, "batch sequence"]:
        """The learned gate's logit of stopping at this step (Ouro).

        Raises:
            InputError: if the model has no gate.
        """
        if self.exit_gate is None:
            raise InputError("this model has no exit gate (exit_gate is False in its configuration)")
        return self.exit_gate(thought.state).squeeze(-1)

    # transformers ----------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        num_steps: Steps | None = None,
        halting: HaltingRule | None = None,
        initial_state: str | Tensor | None = None,
        generator: torch.Generator | int | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """begin, think `num_steps` times (or until `halting` says enough), and read all but the head.

        `num_steps` may be a pair (n, k): n steps without gradient, then k with. `hidden_states` of the output, if asked for,
        are the states after each step.
        """
        steps = dial(self, num_steps)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            # ours is overwritten in place, which gradients do not survive
            past_key_values = DynamicCache() if torch.is_grad_enabled() else self.new_cache()
        thought = self.begin(
            input_ids,
            attention_mask,
            initial_state,
            generator,
            inputs_embeds=inputs_embeds,
            position_ids=position_ids,
            cache=past_key_values,
            attention={name: value for name, value in kwargs.items() if name in _ATTENTION_KWARGS},
        )
        states = [thought.state]
        if not isinstance(steps, (int, tuple)):
            raise InputError(f"a schedule of steps ({steps!r}) is for greedy decoding and sampling; give a number here")
        if halting is not None:
            if isinstance(steps, tuple):
                raise InputError(f"halting takes one number of steps, the maximum; got the pair {steps}")
            thought = think_until(self, thought, halting, steps, together=False, watch=lambda t: states.append(t.state))
        else:
            without, with_gradient = steps if isinstance(steps, tuple) else (0, steps)
            with torch.no_grad():
                for _ in range(without):
                    thought = self.think(thought)
                    states.append(thought.state)
            for _ in range(with_gradient):
                thought = self.think(thought)
                states.append(thought.state)
        return BaseModelOutputWithPast(
            last_hidden_state=self.hidden(thought),
            past_key_values=past_key_values,
            hidden_states=tuple(states) if output_hidden_states else None,
        )

    def read(self, thought: Thought) -> Readout:
        raise InputError("this is the model without its head; read with RecurrentDepthForCausalLM")

    def new_cache(self, policy: Any = "full", capacity: int = 64) -> LoopCache:
        """An empty cache of this model's shape."""
        return LoopCache(self.config.prelude_layers + self.config.coda_layers, self.config.core_layers, policy, capacity)

    def _initial_state(
        self,
        wanted: str | Tensor | None,
        anchor: Float[Tensor, "batch sequence width"],
        embedding: Float[Tensor, "batch sequence width"],
        positions: Int[Tensor, "batch sequence"],
        generator: torch.Generator | int | None,
        mask: Tensor | None,
        cache: Cache | None,
        tokens: Int[Tensor, "batch sequence"] | None,
    ) -> Float[Tensor, "batch sequence width"]:
        wanted = self.config.initial_state if wanted is None else wanted
        if isinstance(wanted, Tensor):
            if wanted.shape != anchor.shape:
                raise InputError(f"initial_state must be {list(anchor.shape)} [batch, sequence, width], got {list(wanted.shape)}")
            return wanted.to(anchor)
        if wanted == "zeros":
            return torch.zeros_like(anchor)
        if wanted == "input":
            return anchor
        if wanted == "noise":
            embedding = embedding.detach()
            copies = None
            if embedding.shape[0] > 1:
                copies = getattr(cache, "copies", None)  # what the rows were when their prompts were read
                copies = copies_of(embedding if tokens is None else tokens, positions, mask) if copies is None else copies
                if isinstance(cache, LoopCache):
                    cache.copies = copies
            return noise_like(embedding, positions, self.config.initial_state_std, seed_of(generator), copies, tokens)
        raise InputError(f"initial_state must be 'noise', 'zeros', 'input' or a tensor, got {wanted!r}")


_ATTENTION_KWARGS = {
    "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "cache", "block_table", "read_index", "write_index",
    "logits_indices", "attention_instances",
}  # fmt: skip
"""Keyword arguments of transformers that are meant for the attention function."""


def _can_take(x: Tensor, mask: Any, last: int, rows: Tensor | None, cache: Any, options: Mapping[str, Any]) -> bool:
    """Whether the last block can leave out what nobody reads: rows whose keys a `Pass` finds, or the last one of many positions."""
    if options:
        return False
    if rows is not None:
        return isinstance(cache, Pass) and 0 < len(rows) < len(x)
    if mask is None:  # one position that sees every key: right only where no key is room for later, as in transformers' static cache
        return last == 1 < x.shape[1] and (cache is None or isinstance(cache, LoopCache))
    return last == 1 < x.shape[1] and not isinstance(cache, Pass) and isinstance(mask, Tensor) and mask.dim() == 4


def seed_of(generator: torch.Generator | int | Tensor | None) -> int | Tensor:
    """A seed: drawn from a generator, given as a number (or one for each row), or 0."""
    if isinstance(generator, Tensor):
        return generator
    if isinstance(generator, torch.Generator):
        return int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    return 0 if generator is None else int(generator)


def _positions(attention_mask: Tensor | None, past: int, like: Tensor) -> Int[Tensor, "batch sequence"]:
    """Positions counted from each row's first real token; padding is at 0."""
    sequence = like.shape[1]
    if attention_mask is not None and attention_mask.dim() == 2:
        return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -sequence:].to(like.device)
    return torch.arange(past, past + sequence, device=like.device)[None]


class RecurrentDepthForCausalLM(ThinkingGeneration, RecurrentDepthPreTrainedModel, GenerationMixin):
    """A recurrent-depth language model: the three verbs, and everything transformers expects of a causal one."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: RecurrentDepthConfig) -> None:
        super().__init__(config)
        first = vars(self).pop("_generation_config")
        self.model = RecurrentDepthModel(config)
        self.generation_config = first
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()
        if config.int8:
            quantize(self)

    @property
    def generation_config(self) -> GenerationConfig:
        """Kept by the model without its head, which TRL calls by itself: both must find the same dial."""
        return self.model.generation_config

    @generation_config.setter
    def generation_config(self, value: GenerationConfig) -> None:
        if "model" in self._modules:
            self.model.generation_config = value
        else:  # transformers sets it before there is a model to keep it
            vars(self)["_generation_config"] = value

    def begin(
        self,
        input_ids: Int[Tensor, "batch sequence"] | None = None,
        attention_mask: Bool[Tensor, "batch sequence"] | Int[Tensor, "batch sequence"] | None = None,
        initial_state: str | Float[Tensor, "batch sequence width"] | None = None,
        generator: torch.Generator | int | None = None,
        **options: Any,
    ) -> Thought:
        """Read the input; the latent state before any thinking. See `RecurrentDepthModel.begin`."""
        return self.model.begin(input_ids, attention_mask, initial_state, generator, **options)

    def think(self, thought: Thought) -> Thought:
        """One latent step. See `RecurrentDepthModel.think`."""
        return self.model.think(thought)

    def read(self, thought: Thought, logits_to_keep: int = 0, rows: Int[Tensor, "some"] | None = None) -> Readout:
        """What the model would say if it stopped now, at every position, or at the last `logits_to_keep` ones, or for `rows` only."""
        hidden = self.model.hidden(thought, logits_to_keep, rows)
        return Readout(logits=self.lm_head(hidden).float(), hidden=hidden)

    def exit_logit(self, thought: Thought) -> Float[Tensor, "batch sequence"]:
        """The learned gate's logit of stopping at this step. See `RecurrentDepthModel.exit_logit`."""
        return self.model.exit_logit(thought)

    def new_cache(self, policy: Any = "full", capacity: int = 64) -> LoopCache:
        """An empty cache of this model's shape; `policy` as in `LoopCache`."""
        return self.model.new_cache(policy, capacity)

    def new_slots(self, *, slots: int, capacity: int, max_steps: int, policy: Any = "full") -> Slots:
        """Room for the keys of several requests at once; arguments as in `Slots`."""
        config = self.config
        return Slots(
            config.prelude_layers + config.coda_layers,
            config.core_layers,
            config.num_key_value_heads,
            config.head_dim,
            slots=slots,
            capacity=capacity,
            max_steps=max_steps,
            policy=policy,
            dtype=self.dtype,
            device=self.device,
        )

    def parts(self) -> dict[str, nn.Module]:
        """The modules by role; a tied head is listed, and is the embedding's matrix once more."""
        roles = ("embed_tokens", "prelude", "injection", "core", "coda", "norm", "exit_gate")
        parts = {role: getattr(self.model, role) for role in roles}
        return {role: part for role, part in {**parts, "lm_head": self.lm_head}.items() if part is not None}

    def forward(
        self,
        input_ids: Int[Tensor, "batch sequence"] | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Int[Tensor, "batch sequence"] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Float[Tensor, "batch sequence width"] | None = None,
        labels: Int[Tensor, "batch sequence"] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Int[Tensor, "kept"] = 0,
        num_steps: Steps | None = None,
        halting: HaltingRule | None = None,
        initial_state: str | Tensor | None = None,
        generator: torch.Generator | int | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (and the loss, with `labels`) after `num_steps` steps; None for the generation config's, then the config's."""
        kwargs.pop("return_dict", None)
        for name in ("warm_start", "min_steps", "watch", *sorted(SPECULATION)):
            if kwargs.pop(name, None):
                raise InputError(f"{name} is for greedy decoding and sampling with the library's own cache; leave it out here")
        output = self.model(
            input_ids,
            attention_mask,
            position_ids,
            past_key_values,
            inputs_embeds,
            use_cache,
            dial(self, num_steps),
            halting,
            initial_state,
            generator,
            **kwargs,
        )
        hidden = output.last_hidden_state
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden[:, keep])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
        )


AutoModel.register(RecurrentDepthConfig, RecurrentDepthModel, exist_ok=True)
AutoModelForCausalLM.register(RecurrentDepthConfig, RecurrentDepthForCausalLM, exist_ok=True)
