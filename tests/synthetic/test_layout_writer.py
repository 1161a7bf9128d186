import numpy as np
import pytest

from qdformer.data.datasets.avsbench import LAYOUTS
from qdformer.synthetic.layout_writer import clip_files, writable_layouts, write_clip


def masks(files):
    return {str(path) for paths in files.masks for path, _ in paths}


@pytest.mark.parametrize(
    "split, numbers", [("train", [1]), ("val", [1, 2, 3, 4, 5]), ("test", [1, 2, 3, 4, 5])]
)
def test_s4(split, numbers):
    files = clip_files(LAYOUTS["s4"], "x1", split, ["dog"], 5)
    assert [str(path) for path in files.frames] == [
        f"s4_data/visual_frames/{split}/dog/x1/x1_{k}.png" for k in range(1, 6)
    ]
    assert masks(files) == {f"s4_data/gt_masks/{split}/dog/x1/x1_{k}.png" for k in numbers}
    assert [str(path) for path in files.audio] == [
        f"s4_data/audio_wav/{split}/dog/x1.wav",
        f"s4_data/audio_log_mel/{split}/dog/x1.pkl",
    ]
    # The reference loaders read positions: name, start, category, split.
    assert list(files.row.values()) == ["x1", 0, "dog", split]
    assert {"name", "category", "split"} < set(files.row)


@pytest.mark.parametrize("split", ["train", "test"])
def test_ms3(split):
    files = clip_files(LAYOUTS["ms3"], "x1", split, ["dog", "cat"], 5)
    assert [str(path) for path in files.frames] == [
        f"ms3_data/visual_frames/x1/x1.mp4_{k}.png" for k in range(1, 6)
    ]
    assert masks(files) == {f"ms3_data/gt_masks/{split}/x1/x1_{k}.png" for k in range(1, 6)}
    assert [str(path) for path in files.audio] == [
        f"ms3_data/audio_wav/{split}/x1.wav",
        f"ms3_data/audio_log_mel/{split}/x1.pkl",
    ]
    assert files.row == {"video_id": "x1", "split": split}


@pytest.mark.parametrize(
    "split, sounding, num_frames, subset, annotated",
    [
        ("train", ["dog"], 5, "v1s", 1),
        ("val", ["dog"], 5, "v1s", 5),
        ("train", ["dog", "cat"], 5, "v1m", 5),
        ("train", ["dog"], 10, "v2", 10),
        ("test", ["dog", "cat"], 3, "v2", 3),
    ],
)
def test_avss(split, sounding, num_frames, subset, annotated):
    files = clip_files(LAYOUTS["avss"], "x_1", split, sounding, num_frames)
    uid = f"x_1_0_{num_frames}000"
    assert [str(p) for p in files.frames] == [
        f"{subset}/{uid}/frames/{t}.jpg" for t in range(num_frames)
    ]
    assert masks(files) == {
        f"{subset}/{uid}/{kind}/{t}.png"
        for kind in ("labels_semantic", "labels_rgb")
        for t in range(annotated)
    }
    assert [str(path) for path in files.audio] == [f"{subset}/{uid}/audio.wav"]
    assert list(files.row) == ["vid", "uid", "s_min", "s_sec", "a_obj", "split", "label"]
    assert list(files.row.values()) == ["x_1", uid, 0, 0, ";".join(sounding), split, subset]


def test_masks_hold_labels_in_three_ways():
    labels = np.array([[0, 1, 2], [3, 70, 254]], np.uint8)
    binary = clip_files(LAYOUTS["ms3"], "x", "train", ["a"], 1).masks[0][0][1](labels)
    np.testing.assert_array_equal(binary, [[0, 255, 255], [255, 255, 255]])
    (_, index), (_, color) = clip_files(LAYOUTS["avss"], "x", "train", ["a"], 1).masks[0]
    np.testing.assert_array_equal(index(labels), labels)
    np.testing.assert_array_equal(
        color(labels)[:, :2], [[(0, 0, 0), (128, 0, 0)], [(128, 128, 0), (32, 128, 128)]]
    )


@pytest.mark.parametrize("layout", writable_layouts())
def test_a_clip_is_moved_into_place_over_what_an_interrupted_run_left(tmp_path, layout):
    files = clip_files(LAYOUTS[layout], "x", "val", ["a"], 2)
    stale = tmp_path / "root" / files.frames[0].parent / "stale.png"
    rubbish = tmp_path / "partial" / "rubbish.png"
    for path in (stale, rubbish):
        path.parent.mkdir(parents=True)
        path.touch()
    frames = [(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))] * 2
    write_clip(tmp_path / "root", tmp_path / "partial", files, frames, np.zeros(9, np.float32))
    found = {p.relative_to(tmp_path / "root") for p in tmp_path.rglob("*.*") if p.is_file()}
    assert {str(p) for p in found} == {*map(str, [*files.frames, *files.audio])} | masks(files)
    assert not (tmp_path / "partial").exists()
