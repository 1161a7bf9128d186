"""The baseline on sounds that were separated beforehand (Tab. 2, row 2)."""

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor

from qdformer.errors import InputError
from qdformer.modeling.mask_decoder import Predictions
from qdformer.modeling.visual_tokens import VisualTokens
from qdformer.qdformer import QDFormerBaseline
from qdformer.segmenter import in_windows


@META_ARCH_REGISTRY.register()
class TimeDomainBaseline(QDFormerBaseline):
    """Row 2 of Tab. 2: the baseline segments for each separated sound, and the masks are combined.

    It has the baseline's parameters under the same names, and is trained as the baseline is, on
    mixed sound. At inference the N queries of all S sounds take part in Eq. 1 together.
    """

    @configurable
    def __init__(self, **segmenter):
        """
        Args:
            segmenter: see :class:`qdformer.segmenter.AudioVisualSegmenter`.
        """
        super().__init__(**segmenter)

    @classmethod
    def from_config(cls, cfg) -> dict:
        """Translate a config to the arguments of the constructor."""
        if not cfg.INPUT.SEPARATION.METHOD:
            raise InputError(
                "INPUT.SEPARATION.METHOD is empty, but TimeDomainBaseline needs separated sounds; "
                "name a separator, e.g. nmf"
            )
        return super().from_config(cfg)

    @in_windows
    def forward(self, clips: list[dict]):
        """See :meth:`QDFormer.forward`; at inference clips have ``separated_audio``, too.

        Args:
            clips: mapper outputs, see :class:`qdformer.data.dataset_mapper.AVSDatasetMapper`.
        """
        if self.training:
            return super().forward(clips)
        batch = self.collate(clips)
        features = self.backbone(batch.images)
        visual = self.encoder(features, batch.valid, batch.lengths)  # F_v
        pixels = self.fpn(features, visual)  # F_v^out
        sounds = torch.cat([clip["separated_audio"] for clip in clips], dim=1)  # (S, F, 1, 96, 64)
        heard = [
            self._predict(sound.to(pixels.device), visual, pixels, batch.lengths)
            for sound in sounds
        ]
        predictions = Predictions(
            logits=torch.cat([each.logits for each in heard], dim=2),
            masks=torch.cat([each.masks for each in heard], dim=2),
            boxes=torch.cat([each.boxes for each in heard], dim=2),
        )
        return self.inference(predictions, clips, batch)

    def _predict(
        self, log_mel: Tensor, visual: VisualTokens, pixels: Tensor, lengths: list[int]
    ) -> Predictions:
        """The baseline's predictions for one of the sounds, (F, 1, 96, 64)."""
        audio = self.audio_encoder(log_mel)  # F_a
        fused_audio = self.fusion(audio, visual, lengths)  # F'_a, Eq. 3
        queries = self.prototypes + fused_audio[:, None]  # (F, N, C)
        return self.mask_decoder(queries, visual, pixels)  # Eq. 7
