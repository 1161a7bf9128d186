import io
import struct
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from qdformer.errors import InputError
from qdformer.io.audio_file import SAMPLE_RATE
from qdformer.video.reader import VideoFile
from qdformer.video.writer import write_annotated_video
from tests.video.video_samples import Film, Track, make, shades, tone


def made(tmp_path, *tracks, container="matroska", name="film", **more):
    film = Film(**{"images": shades(12), "codec": "ffv1", "tracks": list(tracks)} | more)
    return VideoFile(make(tmp_path / name, film, container))


def written(tmp_path, video, waveform=None):
    write_annotated_video(tmp_path / "out.mp4", video, video.pictures(), waveform)
    return VideoFile(tmp_path / "out.mp4")


def grays(video):
    return [float(np.median(picture.image)) for picture in video.pictures()]


def seconds(path, kind):
    """What the stream claims to last."""
    with av.open(str(path)) as file:
        stream = next(stream for stream in file.streams if stream.type == kind)
        return float(stream.duration * stream.time_base)


def packets(path, index=0):
    with av.open(str(path)) as file:
        stream = file.streams.audio[index]
        return [(float(p.pts * p.time_base), bytes(p)) for p in file.demux(stream) if p.size]


PTS = [0, 40, 100, 400, 410, 900, 2000]


@pytest.mark.parametrize("start", [0, 3000])
def test_pictures_keep_their_times(tmp_path, start):
    video = made(tmp_path, images=shades(7), pts=[start + p for p in PTS])
    out = written(tmp_path, video)
    assert [p.time for p in out.pictures()] == pytest.approx(np.array(PTS) / 1000, abs=1e-9)
    assert grays(out) == pytest.approx(grays(video), abs=4)


@pytest.mark.parametrize("rate", [7, 25, 30])
@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("avi", "mjpeg")])
def test_the_length_agrees(tmp_path, rate, container, codec):
    base = Fraction(1, 15360) if container == "mp4" else Fraction(1, rate)
    video = made(tmp_path, codec=codec, container=container, rate=rate, time_base=base)
    write_annotated_video(tmp_path / "out.mp4", video, video.pictures())
    assert seconds(tmp_path / "out.mp4", "video") == pytest.approx(12 / rate, abs=2e-3)
    out = VideoFile(tmp_path / "out.mp4")
    assert out.rate == pytest.approx(rate, rel=1e-3)
    assert list(out.pictures())[-1].duration * out.time_base == pytest.approx(1 / rate, abs=2e-3)


