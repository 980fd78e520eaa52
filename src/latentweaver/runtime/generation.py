"""Writing tokens with a model that thinks: transformers' `generate`, with the dial.

`ThinkingGeneration` is mixed into a model beside transformers' `GenerationMixin`. Everything about sampling (temperature,
penalties, stopping, streaming, beams) stays transformers' own; what is replaced is the loop that asks the model for the next
token, because that is where the thinking happens: begin, think until enough, read, hand the state on.

The dial is looked for in this order: the call (`num_steps=`, `halting=`), the generation config, the model's config.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.cache_utils import Cache
from transformers.generation.utils import GenerateDecoderOnlyOutput

from latentweaver.errors import InputError
from latentweaver.halting import Fixed, HaltingRule
from latentweaver.kernels import native
from latentweaver.runtime.cache import LoopCache
from latentweaver.runtime.schedule import schedule
from latentweaver.runtime.speculation import OPTIONS as SPECULATION
from latentweaver.runtime.speculation import SpeculatingWriter
from latentweaver.runtime.thinking import Watcher, think_for, think_until
from latentweaver.runtime.wavefront import Speculated
from latentweaver.thought import Thought


def dial(model: Any, num_steps: Any = None) -> Any:
    """The number of steps to take: the call's, else the generation config's, else the model config's.

    Raises:
        InputError: if it is below 1.
    """
    if num_steps is None:
        num_steps = getattr(getattr(model, "generation_config", None), "num_steps", None)
    if num_steps is None:
        num_steps = model.config.num_steps
    if isinstance(num_steps, (tuple, list)):
        if len(num_steps) != 2:
            raise InputError(f"num_steps is a number or the pair (steps without gradient, steps with), got {num_steps!r}")
        without, with_gradient = num_steps
        if without < 0 or with_gradient < 0 or without + with_gradient < 1:
            raise InputError(f"(steps without gradient, steps with) must not be negative nor both 0, got {tuple(num_steps)}")
        return int(without), int(with_gradient)
    if isinstance(num_steps, Tensor) and num_steps.numel() == 1:
        num_steps = int(num_steps)
    if isinstance(num_steps, (bool, float)):
        raise InputError(f"num_steps must be a whole number, got {num_steps!r}")
    if isinstance(num_steps, int) and num_steps < 1:
        raise InputError(f"num_steps must be at least 1, got {num_steps}")
    return num_steps


@dataclass
class ThinkingOutput(GenerateDecoderOnlyOutput):
    """What `generate(return_dict_in_generate=True)` returns: transformers' fields, and the steps each new token took.

    Attributes:
        steps: `[batch, new tokens]`; 0 where a row had already finished.
        speculated: with `draft_steps`, what guessing was worth.
    """

    steps: Int[Tensor, "batch new"] | None = None
    speculated: Speculated | None = None


class ThinkingGeneration:
    """Mixed into a reasoner, beside `GenerationMixin`; gives `generate` the dial."""

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """transformers' `generate`, and these:

        Args:
            num_steps: steps for every token: a number, a schedule's name ("first:32,8") or a function from the token's
                place to a number. With `halting` it is the maximum.
            halting: a `HaltingRule`; each row stops thinking about its token when the rule says enough.
            min_steps: with `halting`, never stop before.
            initial_state: "noise", "zeros", "input", or a tensor `[batch, prompt, width]` for the prompt.
            generator: a `torch.Generator` or a seed for the noise; with a generator, sampling draws from it too.
            warm_start: begin each new token from the raw state of the one before it, instead of from a fresh one.
            cache_policy: "full", "shared", "shared:K", "anchor:N" or a function (see `LoopCache`).
            watch: called with the running Thought after every step of every token; must not change anything.
            draft_steps: guess tokens with this many steps, and verify them with `num_steps`: the same text, often sooner, for one
                row and a fixed number of steps (see `speculation`).
            draft_tokens: guesses before each verification; 4 if left out.
            wavefront: instead of that, let each guess begin while its predecessor thinks on (see `wavefront`).
            beats: what `runtime.wavefront_graph.compiled` made, for a GPU.

        Raises:
            InputError: if the dial is below 1, the prompt empty or with tokens that the model does not have, or prompt and
                answer longer than the context.
        """
        ids = args[0] if args else kwargs.get("input_ids", kwargs.get("inputs"))
        if isinstance(ids, Tensor) and ids.numel() == 0 and kwargs.get("inputs_embeds") is None:
            raise InputError("the prompt is empty; give at least one token")
        if isinstance(ids, Tensor) and ids.numel():
            lowest, highest, known = int(ids.min()), int(ids.max()), self.get_input_embeddings().num_embeddings  # type: ignore[attr-defined]
            if lowest < 0 or highest >= known:
                raise InputError(f"tokens must lie in 0 to {known - 1}, the prompt has {lowest if lowest < 0 else highest}")
        with native(self.device):  # type: ignore[attr-defined]
            return super().generate(*args, **kwargs)  # type: ignore[misc]

    def _prepare_cache_for_generation(
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Our own cache where transformers would make a dynamic one, whose slots are counted for one depth only.

        Also the place where the dial is settled, for every way of decoding: transformers neither forwards `num_steps` of a
        generation config to the model nor, once the config has that field, of the call.
        """
        if model_kwargs.get("num_steps") is None:
            model_kwargs["num_steps"] = dial(self, getattr(generation_config, "num_steps", None))
        policy = model_kwargs.pop("cache_policy", None)
        given = model_kwargs.get("past_key_values") is not None
        dynamic = generation_config.cache_implementation in (None, "dynamic")
        if given or not dynamic or generation_config.use_cache is False:
            if policy is not None:
                raise InputError(
                    "cache_policy needs the library's own cache: leave out past_key_values, cache_implementation and use_cache=False"
                )
            steps = dial(self, model_kwargs.get("num_steps"))
            if isinstance(steps, int) and not given:
                self._room_for(steps)
            return super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)  # type: ignore[misc]
        longest = args[2] if len(args) > 2 else kwargs.get("max_cache_length", 64)
        model_kwargs["past_key_values"] = self.new_cache(policy or "full", longest)  # type: ignore[attr-defined]

    def init_continuous_batching(self, generation_config: GenerationConfig | None = None, *args: Any, **kwargs: Any) -> Any:
        """transformers' continuous batching (`generate_batch`), whose paged cache needs a slot for every step.

        It hands no argument on to the model, so the dial is the one of the model's own generation config, or config.

        Raises:
            InputError: if a generation config handed to the call says otherwise.
        """
        steps, handed = dial(self), getattr(generation_config, "num_steps", None)
        if not isinstance(steps, int):
            raise InputError(f"generate_batch takes one number of steps for every token, model.generation_config says {steps!r}")
        if handed is not None and handed != steps:
            raise InputError(f"generate_batch takes num_steps from model.generation_config ({steps}); the one handed to it says {handed}")
        self._room_for(steps)
        return super().init_continuous_batching(generation_config, *args, **kwargs)  # type: ignore[misc]

    def _room_for(self, steps: int) -> None:
        """transformers sizes a static cache by `num_hidden_layers`; a deeper dial needs more slots than the config's."""
        config = self.config  # type: ignore[attr-defined]
        config.num_hidden_layers = max(config.num_hidden_layers, config.slot(steps, 0))

    def _validate_model_kwargs(self, model_kwargs: dict[str, Any]) -> None:
        ours = {"min_steps", "warm_start", "cache_policy", "watch", *SPECULATION}
        super()._validate_model_kwargs({k: v for k, v in model_kwargs.items() if k not in ours})  # type: ignore[misc]

    def _writer(self, input_ids: Tensor, generation_config: GenerationConfig, options: dict[str, Any]) -> Any:
        """What `_sample` asks for the logits of one token after another; a model that thinks only once brings its own."""
        if any(options.get(name) is not None for name in SPECULATION):
            return SpeculatingWriter(self, input_ids, dial(self, options.get("num_steps")), generation_config.max_length, options)
        return _Writer(self, input_ids, generation_config, options)

    @torch.no_grad()
    def _sample(
        self,
        input_ids: Int[Tensor, "batch sequence"],
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        streamer: Any = None,
        **model_kwargs: Any,
    ) -> Any:
        """Greedy decoding and sampling: transformers' loop, with the thinking in sight."""
        pad: Any = generation_config._pad_token_tensor  # a tensor, if there is a token that ends a row
        ends = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
        generator = model_kwargs.get("generator")
        writer = self._writer(input_ids, generation_config, model_kwargs)
        alive = torch.ones(input_ids.shape[0], dtype=torch.long, device=input_ids.device)
        kept_scores: list[Tensor] = []
        kept_logits: list[Tensor] = []
        kept_steps: list[Tensor] = []
        while True:
            logits, steps = writer.next(input_ids, alive.cpu())
            logits = logits.to(input_ids.device)
            scores = logits_processor(input_ids, logits)
            if generation_config.output_scores:
                kept_scores.append(scores)
            if generation_config.output_logits:
                kept_logits.append(logits)
            if generation_config.do_sample:
                draw_from = generator if isinstance(generator, torch.Generator) else None
                tokens = torch.multinomial(scores.softmax(-1), 1, generator=draw_from).squeeze(1)
            else:
                tokens = scores.argmax(-1)
            if ends:
                tokens = tokens * alive + pad.to(tokens.device) * (1 - alive)
            kept_steps.append(steps)
            input_ids = torch.cat([input_ids, tokens[:, None]], -1)
            if streamer is not None:
                if hasattr(streamer, "put_steps"):
                    streamer.put_steps(kept_steps[-1])
                streamer.put(tokens.cpu())
            alive = alive & ~stopping_criteria(input_ids, tuple(kept_scores) or None)
            if alive.max() == 0:
                break
        if streamer is not None:
            streamer.end()
        if not generation_config.return_dict_in_generate:
            return input_ids
        return ThinkingOutput(
            sequences=input_ids,  # pyright: ignore[reportArgumentType]
            scores=tuple(kept_scores) if generation_config.output_scores else None,  # pyright: ignore[reportArgumentType]
            logits=tuple(kept_logits) if generation_config.output_logits else None,  # pyright: ignore[reportArgumentType]
            past_key_values=writer.cache,
            steps=torch.stack(kept_steps, 1),
            speculated=getattr(writer, "report", None),
        )


