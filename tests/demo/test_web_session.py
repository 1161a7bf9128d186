"""What is done with a video, by a predictor whose results are known."""

import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from detectron2.structures import Instances

from qdformer.audio.separation import nmf
from qdformer.demo import web_session
from qdformer.demo.annotate import AnnotateOptions, annotate
from qdformer.demo.web_session import SoundChange, View, WebSession
from qdformer.errors import InputError
from qdformer.modeling.inference import Thresholds
from qdformer.predictor import AudioVisualPredictor, SegmentedFrame
from qdformer.synthetic.noise import draw_noise
from qdformer.video.reader import VideoFile
from qdformer.video.writer import write_video
from tests.demo.conftest import CLASSES, COLORS

# (left column, right column, class, score) of what is found in each second, by one token each.
FOUND = [
    [(0, 64, 2, 0.5)],
    [(0, 64, 2, 0.7), (64, 96, 3, 0.9)],
    [],
]


class Known:
    """Finds the same in every video, and keeps the sound that it was given."""

    metadata = Metadata(stuff_classes=CLASSES, stuff_colors=COLORS)
    cfg = SimpleNamespace(
        MODEL=SimpleNamespace(QDFORMER=SimpleNamespace(CLASS_THRESHOLD=0.3, MASK_THRESHOLD=0.5))
    )

    def __call__(self, video, every, waveform):
        self.waveform = waveform
        for second, (picture, objects) in enumerate(zip(video.sampled(every), FOUND)):
            yield frame_of(second, picture.image, objects)


