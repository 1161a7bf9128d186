"""Audio semantic decoder (Fig. 4 a): prototypes that read single-source tokens out of a sound."""

import torch
from torch import Tensor, nn

from qdformer.layers.position_encoding import sine_position
from qdformer.layers.transformer import TransformerDecoder


class AudioSemanticDecoder(nn.Module):
    """TrD_global of Eq. 4 and TrD_local of Eq. 6: one network, over a clip or over one frame."""

    def __init__(self, *, layers: int, channels: int, heads: int, feedforward: int):
        super().__init__()
        self.decoder = TransformerDecoder(
            layers=layers, channels=channels, heads=heads, feedforward=feedforward
        )

    def forward(self, prototypes: Tensor, audio: Tensor, padding: Tensor | None = None) -> Tensor:
        """
        Args:
            prototypes: (N, C) learnable queries p_i.
            audio: (B, T, C) audio features in order of time; T = 1 for a single frame.
            padding: (B, T) bool, True behind the end of a shorter clip.

        Returns:
            (B, N, C) tokens.
        """
        queries = prototypes.expand(audio.shape[0], -1, -1)
        steps = torch.arange(audio.shape[1], device=audio.device)
        position = sine_position(steps, audio.shape[2])[None]
        return self.decoder(queries, audio, memory_position=position, memory_padding=padding)[-1]