class _Writer:
    """Thinks about one token after another: what `_sample` asks for the logits of the next."""

    def __init__(self, model: Any, input_ids: Tensor, generation_config: GenerationConfig, options: dict[str, Any]) -> None:
        self.model = model
        self.cache: Cache | None = options.get("past_key_values")
        self.mask: Tensor | None = options.get("attention_mask")
        if self.mask is not None and self.mask.dim() == 2 and bool(self.mask.all()):
            self.mask = None  # nothing is padded, and attention is faster without a mask
        self.embeds: Tensor | None = options.get("inputs_embeds")
        self.halting: HaltingRule | None = options.get("halting")
        self.min_steps: int = options.get("min_steps") or 1
        self.steps = schedule(dial(model, options.get("num_steps")))
        self.initial_state = options.get("initial_state")
        self.warm_start: bool = options.get("warm_start") or False
        self.watch: Watcher | None = options.get("watch")
        generator = options.get("generator")
        # one seed for the whole request, so that greedy decoding repeats and a cache changes nothing
        self.seed = (
            int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
            if isinstance(generator, torch.Generator)
            else generator
        )
        self.place = 0
        self.state: Tensor | None = None  # of the last token, raw, for a warm start
        self.separable = self.cache is None or isinstance(self.cache, LoopCache)
        context, longest = model.config.max_position_embeddings, generation_config.max_length
        if longest is not None and longest > context:
            raise InputError(f"prompt and answer may take {longest} tokens, the model's context is {context}; shorten one of them")
        if self.halting is not None and not self.separable and not isinstance(self.halting, Fixed):
            raise InputError("halting needs the library's own cache; leave out cache_implementation, and past_key_values of other kinds")
        if self.warm_start and self.cache is None:
            raise InputError("warm_start hands on the last token's state and so needs use_cache=True")

    def next(
        self, input_ids: Int[Tensor, "batch sequence"], alive: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch vocabulary"], Int[Tensor, "batch"]]:
        """Logits of the next token, float32, and the steps each row took for them; both 0 for rows that are not `alive`."""
        thought = self._begin(input_ids)
        steps = self.steps(self.place)
        self.place += 1
        if bool(alive.all()) or not self.separable:
            thought = self._think(thought, steps, self.mask)
            self.state = thought.state[:, -1:]
            return self.model.read(thought, logits_to_keep=1).logits[:, -1].float(), thought.step[:, -1]
        # rows that have finished their text are not thought about any more
        rows = alive.nonzero().squeeze(-1)
        where = rows.to(thought.state.device)
        part = self._think(thought.rows(rows), steps, None if self.mask is None else self.mask[where])
        said = self.model.read(part, logits_to_keep=1).logits[:, -1].float()
        self.state = thought.state[:, -1:].to(part.state.dtype).index_copy(0, where, part.state[:, -1:])  # autocast's steps change the type
        logits = said.new_zeros(alive.shape[0], said.shape[-1]).index_copy_(0, where, said)
        return logits, torch.zeros_like(alive).index_copy_(0, rows, part.step[:, -1])

    def _think(self, thought: Thought, steps: int, mask: Tensor | None) -> Thought:
        if self.halting is None:
            return think_for(self.model, thought, steps, self.watch)
        return think_until(
            self.model,
            thought,
            self.halting,
            steps,
            min(self.min_steps, steps),
            mask=None if mask is None else mask[:, -thought.state.shape[1] :].bool(),
            read=lambda t: self.model.read(t, logits_to_keep=1),
            watch=self.watch,
        )

    def _begin(self, input_ids: Tensor) -> Thought:
        first = self.state is None
        seen = 0 if self.cache is None else self.cache.get_seq_length()
        state = self.initial_state if first or isinstance(self.initial_state, str) else None
        if self.warm_start and self.state is not None:
            state = self.state
        if not first and self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(self.mask.shape[0], 1)], -1)
        inputs: dict[str, Any]
        if self.embeds is not None and (first or self.cache is None):
            if not first:
                new = self.model.get_input_embeddings()(input_ids[:, -1:])
                self.embeds = torch.cat([self.embeds, new.to(self.embeds)], 1)
            inputs = {"inputs_embeds": self.embeds[:, seen:] if self.cache is not None else self.embeds}
        else:
            inputs = {"input_ids": input_ids[:, seen:] if first else input_ids if self.cache is None else input_ids[:, -1:]}
        return self.model.begin(attention_mask=self.mask, initial_state=state, generator=self.seed, cache=self.cache, **inputs)
