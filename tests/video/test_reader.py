import gc
import io
from fractions import Fraction

import av
import numpy as np
import pytest

from qdformer.errors import InputError
from qdformer.video.reader import VideoFile
from tests.video.video_samples import HEIGHT, WIDTH, Film, Track, corners, make, shades, tone

FORMATS = [
    ("mp4", "libx264", "aac"),
    ("mp4", "mpeg4", "libmp3lame"),
    ("mov", "mpeg4", "pcm_s16le"),
    ("matroska", "libx264", "flac"),
    ("webm", "libvpx", "libopus"),
    ("webm", "libvpx-vp9", None),
    ("avi", "mpeg4", "libmp3lame"),
    ("avi", "mjpeg", "pcm_s16le"),
    ("gif", "gif", None),
]


def film_of(codec, sound=None, count=12, **more):
    # An mp3 file begins before 0, which an avi file would have the pictures make up for.
    start = 0.1 if sound == "libmp3lame" else 0
    tracks = [Track(tone(300, count / 10, 48000, 2), 48000, sound, start)] if sound else []
    base = Fraction(1, 100) if codec == "gif" else Fraction(1, 1000)
    pix_fmt = "rgb8" if codec == "gif" else None
    return Film(shades(count), codec, pix_fmt, tracks=tracks, time_base=base, **more)


def grays(pictures):
    return [float(np.median(picture.image)) for picture in pictures]


@pytest.mark.parametrize(("container", "codec", "sound"), FORMATS)
def test_pictures_and_their_times(tmp_path, container, codec, sound):
    film = film_of(codec, sound)
    video = VideoFile(make(tmp_path / "film", film, container))
    pictures = list(video.pictures())

    assert (video.height, video.width) == (HEIGHT, WIDTH)
    assert [picture.image.shape for picture in pictures] == [(HEIGHT, WIDTH, 3)] * 12
    assert [p.time for p in pictures] == pytest.approx(np.arange(12) / 10, abs=1e-3)
    assert [p.time for p in pictures] == [float(p.pts * video.time_base) for p in pictures]
    assert pictures[0].pts == 0
    tolerance = 40 if codec == "gif" else 6
    assert grays(pictures) == pytest.approx(grays_of(film), abs=tolerance)
    assert video.num_sound_tracks == len(film.tracks)
    assert video.rate == 10 and video.aspect == 1
    assert video.duration == pytest.approx(1.2, abs=0.12)


def grays_of(film):
    return [float(np.median(image)) for image in film.images]


@pytest.mark.parametrize(("container", "codec", "sound"), FORMATS[::3])
def test_a_file_object_gives_what_its_path_gives(tmp_path, container, codec, sound):
    path = make(tmp_path / "film", film_of(codec, sound), container)
    file = io.BytesIO(path.read_bytes())
    file.seek(5)
    first, second = VideoFile(path), VideoFile(file)
    assert second.name == "the file" and first.name == str(path)
    for a, b, c in zip(first.pictures(), second.pictures(), second.pictures(), strict=True):
        assert (
            (a.pts, a.time, a.duration)
            == (b.pts, b.time, b.duration)
            == (c.pts, c.time, c.duration)
        )
        assert np.array_equal(a.image, b.image) and np.array_equal(b.image, c.image)
    assert np.array_equal(first.sound().read(0, 9000), second.sound().read(0, 9000))


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_variable_rates_keep_their_times(tmp_path, container):
    pts = [0, 40, 100, 400, 410, 900, 2000]
    codec = "libx264" if container == "mp4" else "ffv1"
    film = Film(shades(7), codec, pts=[p + 5000 for p in pts])
    video = VideoFile(make(tmp_path / "film", film, container))
    assert [p.time for p in video.pictures()] == pytest.approx(np.array(pts) / 1000, abs=1e-9)
    assert video.start == pytest.approx(5 if container == "matroska" else video.start)


def shown_at(pictures, time):
    return max((p for p in pictures if p.time <= time), key=lambda p: p.time)


