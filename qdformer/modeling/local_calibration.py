"""Local calibration (Sec. 3.4): tokens for every frame, in the words of its clip's tokens."""

from torch import Tensor, nn

from qdformer.modeling.audio_semantic_decoder import AudioSemanticDecoder
from qdformer.modeling.audio_tokens import AudioTokens
from qdformer.modeling.codebook import Codebook, Quantized


class LocalCalibration(nn.Module):
    """Eq. 6: l_{i,t} from the sound of frame t alone, in words of the clip that it belongs to.

    What a second sounds like is ambiguous, the whole clip with its frames much less so: the clip's
    tokens say what may sound in it, and those of a frame which of it does now.
    """

    def __init__(self, decoder: AudioSemanticDecoder):
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        prototypes: Tensor,
        audio: AudioTokens,
        global_tokens: Quantized,
        codebook: Codebook,
        lengths: list[int],
    ) -> Quantized:
        """
        Args:
            prototypes: (N, C).
            audio: F_a.
            global_tokens: e_i of each clip, whose words its frames' tokens choose among.
            codebook: the shared codebook.
            lengths: frames of each clip.

        Returns:
            VQ(l_{i,t}), tokens (F, N, C).
        """
        tokens = self.decoder(prototypes, audio.tokens, audio.position)
        return codebook(tokens, global_tokens.for_frames(lengths).codes)


class NoLocalCalibration(nn.Module):
    """Without local calibration (Tab. 2, rows 3 to 5) the clip's tokens serve all of its frames."""

    def forward(
        self,
        prototypes: Tensor,
        audio: AudioTokens,
        global_tokens: Quantized,
        codebook: Codebook,
        lengths: list[int],
    ) -> Quantized:
        """See :meth:`LocalCalibration.forward`."""
        return global_tokens.for_frames(lengths)
