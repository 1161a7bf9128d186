import itertools

import pytest
import torch

from qdformer.modeling.windows import merge, slice_clip, windows
from tests.samples import make_clip, small_model


def frames(length, size, overlap):
    """Windows as (frames that are seen, frames that are kept)."""
    return [(seen, seen[kept]) for seen, kept in windows(range(length), size, overlap)]


def test_by_hand():
    assert frames(0, 4, 2) == []
    assert frames(3, 4, 2) == [([0, 1, 2], [0, 1, 2])]
    assert frames(4, 4, 2) == [([0, 1, 2, 3], [0, 1, 2, 3])]
    assert frames(6, 4, 2) == [([0, 1, 2, 3], [0, 1, 2]), ([2, 3, 4, 5], [3, 4, 5])]
    assert frames(5, 4, 2) == [([0, 1, 2, 3], [0, 1, 2]), ([1, 2, 3, 4], [3, 4])]
    assert frames(5, 2, 0) == [([0, 1], [0, 1]), ([2, 3], [2, 3]), ([3, 4], [4])]


@pytest.mark.parametrize(
    ("length", "size", "overlap"),
    [c for c in itertools.product(range(1, 30), (1, 2, 3, 7, 10), (0, 1, 2, 5)) if c[2] < c[1]],
)
def test_every_frame_once_with_its_context(length, size, overlap):
    parts = frames(length, size, overlap)
    assert [frame for _, kept in parts for frame in kept] == list(range(length))
    for seen, kept in parts:
        assert kept and seen == list(range(seen[0], seen[-1] + 1)) and set(kept) <= set(seen)
        assert len(seen) == min(length, size)
    assert len(parts) == max(1, -(-(length - overlap) // (size - overlap)))
    for (left, left_kept), (right, right_kept) in zip(parts, parts[1:]):
        assert len(set(left) & set(right)) >= overlap
        # Each has at least half of what they share beyond the last frame that it answers for.
        assert left[-1] - left_kept[-1] >= overlap // 2
        assert right_kept[0] - right[0] >= overlap // 2


def test_a_window_comes_as_soon_as_the_frame_after_it():
    asked = []

    def endless():
        for frame in itertools.count():
            asked.append(frame)
            yield frame

    parts = windows(endless(), 4, 2)
    for number in range(5):
        seen, _ = next(parts)
        assert seen[-1] == 3 + 2 * number and asked[-1] == 4 + 2 * number


def test_join_undoes_cutting():
    clip = {"image": torch.arange(7), "audio": torch.arange(7) * 10, "video_id": "a"}
    results = []
    for seen, kept in windows(range(7), 3, 1):
        part = slice_clip(clip, seen[0], seen[-1] + 1)
        assert part["video_id"] == "a"
        outputs = {"sem_seg": part["image"], "scores": part["audio"], "local_codes": None}
        results.append((outputs, kept))
    sounds = torch.arange(14).view(2, 7)  # of two sources
    part = slice_clip({**clip, "separated_audio": sounds}, 2, 5)
    assert torch.equal(part["separated_audio"], sounds[:, 2:5])
    joined = merge(results)
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
    first, second = (model([slice_clip(clip, n, n + 4)])[0] for n in (0, 2))
    for key, values in result.items():
        assert values.shape == whole[key].shape
        torch.testing.assert_close(values, torch.cat((first[key][:3], second[key][1:])))
    model.window = 4
    (short,) = model([slice_clip(clip, 0, 4)])
    assert torch.equal(short["sem_seg"], first["sem_seg"])


def test_training_takes_clips_as_they_come(storage):
    model = small_model("TEST.WINDOW", 1, "TEST.WINDOW_OVERLAP", 0).train()
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    model([make_clip(frames=3), make_clip(frames=2)])
    assert seen == [5]