@pytest.mark.parametrize("every", [0.04, 0.1, 0.25, 0.3, 0.96, 1.0, 2.0, 7.0])
def test_a_span_shows_what_its_middle_shows(tmp_path, every):
    pts = [0, 40, 100, 400, 410, 900, 2000]
    film = Film(shades(7), pts=pts)
    video = VideoFile(make(tmp_path / "film", film, "matroska"))
    pictures = list(video.pictures())
    sampled = list(video.sampled(every))

    end = 2.0 + float(video.shown_for(pictures[-1].duration))
    assert len(sampled) == max(1, int(np.ceil((end - 1e-3) / every)))
    for span, picture in enumerate(sampled):
        expected = shown_at(pictures, (span + 0.5) * every)
        assert picture.pts == expected.pts
        assert np.array_equal(picture.image, expected.image)


def test_only_the_pictures_that_are_taken_are_converted(tmp_path, monkeypatch):
    video = VideoFile(make(tmp_path / "film", film_of("ffv1", count=40), "matroska"))
    converted = []
    convert = VideoFile._picture
    monkeypatch.setattr(
        VideoFile, "_picture", lambda self, *args: converted.append(args[0]) or convert(self, *args)
    )
    assert len(list(video.sampled(1.0))) == 4
    assert converted == [500, 1500, 2500, 3500]


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_pictures_are_upright(tmp_path, container, turns, mirrored):
    film = Film([corners()] * 2, "mpeg4", turn=(90 * turns, mirrored, False), aspect=Fraction(4, 3))
    video = VideoFile(make(tmp_path / "film", film, container))
    expected = np.rot90(corners(), turns)
    expected = expected[:, ::-1] if mirrored else expected

    assert (video.height, video.width) == expected.shape[:2]
    assert video.aspect == (Fraction(3, 4) if turns % 2 else Fraction(4, 3))
    for picture in video.pictures():
        difference = np.abs(picture.image.astype(int) - expected)
        assert np.median(difference) < 12 and np.mean(difference) < 15
        assert picture.image.flags.c_contiguous


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "container"),
    [
        ("ffv1", None, "matroska"),
        ("mpeg4", None, "avi"),
        ("gif", "rgb8", "gif"),
        ("mpeg4", None, "mp4"),
    ],
)
@pytest.mark.parametrize(("height", "width"), [(49, 65), (1, 1), (33, 64)])
def test_odd_sizes(tmp_path, codec, pix_fmt, container, height, width):
    film = Film(shades(3, height, width), codec, pix_fmt, time_base=Fraction(1, 100))
    video = VideoFile(make(tmp_path / "film", film, container))
    assert (video.height, video.width) == (height, width)
    assert {p.image.shape for p in video.pictures()} == {(height, width, 3)}


@pytest.mark.parametrize(
    "pix_fmt", ["gray", "yuv420p10le", "yuv444p", "bgra", "gray16le", "yuv422p"]
)
def test_pixel_formats(tmp_path, pix_fmt):
    film = Film(shades(4), "ffv1", pix_fmt)
    video = VideoFile(make(tmp_path / "film", film, "matroska"))
    assert grays(video.pictures()) == pytest.approx(grays_of(film), abs=2)


