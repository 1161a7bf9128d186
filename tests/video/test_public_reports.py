"""What people's cameras write, and public reports say that readers lose."""

import io
import logging
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from qdformer.video.hdr import tone_mapped
from qdformer.video.reader import VideoFile, _deinterlaced
from tests.video.video_samples import Film, Track, make, shades, tone


def encoded(path, images, codec, options=None, pix_fmt="yuv420p", **context):
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for image in images:
            form = "rgb48le" if image.dtype == np.uint16 else "rgb24"
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format=form)))
        output.mux(stream.encode(None))
    return VideoFile(path)


@pytest.mark.parametrize("container", ["avi", "mp4", "mkv"])
def test_every_picture_of_h264_comes_in_its_turn(tmp_path, container):
    """avi numbers packets as they are stored, so that times of B-frames go up and down."""
    images = [np.full((64, 96, 3), 3 * k, np.uint8) for k in range(75)]
    video = encoded(tmp_path / f"film.{container}", images, "libx264", {"bf": "3"})
    pictures = list(video.pictures())
    assert len(pictures) == 75
    assert [p.image.mean() for p in pictures] == sorted(p.image.mean() for p in pictures)
    gaps = np.diff([p.time for p in pictures])
    assert gaps.min() > 0 and np.median(gaps) == pytest.approx(0.04)


def test_recordings_that_were_joined_go_on(tmp_path, caplog):
    """Each begins at 0 again."""
    make(tmp_path / "film.avi", Film(shades(6), "mjpeg", "yuvj420p"), "avi")
    video = VideoFile(tmp_path / "film.avi")
    with video.media.opened() as container:
        frames = list(video.media.decoded(container, container.streams.video[0], "pictures"))
    video.media.decoded = lambda *_: iter([*frames, *frames])
    with caplog.at_level(logging.WARNING):
        times = [picture.time for picture in video.pictures()]
    assert times == pytest.approx([k / 10 for k in range(12)])
    assert any("6 pictures follow at its rate" in message for message in caplog.messages)


def test_side_data_that_nobody_here_knows_is_passed_over(tmp_path):
    """MJPEG with EXIF, as cameras write it, has side data newer than PyAV's list."""
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    path = tmp_path / "camera.avi"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mjpeg", rate=5, width=160, height=90, pix_fmt="yuvj420p")
        for number in range(4):
            data = io.BytesIO()
            Image.new("RGB", (160, 90), (40 * number,) * 3).save(data, "jpeg", exif=exif)
            packet = av.Packet(data.getvalue())
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base = Fraction(1, 5)
            output.mux(packet)
    means = [picture.image.mean() for picture in VideoFile(path).pictures()]
    assert means == pytest.approx([0, 40, 80, 120], abs=3)


def unknown_codec(path, tracks):
    """Give sound tracks of a mov a codec that FFmpeg does not know, as recent iPhones do."""
    head, *parts = path.read_bytes().split(b"trak")
    sounds = [k for k, part in enumerate(parts) if b"soun" in part and b"mp4a" in part]
    for track in tracks:
        part = parts[sounds[track]]
        parts[sounds[track]] = part.replace(b"mp4a", b"apac").replace(b"esds", b"dapa")
    path.write_bytes(b"trak".join([head, *parts]))


@pytest.fixture
def two_tracks(tmp_path):
    path = tmp_path / "two.mov"
    tracks = [Track(tone(hertz, 1, 16000), 16000, "aac") for hertz in (1000, 300)]
    make(path, Film(shades(10), "libx264", "yuv420p", tracks=tracks), "mov")
    return path


def pitch(video):
    sound = video.sound().read(0, 16000)
    return np.abs(np.fft.rfft(sound)).argmax() if sound.any() else 0


def test_the_first_track_that_can_be_decoded_is_heard(two_tracks):
    assert pitch(VideoFile(two_tracks)) == pytest.approx(1000, abs=2)
    unknown_codec(two_tracks, [0])
    video = VideoFile(two_tracks)
    assert (video.sound_track, video.num_sound_tracks) == (1, 2)
    assert pitch(video) == pytest.approx(300, abs=2)


@pytest.mark.parametrize(("broken", "asked"), [([0, 1], None), ([0], 0)])
def test_sound_that_cannot_be_decoded_is_told(two_tracks, caplog, broken, asked):
    unknown_codec(two_tracks, broken)
    with caplog.at_level(logging.WARNING):
        video = VideoFile(two_tracks, asked)
    assert video.sound_track is None and pitch(video) == 0
    assert any("two.mov: has no sound" in m and "can be decoded" in m for m in caplog.messages)


def test_channels_that_cancel_each_other_are_told(tmp_path, caplog):
    left = tone(300, 1, 16000)
    for name, right, told in (("same", left, False), ("opposite", -left, True)):
        track = Track(np.concatenate([left, right]), 16000)
        make(tmp_path / name, Film(shades(10), tracks=[track]), "matroska")
        with caplog.at_level(logging.WARNING):
            VideoFile(tmp_path / name).sound().read(0, 32000)
        assert any(f"{name}: has channels that cancel" in m for m in caplog.messages) is told


def test_hdr_is_brought_to_standard_range(tmp_path):
    """Diffuse white, 75 % of HLG and 58 % of PQ (BT.2408), is equally bright in both."""
    for curve, signal in (("HLG", 0.75), ("PQ", 0.58)):
        levels = np.array([[0.0, signal / 2, signal, 1.0]])
        pixels = (levels[..., None] * np.ones(3) * 65535).astype(np.uint16)
        black, half, white, peak = tone_mapped(pixels, curve)[0, :, 0].astype(int)
        assert black == 0 < half < white < peak
        assert white == pytest.approx(188, abs=4)
    # A pure color stays of its hue, and grows no paler than it was flat.
    red = np.zeros((1, 1, 3), np.uint16)
    red[..., 0] = 40000
    r, g, b = tone_mapped(red, "HLG")[0, 0].astype(int)
    assert r > 100 and g == b == 0

    image = np.full((64, 96, 3), int(0.75 * 65535), np.uint16)
    plain, hlg = (
        encoded(tmp_path / f"{curve}.mkv", [image] * 3, "ffv1", pix_fmt="yuv420p10le",
                color_trc=curve, color_primaries=9 if curve == 18 else 1)
        for curve in (1, 18)
    )  # fmt: skip
    first = [next(video.pictures()).image.mean() for video in (plain, hlg)]
    assert first == pytest.approx([191, 188], abs=4)


def test_interlaced_pictures_show_one_moment():
    """A square that moves between the fields is a comb no longer."""
    image = np.zeros((16, 16, 3), np.uint8)
    image[4:12:2, 2:8] = 200
    image[5:12:2, 6:12] = 200
    whole = _deinterlaced(image)
    assert (whole[4:11, 3:7] == 200).all()
    assert (whole[5:11, 8:] == 0).all()
