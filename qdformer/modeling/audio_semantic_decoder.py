"""Audio semantic decoder (Fig. 4 a): prototypes that read single-source tokens out of a sound."""

from torch import Tensor, nn

from qdformer.layers.transformer import TransformerDecoder


class AudioSemanticDecoder(nn.Module):
    """TrD_global of Eq. 4 and TrD_local of Eq. 6: one network, over a clip or over one frame."""

    def __init__(self, *, layers: int, channels: int, heads: int, feedforward: int):
        super().__init__()
        self.decoder = TransformerDecoder(
            layers=layers, channels=channels, heads=heads, feedforward=feedforward
        )

    def forward(
        self,
        prototypes: Tensor,
        audio: Tensor,
        position: Tensor,
        padding: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            prototypes: (N, C) learnable queries p_i.
            audio: (B, S, C) audio features of clips or of single frames.
            position: (S, C) their positional embedding.
            padding: (B, S) bool, True behind the end of a shorter clip.

        Returns:
            (B, N, C) tokens.
        """
        queries = prototypes.expand(audio.shape[0], -1, -1)
        outputs = self.decoder(
            queries, audio, memory_position=position[None], memory_padding=padding
        )
        return outputs[-1]
