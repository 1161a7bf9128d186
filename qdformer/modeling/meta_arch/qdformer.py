"""QDFormer (Li et al., arXiv 2310.00132): the meta-architecture. ``segment`` is Fig. 3."""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from qdformer.modeling.audio_semantic_decoder import AudioSemanticDecoder
from qdformer.modeling.clip_batch import ClipBatch
from qdformer.modeling.codebook import Codebook, ContinuousTokens, Quantized
from qdformer.modeling.global_decomposition import GlobalDecomposition
from qdformer.modeling.local_calibration import LocalCalibration, NoLocalCalibration
from qdformer.modeling.meta_arch.segmenter import (
    AudioVisualSegmenter,
    Segmentation,
    transformer_size,
)
from qdformer.modeling.recombination import NoRecombination, Recombination


@META_ARCH_REGISTRY.register()
class QDFormer(AudioVisualSegmenter):
    """Segments, in every frame of a video with sound, the objects that sound at that moment."""

    @configurable
    def __init__(
        self,
        *,
        global_decomposition: GlobalDecomposition,
        codebook: Codebook | ContinuousTokens,
        recombination: nn.Module,
        local_calibration: nn.Module,
        quantization_weight: float,
        quantization_mean: bool,
        global_supervision: bool,
        **segmenter: Any,
    ):
        """
        Args:
            global_decomposition: Eq. 4.
            codebook: Eq. 2, a :class:`Codebook` or :class:`ContinuousTokens`.
            recombination: Eq. 5, a :class:`Recombination` or :class:`NoRecombination`.
            local_calibration: Eq. 6, a :class:`LocalCalibration` or :class:`NoLocalCalibration`.
            quantization_weight: lambda_quant of Eq. 8.
            quantization_mean: average the terms of Eq. 9 over tokens and frames instead of adding
                them up.
            global_supervision: in training, let the clip's tokens query masks, too.
            segmenter: see :class:`AudioVisualSegmenter`.
        """
        super().__init__(**segmenter)
        self.global_decomposition = global_decomposition
        self.codebook = codebook
        self.recombination = recombination
        self.local_calibration = local_calibration
        self.quantization_weight, self.quantization_mean = quantization_weight, quantization_mean
        self.global_supervision = global_supervision

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Translate a config to the arguments of the constructor."""
        qdformer = cfg.MODEL.QDFORMER
        decoder = {"layers": qdformer.DECODER_LAYERS, **transformer_size(cfg)}
        return super().from_config(cfg) | {
            "global_decomposition": GlobalDecomposition(AudioSemanticDecoder(**decoder)),
            "codebook": _build_codebook(cfg) if qdformer.QUANTIZATION else ContinuousTokens(),
            "recombination": Recombination(
                channels=qdformer.HIDDEN_DIM, num_tokens=qdformer.NUM_TOKENS
            )
            if qdformer.RECOMBINATION
            else NoRecombination(),
            "local_calibration": LocalCalibration(AudioSemanticDecoder(**decoder))
            if qdformer.LOCAL_CALIBRATION
            else NoLocalCalibration(),
            "quantization_weight": qdformer.LOSS.QUANT,
            "quantization_mean": qdformer.LOSS.QUANT_MEAN,
            # For the codebook's sake; without calibration the clip's tokens query the masks anyway.
            "global_supervision": bool(
                qdformer.LOSS.GLOBAL and qdformer.QUANTIZATION and qdformer.LOCAL_CALIBRATION
            ),
        }

    def segment(self, batch: ClipBatch) -> Segmentation:
        """Fig. 3, one line a box."""
        lengths = batch.lengths
        features = self.backbone(batch.images)
        visual = self.encoder(features, batch.valid, lengths)  # F_v
        audio = self.audio_encoder(batch.log_mel)  # F_a
        fused_audio = self.fusion(audio, visual, lengths)  # F'_a, Eq. 3
        tokens = self.global_decomposition(self.prototypes, fused_audio, lengths)  # g_i, Eq. 4
        global_tokens = self.codebook(tokens)  # e_i, Eq. 2
        visual = self.recombination(global_tokens.tokens, visual, lengths)  # F'_v, Eq. 5
        pixels = self.fpn(features, visual)  # F_v^out
        local_tokens = self.local_calibration(  # VQ(l_{i,t}), Eq. 6
            self.prototypes, audio, global_tokens, self.codebook, lengths
        )
        queries = self.prototypes + local_tokens.tokens
        predictions = self.mask_decoder(queries, visual, pixels)  # Eq. 7
        clip_predictions = None
        if self.training and self.global_supervision:
            queries = self.prototypes + global_tokens.for_frames(lengths).tokens
            clip_predictions = self.mask_decoder(queries, visual, pixels)
        return Segmentation(predictions, clip_predictions, global_tokens, local_tokens)

    def losses(
        self, segmentation: Segmentation, clips: list[dict], batch: ClipBatch
    ) -> dict[str, Tensor]:
        """L_segm, and lambda_quant L_quant as ``loss_quant``."""
        global_tokens, local_tokens = segmentation.global_tokens, segmentation.local_tokens
        assert global_tokens is not None and local_tokens is not None
        self._log_codebook(global_tokens, local_tokens)
        return super().losses(segmentation, clips, batch) | {
            "loss_quant": self._quantization_loss(global_tokens, local_tokens, len(clips))
        }

    def _quantization_loss(
        self, global_tokens: Quantized, local_tokens: Quantized, clips: int
    ) -> Tensor:
        """lambda_quant L_quant (Eq. 9), the mean over clips."""
        if self.quantization_mean:
            loss = global_tokens.loss.mean() + local_tokens.loss.mean()
        else:
            loss = (global_tokens.loss.sum() + local_tokens.loss.sum()) / clips
        return self.quantization_weight * loss

    def _log_codebook(self, global_tokens: Quantized, local_tokens: Quantized) -> None:
        storage = get_event_storage()
        # As often as Detectron2 writes scalars: to read one, the host waits for the device.
        if storage.iter % 20 == 0:
            for name, value in self.codebook.statistics(global_tokens, local_tokens).items():
                storage.put_scalar(f"codebook/{name}", value, smoothing_hint=False)


def _build_codebook(cfg: CfgNode) -> Codebook:
    codebook = cfg.MODEL.QDFORMER.CODEBOOK
    return Codebook(
        num_codes=codebook.NUM_CODES,
        channels=cfg.MODEL.QDFORMER.HIDDEN_DIM,
        commitment=codebook.COMMITMENT,
        update_rule=codebook.UPDATE,
        decay=codebook.DECAY,
        unit_norm=codebook.UNIT_NORM,
        fade_in=round(codebook.FADE_IN * cfg.SOLVER.MAX_ITER),
        revive_below=codebook.REVIVE_BELOW,
    )
