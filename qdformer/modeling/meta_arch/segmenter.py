"""What every audio-visual segmenter of this package shares: encoders, masks, losses, label maps."""

import contextlib
import dataclasses
import math
from abc import ABC, abstractmethod

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, build_backbone
from torch import Tensor, nn

from qdformer.errors import InputError
from qdformer.modeling.audio_encoder import AudioEncoder, build_audio_encoder
from qdformer.modeling.backbone import checkpoint_fine_stages
from qdformer.modeling.clip_batch import ClipBatch, Targets
from qdformer.modeling.codebook import Quantized
from qdformer.modeling.criterion import SegmentationCriterion
from qdformer.modeling.deformable_encoder import DeformableEncoder
from qdformer.modeling.fpn import PixelFPN
from qdformer.modeling.global_decomposition import AudioVisualFusion
from qdformer.modeling.inference import Thresholds, segment_clip
from qdformer.modeling.mask_decoder import MaskDecoder, Predictions
from qdformer.modeling.matcher import LossWeights
from qdformer.modeling.windows import sliding_window


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """What a network says of a batch.

    Attributes:
        predictions: of the tokens of each frame.
        clip_predictions: of the tokens of each frame's clip, in training only; None without.
        global_tokens: of the B clips; None where the sound is not decomposed.
        local_tokens: of the F frames; None in the same case.
    """

    predictions: Predictions
    clip_predictions: Predictions | None = None
    global_tokens: Quantized | None = None
    local_tokens: Quantized | None = None


