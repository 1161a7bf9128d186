import io
import itertools
import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from qdformer.audio.log_mel import read_waveform
from qdformer.data.dataset_mapper import AVSDatasetMapper
from qdformer.errors import InputError
from qdformer.io.image import read_image
from qdformer.modeling.inference import Thresholds
from qdformer.predictor import AudioVisualPredictor
from tests.samples import small_config
from tests.videos import save_described, write_lossless

THRESHOLDS = ("MODEL.QDFORMER.CLASS_THRESHOLD", "0.005")


@pytest.fixture(scope="module")
def checkpoint(composed, tmp_path_factory):
    return save_described(tmp_path_factory.mktemp("trained") / "model.safetensors")


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return AudioVisualPredictor(checkpoint, THRESHOLDS)


@pytest.fixture(scope="module")
def clip():
    """Frames (T, H, W, 3) and sound of a composed clip, and its record."""
    record = DatasetCatalog.get("tiny_avss_test")[0]
    frames = np.stack([read_image(name) for name in record["file_names"]])
    return frames, read_waveform(record["audio_file_name"])[: len(frames) * 16000], record


def looped(clip, count):
    """The clip again and again, ``count`` frames."""
    frames, waveform, _ = clip
    repeats = math.ceil(count / len(frames))
    return np.tile(frames, (repeats, 1, 1, 1))[:count], np.tile(waveform, repeats)[: count * 16000]


def assert_same(one, other, exact=True):
    assert (one.begin, one.end) == (other.begin, other.end)
    pairs = zip(
        (one.image, one.label_map, one.log_mel, one.token_masks, one.token_scores),
        (other.image, other.label_map, other.log_mel, other.token_masks, other.token_scores),
    )
    for a, b in pairs:
        tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-3, "atol": 1e-3}
        torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), **tolerance)
    assert one.local_codes.equal(other.local_codes)
    assert one.global_codes.equal(other.global_codes)


def test_a_video_gives_what_the_model_says_of_its_frames_and_sound(predictor, clip, tmp_path):
    frames, waveform, record = clip
    path = write_lossless(tmp_path / "clip.mkv", frames, waveform)
    mapper = AVSDatasetMapper(small_config("INPUT.AUDIO_HOP", 1.0, *pixels(predictor.cfg)), False)
    with torch.no_grad():
        (expected,) = predictor.model([mapper(record)])
    found = list(predictor(path))
    assert len(found) == len(frames)
    for t, frame in enumerate(found):
        assert (frame.begin, frame.end) == (t, t + 1)
        assert np.array_equal(frame.image, frames[t])
        assert torch.equal(torch.from_numpy(frame.label_map), expected["sem_seg"][t])
        for name, own in (("masks", frame.token_masks), ("scores", frame.token_scores),
                          ("classes", frame.token_classes), ("local_codes", frame.local_codes),
                          ("global_codes", frame.global_codes)):  # fmt: skip
            assert torch.equal(own, expected[name][t]), name
    assert any(frame.label_map.any() for frame in found)


def pixels(cfg):
    return ["INPUT.MIN_SIZE_TEST", cfg.INPUT.MIN_SIZE_TEST]


@pytest.mark.parametrize("count", [1, 4, 9])
def test_streamed_windows_are_those_of_the_whole_clip(predictor, clip, count):
    frames, waveform = looped(clip, count)
    cfg = predictor.cfg.clone()
    cfg.INPUT.AUDIO_HOP = 1.0
    mapper = AVSDatasetMapper(cfg, False)
    height, width = frames.shape[1:3]
    whole = {"image": mapper.augment(frames)[0], "height": height, "width": width,
             **mapper.audio_features(waveform, count)}  # fmt: skip
    with torch.no_grad():
        (expected,) = predictor.model([whole])
    found = list(predictor.segment_frames(frames, waveform))
    for name, own in (("sem_seg", "label_map"), ("masks", "token_masks")):
        values = torch.stack([torch.as_tensor(getattr(frame, own)) for frame in found])
        assert torch.equal(values, expected[name])


