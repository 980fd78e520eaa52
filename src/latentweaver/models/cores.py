"""How a core meets its input: the injections that put the anchor back in at every step, and the first states.

"linear"    x = W [state, anchor]                                        Huginn (arXiv 2502.05171)
"scaled"    x = W [state rms(anchor) / rms(state), anchor]               the same where nothing else bounds the state
"add"       x = state + anchor
"diagonal"  x = exp(-dt A) state + dt B anchor, dt = softplus(.), A > 0  Parcae (arXiv 2604.12946): decay within (0, 1)
"none"      x = state                                                    Ouro (arXiv 2510.25741)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from latentweaver import kernels
from latentweaver.models.config import RecurrentDepthConfig


class Injection(nn.Module, ABC):
    """Turns a state and the anchor into what the core is applied to."""

    def __init__(self, config: RecurrentDepthConfig) -> None:
        super().__init__()

    def start(self, std: float) -> None:
        """Fresh weights for a model that is trained from nothing."""

    def start_transparent(self, memory: float) -> None:
        """Weights that let the anchor through unchanged, beside `memory` times the state: for a retrofit."""

    @abstractmethod
    def forward(
        self, state: Float[Tensor, "batch sequence width"], anchor: Float[Tensor, "batch sequence width"]
    ) -> Float[Tensor, "batch sequence width"]: ...


class LinearInjection(Injection):
    """x = W [state, anchor], without a bias; the state comes first.

    In a loop of pre-norm blocks nothing bounds the state: where W and the blocks make it longer, as a pretrained model's do for the
    first token of a text, it grows for ever. "scaled" brings it to the anchor's length first, token by token, so that x is never
    longer than |W| allows. A state of zeros stays zero, and at one step the two are equal.
    """

    working: Tensor | None = None  # as in `blocks.Linear`
    bias = None

    def __init__(self, config: RecurrentDepthConfig) -> None:
        super().__init__(config)
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.hidden_size, 2 * config.hidden_size))

    @torch.no_grad()
    def start(self, std: float) -> None:
        self.weight.normal_(0, std)

    @torch.no_grad()
    def start_transparent(self, memory: float) -> None:
        identity = torch.eye(self.weight.shape[0])
        self.weight.copy_(torch.cat([memory * identity, identity], -1))

    def forward(self, state: Tensor, anchor: Tensor) -> Float[Tensor, "batch sequence width"]:
        if self.config.injection == "scaled":
            wide = torch.promote_types(anchor.dtype, torch.float32)
            size = anchor.to(wide).square().mean(-1, keepdim=True).sqrt()
            state = (F.rms_norm(state.to(wide), state.shape[-1:], None, self.config.rms_norm_eps) * size).to(state.dtype)
        return kernels.linear(torch.cat([state, anchor], -1), self.weight if self.working is None else self.working)

    def matrix(self) -> Float[Tensor, "width 2*width"]:
        """W."""
        return self.weight


class AddInjection(Injection):
    """x = state + anchor."""

    def forward(self, state: Tensor, anchor: Tensor) -> Float[Tensor, "batch sequence width"]:
        return state + anchor


class DiagonalInjection(Injection):
    """x = exp(-dt A) state + dt B anchor: a linear recurrence whose decay exp(-dt A) cannot leave (0, 1).

    A = exp(log_rate) and dt = softplus(log_step) are one number a channel; B is a matrix that starts as the identity. Parcae
    trains all three without weight decay.
    """

    def __init__(self, config: RecurrentDepthConfig) -> None:
        super().__init__(config)
        self.log_rate = nn.Parameter(torch.empty(config.hidden_size))
        self.log_step = nn.Parameter(torch.empty(config.hidden_size))
        self.weight = nn.Parameter(torch.empty(config.hidden_size, config.hidden_size))

    def start(self, std: float) -> None:
        self.start_transparent(memory=0.5)

    @torch.no_grad()
    def start_transparent(self, memory: float) -> None:
        """dt = 1 and B = 1, so the anchor comes through unchanged, beside `memory` (in (0, 1)) times the state."""
        self.log_step.fill_(math.log(math.e - 1))
        self.log_rate.fill_(math.log(-math.log(memory)))
        self.weight.copy_(torch.eye(self.weight.shape[0]))

    def forward(self, state: Tensor, anchor: Tensor) -> Float[Tensor, "batch sequence width"]:
        step = F.softplus(self.log_step)
        decay = torch.exp(-step * self.log_rate.exp())
        return decay * state + step * kernels.linear(anchor, self.weight)


class NoInjection(Injection):
    """x = state: the input is seen once, as the first state."""

    def forward(self, state: Tensor, anchor: Tensor) -> Float[Tensor, "batch sequence width"]:
        return state


INJECTIONS: dict[str, type[Injection]] = {
    "linear": LinearInjection,
    "scaled": LinearInjection,
    "add": AddInjection,
    "diagonal": DiagonalInjection,
    "none": NoInjection,
}


def noise_like(
    embedding: Float[Tensor, "batch sequence width"],
    positions: Int[Tensor, "batch sequence"],
    std: float,
    seed: int | Int[Tensor, "batch"],
    copies: Int[Tensor, "batch"] | None = None,
    tokens: Int[Tensor, "batch sequence"] | None = None,
) -> Float[Tensor, "batch sequence width"]:
    """Normal noise, cut at three standard deviations, that depends on the request and not on its neighbours.

    Every number is a hash of (seed, position, the position's own embedding, copy, channel), turned into a normal one by the
    inverse of its distribution: a counter-based generator (Salmon et al. 2011), not a stream. So the noise of a token is
    the same alone or in a batch, padded on either side, with a cache or without, on a CPU or a GPU; and a restored
    Thought needs no generator state. Rows may have a seed each. `copies` (see `copies_of`) keeps equal rows apart. `tokens` stand for
    their embeddings in training, where these change by what the order of a sum over devices rounds away.
    """
    key = _mix(
        token_hash(embedding if tokens is None else tokens)
        + _mix(positions.long() + _mix(torch.as_tensor(seed, device=embedding.device).view(-1, 1)))
    )
    key = _mix(key + (0 if copies is None else copies[:, None]))
    channel = torch.arange(embedding.shape[-1], device=embedding.device)
    number = _mix(key[..., None] + channel * -7046029254386353131)
    uniform = ((number >> 11) & (2**53 - 1)).double() / 2**53
    edge = math.erf(3 / math.sqrt(2))
    normal = torch.erfinv((2 * uniform - 1) * edge) * math.sqrt(2)
    return (normal * std).to(embedding.dtype)


def copies_of(
    embedding: Float[Tensor, "batch sequence width"] | Int[Tensor, "batch sequence"],
    positions: Int[Tensor, "batch sequence"],
    mask: Tensor | None,
) -> Int[Tensor, "batch"]:
    """For each row the number of earlier rows with the same content: 0 for a prompt of its own, 0 to 7 for eight copies."""
    content = _mix(token_hash(embedding) + positions.long())
    if mask is not None and mask.dim() == 2:
        content = content * mask.to(content)
    content = content.sum(-1)
    return (content[:, None] == content).tril(-1).sum(-1)


def token_hash(embedding: Float[Tensor, "batch sequence width"] | Int[Tensor, "batch sequence"]) -> Int[Tensor, "batch sequence"]:
    """A number for each token, from the bits of the first channels of its embedding; or from its own number."""
    if not embedding.is_floating_point():
        return _mix(embedding.long())
    bits = embedding[..., :8].float().contiguous().view(torch.int32).long()
    place = torch.arange(bits.shape[-1], device=embedding.device)
    return _mix(bits * (2 * place + 3)).sum(-1)


def _mix(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """SplitMix64's finaliser (Steele et al. 2014) in wrapping int64 arithmetic: every input bit moves every output bit."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * -4658895280553007687
    x = (x ^ ((x >> 27) & (2**37 - 1))) * -7723592293110705685
    return x ^ ((x >> 31) & (2**33 - 1))
