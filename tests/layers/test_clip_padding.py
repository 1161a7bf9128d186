import pytest
import torch

from qdformer.layers.clip_padding import repeat_for_frames, to_clips, to_frames


@pytest.mark.parametrize("lengths", [[3, 3], [1, 4, 2], [5]])
def test_round_trip(lengths):
    frames = torch.rand(sum(lengths), 2, 3)
    clips, padding = to_clips(frames, lengths)
    assert clips.shape[:2] == (len(lengths), max(lengths))
    assert torch.equal(to_frames(clips, lengths), frames)


def test_padding_marks_what_is_not_a_frame():
    clips, padding = to_clips(torch.ones(3, 1), [1, 2])
    assert padding.tolist() == [[False, True], [False, False]]
    assert clips[..., 0].tolist() == [[1, 0], [1, 1]]


def test_equal_lengths_need_no_padding():
    assert to_clips(torch.ones(4, 1), [2, 2])[1] is None


def test_repeat_for_frames():
    repeated = repeat_for_frames(torch.tensor([[1], [2]]), [1, 3])
    assert repeated.flatten().tolist() == [1, 2, 2, 2]
