"""Average precision of tracks against values by hand, and against a loop."""

import json

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog

from qdformer.errors import InputError
from qdformer.evaluation.track_evaluation import TrackEvaluator
from qdformer.io.frame_annotation import AnnotatedObject, FrameAnnotation
from qdformer.io.run_lengths import encode

SIZE = (32, 48)
NAME = "track_evaluation_test"


@pytest.fixture
def evaluator(tmp_path):
    MetadataCatalog.get(NAME).set(stuff_classes=["background", "dog", "car"])
    yield TrackEvaluator(NAME, str(tmp_path), 0.3)
    MetadataCatalog.remove(NAME)


def box(left, right):
    """So large that the corners, which are rounded at the network's resolution, do not count."""
    mask = np.zeros(SIZE, bool)
    mask[8:24, 2 * left : 2 * right] = True
    return mask


def clip(video_id, tracks):
    """Tracks are a label and (T,) masks or None."""
    length = len(tracks[0][1])
    frames = []
    for t in range(length):
        objects = [
            AnnotatedObject(label, encode(masks[t]), number)
            for number, (label, masks) in enumerate(tracks)
            if masks[t] is not None
        ]
        frames.append(FrameAnnotation("memory", f"{t}.jpg", SIZE, tuple(objects)))
    return {
        "video_id": video_id, "sem_seg_file_names": frames, "height": SIZE[0], "width": SIZE[1],
        "image": torch.zeros(length, 3, *SIZE),
    }  # fmt: skip


def output(tokens):
    """Tokens are a label, (T,) scores and (T,) masks, at the network's resolution."""
    length = len(tokens[0][1])
    masks = torch.full((length, len(tokens), SIZE[0] // 4, SIZE[1] // 4), 0.01)
    for n, (_, _, shown) in enumerate(tokens):
        for t, mask in enumerate(shown):
            if mask is not None:
                masks[t, n] = torch.from_numpy(mask[2::4, 2::4] * 0.98 + 0.01)
    return {
        "scores": torch.tensor([[scores[t] for _, scores, _ in tokens] for t in range(length)]),
        "classes": torch.tensor([[label for label, *_ in tokens]] * length),
        "masks": masks,
    }


def test_two_dogs_are_two_tracks(evaluator):
    left, right = box(0, 8), box(16, 24)
    truth = clip("a", [(1, [left, left]), (1, [right, None])])
    both = output([(1, [0.9, 0.8], [left, left]), (1, [0.7, 0.1], [right, right])])
    evaluator.process([truth], [both])
    results = evaluator.evaluate()["tracks"]
    # The second token is too unsure of the second frame, in which its dog is silent.
    assert results["AP"] == results["AR"] == pytest.approx(100)
    evaluator.reset()
    one = output([(1, [0.9, 0.8], [left | right, left]), (2, [0.0, 0.0], [None, None])])
    evaluator.process([truth], [one])
    results = evaluator.evaluate()["tracks"]
    # IoU 2/3 with the first dog, and the other is missed: half of the recall up to IoU 0.65.
    assert results["AP50"] == pytest.approx(100 * 51 / 101)
    assert results["AP75"] == 0
    assert results["AR"] == pytest.approx(100 * 0.5 * 4 / 10)


def test_iou_is_over_all_frames_and_the_file_has_the_tracks(evaluator, tmp_path):
    mask, empty = box(8, 16), None
    truth = clip("a", [(2, [mask] * 7)])
    found = output([(2, [0.9] * 7, [mask] * 5 + [empty] * 2)])  # IoU 5/7
    evaluator.process([truth], [found])
    results = evaluator.evaluate()["tracks"]
    assert results["AP50"] == pytest.approx(100) and results["AP75"] == 0
    assert results["AP"] == pytest.approx(50)  # 0.5 to 0.7
    (track,) = json.loads((tmp_path / f"{NAME}_tracks.json").read_text())
    assert (track["video_id"], track["category_id"]) == ("a", 2)
    assert track["score"] == pytest.approx(0.9) and len(track["segmentations"]) == 7


def test_order_does_not_matter_and_false_tracks_cost(evaluator):
    rng = np.random.default_rng(0)
    clips, outputs = [], []
    for name in "abcd":
        masks = [box(left, left + 8) for left in (0, 8, 16)]
        truth = [(int(rng.integers(1, 3)), [mask, mask]) for mask in masks[:2]]
        clips.append(clip(name, truth))
        tokens = [(label, [float(rng.uniform(0.5, 1))] * 2, shown) for label, shown in truth]
        outputs.append(output([*tokens, (1, [0.4, 0.4], [masks[2]] * 2)]))
    for order in (range(4), (2, 0, 3, 1)):
        evaluator.reset()
        for index in order:
            evaluator.process([clips[index]], [outputs[index]])
        results = evaluator.evaluate()["tracks"]
        # The wrong ones have the lowest scores, so that they come after all that can be found.
        assert results["AP"] == results["AR"] == pytest.approx(100)
    evaluator.process([clip("e", [(1, [box(0, 8)])])], [output([(1, [1.0], [box(16, 24)])])])
    assert evaluator.evaluate()["tracks"]["AP"] < 99


def test_false_tracks_of_silent_clips_cost(evaluator):
    """One of two found tracks is right, and the less sure one."""
    mask = box(0, 8)
    evaluator.process([clip("a", [(1, [mask])])], [output([(1, [0.8], [mask])])])
    evaluator.process([clip("b", [(1, [None])])], [output([(1, [0.9], [mask])])])
    assert evaluator.evaluate()["tracks"]["AP"] == pytest.approx(50)


def test_objects_that_are_never_seen_are_not_missed(evaluator):
    mask = box(0, 8)
    truth = clip("a", [(1, [mask]), (2, [np.zeros(SIZE, bool)])])
    evaluator.process([truth], [output([(1, [0.8], [mask])])])
    assert evaluator.evaluate()["tracks"]["AP"] == pytest.approx(100)


def test_masks_of_another_size_are_refused(evaluator):
    given = clip("a", [(1, [box(0, 8)])]) | {"height": 64}
    with pytest.raises(InputError, match="is of 48 x 32 pixels, and its clip of 48 x 64"):
        evaluator.process([given], [output([(1, [0.8], [box(0, 8)])])])


def test_without_tracks_there_is_nothing_to_say(evaluator):
    item = AnnotatedObject(1, encode(box(0, 8)))
    given = clip("a", [(1, [box(0, 8)])])
    given["sem_seg_file_names"] = [FrameAnnotation("memory", "0.jpg", SIZE, (item,))]
    evaluator.process([given], [output([(1, [0.9], [box(0, 8)])])])
    assert evaluator.evaluate() == {}
    evaluator.process([clip("b", [(1, [box(0, 8)])])], [output([(1, [0.1], [box(0, 8)])])])
    assert evaluator.evaluate()["tracks"]["AP"] == 0