def frame_of(second, image, objects):
    label_map = np.zeros(image.shape[:2], np.uint8)
    # The last token is never sure, and covers everything.
    masks, classes, scores = torch.zeros(3, 24, 32), torch.ones(3).long(), torch.full((3,), 0.1)
    masks[2] = 1
    for left, right, label, score in objects:
        token = label - 2
        label_map[:, left:right] = label
        masks[token, :, left // 4 : right // 4] = 1
        classes[token], scores[token] = label, score
    labels = torch.tensor([label for *_, label, _ in objects], dtype=torch.long)
    found = Instances(
        image.shape[:2],
        pred_masks=torch.from_numpy(label_map) == labels[:, None, None],
        pred_classes=labels - 1,
        scores=torch.tensor([score for *_, score in objects]),
    )
    return SegmentedFrame(
        begin=second,
        end=second + 1,
        image=image,
        label_map=label_map,
        instances=found,
        token_masks=masks,
        token_classes=classes,
        token_scores=scores,
        local_codes=None,
        global_codes=None,
        log_mel=np.zeros((96, 64), np.float32),
        _network_size=(96, 128),
    )


@pytest.fixture
def predictor():
    return Known()


@pytest.fixture
def session(predictor, short_video):
    return WebSession(str(short_video), predictor)


def nothing_done(share):
    assert 0 <= share <= 1


def rows(result):
    return [(row.name, row.seconds, round(row.score, 4), row.share) for row in result.classes]


def pictures(path):
    return np.stack([picture.image for picture in VideoFile(path).pictures()]).astype(int)


def test_the_table_counts_seconds_scores_and_pixels(session):
    done = []
    result = session.segment(SoundChange(), done.append)
    assert rows(result) == [("drum", 2.0, 0.6, 0.5), ("siren", 1.0, 0.9, 0.25)]
    assert result.classes[0].color == COLORS[2]
    assert session.likeliest_classes() == ["drum", "siren", ""]
    assert done == sorted(done) and 0.9 < done[-1] <= 1 and len(done) == 30


def test_tokens_are_switched_without_the_network(session, predictor, short_video):
    full = session.segment(SoundChange(), nothing_done)
    everything = pictures(full.overlay)
    del predictor.waveform
    result = session.show([1, 2], nothing_done)
    # Token 2 is not sure enough to bring anything back.
    assert rows(result) == [("siren", 1.0, 0.9, 0.25)]
    changed = np.abs(pictures(result.overlay) - everything).mean(axis=(0, 1, 3)) > 5
    assert changed[4:60].all() and not changed[68:].any()
    assert rows(session.show([], nothing_done)) == []
    np.testing.assert_array_equal(
        pictures(session.show([0, 1, 2], nothing_done).overlay), everything
    )
    assert not hasattr(predictor, "waveform")


def test_without_a_result_there_are_no_tokens(session):
    assert session.likeliest_classes() == []
    with pytest.raises(InputError, match="no result to choose tokens of"):
        session.show([0], nothing_done)


def test_a_sound_as_it_is_stays_the_videos_own(session, predictor, short_video):
    session.separate(2)
    result = session.segment(SoundChange(), nothing_done)
    assert predictor.waveform is None
    assert VideoFile(result.overlay).sound().read(0, 48000) == pytest.approx(
        VideoFile(short_video).sound().read(0, 48000)
    )


def test_what_is_segmented_is_what_is_heard(session, predictor, short_video):
    own = VideoFile(short_video).sound().read(0, 48000)
    sources = nmf(own, 3)
    np.testing.assert_array_equal(session.separate(3), sources)
    left = sources[0] + sources[2]
    (noise,) = draw_noise(["video"], -20.0, "pink")
    expected = noise.add_to(left)
    assert abs(expected).max() > 1  # too loud for a file, and so softer
    result = session.segment(SoundChange((1,), "pink", -20.0), nothing_done)
    np.testing.assert_allclose(
        predictor.waveform, expected / abs(expected).max(), rtol=1e-4, atol=1e-6
    )
    heard = VideoFile(result.overlay).sound().read(0, 48000)
    assert np.corrcoef(heard, predictor.waveform)[0, 1] > 0.9
    first = predictor.waveform
    session.segment(SoundChange((1,), "pink", -20.0), nothing_done)
    np.testing.assert_array_equal(predictor.waveform, first)
    session.segment(SoundChange((0, 1, 2)), nothing_done)
    assert predictor.waveform.shape == (48000,) and not predictor.waveform.any()


@pytest.mark.parametrize(
    "count, size, rate, message",
    [
        (62, (16, 16), 1.0, "lasts 62 s, and this page takes up to 60 s; cut it"),
        (1, (1090, 1920), 10.0, "pictures of 1920 x 1090 pixels, and .* up to 1920 x 1080"),
        (12, (16, 16), 120.0, "has 120 frames per second, and this page takes up to 60"),
    ],
)
def test_what_is_beyond_the_limits_is_refused(tmp_path, predictor, count, size, rate, message):
    path = tmp_path / "large.mp4"
    write_video(path, (np.zeros((*size, 3), np.uint8) for _ in range(count)), rate)
    with pytest.raises(InputError, match=message):
        WebSession(str(path), predictor)


def test_a_header_that_tells_too_little_is_not_believed(tmp_path, predictor, monkeypatch):
    path = tmp_path / "long.mp4"
    write_video(path, (np.zeros((16, 16, 3), np.uint8) for _ in range(64)), 1.0)
    monkeypatch.setattr(web_session, "MAX_SECONDS", 70)
    session = WebSession(str(path), predictor)
    monkeypatch.setattr(web_session, "MAX_SECONDS", 60)
    with pytest.raises(InputError, match="long.mp4: lasts 64 s"):
        session.segment(SoundChange(), lambda share: None)


def test_a_session_that_is_closing_ends_what_goes_on(session):
    done = []

    def close(share):
        done.append(share)
        session.closing.set()

    with pytest.raises(InputError, match="short.mp4: is no longer asked for"):
        session.segment(SoundChange(), close)
    assert len(done) == 1


def test_a_result_goes_with_its_session(predictor, short_video):
    session = WebSession(str(short_video), predictor)
    overlay = session.segment(SoundChange(), nothing_done).overlay
    assert overlay.is_file()
    del session
    assert not overlay.parent.exists()


def test_the_files_of_a_result_are_those_of_the_command(trained, video, tmp_path):
    """Frame for frame and byte for byte, at the same thresholds and span."""
    view = View(0.5, Thresholds(mask=0.4, classes=0.006))
    session = WebSession(str(video), AudioVisualPredictor(trained))
    result = session.segment(SoundChange(), nothing_done, view)
    with zipfile.ZipFile(result.files) as archive:
        given = {name: archive.read(name) for name in archive.namelist() if name[-1] != "/"}
    overrides = ["MODEL.QDFORMER.CLASS_THRESHOLD", "0.006", "MODEL.QDFORMER.MASK_THRESHOLD", "0.4"]
    annotate(
        AudioVisualPredictor(trained, overrides), VideoFile(video), tmp_path / "x",
        AnnotateOptions(every=0.5),
    )  # fmt: skip
    written = {
        str(path.relative_to(tmp_path / "x")): path.read_bytes()
        for path in (tmp_path / "x").rglob("*")
        if path.is_file() and path.name != "overlay.mp4"
    }
    assert len(given) == 2 * 6 + 2 and given == written
    with pytest.raises(InputError, match="0.2 to 5.0 are possible"):
        View(0.1)
