"""What every audio-visual segmenter of this package shares: encoders, masks, losses, label maps."""

import contextlib
import functools
from collections.abc import Callable

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from torch import Tensor, nn

from qdformer.errors import InputError
from qdformer.modeling.backbone import recompute_fine
from qdformer.modeling.clip_batch import ClipBatch, Targets
from qdformer.modeling.codebook import Quantized
from qdformer.modeling.criterion import SegmentationCriterion
from qdformer.modeling.deformable_encoder import DeformableEncoder
from qdformer.modeling.fpn import PixelFPN
from qdformer.modeling.global_decomposition import AudioVisualFusion
from qdformer.modeling.inference import Thresholds, segment_clip
from qdformer.modeling.mask_decoder import MaskDecoder, Predictions
from qdformer.modeling.matcher import LossWeights
from qdformer.modeling.vggish import AudioEncoder, VGGish
from qdformer.modeling.windows import segment_windows


def in_windows(forward: Callable) -> Callable:
    """Let a segmenter's ``forward`` take clips of any length at inference.

    What is longer than ``model.window`` goes through it in windows, one after the other; everything
    else, and training, as it comes. All of it in the model's precision.
    """

    @functools.wraps(forward)
    def run(model: "AudioVisualSegmenter", clips: list[dict]):
        with model.precision():
            if model.training or all(len(clip["image"]) <= model.window for clip in clips):
                return forward(model, clips)

            def segment(part: dict) -> dict:
                return forward(model, [part])[0]

            return [segment_windows(segment, clip, model.window, model.overlap) for clip in clips]

    return run


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
        window: int,
        overlap: int,
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
            window: the most frames that go through the network together at inference.
            overlap: frames that neighbouring windows share.
            pixel_mean: of the three channels, in the frames' order and range.
            pixel_std: likewise.
        """
        super().__init__()
        self.backbone, self.encoder, self.fpn = backbone, encoder, fpn
        self.audio_encoder, self.fusion = audio_encoder, fusion
        self.prototypes = nn.Parameter(torch.randn(num_tokens, channels))
        self.mask_decoder, self.criterion = mask_decoder, criterion
        self.thresholds, self.background_class = thresholds, background_class
        self.window, self.overlap = window, overlap
        # Set by qdformer.modeling.acceleration.
        self.accelerated = False
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), False)
        # Channels last is faster, and the cells of a map are then tokens without being copied.
        self.to(memory_format=torch.channels_last)

    @classmethod
    def from_config(cls, cfg) -> dict:
        """Translate a config to the arguments of the constructor."""
        qdformer = cfg.MODEL.QDFORMER
        backbone = build_backbone(cfg)
        recompute_fine(backbone)
        shapes = backbone.output_shape()
        if absent := {"res2", *qdformer.ENCODER.IN_FEATURES} - shapes.keys():
            raise InputError(
                f"{cfg.MODEL.BACKBONE.NAME} gives {', '.join(shapes)} but not "
                f"{', '.join(sorted(absent))}; MODEL.QDFORMER.ENCODER.IN_FEATURES and the "
                "backbone's OUT_FEATURES must agree, and res2 is always needed"
            )
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
            "window": cfg.TEST.WINDOW,
            "overlap": cfg.TEST.WINDOW_OVERLAP,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    def precision(self) -> contextlib.AbstractContextManager:
        """Autocast to bfloat16 for an accelerated model, and where the caller wants autocast.

        Detectron2's trainer asks for float16, whose range sums over pixels leave.
        """
        device = self.pixel_mean.device.type
        if self.accelerated or torch.is_autocast_enabled(device):
            return torch.autocast(device, torch.bfloat16)
        return contextlib.nullcontext()

    @property
    def size_divisibility(self) -> int:
        """Of padded frames: each map of the pyramid has to be twice as large as the next one."""
        return max(shape.stride for shape in self.backbone.output_shape().values())

    def collate(self, clips: list[dict]) -> ClipBatch:
        """Join mapper outputs to one batch on the model's device."""
        return ClipBatch.collate(clips, self.pixel_mean, self.pixel_std, self.size_divisibility)

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
            What :func:`segment_clip` gives, and for each frame the codewords ``global_codes``
            (T, N), those of its clip or window, and ``local_codes`` (T, N) where there is a
            codebook, else None.
        """
        frames = zip(predictions.logits[-1].split(batch.lengths),
                     predictions.masks[-1].split(batch.lengths),
                     batch.valid.split(batch.lengths))  # fmt: skip
        # In half precision, sums over tokens that differ would be the same.
        with torch.autocast(batch.images.device.type, enabled=False):
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
        for index, (result, length) in enumerate(zip(results, batch.lengths)):
            codes = global_tokens.codes[index].expand(length, -1) if quantized else None
            result["global_codes"] = codes
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
    return AudioEncoder(
        vggish=VGGish(conv_dims=audio.CONV_DIMS, fc_dims=audio.FC_DIMS, norm=audio.NORM),
        channels=cfg.MODEL.QDFORMER.HIDDEN_DIM,
        frozen=bool(audio.FREEZE and audio.WEIGHTS),
    )
