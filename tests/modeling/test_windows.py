import itertools

import pytest
import torch

from qdformer.modeling.windows import Window, join, windows
from tests.samples import make_clip, small_model


def frames(length, size, overlap):
    return [(list(w.seen), list(w.kept)) for w in windows(length, size, overlap)]


def test_by_hand():
    assert frames(3, 4, 2) == [([0, 1, 2], [0, 1, 2])]
    assert frames(4, 4, 2) == [([0, 1, 2, 3], [0, 1, 2, 3])]
    assert frames(6, 4, 2) == [([0, 1, 2, 3], [0, 1, 2]), ([2, 3, 4, 5], [3, 4, 5])]
    assert frames(11, 10, 2) == [
        (list(range(7)), list(range(5))),
        (list(range(4, 11)), list(range(5, 11))),
    ]
    assert frames(5, 2, 0) == [([0, 1], [0]), ([1, 2], [1, 2]), ([3, 4], [3, 4])]


@pytest.mark.parametrize(
    ("length", "size", "overlap"),
    [c for c in itertools.product(range(1, 30), (1, 2, 3, 7, 10), (0, 1, 2, 5)) if c[2] < c[1]],
)
def test_every_frame_once_with_its_context(length, size, overlap):
    parts = windows(length, size, overlap)
    assert [frame for part in parts for frame in part.kept] == list(range(length))
    for part in parts:
        assert set(part.kept) <= set(part.seen) <= set(range(length))
        assert len(part.seen) == len(parts[0].seen) <= size
    assert len(parts) == 1 or len(parts) == -(-(length - overlap) // (size - overlap))
    assert (len(parts) == 1) == (length <= size)
    for left, right in zip(parts, parts[1:]):
        shared = set(left.seen) & set(right.seen)
        assert len(shared) >= overlap
        # Each has at least half of what they share beyond the last frame that it answers for.
        assert left.seen.stop - left.kept.stop >= overlap // 2
        assert right.kept.start - right.seen.start >= overlap // 2


def test_join_undoes_cutting():
    clip = {"image": torch.arange(7), "audio": torch.arange(7) * 10, "video_id": "a"}
    parts = [part.cut(clip) for part in windows(7, 3, 1)]
    assert all(part["video_id"] == "a" for part in parts)
    results = [
        {"sem_seg": part["image"], "scores": part["audio"], "local_codes": None} for part in parts
    ]
    sounds = torch.arange(14).view(2, 7)  # of two sources
    part = windows(7, 3, 1)[1]
    cut = part.cut({**clip, "separated_audio": sounds})
    assert torch.equal(cut["separated_audio"], sounds[:, part.seen.start : part.seen.stop])
    joined = join(zip(windows(7, 3, 1), results))
    assert joined["sem_seg"].tolist() == list(range(7))
    assert joined["scores"].tolist() == list(range(0, 70, 10))
    assert joined["local_codes"] is None


@torch.no_grad()
def test_a_clip_that_fits_is_segmented_as_one_and_a_longer_one_window_by_window():
    model = small_model("TEST.WINDOW", 4, "TEST.WINDOW_OVERLAP", 2).eval()
    clip = make_clip(frames=6)
    (result,) = model([clip])
    model.window = 6
    (whole,) = model([clip])
    first, second = (model([Window(range(n, n + 4), range(0)).cut(clip)])[0] for n in (0, 2))
    for key, values in result.items():
        assert values.shape == whole[key].shape
        torch.testing.assert_close(values, torch.cat((first[key][:3], second[key][1:])))
    model.window = 4
    (short,) = model([Window(range(0, 4), range(0)).cut(clip)])
    assert torch.equal(short["sem_seg"], first["sem_seg"])


def test_training_takes_clips_as_they_come(storage):
    model = small_model("TEST.WINDOW", 1, "TEST.WINDOW_OVERLAP", 0).train()
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    model([make_clip(frames=3), make_clip(frames=2)])
    assert seen == [5]
