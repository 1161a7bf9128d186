"""Small clips and a small network, made out of nothing."""

from pathlib import Path

import numpy as np
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances

from qdformer.config.defaults import add_qdformer_config
from qdformer.engine.setup import register_roots
from qdformer.modeling.clip_batch import Targets
from qdformer.modeling.mask_decoder import Predictions
from qdformer.synthetic.composer import ComposeOptions, compose

SMALL = (
    "MODEL.DEVICE", "cpu",
    "MODEL.BACKBONE.NAME", "build_resnet_backbone",
    "MODEL.BACKBONE.FREEZE_AT", 0,
    "MODEL.RESNETS.DEPTH", 50,
    # With fewer channels the backward of torch 2.11's convolutions on two threads writes where
    # it must not.
    "MODEL.RESNETS.STEM_OUT_CHANNELS", 16,
    "MODEL.RESNETS.RES2_OUT_CHANNELS", 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP", 8,
    "MODEL.RESNETS.NORM", "BN",
    "MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.NORM", "GN",
    "MODEL.AUDIO.CONV_DIMS", [4, 4, 8, 8],
    "MODEL.AUDIO.FC_DIMS", [16, 16],
    "MODEL.QDFORMER.NUM_CLASSES", 4,
    "MODEL.QDFORMER.HIDDEN_DIM", 32,
    "MODEL.QDFORMER.NUM_HEADS", 4,
    "MODEL.QDFORMER.DIM_FEEDFORWARD", 32,
    "MODEL.QDFORMER.DECODER_LAYERS", 2,
    "MODEL.QDFORMER.ENCODER.LAYERS", 1,
    "MODEL.QDFORMER.CODEBOOK.NUM_CODES", 16,
)  # fmt: skip


def small_config(*overrides):
    """A QDFormer of every stage, on a narrow ResNet-50, that runs in a fraction of a second."""
    cfg = get_cfg()
    add_qdformer_config(cfg)
    cfg.merge_from_list([*SMALL, *overrides])
    return cfg


def small_model(*overrides):
    torch.manual_seed(0)
    return build_model(small_config(*overrides))


def compose_tiny(folder: Path) -> Path:
    """A tiny synthetic data set in all three layouts, registered as tiny_*; returns its root."""
    root = folder / "tiny"
    compose(
        ComposeOptions(
            output=root,
            layouts=("avss", "ms3", "s4"),
            classes=("bell", "drum", "siren"),
            frames=3,
            size=64,
            sources=(1, 2),
            clips={"train": 8, "val": 2, "test": 3},
            workers=1,
        )
    )
    register_roots([str(root)])
    return root


def make_clip(frames=3, objects=2, size=(64, 64), seed=0, annotated=None):
    """A mapper output with random frames and sound, and rectangles that sound now and then."""
    rng = np.random.default_rng(seed)
    height, width = size
    masks = torch.zeros(frames, objects, height, width, dtype=torch.bool)
    for index in range(objects):
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        masks[:, index, top : top + height // 3, left : left + width // 3] = True
        masks[:, index] &= torch.from_numpy(rng.random(frames) < 0.7)[:, None, None]
    classes = torch.from_numpy(rng.permutation(4)[:objects].astype(np.int64))
    return {
        "image": torch.from_numpy(rng.integers(0, 256, (frames, 3, height, width), dtype=np.uint8)),
        "audio": torch.from_numpy(rng.normal(-3, 2, (frames, 1, 96, 64)).astype(np.float32)),
        "instances": [
            Instances(size, gt_classes=classes, gt_masks=BitMasks(frame)) for frame in masks
        ],
        "annotated": torch.ones(frames, dtype=torch.bool) if annotated is None else annotated,
        "height": height,
        "width": width,
        "video_id": f"clip{seed}",
    }


def make_predictions(frames, tokens, objects, seed=0, layers=1):
    """Random predictions and targets of one clip: 3 classes, masks of 4 x 4."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*size):
        return torch.rand(*size, generator=generator)

    predictions = Predictions(
        logits=rand(layers, frames, tokens, 3) * 4 - 2,
        masks=rand(layers, frames, tokens, 4, 4) * 4 - 2,
        boxes=rand(layers, frames, tokens, 4) * 0.4 + 0.1,
    )
    targets = Targets(
        classes=(rand(1, objects) * 3).long().expand(frames, -1),
        masks=(rand(frames, objects, 4, 4) > 0.5).float(),
        boxes=rand(frames, objects, 4) * 0.4 + 0.1,
        sounding=rand(frames, objects) > 0.3,
        annotated=torch.ones(frames, dtype=torch.bool),
        counts=[objects],
    )
    return predictions, targets
