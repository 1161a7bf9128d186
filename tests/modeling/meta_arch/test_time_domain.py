import pytest
import torch
from detectron2.utils.events import EventStorage

import qdformer.modeling.meta_arch.time_domain  # noqa: F401
from qdformer.errors import InputError
from qdformer.modeling.inference import segment_clip
from qdformer.modeling.windows import slice_clip
from tests.samples import make_clip, small_model

TIME_DOMAIN = ["MODEL.META_ARCHITECTURE", "TimeDomainBaseline", "INPUT.SEPARATION.METHOD", "nmf"]
BASELINE = ["MODEL.META_ARCHITECTURE", "QDFormerBaseline"]
SILENCE = torch.full((1, 96, 64), 0.01).log()


@pytest.fixture(scope="module")
def models():
    """The baseline with confident tokens, and the time-domain baseline with its weights."""
    baseline, separated = small_model(*BASELINE).eval(), small_model(*TIME_DOMAIN).eval()
    with torch.no_grad():
        baseline.mask_decoder.class_head[-1].bias += 3
        baseline.audio_encoder.projection.weight *= 10
    separated.load_state_dict(baseline.state_dict())
    return baseline, separated


def with_sounds(clip, *sounds):
    return clip | {"separated_audio": torch.stack(sounds)}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert values is other[name] is None or torch.equal(values, other[name]), name


def test_it_has_the_parameters_of_the_baseline(models):
    baseline, separated = models
    shapes = [{name: p.shape for name, p in m.named_parameters()} for m in models]
    assert shapes[0] == shapes[1]
    assert baseline.state_dict().keys() == separated.state_dict().keys()


@torch.no_grad()
def test_with_one_sound_it_is_the_baseline(models):
    baseline, separated = models
    clips = [make_clip(seed=1), make_clip(frames=2, seed=2)]
    expected = baseline(clips)
    given = separated([with_sounds(clip, clip["audio"]) for clip in clips])
    assert any(result["sem_seg"].any() for result in expected)
    for one, other in zip(given, expected):
        assert_same(one, other)


@torch.no_grad()
def test_the_tokens_of_the_mixture_and_of_silence_compete(models):
    """Eq. 1 over what the baseline says of each sound, by an independent pass of each."""
    baseline, separated = models
    clip = make_clip(seed=3)
    silent = clip | {"audio": SILENCE.expand(3, 1, 96, 64)}
    predictions = [
        baseline.segment(baseline.collate([each])).predictions for each in (clip, silent)
    ]
    logits, masks = (
        torch.cat([getattr(each, name)[-1] for each in predictions], dim=1)
        for name in ("logits", "masks")
    )
    expected = segment_clip(
        logits, masks, valid=torch.ones(2), size=(64, 64), thresholds=baseline.thresholds
    )
    (result,) = separated([with_sounds(clip, clip["audio"], silent["audio"])])
    assert result["scores"].shape == (3, 10) and result["masks"].shape == (3, 10, 16, 16)
    for name, values in expected.items():
        torch.testing.assert_close(result[name], values, atol=1e-5, rtol=1e-5)
    assert result["global_codes"] is None and result["local_codes"] is None
    (alone,) = baseline([clip])
    mixture, silence = result["scores"].split(5, dim=1)
    torch.testing.assert_close(mixture, alone["scores"], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(silence, alone["scores"], atol=1e-4)


@torch.no_grad()
def test_order_and_batch_change_nothing(models):
    _, separated = models
    clips = [
        with_sounds(clip, clip["audio"], make_clip(frames=len(clip["audio"]), seed=9)["audio"])
        for clip in (make_clip(seed=1), make_clip(frames=1, seed=2), make_clip(frames=2, seed=3))
    ]
    together = separated(clips)
    swapped = [clip | {"separated_audio": clip["separated_audio"].flip(0)} for clip in clips]
    for clip, other, result in zip(clips, swapped, together):
        (alone,), (reverse,) = separated([clip]), separated([other])
        for name in ("scores", "masks", "foreground"):
            torch.testing.assert_close(result[name], alone[name], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(reverse["scores"].roll(5, 1), alone["scores"])
        torch.testing.assert_close(reverse["foreground"], alone["foreground"])
        assert (reverse["sem_seg"] == alone["sem_seg"]).float().mean() > 0.999


@torch.no_grad()
def test_long_clips_go_window_by_window_with_their_sounds(models):
    _, separated = models
    clip = make_clip(frames=6)
    clip = with_sounds(clip, clip["audio"], clip["audio"].roll(1, 0))
    window, overlap = separated.window, separated.overlap
    separated.window, separated.overlap = 4, 2
    (result,) = separated([clip])
    first, second = (separated([slice_clip(clip, n, n + 4)])[0] for n in (0, 2))
    separated.window, separated.overlap = window, overlap
    for name in ("scores", "sem_seg", "masks"):
        assert torch.equal(result[name], torch.cat((first[name][:3], second[name][1:])))


def test_its_training_is_the_baselines():
    clips = [make_clip(seed=1), make_clip(frames=2, seed=2)]
    baseline, separated = small_model(*BASELINE).train(), small_model(*TIME_DOMAIN).train()
    separated.load_state_dict(baseline.state_dict())
    with EventStorage():
        losses = [model(clips) for model in (baseline, separated)]
    assert_same(*losses)
    sum(losses[1].values()).backward()
    assert all(parameter.grad is not None for parameter in separated.parameters())


def test_it_needs_a_separator():
    with pytest.raises(InputError, match="INPUT.SEPARATION.METHOD is empty"):
        small_model("MODEL.META_ARCHITECTURE", "TimeDomainBaseline")
