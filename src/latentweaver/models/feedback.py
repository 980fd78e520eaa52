"""What is fed back: from the last hidden state to the next input embedding.

    hidden      the state itself: COCONUT (arXiv 2412.06769)
    projected   a small MLP of it: CODI (arXiv 2502.21074), PCCoT (arXiv 2506.18582)
    pause       nothing of it: the latent token's own learned embedding. The control for every claim about thoughts
    soft        the expected embedding of the next token, from the head's probabilities: soft thinking (arXiv 2505.15778). Needs
                no training. Without noise the likeliest token dominates and it is close to greedy decoding; Gumbel noise on
                the logits mends that (arXiv 2508.03440)

Each takes the model, a Thought's state, the positions it will stand at, and the key of each row's noise (see `noise_keys`), and
returns an embedding of the state's shape.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from latentweaver.models.cores import noise_like


class HiddenFeedback(nn.Module):
    """The state as it is."""

    def __init__(self, config: Any) -> None:
        super().__init__()

    def forward(self, model: Any, state: Tensor, positions: Tensor, key: Tensor) -> Float[Tensor, "batch columns width"]:
        return state


class ProjectedFeedback(nn.Module):
    """LayerNorm(W2 gelu(W1 state)), as in CODI."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        inner = config.projection_size or width
        self.layers = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width), nn.LayerNorm(width))

    def forward(self, model: Any, state: Tensor, positions: Tensor, key: Tensor) -> Float[Tensor, "batch columns width"]:
        return self.layers(state)


class PauseFeedback(nn.Module):
    """The embedding of the latent token, whatever the state."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.token = config.latent_token_id

    def forward(self, model: Any, state: Tensor, positions: Tensor, key: Tensor) -> Float[Tensor, "batch columns width"]:
        return model.get_input_embeddings().weight[self.token].expand_as(state)


class SoftFeedback(nn.Module):
    """sum_v p(v) E(v) over the likeliest `top_k` tokens, p = softmax((logits + noise * Gumbel) / temperature)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.temperature, self.top_k, self.noise = config.soft_temperature, config.soft_top_k, config.soft_noise

    def forward(self, model: Any, state: Tensor, positions: Tensor, key: Tensor) -> Float[Tensor, "batch columns width"]:
        logits = model.head(state).float()
        if self.noise:
            logits = logits + self.noise * gumbel_like(logits, positions, key)
        best, tokens = (logits / self.temperature).topk(min(self.top_k, logits.shape[-1]), dim=-1)
        embeddings = model.get_input_embeddings()(tokens)
        return torch.einsum("bck,bckw->bcw", best.softmax(-1).to(embeddings), embeddings)


def gumbel_like(
    logits: Float[Tensor, "batch columns vocabulary"], positions: Int[Tensor, "batch columns"], key: Int[Tensor, "batch"]
) -> Float[Tensor, "batch columns vocabulary"]:
    """Gumbel noise -log(-log u) that is a function of a row's key and the position, not of its neighbours.

    So thinking twice about one Thought gives the same, and a row's noise depends neither on its batch nor on padding.
    """
    normal = noise_like(torch.zeros_like(logits, dtype=torch.float32), positions, 1.0, 0, key)  # cut at three deviations
    uniform = (torch.erf(normal / math.sqrt(2)) / math.erf(3 / math.sqrt(2)) + 1) / 2
    return -torch.log(-torch.log(uniform.clamp(1e-7, 1 - 1e-7)))


def noise_keys(input_ids: Int[Tensor, "batch sequence"], mask: Tensor, seed: int) -> Int[Tensor, "batch"]:
    """A number for each row, from its tokens, the seed, and how many earlier rows are equal to it."""
    place = mask.long().cumsum(-1)
    content = ((input_ids + 1) * (2 * place + 1) * 0x9E3779B97F4A7C1 * mask + place * 0x85EBCA6B).sum(-1)
    copies = (content[:, None] == content).tril(-1).sum(-1)
    salt = (0x27D4EB2F165667C5 * (seed + 1) + 2**63) % 2**64 - 2**63  # wrapped as int64 does: a drawn seed is large
    return content + (2**31 - 1) * copies + salt


FEEDBACKS: dict[str, type[nn.Module]] = {
    "hidden": HiddenFeedback,
    "projected": ProjectedFeedback,
    "pause": PauseFeedback,
    "soft": SoftFeedback,
}
