import io
import logging

import av
import numpy as np
import pytest

from qdformer.errors import InputError
from qdformer.video import media_source
from qdformer.video.reader import VideoFile
from qdformer.video.writer import write_annotated_video
from tests.video.video_samples import HEIGHT, WIDTH, Film, make, shades


def movie(path):
    return make(path, Film(shades(12), "mpeg4"), "mp4")


def test_too_many_pixels_are_refused(tmp_path, monkeypatch):
    path = make(tmp_path / "film", Film(shades(2), "libx264"), "mp4")
    monkeypatch.setattr(media_source, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(InputError, match="film: .*; give an mp4"):
        VideoFile(path)
    monkeypatch.setattr(media_source, "MAX_PIXELS", HEIGHT * WIDTH + WIDTH)
    assert len(list(VideoFile(path).pictures())) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "no such video file"),
        ("empty", b"", "is empty; give an mp4"),
        ("text", b"once upon a time", "is not a video that is read; give an mp4"),
        ("png", b"\x89PNG\r\n\x1a\n" + bytes(99), "is not a video that is read"),
        ("wav", b"RIFF....WAVEfmt " + bytes(99), "is not a video that is read"),
        ("header.mp4", b"\0\0\0\x14ftypisom" + bytes(8), "cannot be decoded as a video"),
        ("start.mkv", b"\x1a\x45\xdf\xa3" + bytes(99), "cannot be decoded|has no pictures"),
        ("start.gif", b"GIF89a" + bytes(99), "give an mp4"),
    ],
)
def test_what_is_no_video_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        VideoFile(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    if content is not None:
        with pytest.raises(InputError, match=f"the file: .*({message})"):
            VideoFile(io.BytesIO(content))


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with pytest.raises(InputError, match="has no pictures"):
        VideoFile(tmp_path / "song.mp4")


@pytest.mark.parametrize("container", ["matroska", "avi"])
def test_a_truncated_file_gives_what_it_has(tmp_path, container):
    path = make(tmp_path / "film", Film(noise(20), "mjpeg"), container)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert 5 <= len(list(VideoFile(path).pictures())) <= 11


def test_a_truncated_movie_with_its_index_first(tmp_path):
    video = VideoFile(make(tmp_path / "film", Film(noise(20), "mjpeg"), "mov"))
    write_annotated_video(tmp_path / "out.mp4", video, video.pictures())
    content = (tmp_path / "out.mp4").read_bytes()
    (tmp_path / "out.mp4").write_bytes(content[: len(content) * 3 // 4])
    assert 5 <= len(list(VideoFile(tmp_path / "out.mp4").pictures())) < 20


def noise(count):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(count)]


def test_damaged_packets_are_passed_over_and_counted_once(tmp_path, caplog):
    path = make(tmp_path / "film", Film(noise(20), "mjpeg"), "matroska")
    content = bytearray(path.read_bytes())
    with av.open(io.BytesIO(bytes(content))) as file:
        packets = [bytes(packet) for packet in file.demux(video=0) if packet.size]
    for index in (5, 6, 11):
        place = content.index(packets[index])
        content[place : place + len(packets[index])] = b"\xff" * len(packets[index])
    path.write_bytes(content)

    video = VideoFile(path)
    with caplog.at_level(logging.WARNING):
        times = [picture.time for picture in video.pictures()]
        assert len(list(video.pictures())) == len(times)
    assert times == [index / 10 for index in range(20) if index not in (5, 6, 11)]
    assert len(caplog.messages) == 1 and "damaged pictures (3 packets" in caplog.text


def test_names_that_look_like_options_or_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-i a film.mp4", "http:film.mp4", "concat:a|b.mp4"):
        movie(tmp_path / "film").rename(tmp_path / name)
        assert len(list(VideoFile(name).pictures())) == 12


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXTINF:10,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile secret.mp4\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "<MPD><BaseURL>secret.mp4</BaseURL></MPD>",
    ],
)
@pytest.mark.parametrize("disguise", [b"", b"\0\0\0\x14ftypisom\0\0\0\0isom", b"GIF89a"])
def test_playlists_open_nothing(tmp_path, monkeypatch, content, disguise):
    movie(tmp_path / "secret.mp4")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.mp4").write_bytes(disguise + content.encode())
    with pytest.raises(InputError):
        VideoFile("list.mp4")


def test_a_movie_that_refers_to_another_file_opens_nothing(tmp_path, monkeypatch):
    movie(tmp_path / "secret.mp4")
    content = movie(tmp_path / "film.mp4").read_bytes()
    # The data reference: "url " with the flag for the same file becomes one with an address.
    place = content.index(b"url ")
    assert content[place + 4 : place + 8] == b"\0\0\0\1"
    address = b"secret.mp4\0"
    changed = content[:place] + b"url " + bytes(4) + address + content[place + 8 :]
    for name in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        start = changed.index(name) - 4
        size = int.from_bytes(changed[start : start + 4], "big") + len(address)
        changed = changed[:start] + size.to_bytes(4, "big") + changed[start + 4 :]
    start = changed.index(b"url ") - 4
    changed = changed[:start] + (12 + len(address)).to_bytes(4, "big") + changed[start + 4 :]
    monkeypatch.chdir(tmp_path)
    opened = []
    monkeypatch.setattr(
        media_source, "open_file", lambda *a: opened.append(a[0]) or open(a[0], "rb")
    )
    (tmp_path / "film.mp4").write_bytes(changed)
    assert len(list(VideoFile("film.mp4").pictures())) == 12
    assert set(opened) == {"film.mp4"}


def test_what_happens_to_a_file_later_is_named(tmp_path):
    path = movie(tmp_path / "film")
    video, file = VideoFile(path), io.BytesIO(path.read_bytes())
    closed = VideoFile(file)
    path.unlink()
    file.close()
    for gone in (video, closed):
        with pytest.raises(InputError):
            list(gone.pictures())
        with pytest.raises(InputError):
            gone.sound().read(0, 10)


def test_a_failing_file_object_is_an_input_error(tmp_path):
    class Failing(io.BytesIO):
        def read(self, *args):
            raise OSError("disk on fire")

    content = movie(tmp_path / "film").read_bytes()
    with pytest.raises(InputError, match="the file: .*disk on fire"):
        VideoFile(Failing(content))
    with pytest.raises(InputError, match="the file: cannot be decoded"):
        VideoFile(io.StringIO("text"))