class AudioVisualSegmenter(nn.Module, ABC):
    """Encoders, fusion, mask decoding and losses around whatever makes tokens of the sound.

    A network implements :meth:`segment`, in which it is drawn box by box.
    """

    backbone: Backbone
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
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
            overlap: frames that neighboring windows share.
            pixel_mean: of the three channels, in the frames' order and range.
            pixel_std: of the same.
        """
        super().__init__()
        self.backbone, self.encoder, self.fpn = backbone, encoder, fpn
        self.audio_encoder, self.fusion = audio_encoder, fusion
        self.prototypes = nn.Parameter(torch.randn(num_tokens, channels))
        self.mask_decoder, self.criterion = mask_decoder, criterion
        self.thresholds, self.background_class = thresholds, background_class
        self.window, self.overlap = window, overlap
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), False)
        # Channels last is faster, and the cells of a map are then tokens without being copied.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Translate a config to the arguments of the constructor."""
        qdformer = cfg.MODEL.QDFORMER
        backbone = build_backbone(_without_unread_maps(cfg))
        if qdformer.CHECKPOINT_ACTIVATIONS:
            checkpoint_fine_stages(backbone)
        shapes = backbone.output_shape()
        if absent := {"res2", *qdformer.ENCODER.IN_FEATURES} - shapes.keys():
            raise InputError(
                f"{cfg.MODEL.BACKBONE.NAME} gives {', '.join(shapes)} but not "
                f"{', '.join(sorted(absent))}; MODEL.QDFORMER.ENCODER.IN_FEATURES and the "
                "backbone's OUT_FEATURES must agree, and res2 is always needed"
            )
        channels, size = qdformer.HIDDEN_DIM, transformer_size(cfg)
        num_classes = qdformer.NUM_CLASSES or _classes_of_dataset(cfg)
        background_class = num_classes if qdformer.BACKGROUND_CLASS else None
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
            "audio_encoder": build_audio_encoder(cfg),
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
                num_classes=num_classes + qdformer.BACKGROUND_CLASS,
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
                    clips=qdformer.LOSS.GLOBAL,
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

    def forward(self, clips: list[dict]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """
        Args:
            clips: mapper outputs, see :class:`qdformer.data.dataset_mapper.AVSDatasetMapper`.

        Returns:
            In training a dict of weighted scalar losses, otherwise one dict a clip, see
            :meth:`inference`. What a clip gives does not depend on its neighbors in the batch.
        """
        with self.precision():
            if self.training:
                batch = self.collate(clips)
                return self.losses(self.segment(batch), clips, batch)
            # Convolutions and normalizations see how far a frame is padded, so that clips of
            # different size go through the network by themselves.
            alike = len({clip["image"].shape[-2:] for clip in clips}) == 1
            if alike and all(len(clip["image"]) <= self.window for clip in clips):
                return self._segment_clips(clips)
            return [
                sliding_window(
                    lambda part: self._segment_clips([part])[0], clip, self.window, self.overlap
                )
                for clip in clips
            ]

    def _segment_clips(self, clips: list[dict]) -> list[dict[str, Tensor]]:
        batch = self.collate(clips)
        return self.inference(self.segment(batch), clips, batch)

    @abstractmethod
    def segment(self, batch: ClipBatch) -> Segmentation:
        """The network, from the frames and sounds of a batch to what it says of them."""

    @property
    def accelerated(self) -> bool:
        """Whether :func:`qdformer.modeling.inference_fusion.fuse_for_inference` was applied."""
        return self.mask_decoder.mask_head[0].weight.dtype == torch.bfloat16

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
        strides = (shape.stride for shape in self.backbone.output_shape().values())
        return math.lcm(self.backbone.size_divisibility or 1, *strides)

    def collate(self, clips: list[dict]) -> ClipBatch:
        """Join mapper outputs to one batch on the model's device."""
        return ClipBatch.collate(clips, self.pixel_mean, self.pixel_std, self.size_divisibility)

    def losses(
        self, segmentation: Segmentation, clips: list[dict], batch: ClipBatch
    ) -> dict[str, Tensor]:
        """L_segm, see :class:`~qdformer.modeling.criterion.SegmentationCriterion`."""
        targets = Targets.collate(clips, batch, self.background_class)
        predictions, of_clips = segmentation.predictions, segmentation.clip_predictions
        return self.criterion(predictions, targets, batch.lengths, of_clips)

    def inference(
        self, segmentation: Segmentation, clips: list[dict], batch: ClipBatch
    ) -> list[dict[str, Tensor]]:
        """Label maps at the size of the clips' own frames, one dict a clip.

        Returns:
            What :func:`segment_clip` gives, and of each frame the local tokens, ``local_tokens``
            (T, N, C) before and ``local_words`` (T, N, C) after quantization, their codewords
            ``local_codes`` (T, N), and the same of the clip or window as ``global_*``. The codes
            are None without a codebook, all of them without tokens.
        """
        predictions = segmentation.predictions
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
        of_clips = segmentation.global_tokens
        spoken = {
            "global": of_clips and of_clips.for_frames(batch.lengths),
            "local": segmentation.local_tokens,
        }
        for name, tokens in spoken.items():
            for part, field in (("tokens", "continuous"), ("words", "tokens"), ("codes", "codes")):
                values = getattr(tokens, field, None)
                parts = [None] * len(clips) if values is None else values.split(batch.lengths)
                for result, of_clip in zip(results, parts):
                    result[f"{name}_{part}"] = of_clip
        return results


def transformer_size(cfg: CfgNode) -> dict[str, int]:
    """What all attention layers have in common."""
    return {
        "channels": cfg.MODEL.QDFORMER.HIDDEN_DIM,
        "heads": cfg.MODEL.QDFORMER.NUM_HEADS,
        "feedforward": cfg.MODEL.QDFORMER.DIM_FEEDFORWARD,
    }


def _without_unread_maps(cfg: CfgNode) -> CfgNode:
    """A config whose backbone ends where nothing reads it any more: training in several processes
    waits for the gradient of every parameter.
    """
    read = {"res2", *cfg.MODEL.QDFORMER.ENCODER.IN_FEATURES}
    cfg = cfg.clone()
    cfg.defrost()
    for backbone in (cfg.MODEL.RESNETS, cfg.MODEL.TIMM):
        backbone.OUT_FEATURES = [name for name in backbone.OUT_FEATURES if name in read]
    return cfg


def _classes_of_dataset(cfg: CfgNode) -> int:
    """Classes without background of the first data set that the config names, or of AVSS."""
    name = next(iter([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]), "avsbench_avss_train")
    classes = MetadataCatalog.get(name).get("stuff_classes")
    if not classes:
        raise InputError(
            f"MODEL.QDFORMER.NUM_CLASSES is 0, and the metadata of {name} have no stuff_classes; "
            "set it, or load the data set first if that names them"
        )
    return len(classes) - 1
