"""Sec. 3.4 as a mechanism: after a short training, local tokens speak the global tokens' words."""

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage

from qdformer.engine.optimizer import build_optimizer
from tests.samples import small_config, small_model

STEPS, CLIPS, FRAMES, SIZE = 120, 8, 2, 32
COLORS = torch.tensor([(255, 0, 0), (0, 255, 0), (0, 0, 255)], dtype=torch.uint8)
SOUNDS = np.random.default_rng(7).normal(0, 2, (len(COLORS), 1, 96, 64))


def toy_clip(rng):
    """Two squares, whose color is their class, each of which sounds in some frames."""
    image = torch.full((FRAMES, 3, SIZE, SIZE), 128, dtype=torch.uint8)
    masks = torch.zeros(FRAMES, 2, SIZE, SIZE, dtype=torch.bool)
    audio = rng.normal(-4, 0.3, (FRAMES, 1, 96, 64))
    classes = rng.permutation(len(COLORS))[:2]
    for index, left in enumerate((2, 18)):
        top = rng.integers(2, 18)
        square = np.s_[..., top : top + 12, left : left + 12]
        image[square] = COLORS[classes[index], :, None, None]
        sounding = rng.random(FRAMES) < 0.6
        masks[:, index][square] = torch.from_numpy(sounding)[:, None, None]
        audio[sounding] += SOUNDS[classes[index]]
    labels = torch.from_numpy(classes)
    return {
        "image": image,
        "audio": torch.from_numpy(audio).float(),
        "instances": [
            Instances((SIZE, SIZE), gt_classes=labels, gt_masks=BitMasks(frame)) for frame in masks
        ],
        "annotated": torch.ones(FRAMES, dtype=torch.bool),
        "height": SIZE,
        "width": SIZE,
    }


def train(*overrides):
    """A tiny model that was trained on toy clips, and what it says of others."""
    settings = [
        "MODEL.QDFORMER.NUM_CLASSES", len(COLORS), "MODEL.QDFORMER.NUM_TOKENS", 3,
        "MODEL.QDFORMER.CODEBOOK.NUM_CODES", 8, "MODEL.QDFORMER.CODEBOOK.DECAY", 0.9,
        "MODEL.QDFORMER.DECODER_LAYERS", 1, "MODEL.QDFORMER.LOSS.CLASS", 10.0,
        "MODEL.AUDIO.NORM", "BN", "SOLVER.MAX_ITER", STEPS, "SOLVER.BASE_LR", 0.003,
        "SOLVER.BACKBONE_MULTIPLIER", 1.0, *overrides,
    ]  # fmt: skip
    model, rng = small_model(*settings).train(), np.random.default_rng(0)
    optimizer = build_optimizer(small_config(*settings), model)
    with EventStorage():
        for _ in range(STEPS):
            losses = model([toy_clip(rng) for _ in range(CLIPS)])
            optimizer.zero_grad()
            sum(losses.values()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    with torch.no_grad():
        return model.eval()([toy_clip(rng) for _ in range(40)])


def own_words(outputs):
    """The share of confident local tokens with a word that a global token of their clip has."""
    own = [(o["local_codes"][..., None] == o["global_codes"][:, None]).any(-1) for o in outputs]
    confident = torch.cat([output["scores"] for output in outputs]) > 0.3
    assert confident.float().mean() > 0.2
    return float(torch.cat(own)[confident].float().mean())


@pytest.mark.parametrize(
    ("weight", "low", "high"), [(0.25, 0.6, 1.0), (0.0, 0.0, 0.45)], ids=["taught", "as drawn"]
)
def test_local_tokens_speak_their_clips_words_if_global_tokens_learn_the_task(weight, low, high):
    """Without the losses on what global tokens query, the two kinds of tokens share few words."""
    assert low <= own_words(train("MODEL.QDFORMER.LOSS.GLOBAL", weight)) <= high
