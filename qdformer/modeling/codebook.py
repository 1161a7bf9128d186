"""The shared codebook: product quantisation of the N tokens (Eq. 2) and its loss (Eq. 9)."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor, nn

from qdformer.layers.bounded import bounded

UPDATE_RULES = ("gradient", "ema")


@dataclasses.dataclass(frozen=True)
class Quantized:
    """Tokens after the information bottleneck.

    Attributes:
        tokens: (..., N, C), with the gradient of the continuous tokens (straight-through).
        codes: (..., N) int64 in [0, K), the codeword of each token; None without quantisation.
        loss: (..., N) this call's terms of Eq. 9, of each token.
    """

    tokens: Tensor
    codes: Tensor | None
    loss: Tensor


class ContinuousTokens(nn.Module):
    """No bottleneck (Tab. 2, row 3): tokens pass unchanged, with a codebook's signature."""

    def forward(self, tokens: Tensor, update: bool = True) -> Quantized:
        """See :meth:`Codebook.forward`."""
        return Quantized(tokens=tokens, codes=None, loss=tokens.new_zeros(tokens.shape[:-1]))

    def statistics(self) -> dict[str, Tensor]:
        """There is nothing to report."""
        return {}


class Codebook(nn.Module):
    """K codewords that the N tokens of a clip share; the clip's code is one word for each token.

    Eq. 9 as it is written is ``update_rule="gradient"`` with the three extras off. The extras keep
    a codebook that is trained from scratch in use: tokens on the unit sphere, a bottleneck that
    closes gradually, and dead codewords that return at a token of the current batch.
    """

    def __init__(
        self,
        *,
        num_codes: int,
        channels: int,
        commitment: float,
        update_rule: str = "gradient",
        decay: float = 0.99,
        unit_norm: bool = False,
        fade_in: int = 0,
        revive_below: float = 0.0,
        revive_for: float = math.inf,
    ):
        """
        Args:
            num_codes: K.
            channels: C.
            commitment: lambda_com of Eq. 9.
            update_rule: "gradient", the first term of Eq. 9 moves the codewords; "ema", they follow
                the moving average of their tokens and that term is left out.
            decay: of the moving averages (codewords under "ema", and usage), per training step.
            unit_norm: compare tokens and codewords on the unit sphere; the quantised tokens are
                scaled to the norm sqrt(C).
            fade_in: training steps in which the output moves linearly from the continuous to the
                quantised token; 0 quantises at once.
            revive_below: a codeword used less than this fraction of its fair share 1 / K returns at
                a random token of the batch; 0 leaves it alone.
            revive_for: training steps in which codewords return. Many die together and would return
                together; what comes after small learning rates have settled on the others harms.
        """
        super().__init__()
        assert update_rule in UPDATE_RULES, f"{update_rule!r} is not one of {UPDATE_RULES}"
        self.num_codes, self.commitment = num_codes, commitment
        self.update_rule, self.decay = update_rule, decay
        self.unit_norm, self.fade_in = unit_norm, fade_in
        self.revive_below, self.revive_for = revive_below, revive_for
        codewords = torch.randn(num_codes, channels) / channels**0.5
        if update_rule == "gradient":
            self.codewords = nn.Parameter(codewords)
        else:
            self.register_buffer("codewords", codewords)
        self.register_buffer("usage", torch.full((num_codes,), 1 / num_codes))
        # What usage would be if a codeword that returned had been used fairly ever since.
        self.register_buffer("credit", torch.full((num_codes,), 1 / num_codes))
        self.register_buffer("steps", torch.tensor(0))
        # How far the bottleneck is closed, 0 (continuous) to 1 (quantised); it stays closed.
        self.register_buffer("closed", torch.tensor(0.0 if fade_in else 1.0))

    def forward(self, tokens: Tensor, update: bool = True) -> Quantized:
        """
        Args:
            tokens: (..., N, C) continuous tokens.
            update: False for local tokens: they are committed to the codewords and never move them.

        Returns:
            The quantised tokens.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            continuous = bounded(tokens)
            if self.unit_norm:
                continuous = _unit(continuous)
            learning = update and self.training
            if learning and self.revive_below:
                self._revive(continuous.flatten(0, -2))
            codewords = self.codewords
            if self.unit_norm:
                codewords = _unit(codewords)
            # Squared distances but for the token's own square, the same for all codewords.
            distances = codewords.square().sum(-1) - 2 * continuous.flatten(0, -2) @ codewords.t()
            codes = distances.argmin(-1)
            words = F.embedding(codes, codewords).view_as(continuous)
            loss = self.commitment * (words.detach() - continuous).square().sum(-1)
            if update and self.update_rule == "gradient":
                loss = loss + (words - continuous.detach()).square().sum(-1)
            straight_through = continuous - continuous.detach()
            quantized = continuous.lerp(words, self.closed).detach() + straight_through
            if self.unit_norm:
                quantized = quantized * tokens.shape[-1] ** 0.5
            if learning:
                self._learn(continuous.detach().flatten(0, -2), codes)
        return Quantized(quantized.to(tokens.dtype), codes.view(tokens.shape[:-1]), loss)

    def statistics(self) -> dict[str, Tensor]:
        """Use of the codewords over the last ``1 / (1 - decay)`` training steps.

        Returns:
            ``perplexity`` in [1, K], the number of codewords if all were used alike, and ``usage``
            in [0, 1], the share of codewords with at least a tenth of their fair share of tokens.
        """
        share = self.usage / self.usage.sum()
        return {
            "perplexity": torch.special.entr(share).sum().exp(),
            "usage": (share > 0.1 / self.num_codes).float().mean(),
        }

    @torch.no_grad()
    def _learn(self, tokens: Tensor, codes: Tensor) -> None:
        """Update usage, and the codewords where no gradient does; (tokens, C) and (tokens,)."""
        chosen = F.one_hot(codes, self.num_codes).type_as(tokens)
        statistics = torch.cat((chosen.sum(0)[:, None], chosen.t() @ tokens), dim=1)
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(statistics)
        counts, sums = statistics[:, 0], statistics[:, 1:]
        share = counts / counts.sum()
        if self.update_rule == "ema":
            # A codeword is the mean of its tokens, the old ones weighted down by their age.
            weight = self.decay * self.credit + (1 - self.decay) * share
            old = self.decay * self.credit[:, None] * self.codewords
            new = (1 - self.decay) * sums / counts.sum()
            mean = (old + new) / weight.clamp(min=1e-12)[:, None]
            # What nobody used for so long that its weight fades stays where it is. All do where a
            # token is not a number, from which no codeword would come back.
            moved = (weight[:, None] > 1e-8) & mean.isfinite().all()
            self.codewords.copy_(torch.where(moved, mean, self.codewords))
        for average in (self.usage, self.credit):
            average.mul_(self.decay).add_(share, alpha=1 - self.decay)
        self.steps.add_(1)
        if self.fade_in:
            self.closed.add_(1 / self.fade_in).clamp_(max=1)

    @torch.no_grad()
    def _revive(self, tokens: Tensor) -> None:
        """Move dead codewords to tokens (tokens, C) of the batch that is about to be quantised."""
        replacement = tokens[torch.randint(len(tokens), (self.num_codes,), device=tokens.device)]
        if comm.get_world_size() > 1:
            torch.distributed.broadcast(replacement, src=0)
        dead = self.credit < self.revive_below / self.num_codes
        dead &= replacement.isfinite().all(-1) & (self.steps < self.revive_for)
        self.codewords.copy_(torch.where(dead[:, None], replacement, self.codewords))
        self.credit.copy_(torch.where(dead, 1 / self.num_codes, self.credit))


def _unit(vectors: Tensor) -> Tensor:
    """Vectors scaled to the norm 1; shorter than 1e-3, where gradients would explode, by 1e3."""
    return F.normalize(vectors, dim=-1, eps=1e-3)
