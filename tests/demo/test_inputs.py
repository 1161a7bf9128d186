import pytest

from qdformer.demo.inputs import find_videos
from qdformer.errors import InputError


@pytest.fixture
def clips(tmp_path):
    for name in ("b.MP4", "a.webm", "notes.txt", "-dash.mov", "[1] with spaces.gif", "in/c.mkv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_folder_gives_its_videos_in_order(clips):
    names = [path.name for path in find_videos(str(clips))]
    assert names == ["-dash.mov", "[1] with spaces.gif", "a.webm", "b.MP4"]


def test_a_file_is_taken_whatever_it_is_called(clips, monkeypatch):
    monkeypatch.chdir(clips)
    for name in ("notes.txt", "-dash.mov", "[1] with spaces.gif"):
        assert [str(path) for path in find_videos(name)] == [name]


def test_a_pattern_gives_the_files_that_fit(clips):
    assert [p.name for p in find_videos(f"{clips}/*.w*")] == ["a.webm"]
    assert [p.name for p in find_videos(f"{clips}/**/*.mkv")] == ["c.mkv"]
    assert [p.name for p in find_videos(f"{clips}/i*/*")] == ["c.mkv"]


@pytest.mark.parametrize("given", ["absent.mp4", "*.avi", "i*", "empty", ""])
def test_nothing_found_is_said(clips, given):
    (clips / "empty").mkdir()
    with pytest.raises(InputError, match="no such file|no videos in this folder"):
        find_videos(f"{clips}/{given}" if given else "no/such/place")


def test_addresses_are_not_fetched():
    with pytest.raises(InputError, match="no such file"):
        find_videos("http://localhost:1/video.mp4")


def test_what_a_folder_has_besides_is_named(tmp_path, caplog):
    for name in ["a.mp4", *(f"{k}.txt" for k in range(7))]:
        (tmp_path / name).touch()
    assert find_videos(str(tmp_path)) == [tmp_path / "a.mp4"]
    (message,) = caplog.messages
    assert "0.txt" in message and "4.txt" in message and "2 more" in message
