"""The baseline on sounds that were separated beforehand (Tab. 2, row 2)."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY

from qdformer.errors import InputError
from qdformer.modeling.clip_batch import ClipBatch
from qdformer.modeling.mask_decoder import Predictions
from qdformer.modeling.meta_arch.baseline import QDFormerBaseline
from qdformer.modeling.meta_arch.segmenter import Segmentation


@META_ARCH_REGISTRY.register()
class TimeDomainBaseline(QDFormerBaseline):
    """Row 2 of Tab. 2: the baseline segments for each separated sound, and the masks are combined.

    It has the baseline's parameters under the same names, and is trained as the baseline is, on
    mixed sound. At inference the N queries of all S sounds take part in Eq. 1 together.
    """

    @configurable
    def __init__(self, **segmenter: Any):
        """
        Args:
            segmenter: see :class:`qdformer.modeling.meta_arch.segmenter.AudioVisualSegmenter`.
        """
        super().__init__(**segmenter)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Translate a config to the arguments of the constructor."""
        if not cfg.INPUT.SEPARATION.METHOD:
            raise InputError(
                "INPUT.SEPARATION.METHOD is empty, but TimeDomainBaseline needs separated sounds; "
                "name a separator, e.g. nmf"
            )
        return super().from_config(cfg)

    def segment(self, batch: ClipBatch) -> Segmentation:
        """See :meth:`QDFormerBaseline.segment`; at inference, of the batch's separated sounds."""
        if self.training:
            return super().segment(batch)
        assert batch.separated is not None, "the mapper gave no separated sounds"
        seen = self.look(batch)
        heard = [self.listen(sound, *seen, batch.lengths) for sound in batch.separated]
        return Segmentation(
            Predictions(
                logits=torch.cat([each.logits for each in heard], dim=2),
                masks=torch.cat([each.masks for each in heard], dim=2),
                boxes=torch.cat([each.boxes for each in heard], dim=2),
            )
        )
