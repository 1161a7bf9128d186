"""Rows of an archive are what the predictor says of each video, each once, whatever fails."""

import errno
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from qdformer.archive import tables as tables_module
from qdformer.archive.items import find_items
from qdformer.archive.local_engine import LocalEngine
from qdformer.archive.prediction import predict_archive
from qdformer.archive.tables import ArchiveTables
from qdformer.commands import predict_archive as command
from qdformer.errors import InputError
from tests.archive.conftest import VIDEOS

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

RUN = {"weights": "x", "every": 1.0}


def read(folder, pattern="results-*.parquet"):
    parts = sorted(folder.glob(pattern))
    return [row for part in parts for row in parquet.read_table(part).to_pylist()]


def label_map(row, frame):
    size = [row["height"], row["width"]]
    labels = np.zeros(size, int)
    for found in frame["objects"]:
        labels[coco_mask.decode({"size": size, "counts": found["mask"]}) > 0] = found["label"]
    return labels


def assert_rows_of(predictor, rows, videos, every=1.0):
    """Labels may differ where rounding in another batch decides, and nothing else."""
    names = predictor.metadata.stuff_classes
    for row in rows:
        expected = list(predictor(videos / row["name"], every))
        assert len(row["frames"]) == len(expected)
        for found, frame in zip(row["frames"], expected):
            assert (found["begin"], found["end"]) == (frame.begin, frame.end)
            assert (label_map(row, found) != frame.label_map).mean() <= 0.001
            assert found["local_codes"] == frame.local_codes.tolist()
            assert found["global_codes"] == frame.global_codes.tolist()
            labels = {int(k) + 1: float(s) for k, s in
                      zip(frame.instances.pred_classes, frame.instances.scores)}  # fmt: skip
            for each in found["objects"]:
                assert each["class"] == names[each["label"]]
                assert each["score"] == pytest.approx(labels[each["label"]], rel=1e-4)


@pytest.fixture
def engine(predictor):
    return LocalEngine(lambda: predictor, predictor.cfg, every=1.0, workers=1, batch=3)


def test_rows_are_what_the_predictor_says(predictor, videos, tmp_path):
    engine = LocalEngine(lambda: predictor, predictor.cfg, every=1.0, workers=2, batch=3)
    predict_archive(find_items([str(videos)]), engine, ArchiveTables(tmp_path, RUN))
    rows = read(tmp_path)
    assert sorted(row["name"] for row in rows) == sorted(VIDEOS)
    for row in rows:
        seconds, height, width = VIDEOS[row["name"]]
        assert (row["height"], row["width"], row["has_sound"]) == (height, width, True)
        assert row["seconds"] == pytest.approx(seconds, abs=0.1)
    assert_rows_of(predictor, rows, videos)


def test_a_second_call_repeats_nothing(videos, engine, tmp_path):
    items = find_items([str(videos)])
    predict_archive(items[:2], engine, ArchiveTables(tmp_path, RUN))
    asked = []

    def watched(given):
        asked.extend(item.name for _, item in given)
        return engine(given)

    predict_archive(items, watched, ArchiveTables(tmp_path, RUN))
    assert asked == [item.name for item in items[2:]]
    predict_archive(items, pytest.fail, ArchiveTables(tmp_path, RUN))
    assert sorted(row["name"] for row in read(tmp_path)) == sorted(VIDEOS)


