import os

import pytest

from qdformer.errors import InputError
from qdformer.io.open_file import open_file


def test_an_ordinary_file_is_opened_also_by_a_link(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for name in ("a", "link"):
        with open_file(tmp_path / name, "sound", max_bytes=3) as file:
            assert file.read() == b"abc"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "no such sound file"),
        ("folder", "cannot be opened .Is a directory"),
        ("folder/none", "no such sound file"),
        ("file/none", "cannot be opened .Not a directory"),
        ("n\0ll", "cannot be opened .embedded null byte"),
        ("pipe", "is a pipe or a device"),
        ("device", "is a pipe or a device"),
        ("file", "holds 4 bytes, but sound files of up to 3 are read"),
    ],
)
def test_everything_else_is_refused_at_once(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"abcd")
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it
    (tmp_path / "device").symlink_to(os.devnull)
    with pytest.raises(InputError, match=message) as caught:
        open_file(tmp_path / name, "sound", max_bytes=3)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_named(tmp_path):
    (tmp_path / "a").touch(mode=0)
    with pytest.raises(InputError, match="Permission denied"):
        open_file(tmp_path / "a", "sound")
