import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


DTYPES = [torch.float32, torch.bfloat16, torch.float16]
HOSTILE = [float("nan"), float("inf"), -float("inf"), 0.0, 1e4, -1e4, "largest", "lowest"]


def spoil(values, dtype, value, share):
    limits = {"largest": torch.finfo(dtype).max, "lowest": torch.finfo(dtype).min}
    chosen = torch.rand(values.shape, generator=torch.Generator().manual_seed(0)) < share
    values[chosen] = limits.get(value, value)
    return values.to(dtype)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    dtype=st.sampled_from(DTYPES),
    tokens=st.integers(1, 4),
    classes=st.integers(1, 4),
    background=st.booleans(),
    logits=st.tuples(st.sampled_from(HOSTILE), st.sampled_from([0, 0.2, 1])),
    masks=st.tuples(st.sampled_from(HOSTILE), st.sampled_from([0, 0.2, 1])),
)
def test_label_maps_are_valid_whatever_is_predicted(
    dtype, tokens, classes, background, logits, masks
):
    clip = random_clip(tokens=tokens, classes=classes)
    clip = [spoil(values, dtype, *what) for values, what in zip(clip, (logits, masks))]
    result = segment(*clip, size=(13, 9), background_class=classes - 1 if background else None)
    assert result["sem_seg"].dtype == torch.uint8 and result["sem_seg"].max() <= classes
    assert not background or result["sem_seg"].max() < classes
    assert torch.equal(result["foreground"] > 0.5, result["sem_seg"] > 0)
    for name in ("foreground", "scores", "masks"):
        assert ((result[name] >= 0) & (result[name] <= 1)).all(), name
    assert 1 <= result["classes"].min() <= result["classes"].max() <= classes


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_a_bad_token_leaves_the_others_alone(value):
    logits, masks = random_clip()
    expected = segment(logits[:, 1:], masks[:, 1:])
    for broken in ("logits", "masks"):
        clip = {"logits": logits.clone(), "masks": masks.clone()}
        clip[broken][:, 0] = value
        result = segment(clip["logits"], clip["masks"])
        assert torch.equal(result["sem_seg"], expected["sem_seg"])
        assert torch.equal(result["foreground"], expected["foreground"])


def test_among_equal_scores_the_first_class_wins_everywhere():
    logits, masks = torch.zeros(2, 3, 4), torch.full((2, 3, 6, 6), 9.0)
    assert (segment(logits, masks, size=(37, 51))["sem_seg"] == 1).all()
    # Each class is the favourite of one token, and the tokens are equally strong.
    logits = logit(0.3 + 0.5 * torch.eye(4)).expand(2, 4, 4)
    masks = torch.full((2, 4, 6, 6), 40.0)
    labels = segment(logits, masks, size=(37, 51))["sem_seg"]
    assert (labels == labels[0, 0, 0]).all()


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_ties_depend_neither_on_threads_nor_on_other_frames(threads):
    """The same three probabilities in every order: sums that only rounding tells apart."""
    logits = torch.tensor(list(itertools.permutations([-1.0, 0.3, 0.7]))).t()[None]
    masks = torch.rand(2, 1, 224, 224, generator=torch.Generator().manual_seed(0))
    clip = logits.expand(2, 3, 6), masks.expand(2, 3, 224, 224)
    expected = segment(*clip)["sem_seg"]
    for count in (1, 2, 3):
        threads(count)
        frames = [segment(*(values[t : t + 1] for values in clip))["sem_seg"] for t in (0, 1)]
        assert torch.equal(torch.cat(frames), expected)
