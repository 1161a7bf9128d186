"""Audio-visual semantic recombination, AVSR (Eq. 5)."""

import dataclasses

import torch
from torch import Tensor, nn

from qdformer.layers.clip_padding import repeat_for_frames
from qdformer.layers.padded_norm import normalize_cells
from qdformer.layers.transformer import MLP
from qdformer.modeling.visual_tokens import VisualTokens


class Recombination(nn.Module):
    """F'_v = BN(phi(w_1 F_v + ... + w_N F_v side by side) + F_v).

    Weighting the channels by w_i and convolving with the i-th slice of the 1 x 1 convolution phi
    are both linear, so the N products fold into one C x C matrix a clip, and the N copies of the
    visual features are never made.
    """

    def __init__(self, *, channels: int, num_tokens: int):
        super().__init__()
        self.filters = MLP(channels, channels, channels)
        self.phi = nn.Linear(num_tokens * channels, channels)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, tokens: Tensor, visual: VisualTokens, lengths: list[int]) -> VisualTokens:
        """
        Args:
            tokens: (B, N, C) the quantized global tokens e_i.
            visual: F_v.
            lengths: frames of each clip.

        Returns:
            F'_v.
        """
        filters = self.filters(tokens)  # w (B, N, C)
        phi = self.phi.weight.unflatten(1, filters.shape[1:])  # (C, N * C) -> (C, N, C)
        folded = torch.einsum("bnc,onc->bco", filters, phi)
        modulated = visual.tokens @ repeat_for_frames(folded, lengths) + self.phi.bias
        recombined = normalize_cells(self.norm, modulated + visual.tokens, visual.padding)
        return dataclasses.replace(visual, tokens=recombined)


class NoRecombination(nn.Module):
    """Without AVSR (Tab. 2, rows 3 and 4) the visual features stay as they are."""

    def forward(self, tokens: Tensor, visual: VisualTokens, lengths: list[int]) -> VisualTokens:
        """See :meth:`Recombination.forward`."""
        return visual
