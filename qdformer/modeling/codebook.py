"""The shared codebook: product quantization of the N tokens (Eq. 2) and its loss (Eq. 9)."""

import dataclasses

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor, nn

from qdformer.layers.clamp_finite import clamp_finite
from qdformer.layers.clip_padding import repeat_for_frames

UPDATE_RULES = ("gradient", "ema")

# Of its fair share 1 / K of the global tokens; what is used less is no word of the vocabulary.
IN_USE = 0.1

# Between two steps; more than anybody accumulates gradients over.
MOST_FORWARDS = 1000


@dataclasses.dataclass(frozen=True)
class Quantized:
    """Tokens after the information bottleneck.

    Attributes:
        tokens: (..., N, C), with a gradient for the continuous tokens.
        continuous: (..., N, C) the tokens before, as they were compared with the codewords.
        codes: (..., N) int64 in [0, K), the codeword of each token; None without quantization.
        loss: (..., N) this call's terms of Eq. 9, of each token.
    """

    tokens: Tensor
    continuous: Tensor
    codes: Tensor | None
    loss: Tensor

    def for_frames(self, lengths: list[int]) -> "Quantized":
        """The tokens of clips (B, N, ...) for each of their frames (F, N, ...), at no loss."""
        return Quantized(
            tokens=repeat_for_frames(self.tokens, lengths),
            continuous=repeat_for_frames(self.continuous, lengths),
            codes=None if self.codes is None else repeat_for_frames(self.codes, lengths),
            loss=torch.zeros_like(repeat_for_frames(self.loss, lengths)),
        )


class ContinuousTokens(nn.Module):
    """No bottleneck (Tab. 2, row 3): tokens pass unchanged, with a codebook's signature."""

    def forward(self, tokens: Tensor, words: Tensor | None = None) -> Quantized:
        """See :meth:`Codebook.forward`."""
        return Quantized(tokens, tokens, codes=None, loss=tokens.new_zeros(tokens.shape[:-1]))

    def statistics(self, global_tokens: Quantized, local_tokens: Quantized) -> dict[str, Tensor]:
        """There is nothing to report."""
        return {}


