"""The baseline of Tab. 2: cross-attention, and no decomposition of the sound."""

from typing import Any

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor

from qdformer.modeling.clip_batch import ClipBatch
from qdformer.modeling.mask_decoder import Predictions
from qdformer.modeling.meta_arch.segmenter import AudioVisualSegmenter, Segmentation
from qdformer.modeling.visual_tokens import VisualTokens


@META_ARCH_REGISTRY.register()
class QDFormerBaseline(AudioVisualSegmenter):
    """Row 1 of Tab. 2: two encoders, cross-attention and the mask decoder, without decomposition.

    Every one of the N queries of a frame holds the same mixed sound.
    """

    @configurable
    def __init__(self, **segmenter: Any):
        """
        Args:
            segmenter: see :class:`AudioVisualSegmenter`.
        """
        super().__init__(**segmenter)

    def segment(self, batch: ClipBatch) -> Segmentation:
        """The network, from the frames and sounds of a batch to masks."""
        return Segmentation(self.listen(batch.log_mel, *self.look(batch), batch.lengths))

    def look(self, batch: ClipBatch) -> tuple[VisualTokens, Tensor]:
        """F_v and F_v^out of the frames, whatever is heard."""
        features = self.backbone(batch.images)
        visual = self.encoder(features, batch.valid, batch.lengths)  # F_v
        return visual, self.fpn(features, visual)  # F_v^out

    def listen(
        self, log_mel: Tensor, visual: VisualTokens, pixels: Tensor, lengths: list[int]
    ) -> Predictions:
        """What one sound says of frames whose visual features are known.

        Args:
            log_mel: (F, 1, 96, 64).
            visual: F_v.
            pixels: F_v^out.
            lengths: frames of each clip.
        """
        audio = self.audio_encoder(log_mel)  # F_a
        fused_audio = self.fusion(audio, visual, lengths)  # F'_a, Eq. 3
        queries = self.prototypes + fused_audio.tokens.mean(1, keepdim=True)  # (F, N, C)
        return self.mask_decoder(queries, visual, pixels)  # Eq. 7
