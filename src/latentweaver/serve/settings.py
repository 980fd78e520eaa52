"""What a server allows: each limit a field, with its reason."""

from __future__ import annotations

from dataclasses import dataclass, fields

from latentweaver.errors import InputError


@dataclass(frozen=True)
class Settings:
    """How a server runs and what it allows.

    Attributes:
        slots: requests that are answered at once.
        queue: requests that may wait for a slot; more are refused with 429.
        capacity: most tokens of a request, prompt and answer together.
        max_steps: deepest dial that a request may ask for.
        max_choices: most texts that one HTTP request may ask for.
        cache: which steps' keys are kept ("shared", "full", ...); only with "full" do prompts with a common beginning share it
            at any dial.
        patience: see `Engine`.
        body_bytes: longest body; longer ones are refused with 413.
        header_seconds: a request's headers must have arrived this long after the connection was opened (or, on one that is used again,
            after the request's first byte); else the connection is closed with 408.
        body_seconds: a body must have arrived in this time.
        write_seconds: a client that takes longer to accept what is sent to it is dropped.
        request_seconds: a request is ended after this time, with what it has so far.
        connections: open connections, idle ones included; more are refused with 503.
        drain_seconds: how long requests may go on after SIGTERM; then they are ended, with what they have so far.
        api_key: what clients must send as bearer token; None for no check.
        dtype: precision of the model, as in `load`.
        device: where it runs, as in `load`.
        threads: threads of the processor for torch; None for its own choice.
    """

    slots: int = 16
    queue: int = 64
    capacity: int = 2048
    max_steps: int = 64
    max_choices: int = 8
    cache: str = "shared"
    patience: int = 0
    body_bytes: int = 1 << 20
    header_seconds: float = 10.0
    body_seconds: float = 10.0
    write_seconds: float = 30.0
    request_seconds: float = 300.0
    connections: int = 512
    drain_seconds: int = 30
    api_key: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "patience" and isinstance(value, (int, float)) and value <= 0:
                raise InputError(f"{field.name} must be above 0, got {value}")
        if self.patience < 0:
            raise InputError(f"patience must not be negative, got {self.patience}")
        if self.api_key == "":
            raise InputError("api_key is empty; give a key, or none")