@pytest.mark.parametrize(
    ("tag", "kr", "kb"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114), (2, 0.299, 0.114)]
)
def test_colors_are_those_of_the_tagged_matrix(tmp_path, tag, kr, kb):
    red, green, blue = 0.8, 0.3, 0.1
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    planes = (
        16 + 219 * luma,
        128 + 112 * (blue - luma) / (1 - kb),
        128 + 112 * (red - luma) / (1 - kr),
    )
    values = np.array(planes).round().astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(
        np.broadcast_to(values[:, None, None], (3, 32, 32)).copy(), format="yuv444p"
    )
    with av.open(str(tmp_path / "film.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width = stream.height = 32
        stream.pix_fmt, stream.codec_context.colorspace = "yuv444p", tag
        frame.colorspace = tag
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    picture = next(VideoFile(tmp_path / "film.mp4").pictures())
    found = np.median(picture.image.reshape(-1, 3), axis=0)
    assert np.abs(found - np.array([red, green, blue]) * 255).max() <= 4


def test_what_is_transparent_in_a_gif_is_white(tmp_path):
    from PIL import Image

    image = Image.new("P", (40, 30), 0)
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.paste(1, (0, 0, 20, 30))
    image.save(tmp_path / "film.gif", transparency=0)
    picture = next(VideoFile(tmp_path / "film.gif").pictures()).image
    assert (picture[:, :20] == (200, 0, 0)).all()
    assert (picture[:, 20:] == 255).all()


def film_of_sizes(path, header, *sizes):
    """VP8 of (height, width, gray) pictures behind a header of another size."""
    packets = []
    for height, width, gray in sizes:
        encoder = av.CodecContext.create("libvpx", "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.time_base = Fraction(1, 10)
        image = np.full((height, width, 3), gray, np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        packets += [*encoder.encode(frame), *encoder.encode(None)]
    height, width = header
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libvpx", rate=10, width=width, height=height)
        for index, packet in enumerate(packets):
            packet.stream, packet.time_base = stream, Fraction(1, 10)
            packet.pts = packet.dts = index
            output.mux(packet)
    return VideoFile(path)


def test_pictures_that_change_their_size_are_fitted_into_that_of_the_video(tmp_path):
    video = film_of_sizes(tmp_path / "film.mkv", (48, 64), (48, 64, 40), (24, 96, 200))
    first, second = (picture.image for picture in video.pictures())
    assert first.shape == second.shape == (48, 64, 3)
    # 96 x 24 is 64 x 16 here, between two black bars.
    assert second[16:32].mean() == pytest.approx(200, abs=4)
    assert second[:15].max() < 8 and second[33:].max() < 8


def test_a_video_whose_size_grows_is_as_large_as_its_header_says(tmp_path):
    video = film_of_sizes(tmp_path / "film.mkv", (96, 128), (24, 32, 40), (96, 128, 200))
    assert (video.height, video.width) == (96, 128)
    assert [p.image.shape for p in video.pictures()] == [(96, 128, 3)] * 2
    assert grays(video.pictures()) == pytest.approx([40, 200], abs=4)


def test_a_header_that_asks_for_too_much_is_not_believed(tmp_path):
    video = film_of_sizes(tmp_path / "film.mkv", (8000, 8000), (24, 32, 40))
    assert (video.height, video.width) == (24, 32)


def test_the_picture_stream_is_no_cover(tmp_path):
    make(
        tmp_path / "song",
        Film(shades(1), "mjpeg", tracks=[Track(tone(300, 1, 48000), 48000, "aac")]),
        "mp4",
    )
    assert VideoFile(tmp_path / "song").num_sound_tracks == 1
    with av.open(str(tmp_path / "cover"), "w", format="mp4") as output:
        stream = output.add_stream("mjpeg", rate=1, width=64, height=48, pix_fmt="yuvj420p")
        stream.disposition = av.stream.Disposition.attached_pic
        output.mux(stream.encode(av.VideoFrame.from_ndarray(shades(1)[0], format="rgb24")))
        output.mux(stream.encode(None))
    with pytest.raises(InputError, match="no pictures"):
        VideoFile(tmp_path / "cover")


def test_the_chosen_sound_track_has_to_be_there(tmp_path):
    tracks = [Track(tone(300, 0.2, 16000), 16000)] * 2
    path = make(tmp_path / "film", Film(shades(2), tracks=tracks), "matroska")
    assert VideoFile(path, sound_track=1).num_sound_tracks == 2
    for wrong in (2, -1):
        with pytest.raises(InputError, match=f"track {wrong} of its sound .* it has 2"):
            VideoFile(path, sound_track=wrong)


def test_a_video_without_sound_is_silent(tmp_path):
    video = VideoFile(make(tmp_path / "film", Film(shades(2)), "matroska"))
    assert video.num_sound_tracks == 0
    assert not video.sound().read(-10, 5000).any()
    with pytest.raises(InputError, match="it has 0"):
        VideoFile(tmp_path / "film", sound_track=1)


def test_more_than_a_day_is_refused(tmp_path):
    path = make(tmp_path / "film", Film(shades(2), pts=[0, 25 * 3600 * 1000]), "matroska")
    with pytest.raises(InputError, match="more than 24 hours"):
        list(VideoFile(path).pictures())


def test_pictures_do_not_pile_up(tmp_path):
    video = VideoFile(make(tmp_path / "film", film_of("ffv1", count=40), "matroska"))
    gc.collect()
    gc.disable()
    try:
        pictures = video.pictures()
        for _ in range(30):
            next(pictures)
        frames = [item for item in gc.get_objects() if type(item) is av.VideoFrame]
        assert len(frames) < 6
    finally:
        gc.enable()