class Codebook(nn.Module):
    """K codewords that the N tokens of a clip share; the clip's code is one word for each token.

    Global tokens make the vocabulary and local tokens speak it (Sec. 3.4): a local token moves no
    codeword and takes the nearest of those that its clip's global tokens hold. ``forward`` only
    reads the codebook; :meth:`step` moves it, once an optimizer step.

    Eq. 9 as it is written is ``update_rule="gradient"`` with all else at its default. What the
    other options add keeps a codebook that is trained from scratch in use.
    """

    codewords: Tensor
    usage: Tensor
    steps: Tensor

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
    ):
        """
        Args:
            num_codes: K.
            channels: C.
            commitment: lambda_com of Eq. 9, of which a tenth counts while the bottleneck is open.
            update_rule: "gradient", the first term of Eq. 9 moves the codewords; "ema", they follow
                the moving average of their tokens, which minimizes that term, and it is left out.
            decay: of the moving averages (codewords under "ema", and usage), per step.
            unit_norm: compare tokens and codewords on the unit sphere; the quantized tokens are
                scaled to the norm sqrt(C), and their gradient is rotated back to the continuous
                token (Fifty et al., 2024) instead of copied.
            fade_in: steps in which the training output moves from the continuous to the quantized
                token; 0 quantizes at once. At inference tokens are always quantized.
            revive_below: a codeword used less than this fraction of its fair share 1 / K returns at
                a global token that is far from its word, one codeword a step; 0 leaves it alone.
        """
        super().__init__()
        assert update_rule in UPDATE_RULES, f"{update_rule!r} is not one of {UPDATE_RULES}"
        self.num_codes, self.commitment = num_codes, commitment
        self.update_rule, self.decay = update_rule, decay
        self.unit_norm, self.fade_in, self.revive_below = unit_norm, fade_in, revive_below
        codewords = torch.randn(num_codes, channels) / channels**0.5
        if update_rule == "gradient":
            self.codewords = nn.Parameter(codewords)
        else:
            self.register_buffer("codewords", codewords)
        # Share of the global tokens; a codeword that returns starts with its fair share.
        self.register_buffer("usage", torch.full((num_codes,), 1 / num_codes))
        self.register_buffer("steps", torch.tensor(0))
        self._taught: list[tuple[Tensor, Tensor]] = []

    @property
    def closed(self) -> Tensor:
        """How far the bottleneck is closed in training, 0 (continuous) to 1 (quantized)."""
        if not self.fade_in:
            return torch.ones_like(self.usage[0])
        return self.steps.div(self.fade_in).clamp(max=1)

    @property
    def vocabulary(self) -> Tensor:
        """(K,) bool, the codewords that global tokens use."""
        return self.usage.ge(IN_USE / self.num_codes)

    def forward(self, tokens: Tensor, words: Tensor | None = None) -> Quantized:
        """
        Args:
            tokens: (..., N, C) continuous tokens.
            words: (..., W) int64, the codewords that local tokens choose among; they never move
                them. None for global tokens, which choose among all and learn the codebook.

        Returns:
            The quantized tokens.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            continuous = clamp_finite(tokens)
            codewords = self.codewords
            if self.unit_norm:
                continuous, codewords = _unit(continuous), _unit(codewords)
            # Squared distances but for the token's own square, the same for all codewords.
            distances = codewords.square().sum(-1) - 2 * continuous @ codewords.t()
            if words is None:
                codes = distances.argmin(-1)
            else:
                choice = words[..., None, :].expand(*tokens.shape[:-1], -1)
                codes = choice.gather(-1, distances.gather(-1, choice).argmin(-1, keepdim=True))
                codes = codes[..., 0]
            nearest = F.embedding(codes, codewords)
            # Tokens that are not quantized yet may leave words that do not serve them.
            commitment = self.commitment * (0.1 + 0.9 * self.closed)
            loss = commitment * (nearest.detach() - continuous).square().sum(-1)
            if words is None and self.update_rule == "gradient":
                loss = loss + (nearest - continuous.detach()).square().sum(-1)
            quantized = self._pass(continuous, nearest.detach())
            # Not where gradients are off: passes that only measure batch statistics are no steps.
            if words is None and self.training and torch.is_grad_enabled():
                self._teach(continuous.detach().flatten(0, -2), codes.flatten())
        return Quantized(quantized.to(tokens.dtype), continuous, codes, loss)

    def _teach(self, tokens: Tensor, codes: Tensor) -> None:
        if len(self._taught) == MOST_FORWARDS:
            raise RuntimeError(
                f"{MOST_FORWARDS} training forwards without a step of the codebook, which would "
                "never learn; call its step() after each step of your optimizer, or make that by "
                "qdformer.solver.optimizer.build_optimizer"
            )
        self._taught.append((tokens, codes))

    def _pass(self, continuous: Tensor, words: Tensor) -> Tensor:
        """The value of the words, so far as the bottleneck is closed, and a gradient through it."""
        if self.training:
            words = continuous.detach().lerp(words, self.closed)
        if not self.unit_norm:
            return words + (continuous - continuous.detach())
        return rotate(continuous, _unit(words)) * continuous.shape[-1] ** 0.5

    def statistics(self, global_tokens: Quantized, local_tokens: Quantized) -> dict[str, Tensor]:
        """What a training step shows of the codebook.

        Args:
            global_tokens: of the batch.
            local_tokens: of the batch.

        Returns:
            ``perplexity`` in [1, K] of the use by global tokens over the last ``1 / (1 - decay)``
            steps, the number of codewords if all were used alike; ``usage`` in [0, 1], the share of
            codewords in the vocabulary; ``closed`` in [0, 1]; ``global_distance`` and
            ``local_distance``, the mean squared distance between a token and its codeword.
        """
        share = self.usage / self.usage.sum()
        codewords = _unit(self.codewords) if self.unit_norm else self.codewords
        gaps = [
            (tokens.continuous - codewords[tokens.codes]).square().sum(-1).mean()
            for tokens in (global_tokens, local_tokens)
        ]
        return {
            "global_distance": gaps[0],
            "local_distance": gaps[1],
            "perplexity": torch.special.entr(share).sum().exp(),
            "usage": self.vocabulary.float().mean(),
            "closed": self.closed,
        }

    def restart(self) -> None:
        """Keep the words and begin a new schedule, to train on from them."""
        self.usage.fill_(1 / self.num_codes)
        self.steps.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """Learn from the global tokens that were quantized since the last step, of all processes.

        To be called after each step of the optimizer; see :func:`qdformer.solver.optimizer
        .build_optimizer`.
        """
        if not self._taught:
            return
        tokens, codes = (torch.cat(parts) for parts in zip(*self._taught))
        self._taught.clear()
        chosen = F.one_hot(codes, self.num_codes).type_as(tokens)
        statistics = torch.cat((chosen.sum(0)[:, None], chosen.t() @ tokens), dim=1)
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(statistics)
        counts, sums = statistics[:, 0], statistics[:, 1:]
        share = counts / counts.sum()
        if self.update_rule == "ema":
            # A codeword is the mean of its tokens, the old ones weighted down by their age.
            weight = self.decay * self.usage + (1 - self.decay) * share
            old = self.decay * self.usage[:, None] * self.codewords
            new = (1 - self.decay) * sums / counts.sum()
            mean = (old + new) / weight.clamp(min=1e-12)[:, None]
            # What nobody used for so long that its weight fades stays where it is. All do where a
            # token is not a number, from which no codeword would come back.
            moved = (weight[:, None] > 1e-8) & mean.isfinite().all()
            self.codewords.copy_(torch.where(moved, mean, self.codewords))
        self.usage.mul_(self.decay).add_(share, alpha=1 - self.decay)
        self.steps.add_(1)
        if self.revive_below:
            self._revive(tokens, codes)

    def _revive(self, tokens: Tensor, codes: Tensor) -> None:
        """Move the least used codeword, if it is dead, to one of the tokens (tokens, C).

        A token is drawn with a probability in proportion to its squared distance from its word, as
        k-means++ seeds its centers (Arthur & Vassilvitskii, 2007).
        """
        codewords = _unit(self.codewords) if self.unit_norm else self.codewords
        gap = (tokens - codewords[codes]).square().sum(-1)
        # The largest of exponential races won: a draw that takes no more than a maximum over all.
        race = gap.div(torch.empty_like(gap).exponential_().clamp_(min=1e-12))
        race = race.where(race.isfinite(), 0)
        best = race.argmax()
        candidate = torch.cat((race[best][None], tokens[best]))
        if comm.get_world_size() > 1:
            candidates = [torch.empty_like(candidate) for _ in range(comm.get_world_size())]
            torch.distributed.all_gather(candidates, candidate)
            offered = torch.stack(candidates)
            candidate = offered[offered[:, 0].argmax()]
        least = self.usage.argmin()
        dead = (self.usage[least] < self.revive_below / self.num_codes) & (candidate[0] > 1e-6)
        word = torch.where(dead, candidate[1:], self.codewords[least])
        self.codewords[least] = word
        self.usage[least] = torch.where(dead, 1 / self.num_codes, self.usage[least])


def rotate(tokens: Tensor, words: Tensor) -> Tensor:
    """Turn unit vectors into others by a rotation that gradients take back (Fifty et al., 2024).

    Args:
        tokens: (..., C) of norm 1.
        words: (..., C) of norm 1, constants.

    Returns:
        (..., C), the values of ``words``.
    """
    fixed = tokens.detach()
    middle = _unit(fixed + words)
    along = (tokens * middle).sum(-1, keepdim=True)
    turned = tokens - 2 * along * middle + 2 * (tokens * fixed).sum(-1, keepdim=True) * words
    # What rounding leaves of the tokens must not pass.
    return words + (turned - turned.detach())


def _unit(vectors: Tensor) -> Tensor:
    """Vectors scaled to the norm 1; shorter than 1e-3, where gradients would explode, by 1e3."""
    return F.normalize(vectors, dim=-1, eps=1e-3)
