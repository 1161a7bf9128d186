import cv2
import numpy as np
import pytest
import torch
from detectron2.data.catalog import Metadata

from qdformer.evaluation.codeword_classes import codeword_counts
from qdformer.evaluation.token_collection import match_tokens
from qdformer.modeling.inference import Thresholds, segment_clip
from tests.samples import make_clip, small_model

# The frame has 48 x 72 pixels for the network, padded to 64 x 96, and twice as many in the files.
IMAGE, CELLS, SIZE = (48, 72), (16, 24), (96, 144)
MAN, GUITAR = 1, 2
INSIDE, OUTSIDE = 0.99, 0.01


@pytest.fixture
def metadata():
    names = ["background", "man", "guitar", "dog"]
    return Metadata(name="matched", stuff_classes=names, ignore_label=255)


def region(left, right):
    """Columns of the label map, all of its rows."""
    labels = np.zeros(SIZE, bool)
    labels[:, left:right] = True
    return labels


def mask(left, right):
    """The same columns in a token's mask; a cell is 8 pixels of the label map wide."""
    cells = torch.full(CELLS, OUTSIDE)
    cells[:, left // 8 : right // 8] = INSIDE
    return cells


@pytest.fixture
def write(tmp_path):
    def run(label_maps):
        names = []
        for index, labels in enumerate(label_maps):
            names.append(None if labels is None else str(tmp_path / f"{index}.png"))
            if labels is not None:
                cv2.imwrite(names[-1], labels)
        return {
            "image": torch.zeros(len(names), 3, *IMAGE, dtype=torch.uint8),
            "sem_seg_file_names": names,
            "label_format": "index",
        }

    return run


def output(masks, scores=None, codes=True):
    """What a model says whose token i of frame t has the masks[t][i]."""
    masks = torch.stack([torch.stack(frame) for frame in masks])
    shape = masks.shape[:2]
    local = torch.arange(shape.numel()).reshape(shape)
    return {
        "masks": masks,
        "scores": torch.full(shape, 0.9) if scores is None else torch.tensor(scores),
        "classes": torch.ones(shape, dtype=torch.int64),
        "local_codes": local if codes else None,
        "global_codes": 100 + local[:1].expand(shape) if codes else None,
    }


def two_sources():
    labels = np.zeros(SIZE, np.uint8)
    labels[region(0, 48)], labels[region(96, 144)] = MAN, GUITAR
    return labels


def test_tokens_stand_for_what_their_masks_cover(write, metadata):
    silent = np.zeros(SIZE, np.uint8)
    masks = [mask(96, 144), mask(0, 48), mask(48, 96)]
    clip = write([two_sources(), None, silent])
    matches = match_tokens(clip, output([masks] * 3), metadata)
    assert matches.frames.tolist() == [0, 0, 0, 2, 2, 2]
    assert matches.tokens.tolist() == [0, 1, 2] * 2
    # The predicted class takes no part.
    assert matches.classes.tolist() == [GUITAR, MAN, 0, 0, 0, 0]
    assert matches.local_codes.tolist() == [0, 1, 2, 6, 7, 8]
    assert matches.global_codes.tolist() == [100, 101, 102] * 2
    assert matches.sounding == ((MAN, GUITAR), (), ())
    assert matches.multi_source.tolist() == [True] * 3 + [False] * 3


def test_several_tokens_may_stand_for_one_class(write, metadata):
    matches = match_tokens(write([two_sources()]), output([[mask(0, 48)] * 3]), metadata)
    table = codeword_counts(matches.local_codes, matches.classes, 4, 4)
    assert table[:, MAN].tolist() == [1, 1, 1, 0] and table.sum() == 3


def test_only_confident_tokens_are_kept(write, metadata):
    says = output([[mask(0, 48)] * 4], scores=[[0.1, 0.09, 0.9, 0.9]])
    # Index 4 is none of the data set's classes: the one that stands for background.
    says["classes"][0, 3] = 4
    matches = match_tokens(write([two_sources()]), says, metadata)
    assert matches.tokens.tolist() == [0, 2]
    stricter = match_tokens(write([two_sources()]), says, metadata, class_threshold=0.95)
    assert len(stricter.tokens) == len(stricter.classes) == len(stricter.local_codes) == 0
    assert stricter.sounding == ((MAN, GUITAR),)


def test_ignored_pixels_are_not_counted(write, metadata):
    labels = two_sources()
    labels[region(48, 96)] = 255
    matches = match_tokens(write([labels]), output([[mask(0, 96)]]), metadata, min_iou=0.9)
    assert matches.classes.tolist() == [MAN]
    assert matches.sounding == ((MAN, GUITAR),)


def test_without_a_codebook_there_are_no_codes(write, metadata):
    says = output([[mask(0, 48)]], codes=False)
    matches = match_tokens(write([two_sources()]), says, metadata)
    assert matches.classes.tolist() == [MAN]
    assert matches.local_codes is None and matches.global_codes is None


@pytest.mark.parametrize("seed", range(4))
def test_masks_lie_where_the_evaluated_label_map_has_them(write, metadata, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.full((1, 1, 1), 3.0)
    masks = 6 * torch.rand(1, 1, *CELLS, generator=generator) - 2
    valid = torch.tensor(IMAGE) / torch.tensor([64, 96])
    result = segment_clip(logits, masks, valid=valid, size=SIZE, thresholds=Thresholds())
    truth = two_sources()
    drawn, man = result["sem_seg"][0].numpy() > 0, truth == MAN
    iou = (drawn & man).sum() / (drawn | man).sum()
    assert 0.1 < iou < 0.5
    says = {**result, "local_codes": None, "global_codes": None}
    found = [
        match_tokens(write([truth]), says, metadata, min_iou=iou + margin).classes.tolist()
        for margin in (-1e-9, 1e-9)
    ]
    other = (drawn & (truth == GUITAR)).sum() / (drawn | (truth == GUITAR)).sum()
    assert found == ([[MAN], [0]] if iou >= other else [[GUITAR], [GUITAR]])


def test_indices_fit_what_a_model_says(tmp_path, metadata):
    clip = make_clip(frames=2, size=(52, 70))
    truth = np.zeros((52, 70), np.uint8)
    truth[:, :35] = MAN
    cv2.imwrite(str(tmp_path / "truth.png"), truth)
    clip |= {"sem_seg_file_names": [None, str(tmp_path / "truth.png")], "label_format": "index"}
    metadata.stuff_classes.append("cat")
    model = small_model().eval()
    with torch.no_grad():
        (says,) = model([clip])
    assert 4 * torch.tensor(says["masks"].shape[-2:]) == pytest.approx(torch.tensor([64, 96]))
    matches = match_tokens(clip, says, metadata, class_threshold=0, min_iou=0)
    where = matches.frames, matches.tokens
    assert where[0].tolist() == [1] * model.prototypes.shape[0]
    np.testing.assert_array_equal(matches.local_codes, says["local_codes"].numpy()[where])
    np.testing.assert_array_equal(matches.global_codes, says["global_codes"].numpy()[where])
