"""What every audio-visual segmenter of this package shares: encoders, masks, losses, label maps."""

import logging

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from torch import Tensor, nn

from qdformer.errors import InputError
from qdformer.modeling.clip_batch import MASK_STRIDE, ClipBatch, Targets
from qdformer.modeling.codebook import Quantized
from qdformer.modeling.criterion import PIXEL_LOSSES, SegmentationCriterion
from qdformer.modeling.deformable_encoder import DeformableEncoder
from qdformer.modeling.fpn import PixelFPN
from qdformer.modeling.global_decomposition import AudioVisualFusion
from qdformer.modeling.inference import Thresholds, segment_clip
from qdformer.modeling.mask_decoder import MaskDecoder, Predictions
from qdformer.modeling.matcher import LossWeights
from qdformer.modeling.vggish import AudioEncoder, VGGish

logger = logging.getLogger(__name__)


class AudioVisualSegmenter(nn.Module):
    """Encoders, fusion, mask decoding and losses around whatever makes tokens of the sound."""

    def __init__(
        self,
        *,
        backbone: nn.Module,
        encoder: DeformableEncoder,
        audio_encoder: AudioEncoder,
        fusion: AudioVisualFusion,
        num_tokens: int,
        channels: int,
        fpn: PixelFPN,
        mask_decoder: MaskDecoder,
        criterion: SegmentationCriterion,
        thresholds: Thresholds,
        background_class: int | None,
        pixel_mean: list[float],
        pixel_std: list[float],
    ):
        """
        Args:
            backbone: a Detectron2 backbone.
            encoder: its maps to F_v.
            audio_encoder: log-mel examples to F_a.
            fusion: Eq. 3.
            num_tokens: N.
            channels: C.
            fpn: the pixel features.
            mask_decoder: Eq. 7.
            criterion: L_segm.
            thresholds: what counts as confident at inference.
            background_class: index of the class that stands for background, if there is one.
            pixel_mean: of the three channels, in the frames' order and range.
            pixel_std: likewise.
        """
        super().__init__()
        self.backbone, self.encoder, self.fpn = backbone, encoder, fpn
        self.audio_encoder, self.fusion = audio_encoder, fusion
        self.prototypes = nn.Parameter(torch.randn(num_tokens, channels))
        self.mask_decoder, self.criterion = mask_decoder, criterion
        self.thresholds, self.background_class = thresholds, background_class
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), False)

    @classmethod
    def from_config(cls, cfg) -> dict:
        """Translate a config to the arguments of the constructor."""
        qdformer = cfg.MODEL.QDFORMER
        _check(cfg)
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        channels, size = qdformer.HIDDEN_DIM, transformer_size(cfg)
        background_class = qdformer.NUM_CLASSES if qdformer.BACKGROUND_CLASS else None
        encoded = qdformer.ENCODER.IN_FEATURES
        return {
            "backbone": backbone,
            "encoder": DeformableEncoder(
                in_channels={name: shapes[name].channels for name in encoded},
                layers=qdformer.ENCODER.LAYERS,
                points=qdformer.ENCODER.NUM_POINTS,
                temporal_window=qdformer.ENCODER.TEMPORAL_WINDOW,
                **size,
            ),
            "audio_encoder": _build_audio_encoder(cfg),
            "fusion": AudioVisualFusion(**size),
            "num_tokens": qdformer.NUM_TOKENS,
            "channels": channels,
            "fpn": PixelFPN(
                shapes={"res2": shapes["res2"]}
                | {
                    name: ShapeSpec(channels=channels, stride=shapes[name].stride)
                    for name in encoded
                },
                channels=channels,
                norm=cfg.MODEL.FPN.NORM,
            ),
            "mask_decoder": MaskDecoder(
                num_classes=qdformer.NUM_CLASSES + qdformer.BACKGROUND_CLASS,
                layers=qdformer.DECODER_LAYERS,
                deep_supervision=qdformer.DEEP_SUPERVISION,
                **size,
            ),
            "criterion": SegmentationCriterion(
                weights=LossWeights(
                    classes=qdformer.LOSS.CLASS,
                    mask=qdformer.LOSS.MASK,
                    dice=qdformer.LOSS.DICE,
                    l1=qdformer.LOSS.L1,
                    giou=qdformer.LOSS.GIOU,
                ),
                pixel_loss=qdformer.LOSS.PIXEL,
            ),
            "thresholds": Thresholds(qdformer.MASK_THRESHOLD, qdformer.CLASS_THRESHOLD),
            "background_class": background_class,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.pixel_mean.device

    def collate(self, clips: list[dict]) -> ClipBatch:
        """Join mapper outputs to one batch on the model's device."""
        divisibility = max(self.backbone.size_divisibility, MASK_STRIDE)
        return ClipBatch.collate(clips, self.pixel_mean, self.pixel_std, divisibility)

    def losses(self, predictions: Predictions, clips: list[dict], batch: ClipBatch) -> dict:
        """L_segm of the predictions: a dict of weighted scalars."""
        targets = Targets.collate(clips, batch, self.background_class)
        return self.criterion(predictions, targets, batch.lengths)

    def inference(
        self,
        predictions: Predictions,
        clips: list[dict],
        batch: ClipBatch,
        global_tokens: Quantized | None = None,
        local_tokens: Quantized | None = None,
    ) -> list[dict[str, Tensor]]:
        """Label maps at the size of the clips' own frames, one dict a clip.

        Returns:
            What :func:`segment_clip` gives, and the codewords ``global_codes`` (N,) and
            ``local_codes`` (T, N) where there is a codebook, else None.
        """
        frames = zip(predictions.logits[-1].split(batch.lengths),
                     predictions.masks[-1].split(batch.lengths),
                     batch.valid.split(batch.lengths))  # fmt: skip
        results = [
            segment_clip(
                logits,
                masks,
                valid=valid[0],
                size=(clip["height"], clip["width"]),
                thresholds=self.thresholds,
                background_class=self.background_class,
            )
            for clip, (logits, masks, valid) in zip(clips, frames)
        ]
        quantized = global_tokens is not None and global_tokens.codes is not None
        local_codes = local_tokens.codes.split(batch.lengths) if quantized else None
        for index, result in enumerate(results):
            result["global_codes"] = global_tokens.codes[index] if quantized else None
            result["local_codes"] = local_codes[index] if quantized else None
        return results


def transformer_size(cfg) -> dict[str, int]:
    """What all attention layers have in common."""
    return {
        "channels": cfg.MODEL.QDFORMER.HIDDEN_DIM,
        "heads": cfg.MODEL.QDFORMER.NUM_HEADS,
        "feedforward": cfg.MODEL.QDFORMER.DIM_FEEDFORWARD,
    }


def _build_audio_encoder(cfg) -> AudioEncoder:
    audio = cfg.MODEL.AUDIO
    if audio.FREEZE and not audio.WEIGHTS:
        logger.warning(
            "MODEL.AUDIO.WEIGHTS is empty: VGGish starts from random weights and is trained"
        )
    return AudioEncoder(
        vggish=VGGish(conv_dims=audio.CONV_DIMS, fc_dims=audio.FC_DIMS, norm=audio.NORM),
        channels=cfg.MODEL.QDFORMER.HIDDEN_DIM,
        frozen=bool(audio.FREEZE and audio.WEIGHTS),
    )


def _check(cfg) -> None:
    """Refuse what the constructors could not explain in the config's words."""
    qdformer = cfg.MODEL.QDFORMER
    for key in ("NUM_CLASSES", "NUM_TOKENS", "HIDDEN_DIM", "NUM_HEADS", "DECODER_LAYERS"):
        if qdformer[key] < 1:
            raise InputError(f"MODEL.QDFORMER.{key} is {qdformer[key]}; it must be at least 1")
    unit = 4 * qdformer.NUM_HEADS
    if qdformer.HIDDEN_DIM % unit:
        raise InputError(
            f"MODEL.QDFORMER.HIDDEN_DIM is {qdformer.HIDDEN_DIM}; with NUM_HEADS "
            f"{qdformer.NUM_HEADS} it must be a multiple of {unit}"
        )
    if qdformer.LOSS.PIXEL not in PIXEL_LOSSES:
        raise InputError(
            f"MODEL.QDFORMER.LOSS.PIXEL is {qdformer.LOSS.PIXEL!r}; it must be one of "
            f"{PIXEL_LOSSES}"
        )
