import pytest
import torch

from qdformer.modeling.clip_batch import ClipBatch, Targets
from tests.samples import make_clip

MEAN, STD = torch.full((3, 1, 1), 10.0), torch.full((3, 1, 1), 2.0)


def collate(clips, divisibility=32, **options):
    batch = ClipBatch.collate(clips, MEAN, STD, divisibility)
    return batch, Targets.collate(clips, batch, **options)


def test_frames_are_normalized_and_padded():
    small, large = make_clip(frames=1, size=(40, 64)), make_clip(frames=2, size=(64, 96), seed=1)
    batch, _ = collate([small, large])
    assert batch.images.shape == (3, 3, 64, 96)
    assert batch.lengths == [1, 2]
    torch.testing.assert_close(batch.valid, torch.tensor([[40 / 64, 64 / 96], [1, 1], [1, 1]]))
    torch.testing.assert_close(batch.images[0, :, :40, :64], (small["image"][0] - 10.0) / 2)
    assert batch.images[0, :, 40:].abs().max() == 0


def test_targets_against_loops():
    clips = [make_clip(frames=2, objects=1), make_clip(frames=3, objects=3, seed=1)]
    clips[1]["annotated"] = torch.tensor([True, False, True])
    _, targets = collate(clips)
    assert targets.counts == [1, 3]
    frame = 0
    for clip in clips:
        for t, instances in enumerate(clip["instances"]):
            annotated = bool(clip["annotated"][t])
            assert bool(targets.annotated[frame]) == annotated
            for m in range(3):
                mask = instances.gt_masks.tensor[m] if m < len(instances) else torch.zeros(64, 64)
                sounding = bool(mask.any()) and annotated
                assert bool(targets.sounding[frame, m]) == sounding
                cells = mask.float().view(16, 4, 16, 4).mean(dim=(1, 3))
                torch.testing.assert_close(targets.masks[frame, m], cells)
                if sounding:
                    assert int(targets.classes[frame, m]) == int(instances.gt_classes[m])
                    rows, columns = mask.nonzero(as_tuple=True)
                    x0, x1 = int(columns.min()), int(columns.max()) + 1
                    y0, y1 = int(rows.min()), int(rows.max()) + 1
                    expected = torch.tensor([x0 + x1, y0 + y1, 2 * (x1 - x0), 2 * (y1 - y0)]) / 128
                    torch.testing.assert_close(targets.boxes[frame, m], expected)
            frame += 1


@pytest.mark.parametrize("clips", [1, 2])
def test_clips_without_objects(clips):
    _, targets = collate([make_clip(frames=2, objects=0) for _ in range(clips)])
    assert targets.masks.shape == (2 * clips, 0, 16, 16)
    assert targets.sounding.sum() == 0


def test_background_as_a_class_covers_the_rest():
    clip = make_clip(objects=2)
    _, targets = collate([clip], background_class=4)
    assert targets.counts == [3]
    assert targets.classes[:, 2].tolist() == [4, 4, 4]
    covered = targets.masks[:, :2].sum(1).clamp(max=1)
    assert (targets.masks[:, 2] >= 1 - covered - 1e-6).all()
    empty = covered == 0
    assert (targets.masks[:, 2][empty] == 1).all() and (targets.masks[:, 2][covered == 1] < 1).any()
