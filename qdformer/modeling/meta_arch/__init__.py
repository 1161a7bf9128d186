"""The meta-architectures; importing them registers them in Detectron2's ``META_ARCH_REGISTRY``."""

from qdformer.modeling.meta_arch.baseline import QDFormerBaseline
from qdformer.modeling.meta_arch.qdformer import QDFormer
from qdformer.modeling.meta_arch.segmenter import AudioVisualSegmenter
from qdformer.modeling.meta_arch.time_domain import TimeDomainBaseline

__all__ = ["AudioVisualSegmenter", "QDFormer", "QDFormerBaseline", "TimeDomainBaseline"]
