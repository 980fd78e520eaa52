"""What requests may say, in OpenAI's words, and our own for the dial.

Everything a client can get wrong is wrong here, and said with the field's name. Fields that OpenAI's clients send and that mean
nothing to this server are accepted and ignored; any other unknown field is refused, since a misspelt dial must not be silent.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, field_validator, model_validator

from latentweaver import halting
from latentweaver.halting import HaltingRule

RULES: dict[str, type[HaltingRule]] = {
    "state_change": halting.StateChange,
    "cosine": halting.Cosine,
    "acceleration": halting.Acceleration,
    "kl": halting.KL,
    "entropy_change": halting.EntropyChange,
    "argmax_stability": halting.ArgmaxStability,
    "confidence": halting.Confidence,
    "learned_gate": halting.LearnedGate,
}

EFFORTS: dict[str, tuple[int, HaltingRule | None]] = {
    "none": (1, None),
    "minimal": (2, None),
    "low": (4, None),
    "medium": (16, halting.StateChange(0.03)),
    "high": (64, halting.StateChange(0.003)),
}
"""What `reasoning_effort` means: steps at most, and the rule that says when a token has had enough."""

Effort = Literal["none", "minimal", "low", "medium", "high"]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


def _unicode(text: str) -> str:
    """JSON can spell half of a character (a lone surrogate), which no tokenizer takes."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError("half of a character (a lone surrogate) is no text") from error
    return text


Text = Annotated[StrictStr, AfterValidator(_unicode)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Halting(_Strict):
    """A halting rule by name, with its parameters; see `latentweaver.halting`."""

    rule: StrictStr
    threshold: Annotated[Number, Field(gt=0)] | None = None
    patience: Annotated[StrictInt, Field(ge=1)] | None = None
    min_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    probability: Annotated[Number, Field(gt=0, lt=1)] | None = None

    def build(self) -> HaltingRule:
        """The rule.

        Raises:
            ValueError: if there is none of that name, or it has no such parameter.
        """
        if self.rule not in RULES:
            raise ValueError(f"unknown rule {self.rule!r}; known are {', '.join(RULES)}")
        given = self.model_dump(exclude={"rule"}, exclude_none=True)
        try:
            return RULES[self.rule](**given)
        except TypeError as error:
            raise ValueError(f"{self.rule} does not take {', '.join(given)}") from error


class StreamOptions(BaseModel):
    include_usage: StrictBool = False


class Common(_Strict):
    """What both kinds of completion may say."""

    model: StrictStr
    stream: StrictBool = False
    stream_options: StreamOptions | None = None
    n: Annotated[StrictInt, Field(ge=1)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[StrictInt, Field(ge=0)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0, le=10)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[Number, Field(ge=-100, le=100)]] | None = Field(default=None, max_length=1024)
    seed: Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=4)] | None = None
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    # the dial
    reasoning_effort: Effort | None = None
    num_steps: StrictInt | StrictStr | None = None
    halting: Halting | Literal["auto"] | None = None
    min_steps: Annotated[StrictInt, Field(ge=1)] = 1
    warm_start: StrictBool = False
    # sent by clients, without meaning here
    user: Any = None
    store: Any = None
    metadata: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None

    @field_validator("stop")
    @classmethod
    def _stops_are_text(cls, stop: str | list[str] | None) -> str | list[str] | None:
        for text in [stop] if isinstance(stop, str) else stop or []:
            if not text or len(text) > 256:
                raise ValueError("a stop string has 1 to 256 characters")
        return stop

    @field_validator("logit_bias")
    @classmethod
    def _biased_tokens(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        for token in bias or {}:
            if not token.isdecimal() or len(token) > 9:
                raise ValueError(f"{token[:20]!r} is no token number")
        return bias

    @model_validator(mode="after")
    def _one_dial(self) -> Common:
        if self.reasoning_effort is not None and (self.num_steps is not None or self.halting is not None):
            raise ValueError("give reasoning_effort, or num_steps and halting, not both")
        if isinstance(self.halting, Halting):
            self.halting.build()
        return self

    def dial(self, max_steps: int) -> dict[str, Any]:
        """The dial as fields of the engine's `Request`."""
        if self.reasoning_effort is not None:
            steps, rule = EFFORTS[self.reasoning_effort]
            return {"num_steps": min(steps, max_steps), "halting": rule, "min_steps": self.min_steps, "warm_start": self.warm_start}
        rule = halting.StateChange() if self.halting == "auto" else self.halting.build() if self.halting else None
        steps = self.num_steps if self.num_steps is not None or rule is None else max_steps
        return {"num_steps": steps, "halting": rule, "min_steps": self.min_steps, "warm_start": self.warm_start}

    def sampling(self) -> dict[str, Any]:
        """Temperature and its kind as fields of transformers' generation config; OpenAI's defaults, and 0 for greedy."""
        temperature = 1.0 if self.temperature is None else self.temperature
        chosen: dict[str, Any] = {} if self.repetition_penalty is None else {"repetition_penalty": self.repetition_penalty}
        if temperature == 0:
            return {**chosen, "do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        top_p = 1.0 if self.top_p is None else self.top_p
        return {**chosen, "do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": self.top_k or 0, "min_p": self.min_p}

    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class Part(_Strict):
    type: Literal["text"]
    text: Text


class Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Part]
    name: StrictStr | None = None

    def plain(self) -> dict[str, str]:
        """As chat templates want it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(Common):
    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)]
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    logprobs: StrictBool = False
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=20)] | None = None


Tokens = Annotated[list[StrictInt], Field(min_length=1)]


class CompletionRequest(Common):
    prompt: Text | Tokens | Annotated[list[Text], Field(min_length=1)] | Annotated[list[Tokens], Field(min_length=1)]
    logprobs: Annotated[StrictInt, Field(ge=0, le=5)] | None = None
    echo: Literal[False] = False

    def prompts(self) -> list[str | list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        return [self.prompt] if isinstance(self.prompt[0], int) else list(self.prompt)  # type: ignore[list-item, return-value]
