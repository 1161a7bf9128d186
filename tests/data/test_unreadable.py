import pytest

from qdformer.data.unreadable import SkipUnreadable
from qdformer.errors import InputError

RECORDS = [{"video_id": str(index)} for index in range(5)]


def mapper(record):
    if int(record["video_id"]) < 3:
        raise InputError(f"{record['video_id']}.png: cannot be decoded")
    return {"clip": record["video_id"]}


def test_readable_clips_pass_and_others_are_replaced(tmp_path):
    skipping = SkipUnreadable(mapper, RECORDS, str(tmp_path / "skipped.txt"))
    assert skipping(RECORDS[4]) == {"clip": "4"}
    assert not (tmp_path / "skipped.txt").exists()
    for _ in range(5):
        assert skipping(RECORDS[0])["clip"] in ("3", "4")
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert lines[0] == "0\t0.png: cannot be decoded"
    assert {line.split("\t")[0] for line in lines} <= {"0", "1", "2"}


def test_nothing_readable_ends_with_a_sentence(tmp_path):
    skipping = SkipUnreadable(mapper, RECORDS[:3], str(tmp_path / "skipped.txt"))
    with pytest.raises(InputError, match="no clip can be read; .*skipped.txt names the reasons"):
        skipping(RECORDS[1])