def test_the_last_picture_is_shown_as_long_as_in_the_original(tmp_path):
    pictures = [0, 100, 200]
    with av.open(str(tmp_path / "film"), "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=10, time_base=Fraction(1, 1000))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.max_b_frames = 0
        encoded = []
        for image, pts in zip(shades(3), pictures, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, 1000)
            encoded += stream.encode(frame)
        encoded += stream.encode(None)
        for packet in encoded:
            packet.duration = 700 if packet.pts == 200 else 100
            output.mux(packet)
    out = written(tmp_path, VideoFile(tmp_path / "film"))
    assert seconds(tmp_path / "out.mp4", "video") == pytest.approx(0.9, abs=1e-3)
    assert [p.time for p in out.sampled(0.1)] == pytest.approx([0, 0.1] + [0.2] * 7)


@pytest.mark.parametrize(("height", "width"), [(49, 65), (1, 1), (48, 33)])
def test_odd_sizes_and_aspects(tmp_path, height, width):
    images, aspect = shades(3, height, width), Fraction(4, 3)
    video = made(tmp_path, images=images, aspect=aspect, codec="mpeg4", container="mp4")
    out = written(tmp_path, video)
    assert (out.height, out.width) == (height + height % 2, width + width % 2)
    assert height == 1 or out.aspect == video.aspect == Fraction(4, 3)


COPIED = [
    ("mp4", "aac"),
    ("matroska", "libmp3lame"),
    ("webm", "libopus"),
    ("matroska", "flac"),
    ("matroska", "ac3"),
    ("matroska", "eac3"),
    ("mov", "alac"),
    ("avi", "libmp3lame"),
]


@pytest.mark.parametrize(("container", "codec"), COPIED)
def test_sound_is_copied_as_it_is_stored(tmp_path, container, codec):
    pictures = {"webm": "libvpx", "matroska": "ffv1"}.get(container, "mjpeg")
    track = Track(tone(330, 1.2, 48000, 2), 48000, codec, start=0.1)
    video = made(tmp_path, track, container=container, codec=pictures)
    out = written(tmp_path, video)

    before, after = packets(tmp_path / "film"), packets(tmp_path / "out.mp4")
    end = seconds(tmp_path / "out.mp4", "video")
    kept = [(time - float(video.start), data) for time, data in before if time - video.start < end]
    assert [data for _, data in after] == [data for _, data in kept]
    assert [t for t, _ in after] == pytest.approx([t for t, _ in kept], abs=2e-3)
    with av.open(str(tmp_path / "film")) as a, av.open(str(tmp_path / "out.mp4")) as b:
        names = [f.streams.audio[0].codec_context.codec.canonical_name for f in (a, b)]
    assert names[0] == names[1]
    assert_alike(video.sound().read(0, 19200), out.sound().read(0, 19200), 0.99)


def assert_alike(first, second, least):
    """The same sound at the same time, to some samples."""
    shifted = [np.corrcoef(first[40:-40], np.roll(second, n)[40:-40])[0, 1] for n in range(-32, 33)]
    assert max(shifted) > least
    assert second.std() == pytest.approx(first.std(), rel=0.1)


@pytest.mark.parametrize(
    ("codec", "rate", "channels", "written_rate"),
    [
        ("pcm_s16le", 48000, 2, 48000),
        ("pcm_f32le", 44100, 1, 44100),
        ("pcm_s16le", 5000, 1, 8000),
        ("pcm_s16le", 37800, 2, 44100),
        ("pcm_s16le", 192000, 2, 96000),
        ("pcm_s16le", 48000, 6, 48000),
    ],
)
def test_other_sound_is_encoded(tmp_path, codec, rate, channels, written_rate):
    samples = np.tile(hum(1.2, rate), (channels, 1))
    video = made(tmp_path, Track(samples, rate, codec))
    out = written(tmp_path, video)
    with av.open(str(tmp_path / "out.mp4")) as file:
        context = file.streams.audio[0].codec_context
        assert (context.name, context.rate) == ("aac", written_rate)
        assert context.layout.nb_channels == min(channels, 2)
    heard = [sound.read(0, 19200) for sound in (video.sound(), out.sound())]
    assert np.corrcoef(*[sound[1600:-1600] for sound in heard])[0, 1] > 0.9
    assert seconds(tmp_path / "out.mp4", "audio") == pytest.approx(1.2, abs=0.03)


def hum(length, rate):
    """Low tones that begin and end at different times, none of which a codec drops."""
    times = np.arange(round(length * rate)) / rate
    return 0.2 * np.sin(2 * np.pi * 200 * times) + 0.2 * np.sin(2 * np.pi * 330 * times**2)


@pytest.mark.parametrize("start", [-0.4, 0.0, 0.6])
@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_keeps_its_place(tmp_path, codec, start):
    samples = hum(1.0, 16000)[None]
    first = 500 if start < 0 else 0
    track = Track(samples, 16000, codec, start=start + first / 1000)
    video = made(tmp_path, track, images=shades(20), pts=[first + 100 * n for n in range(20)])
    out = written(tmp_path, video)
    assert_alike(video.sound().read(0, 30000), out.sound().read(0, 30000), 0.97)
    assert next(out.pictures()).time == 0 and out.start == 0


def test_a_gap_in_encoded_sound_stays(tmp_path):
    video = made(tmp_path, Track(tone(440, 1.2, 16000), 16000, "pcm_s16le", gap=(0.4, 0.8)))
    heard = written(tmp_path, video).sound().read(0, 16000)
    assert np.abs(heard[8000:11200]).max() < 0.02
    assert np.abs(heard[14000:15000]).max() > 0.3


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
@pytest.mark.parametrize("length", [0.5, 3.0])
def test_sound_ends_with_the_picture(tmp_path, codec, length):
    written(tmp_path, made(tmp_path, Track(tone(440, length, 16000), 16000, codec)))
    assert seconds(tmp_path / "out.mp4", "audio") == pytest.approx(min(length, 1.2), abs=0.13)


def test_the_chosen_track_is_written(tmp_path):
    tracks = [Track(tone(hertz, 1.2, 48000), 48000, "flac") for hertz in (300, 900)]
    made(tmp_path, *tracks)
    video = VideoFile(tmp_path / "film", sound_track=1)
    heard = written(tmp_path, video).sound().read(0, 16000)
    assert np.abs(np.fft.rfft(heard)).argmax() == 900


@pytest.mark.parametrize("length", [0.4, 1.2, 5.0])
@pytest.mark.parametrize("has_sound", [False, True])
def test_a_waveform_takes_the_place_of_the_sound(tmp_path, length, has_sound):
    tracks = [Track(tone(300, 1.2, 48000, 2), 48000, "flac")] if has_sound else []
    waveform = tone(880, length, SAMPLE_RATE)[0].astype(np.float32)
    out = written(tmp_path, made(tmp_path, *tracks), waveform)
    assert seconds(tmp_path / "out.mp4", "audio") == pytest.approx(1.2, abs=0.011)
    heard = out.sound().read(0, 19200)
    spoken = int(min(length, 1.2) * SAMPLE_RATE)
    assert np.corrcoef(heard[: spoken - 2000], waveform[: spoken - 2000])[0, 1] > 0.98
    assert np.abs(heard[spoken + 1024 :]).max(initial=0) < 0.01


def test_no_sound_stays_no_sound(tmp_path):
    assert written(tmp_path, made(tmp_path)).num_sound_tracks == 0


def test_turned_videos_are_written_upright(tmp_path):
    video = made(tmp_path, container="mp4", codec="libx264", turn=(90, False, False))
    out = written(tmp_path, video)
    assert (out.height, out.width) == (video.height, video.width) == (64, 48)


def test_pictures_are_taken_one_at_a_time_and_may_be_fewer(tmp_path):
    video = made(tmp_path, Track(tone(300, 1.2, 16000), 16000, "aac"))
    few = [picture for picture in video.pictures() if picture.time < 0.45]
    write_annotated_video(
        tmp_path / "out.mp4", video, (replace(p, image=255 - p.image) for p in few)
    )
    out = VideoFile(tmp_path / "out.mp4")
    assert grays(out) == pytest.approx([255 - np.median(p.image) for p in few], abs=4)
    assert seconds(tmp_path / "out.mp4", "audio") == pytest.approx(0.5, abs=0.07)


def test_it_can_be_shown_before_it_is_loaded(tmp_path):
    written(tmp_path, made(tmp_path, Track(tone(300, 1.2, 16000), 16000, "pcm_s16le")))
    content, boxes, position = (tmp_path / "out.mp4").read_bytes(), [], 0
    while position < len(content):
        size, name = struct.unpack(">I4s", content[position : position + 8])
        boxes.append(name)
        position += size
    assert boxes.index(b"moov") < boxes.index(b"mdat")
    with av.open(io.BytesIO(content)) as file:
        assert [s.codec_context.name for s in file.streams] == ["h264", "aac"]
        assert file.streams.video[0].codec_context.pix_fmt == "yuv420p"


@pytest.mark.parametrize("older", [None, b"older video"])
def test_a_failing_write_leaves_the_folder_as_it_was(tmp_path, older):
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "film.mp4"
    if older:
        path.write_bytes(older)
    video = made(tmp_path, Track(tone(300, 1.2, 16000), 16000, "aac"))

    def broken():
        for index, picture in enumerate(video.pictures()):
            if index == 7:
                raise RuntimeError("unplugged")
            yield picture

    before = sorted(path.parent.iterdir())
    with pytest.raises(RuntimeError, match="unplugged"):
        write_annotated_video(path, video, broken())
    with pytest.raises(InputError, match="no pictures to write"):
        write_annotated_video(path, video, [])
    small = replace(next(video.pictures()), image=np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(InputError, match=r"picture at 0.00 s is uint8 of shape \(2, 2, 3\)"):
        write_annotated_video(path, video, [small])
    assert sorted(path.parent.iterdir()) == before
    assert not older or path.read_bytes() == older


def test_bad_names_are_refused(tmp_path):
    video = made(tmp_path)
    for name, words in (("absent/a.mp4", "absent does not exist"), ("a.avi", r"ends in \.mp4")):
        with pytest.raises(InputError, match=words):
            write_annotated_video(tmp_path / name, video, video.pictures())


def test_names_that_look_like_options_or_addresses(tmp_path, monkeypatch):
    video = made(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("-i a.mp4", "http:a.mp4"):
        write_annotated_video(name, video, video.pictures())
        assert len(grays(VideoFile(name))) == 12
