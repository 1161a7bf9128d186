"""What counts as a video of an archive, and what it is called."""

import io
import json
import tarfile

import pytest

from qdformer.archive.items import find_items
from qdformer.errors import InputError
from tests.archive.conftest import VIDEOS

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def content(item):
    source = item.open()
    return source.read() if isinstance(source, io.BytesIO) else open(source, "rb").read()


def write_shard(path, members):
    with tarfile.open(path, "w") as shard:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))


def test_a_folder_names_its_videos_by_their_paths(videos):
    items = find_items([str(videos)])
    assert [item.name for item in items] == sorted(VIDEOS)
    assert all(content(item) == (videos / item.name).read_bytes() for item in items)


def test_other_files_of_a_folder_are_no_videos(videos, tmp_path):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "A.MP4").write_bytes(b"video")
    assert [item.name for item in find_items([str(tmp_path)])] == ["A.MP4"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_manifest_names_paths_from_its_folder_on(videos, suffix):
    rows = [{"video": "a.mp4", "name": "first"}, {"video": "deeper/d.mkv", "name": ""}]
    path = videos / f"list.{suffix}"
    if suffix == "csv":
        path.write_text("name,video\nfirst,a.mp4\n,deeper/d.mkv\n")
    elif suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    items = find_items([str(path)])
    path.unlink()
    assert [item.name for item in items] == ["first", "deeper/d.mkv"]
    assert [content(i) for i in items] == [(videos / r["video"]).read_bytes() for r in rows]


def test_members_of_shards_are_read_where_they_lie(tmp_path):
    first = {"0001.mp4": b"one" * 700, "0001.json": b"{}", "0002.mp4": b"", "x/3.webm": b"three"}
    write_shard(tmp_path / "s-0.tar", first)
    write_shard(tmp_path / "s-1.tar", {"0001.mp4": b"other"})
    items = find_items([str(tmp_path / "s-*.tar")])
    expected = {f"s-0.tar/{k}": v for k, v in first.items() if not k.endswith("json")}
    assert {item.name: content(item) for item in items} == expected | {"s-1.tar/0001.mp4": b"other"}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("list.csv", b"path\na.mp4\n"),
        ("list.csv", b"\xff\xfe"),
        ("list.jsonl", b'{"video": "a.mp4"}\n{"video'),
        ("list.jsonl", b"[1]"),
        ("list.jsonl", b'{"video": 3}'),
        ("list.parquet", b"PAR1 or not"),
        ("s.tar", b"no shard" * 200),
        ("empty.jsonl", b""),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        find_items([str(tmp_path / name)])


def test_a_manifest_of_a_spreadsheet_is_read(videos):
    """With a byte order mark and blanks behind its commas."""
    path = videos / "excel.csv"
    path.write_bytes("\ufeffname, video\nfirst, a.mp4\n".encode())
    (item,) = find_items([str(path)])
    path.unlink()
    assert item.name == "first" and content(item) == (videos / "a.mp4").read_bytes()


def test_names_that_are_no_text_are_escaped(tmp_path):
    (tmp_path / "caf\udce9.mp4").write_bytes(b"video")
    (item,) = find_items([str(tmp_path)])
    assert item.name.encode() and content(item) == b"video"


@pytest.mark.parametrize("damage", ["cut", "header", "concatenated", "link", "holes"])
def test_shards_that_would_lose_videos_are_refused(tmp_path, damage):
    path = tmp_path / "s.tar"
    write_shard(path, {f"{k}.mp4": b"video" * 300 for k in range(4)})
    data = path.read_bytes()
    third = 2 * (512 + 1536)  # where the third header begins
    if damage == "cut":
        path.write_bytes(data[:third])
    elif damage == "header":
        path.write_bytes(data[:third] + b"x" * 512 + data[third + 512 :])
    elif damage == "concatenated":
        path.write_bytes(data + data)
    else:
        with tarfile.open(path, "w") as shard:
            member = tarfile.TarInfo("link.mp4")
            member.type, member.linkname = tarfile.LNKTYPE, "0.mp4"
            if damage == "holes":
                member.type = tarfile.GNUTYPE_SPARSE
            shard.addfile(member)
    with pytest.raises(InputError, match=r"s\.tar"):
        find_items([str(path)])


def test_names_are_unique(videos):
    with pytest.raises(InputError, match=r"a\.mp4"):
        find_items([str(videos), str(videos / "a.mp4")])


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        find_items([str(tmp_path / "nowhere*.mp4")])