def test_broken_videos_are_told_and_cost_no_other(videos, engine, tmp_path):
    archive = tmp_path / "archive"
    archive.mkdir()
    whole = (videos / "a.mp4").read_bytes()
    for number in range(20):
        broken = number % 4 == 1
        data = whole[: 300 * (number // 4)] if broken else whole
        (archive / f"{number:02d}.mp4").write_bytes(data)
    items, output = find_items([str(archive)]), tmp_path / "output"
    predict_archive(items, engine, ArchiveTables(output, RUN))
    bad = [item.name for number, item in enumerate(items) if number % 4 == 1]
    errors = read(output, "errors.parquet")
    assert [(row["name"], row["attempts"]) for row in errors] == [(name, 2) for name in bad]
    assert all(row["name"] in row["error"] for row in errors)
    assert len(read(output)) == 15

    for name in bad:
        (archive / name).write_bytes(whole)
    predict_archive(items, pytest.fail, ArchiveTables(output, RUN))
    tables = ArchiveTables(output, RUN)
    tables.failed.clear()
    predict_archive(items, engine, tables)
    assert len(read(output)) == 20 and read(output, "errors.parquet") == []


def test_a_process_that_dies_is_replaced(predictor, videos, tmp_path, monkeypatch):
    monkeypatch.setenv("QDFORMER_DEADLY", "1")
    archive = tmp_path / "archive"
    archive.mkdir()
    for name in ("0.mp4", "always.mp4", "once.mp4", "4.mp4"):
        (archive / name).write_bytes((videos / "a.mp4").read_bytes())
    engine = LocalEngine(
        lambda: predictor,
        predictor.cfg,
        every=1.0,
        workers=1,
        batch=2,
        imports=("tests.archive.dying",),
    )
    output = tmp_path / "output"
    predict_archive(find_items([str(archive)]), engine, ArchiveTables(output, RUN))
    assert sorted(row["name"] for row in read(output)) == ["0.mp4", "4.mp4", "once.mp4"]
    (error,) = read(output, "errors.parquet")
    assert error["name"] == "always.mp4" and "-9" in error["error"]


def test_a_full_disk_ends_the_call_with_a_sentence(videos, engine, tmp_path, monkeypatch):
    items, output = find_items([str(videos)]), tmp_path / "output"
    tables = ArchiveTables(output, RUN)

    def write_half(table, path, **options):
        path.write_bytes(b"PAR1")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tables_module.pyarrow.parquet, "write_table", write_half)
        with pytest.raises(InputError, match="No space left"):
            predict_archive(items, engine, tables)
    tables.close()
    assert {path.name for path in output.iterdir()} == {"archive.json", ".lock"}
    predict_archive(items, engine, ArchiveTables(output, RUN))
    assert len(read(output)) == len(VIDEOS)


def test_what_is_done_when_a_call_is_stopped_is_kept(videos, engine, tmp_path):
    items = find_items([str(videos)])

    def stopped(given):
        for event in engine(given):
            yield event
            if event.last:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_archive(items, stopped, ArchiveTables(tmp_path, RUN))
    assert len(read(tmp_path)) == 1
    predict_archive(items, engine, ArchiveTables(tmp_path, RUN))
    assert sorted(row["name"] for row in read(tmp_path)) == sorted(VIDEOS)


def test_one_call_at_a_time_writes_into_a_folder(tmp_path):
    tables = ArchiveTables(tmp_path, RUN)
    with pytest.raises(InputError, match="writes there"):
        ArchiveTables(tmp_path, RUN)
    tables.close()
    ArchiveTables(tmp_path, RUN)


def test_tables_of_another_run_are_left_alone(tmp_path):
    ArchiveTables(tmp_path, RUN).flush()
    with pytest.raises(InputError, match="every"):
        ArchiveTables(tmp_path, RUN | {"every": 2.0})


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("results-00000.parquet", b"PAR1"),
        ("errors.parquet", b""),
        ("archive.json", b"[" * 100_000),
        ("archive.json", b"{}"),
    ],
)
def test_damaged_tables_are_named(tmp_path, name, data):
    tables = ArchiveTables(tmp_path, RUN)
    tables.flush()
    tables.close()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=name if data != b"{}" else "weights"):
        ArchiveTables(tmp_path, RUN)


def test_tables_of_nobody_knows_which_run_are_left_alone(tmp_path):
    (tmp_path / "results-00003.parquet").touch()
    with pytest.raises(InputError, match=r"archive\.json"):
        ArchiveTables(tmp_path, RUN)


def test_a_result_counts_more_than_an_error_of_before(tmp_path):
    """A call that is killed between the two tables leaves both."""
    tables = ArchiveTables(tmp_path, RUN)
    tables.fail("a.mp4", "broken \udce9", 2)
    tables.flush()
    errors = (tmp_path / "errors.parquet").read_bytes()
    video = {"height": 1, "width": 1, "seconds": 1.0, "has_sound": False}
    tables.add({"name": "a.mp4", **video, "frames": []})
    tables.flush()
    tables.close()
    (tmp_path / "errors.parquet").write_bytes(errors)
    again = ArchiveTables(tmp_path, RUN)
    assert again.done == {"a.mp4"} and not again.failed


def test_a_file_in_place_of_the_output_folder_is_told(tmp_path):
    (tmp_path / "output").write_text("")
    with pytest.raises(InputError, match="output"):
        ArchiveTables(tmp_path / "output", RUN)


def test_the_command_continues_and_reports(predictor, videos, weights, tmp_path, capsys):
    output = tmp_path / "output"
    arguments = ["--weights", str(weights), "--output", str(output), "--every", "0.5"]
    assert command.main(["--input", str(videos / "a.mp4"), *arguments]) == 0
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"")
    assert command.main(["--input", str(videos), str(broken), *arguments]) == 1
    assert "4 of 5 videos done, 1 failed" in capsys.readouterr().out
    assert_rows_of(predictor, read(output), videos, every=0.5)
    assert json.loads((output / "archive.json").read_text())["every"] == 0.5
