import pytest
import torch

from qdformer.modeling.inference import Thresholds, contending_classes, segment_clip

WHOLE = torch.ones(2)


def logit(probability):
    return torch.logit(torch.as_tensor(probability, dtype=torch.float32))


def random_clip(frames=2, tokens=3, classes=4, side=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.rand(frames, tokens, classes, generator=generator) * 6 - 4
    return logits, torch.rand(frames, tokens, side, side, generator=generator) * 8 - 4


def segment(logits, masks, size=None, thresholds=None, **options):
    size = size or tuple(masks.shape[-2:])
    thresholds = thresholds or Thresholds()
    return segment_clip(logits, masks, valid=WHOLE, size=size, thresholds=thresholds, **options)


def test_eq_1_against_loops():
    logits, masks = random_clip()
    result = segment(logits, masks)
    for t in range(2):
        for y in range(6):
            for x in range(6):
                scores = [0.0] * 4
                for i in range(3):
                    p, m = logits[t, i].sigmoid(), float(masks[t, i, y, x].sigmoid())
                    if float(p.max()) >= 0.1 and m > 0.5:
                        scores = [s + float(p[c]) * m for c, s in enumerate(scores)]
                expected = 0 if max(scores) == 0 else 1 + scores.index(max(scores))
                assert int(result["sem_seg"][t, y, x]) == expected


def test_two_weak_tokens_outvote_a_strong_one():
    logits = logit([[[0.6, 0.4], [0.01, 0.5]]])
    masks = logit([[[[0.9]], [[0.9]]]])
    assert segment(logits, masks)["sem_seg"].item() == 2


def test_unsure_tokens_leave_background():
    masks = torch.full((1, 1, 2, 2), 5.0)
    assert segment(logit([[[0.09, 0.05]]]), masks)["sem_seg"].max() == 0
    assert segment(logit([[[0.11, 0.05]]]), masks)["sem_seg"].min() == 1


def test_foreground_agrees_with_the_label_map():
    logits, masks = random_clip(frames=4, seed=1)
    result = segment(logits, masks, size=(17, 11))
    assert torch.equal(result["foreground"] > 0.5, result["sem_seg"] > 0)
    assert result["foreground"].min() >= 0 and result["foreground"].max() <= 1
    assert result["sem_seg"].shape == (4, 17, 11)


def test_order_of_tokens_does_not_matter():
    logits, masks = random_clip(seed=2)
    order = torch.tensor([2, 0, 1])
    first, second = segment(logits, masks), segment(logits[:, order], masks[:, order])
    assert torch.equal(first["sem_seg"], second["sem_seg"])
    torch.testing.assert_close(first["foreground"], second["foreground"])


def test_resizing_equals_upsampling_then_cropping():
    """Masks at stride 4 of a padded frame, against interpolation to full size and a crop."""
    masks = random_clip(frames=1, tokens=1, side=8, seed=3)[1]
    upsampled = torch.nn.functional.interpolate(masks, scale_factor=4, mode="bilinear")
    result = segment_clip(
        torch.full((1, 1, 1), 9.0), masks, valid=torch.tensor([20 / 32, 24 / 32]), size=(20, 24),
        thresholds=Thresholds(),
    )  # fmt: skip
    torch.testing.assert_close(result["foreground"][0], upsampled[0, 0, :20, :24].sigmoid())


def test_background_as_a_class():
    logits = logit([[[0.6, 0.01, 0.01], [0.01, 0.01, 0.9]]])
    masks = logit([[[[0.9, 0.9]], [[0.9, 0.1]]]])
    result = segment(logits, masks, background_class=2)
    assert result["sem_seg"].flatten().tolist() == [0, 1]
    assert torch.equal(result["foreground"] > 0.5, result["sem_seg"] > 0)


def test_frames_are_independent():
    logits, masks = random_clip(frames=3, seed=4)
    whole = segment(logits, masks)["sem_seg"]
    for t in range(3):
        assert torch.equal(
            whole[t : t + 1], segment(logits[t : t + 1], masks[t : t + 1])["sem_seg"]
        )


def test_classes_and_scores_of_the_tokens():
    result = segment(logit([[[0.2, 0.7], [0.3, 0.1]]]), torch.zeros(1, 2, 2, 2))
    assert result["classes"].tolist() == [[2, 1]]
    torch.testing.assert_close(result["scores"], torch.tensor([[0.7, 0.3]]))


@pytest.mark.parametrize("seed", range(20))
def test_contending_classes_are_those_that_can_win(seed):
    """Against all classes, with any weights of the tokens, also where classes are alike."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(3, 12, generator=generator).mul(4).round() / 4
    contending = contending_classes(probabilities)
    weights = torch.rand(500, 3, generator=generator)
    weights[:50] = 0.0
    weights[:50, 0] = 1.0
    sums = weights @ probabilities
    winners = contending[sums[:, contending].argmax(-1)]
    assert torch.equal(sums.gather(1, winners[:, None])[:, 0], sums.amax(-1))
    assert len(contending) < 12


def test_one_token_leaves_one_class():
    assert contending_classes(torch.tensor([[0.1, 0.7, 0.7, 0.2]])).tolist() == [1]