def test_results_come_before_the_end_and_memory_stays(predictor, clip):
    frames, waveform = looped(clip, 12)
    asked = itertools.count()

    def endless():
        for number in asked:
            yield frames[number % len(frames)]

    results = predictor.segment_frames(endless(), waveform)
    window, overlap = predictor.cfg.TEST.WINDOW, predictor.cfg.TEST.WINDOW_OVERLAP
    next(results)
    assert next(asked) == window + 1
    for _ in range(window - overlap // 2):
        next(results)
    assert next(asked) == 2 * window - overlap + 2


def test_path_file_object_and_frames_are_one(predictor, clip, tmp_path):
    frames, waveform, _ = clip
    path = write_lossless(tmp_path / "-clip of mine.mkv", frames, waveform)
    results = [
        list(predictor(path)),
        list(predictor(io.BytesIO(path.read_bytes()))),
        list(predictor.segment_frames(frames, waveform)),
    ]
    for first, *others in zip(*results, strict=True):
        for other in others:
            assert_same(first, other)


def test_another_sound_takes_the_place_of_the_videos(predictor, clip, tmp_path):
    frames, waveform, _ = clip
    path = write_lossless(tmp_path / "clip.mkv", frames, waveform)
    silence = np.zeros_like(waveform)
    mute = write_lossless(tmp_path / "mute.mkv", frames, None)
    for one, other in zip(predictor(path, waveform=silence), predictor(mute), strict=True):
        assert_same(one, other)
        assert np.allclose(one.log_mel, math.log(0.01))
    assert not np.allclose(next(predictor(path)).log_mel, math.log(0.01))


def test_spans_of_other_lengths_hear_the_second_around_their_middle(predictor):
    place = np.zeros(6 * 16000, np.float32)
    frames = np.zeros((3, 64, 64, 3), np.uint8)
    for every, second in ((2.0, 2.5), (0.5, 0.25)):
        waveform = place[: int(3.5 * every * 16000)].copy()
        # In the middle of span 1, or 0 respectively.
        waveform[int(second * 16000) : int(second * 16000) + 4000] = 0.5 * np.sin(np.arange(4000))
        heard = [frame.log_mel.max() for frame in predictor.segment_frames(frames, waveform, every)]
        assert heard[int(second // every)] > 0
        spans = [frame.begin for frame in predictor.segment_frames(frames, waveform, every)]
        assert spans == [0, every, 2 * every]
    assert heard[2] < -4  # 0.75 to 1.75 s lies beyond the tone


def test_instances_are_the_classes_of_the_label_map(predictor, clip):
    frames, waveform, _ = clip
    for frame in predictor.segment_frames(frames, waveform):
        found = frame.instances
        assert found.image_size == frame.label_map.shape
        assert (found.pred_classes + 1).tolist() == [c for c in np.unique(frame.label_map) if c]
        drawn = np.zeros_like(frame.label_map)
        for mask, label in zip(found.pred_masks, found.pred_classes):
            drawn[mask.numpy()] = int(label) + 1
        assert np.array_equal(drawn, frame.label_map)
        assert ((found.scores > 0) & (found.scores <= 1)).all()


def test_all_tokens_together_cover_the_label_map(predictor, clip):
    frames, waveform, _ = clip
    number = predictor.cfg.MODEL.QDFORMER.NUM_TOKENS
    for frame in predictor.segment_frames(frames[:, :, :48], waveform):
        assert frame.masks_of(range(number)).shape == (number, *frame.label_map.shape)
        assert np.array_equal(frame.label_map_of(range(number)), frame.label_map)
        assert not frame.label_map_of([]).any()
        alone = [frame.label_map_of([token]) > 0 for token in range(number)]
        assert np.array_equal(np.logical_or.reduce(alone), frame.label_map > 0)


def test_a_config_with_registered_classes_serves_as_well(checkpoint, predictor, clip):
    cfg = small_config(
        "MODEL.WEIGHTS", str(checkpoint), "MODEL.QDFORMER.NUM_CLASSES", 3,
        "DATASETS.TEST", ("tiny_avss_test",), *pixels(predictor.cfg), *THRESHOLDS,
    )  # fmt: skip
    other = AudioVisualPredictor(cfg)
    names = MetadataCatalog.get("tiny_avss_test").stuff_classes
    assert list(other.metadata.stuff_classes) == list(predictor.metadata.stuff_classes) == names
    for one, two in zip(other.segment_frames(*clip[:2]), predictor.segment_frames(*clip[:2])):
        assert_same(one, two)


@pytest.mark.parametrize("every", [0, -1, 0.01, 61, float("nan"), float("inf")])
def test_impossible_spans_are_refused(predictor, clip, every):
    with pytest.raises(InputError, match="0.02 to 60.0"):
        predictor.segment_frames(clip[0], clip[1], every)


@pytest.mark.parametrize(
    ("frame", "waveform", "words"),
    [
        (np.zeros((8, 8), np.uint8), np.zeros(9), r"frame 1 is uint8 of shape \(8, 8\)"),
        (np.zeros((8, 8, 3)), np.zeros(9), "frame 1 is float64"),
        (np.zeros((8, 9, 3), np.uint8), np.zeros(9), r"frame 1 .*\(8, 9, 3\)"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((9, 2)), r"sound is .*\(9, 2\)"),
        (np.zeros((8, 8, 3), np.uint8), np.full(9, np.nan), "samples of nan"),
    ],
)
def test_frames_and_sounds_of_another_kind_are_named(predictor, frame, waveform, words):
    with pytest.raises(InputError, match=words):
        list(predictor.segment_frames([np.zeros((8, 8, 3), np.uint8), frame], waveform))


def test_separated_sounds_reach_the_baseline_that_wants_them(composed, clip, tmp_path):
    settings = ("MODEL.META_ARCHITECTURE", "TimeDomainBaseline", "INPUT.SEPARATION.METHOD", "nmf")
    checkpoint = save_described(tmp_path / "model.safetensors", *settings)
    predictor = AudioVisualPredictor(checkpoint)
    tokens = predictor.cfg.MODEL.QDFORMER.NUM_TOKENS
    for frame in predictor.segment_frames(clip[0], clip[1]):
        assert frame.token_scores.shape == (2 * tokens,)
        assert frame.local_codes is None and frame.global_codes is None


def test_a_fast_predictor_says_nearly_the_same(checkpoint, predictor, clip):
    fast = AudioVisualPredictor(checkpoint, ("MODEL.QDFORMER.FAST_INFERENCE", "True"))
    for one, other in zip(fast.segment_frames(*clip[:2]), predictor.segment_frames(*clip[:2])):
        assert (one.token_masks - other.token_masks).abs().mean() < 0.05


def test_a_gpu_that_is_not_there_is_not_needed(tmp_path, composed):
    checkpoint = save_described(tmp_path / "model.safetensors", "MODEL.DEVICE", "cuda")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert AudioVisualPredictor(checkpoint).cfg.MODEL.DEVICE == expected
    assert AudioVisualPredictor(checkpoint, device="cpu").cfg.MODEL.DEVICE == "cpu"


def test_weights_of_another_config_are_refused(checkpoint):
    with pytest.raises(InputError, match="another architecture"):
        AudioVisualPredictor(checkpoint, ("MODEL.QDFORMER.NUM_TOKENS", "3"))
    with pytest.raises(InputError, match="TOKENS.*qdformer/config/defaults.py"):
        AudioVisualPredictor(checkpoint, ("MODEL.QDFORMER.TOKENS", "3"))
    assert build_model(AudioVisualPredictor(checkpoint).cfg) is not None


def test_integer_samples_and_other_rates_are_the_same_sound(predictor, clip):
    frames, waveform, _ = clip
    expected = list(predictor.segment_frames(frames, waveform))
    for given, rate in (((waveform * 32767).astype(np.int16), 16000), (waveform.repeat(3), 48000)):
        found = predictor.segment_frames(frames, given, sample_rate=rate)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.token_scores, other.token_scores, atol=0.05)


def test_a_sound_far_longer_than_the_frames_has_another_rate(predictor, clip):
    frames, waveform, _ = clip
    with pytest.raises(InputError, match="sample_rate"):
        predictor.segment_frames(frames, np.tile(waveform, 3))


def test_other_thresholds_are_another_view_of_one_network(checkpoint, predictor, clip):
    frames, waveform, _ = clip
    thresholds = Thresholds(mask=0.4, classes=0.01)
    other = predictor.with_thresholds(thresholds)
    cfg = other.cfg.MODEL.QDFORMER
    assert (cfg.MASK_THRESHOLD, cfg.CLASS_THRESHOLD) == (0.4, 0.01)
    assert next(other.model.parameters()) is next(predictor.model.parameters())
    overrides = ["MODEL.QDFORMER.CLASS_THRESHOLD", "0.01", "MODEL.QDFORMER.MASK_THRESHOLD", "0.4"]
    expected = AudioVisualPredictor(checkpoint, overrides).segment_frames(frames, waveform)
    before = [*predictor.segment_frames(frames, waveform)]
    for one, two in zip(other.segment_frames(frames, waveform), expected, strict=True):
        assert_same(one, two)
    for one, two in zip(predictor.segment_frames(frames, waveform), before, strict=True):
        assert_same(one, two)
