"""Videos and COCO's annotations become clips whose labels, frames and sound are the same."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from pycocotools import mask as coco_mask

from qdformer.annotations.document import Annotations
from qdformer.annotations.formats import read_annotations, write_annotations
from qdformer.audio.log_mel import read_waveform
from qdformer.commands import import_videos as command
from qdformer.engine.setup import register_roots
from qdformer.errors import InputError
from qdformer.io.frame_annotation import FrameAnnotation
from qdformer.io.image import read_image, read_label_map
from qdformer.own_data.video_import import MOST_FRAMES, import_videos
from tests.videos import write_lossless

RATE, SIZE, NAMES = 4, (48, 64), ["dog", "car"]


def picture(number):
    """Frame ``number``: gray of a brightness that tells it."""
    return np.full((*SIZE, 3), 10 + 3 * number, np.uint8)


@pytest.fixture
def video(tmp_path):
    """15 s at 4 frames a second; second t sounds like t."""
    sound = np.repeat(np.arange(15, dtype=np.float32) / 100, 16000)
    frames = [picture(number) for number in range(15 * RATE)]
    return write_lossless(tmp_path / "my video.mkv", frames, sound, rate=RATE)


def region(number):
    """Where the dog is in frame ``number``."""
    labels = np.zeros(SIZE, np.uint8)
    labels[number % 8 : number % 8 + 10, 5:25] = 1
    return labels


def annotations(path, numbers, silent=(), names=NAMES, size=SIZE, **times):
    images, objects = [], []
    for index, number in enumerate(numbers):
        image = {"id": index, "file_name": f"frame_{number:06d}.PNG", "height": size[0],
                 "width": size[1]}  # fmt: skip
        if times:
            image |= {"begin": times["begin"][index], "end": times["end"][index]}
        images.append(image)
        if number in silent:
            continue
        code = coco_mask.encode(np.asfortranarray(region(number)))
        objects.append(
            {"id": len(objects) + 1, "image_id": index, "category_id": 7, "iscrowd": 0,
             "segmentation": {"size": list(size), "counts": code["counts"].decode()}}
        )  # fmt: skip
    categories = [{"id": 7 + 2 * k, "name": name} for k, name in enumerate(names)]
    content = {"images": images, "annotations": objects, "categories": categories}
    path.write_text(json.dumps(content))
    return path


def registered(root, split):
    register_roots([str(root)])
    name = f"{root.name}_avss_{split}"
    records = DatasetCatalog.get(name)
    return records, MetadataCatalog.get(name)


@pytest.fixture
def root(tmp_path, request):
    """Of a name of its own, as names stay registered."""
    return tmp_path / f"own_{abs(hash(request.node.name)) % 10**8}"


def test_clips_are_the_annotated_seconds(video, tmp_path, root):
    """One frame a second, the nearest to its middle; seconds 2 and 12 are not annotated."""
    numbers = [n for n in range(15 * RATE) if n // RATE not in (2, 12) and n % RATE != 3]
    silent = [n for n in numbers if n // RATE == 4]
    given = annotations(tmp_path / "a.json", numbers, silent)
    assert import_videos([video], [given], root, "train") == {"clips": 3, "frames": 13}
    records, metadata = registered(root, "train")
    assert metadata.stuff_classes[1:] == NAMES
    seconds = [[0, 1], list(range(3, 12)), [13, 14]]
    for record, expected in zip(records, seconds, strict=True):
        sound = read_waveform(record["audio_file_name"])
        assert len(sound) == 16000 * len(expected)
        for t, second in enumerate(expected):
            middle = RATE * second + RATE // 2
            np.testing.assert_allclose(sound[16000 * t : 16000 * (t + 1)], second / 100, atol=1e-4)
            frame = read_image(record["file_names"][t]).astype(int)
            assert np.abs(frame - picture(middle)).max() <= 2
            labels = read_label_map(record["sem_seg_file_names"][t], record["label_format"],
                                    metadata.stuff_colors)  # fmt: skip
            assert (labels == (0 if second == 4 else region(middle))).all()


def test_times_count_where_they_are_given(video, tmp_path, root):
    given = annotations(
        tmp_path / "a.json", [70, 80], begin=[3.0, 4.0], end=[4.0, 5.0]
    )  # fmt: skip
    import_videos([video], [given], root, "train")
    (record,), _ = registered(root, "train")
    frame = read_image(record["file_names"][0]).astype(int)
    assert np.abs(frame - picture(3 * RATE + RATE // 2)).max() <= 2


def test_long_runs_are_cut_and_splits_added(video, tmp_path, root):
    given = annotations(tmp_path / "a.json", range(0, 15 * RATE, RATE))
    import_videos([video], [given], root, "train")
    import_videos([video], [given], root, "train")  # the same again is the same
    lengths = [len(record["file_names"]) for record in registered(root, "train")[0]]
    assert sorted(lengths) == [15 - MOST_FRAMES, MOST_FRAMES]
    few = annotations(tmp_path / "b.json", [0, 4])
    other = video.rename(video.with_name("other.mkv"))
    command.main(
        ["--videos", str(other), "--annotations", str(few), "--output", str(root), "--split",
         "test"]
    )  # fmt: skip
    assert [len(record["file_names"]) for record in registered(root, "test")[0]] == [2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numbers": [400]}, "has 60 pictures"),
        ({"numbers": [0], "size": (24, 64)}, "64 x 24 pixels"),
        ({"numbers": []}, "no frame"),
    ],
)
def test_what_does_not_fit_is_named(video, tmp_path, root, changes, message):
    given = annotations(tmp_path / "a.json", **{"silent": [0]} | changes)
    with pytest.raises(InputError, match=message):
        import_videos([video], [given], root, "train")


def files_of(root):
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_an_import_that_fails_changes_nothing(video, tmp_path, root):
    """Whichever of the videos cannot be used, and after how many of its frames."""
    other = video.with_name("other.mkv")
    shutil.copyfile(video, other)
    good = annotations(tmp_path / "a.json", [0, 4])
    import_videos([video], [good], root, "train")
    before = files_of(root)
    first = annotations(tmp_path / "b.json", range(0, 40, 4))
    for numbers, message in (([0, 400], "has 60 pictures"), ([], "lists no frame of .*other.mkv")):
        second = annotations(tmp_path / "c.json", numbers)
        with pytest.raises(InputError, match=message):
            import_videos([video, other], [first, second], root, "test")
        assert files_of(root) == before and not [*root.glob(".*")]


@pytest.mark.parametrize("name", ["my.clip.1", "my.clip.1.mkv"])
def test_dots_in_the_names_of_videos(video, tmp_path, root, name):
    """Its frames are the ones in the folder of its name, with or without the suffix."""
    frames = {}
    for k, folder in enumerate((name, "my.clip", "my.clip.2")):
        file = f"{folder}/{k}.png"
        frames[file] = FrameAnnotation("memory", file, SIZE, ())
    write_annotations(Annotations(("dog",), frames), "coco", tmp_path)
    renamed = video.rename(tmp_path / "my.clip.1.mkv")
    given = tmp_path / "annotations.json"
    assert import_videos([renamed], [given], root, "train", every=1) == {"clips": 1, "frames": 1}


def test_names_that_look_alike_are_of_different_videos(video, tmp_path, root):
    given = annotations(tmp_path / "a.json", [0])
    names = ("x.1.mkv", "x 1.mkv", "x-1.mkv", "\u0915\u093f.mkv", "\u0915\u093e.mkv", "y" * 240)
    for name in names:
        shutil.copyfile(video, tmp_path / name)
        import_videos([tmp_path / name], [given], root, "train")
    assert len(registered(root, "train")[0]) == 6


def test_no_field_of_the_list_leads_out(video, tmp_path, root):
    given = annotations(tmp_path / "a.json", [0])
    import_videos([video], [given], root, "train")
    table = root / "AVSBench_semantic" / "metadata.csv"
    head, row = table.read_text().splitlines()
    uid = row.split(",")[1]
    (tmp_path / "precious").mkdir()
    for path in ("../../../precious", str(tmp_path / "precious")):
        table.write_text("\n".join([head, row, row.replace(uid, path)]) + "\n")
        with pytest.raises(InputError, match="plain file name"):
            import_videos([video], [given], root, "train")
    assert (tmp_path / "precious").exists()


def test_numbers_count_the_pictures_of_any_rate(tmp_path, root):
    """Eight pictures of the first two seconds, and ten of each of the next."""
    times = [t / 4 for t in range(8)] + [2 + t / 10 for t in range(20)]
    path = tmp_path / "rates.mkv"
    write_lossless(path, [picture(n) for n in range(28)], np.zeros(64000, np.float32), times=times)
    given = annotations(tmp_path / "a.json", range(28))
    import_videos([path], [given], root, "train")
    (record,), metadata = registered(root, "train")
    for t, number in enumerate((2, 6, 13, 23)):
        assert np.abs(read_image(record["file_names"][t]).astype(int) - picture(number)).max() <= 2
        labels = read_label_map(record["sem_seg_file_names"][t], record["label_format"],
                                metadata.stuff_colors)  # fmt: skip
        np.testing.assert_array_equal(labels, region(number))


def test_a_video_without_sound_is_told(tmp_path, root, caplog):
    path = write_lossless(tmp_path / "mute.mkv", [picture(n) for n in range(8)], None, rate=RATE)
    import_videos([path], [annotations(tmp_path / "a.json", [0])], root, "train")
    assert "has no sound" in caplog.text


def test_numbers_that_may_count_seconds_are_asked_about(video, tmp_path, root, caplog):
    given = annotations(tmp_path / "a.json", [0, 1, 2])
    import_videos([video], [given], root, "train", every=1)
    assert not caplog.records
    import_videos([video], [given], root, "train")
    assert "its 3 frames are all taken for the first second" in caplog.text
    for every in (0, -1, 1e-300, float("nan"), 1e9):
        with pytest.raises(InputError, match="every is"):
            import_videos([video], [given], root, "train", every=every)


def test_a_data_set_has_one_list_of_classes(video, tmp_path, root):
    import_videos([video], [annotations(tmp_path / "a.json", [0])], root, "train")
    with pytest.raises(InputError, match="categories are car, dog"):
        other = annotations(tmp_path / "b.json", [0], names=NAMES[::-1])
        import_videos([video], [other], root, "test")


def test_importing_a_video_again_replaces_its_clips(video, tmp_path, root):
    import_videos([video], [annotations(tmp_path / "a.json", range(0, 60, 4))], root, "train")
    import_videos([video], [annotations(tmp_path / "a.json", [0, 4, 8])], root, "train")
    (record,), _ = registered(root, "train")
    assert len(record["file_names"]) == 3
    assert len(list((root / "AVSBench_semantic" / "v2").iterdir())) == 1


def test_two_videos_of_one_name_are_refused(video, tmp_path, root):
    given = annotations(tmp_path / "a.json", [0])
    with pytest.raises(InputError, match="rename"):
        import_videos([video, tmp_path / "elsewhere" / "my video.mp4"], [given] * 2, root, "train")


@pytest.mark.parametrize("begin", [-1.0, float("nan"), "x", None, 1e9])
def test_times_that_are_none_are_refused(video, tmp_path, root, begin):
    given = annotations(tmp_path / "a.json", [0], begin=[begin], end=[1.0])
    with pytest.raises(InputError, match=r"a\.json"):
        import_videos([video], [given], root, "train")


def test_each_video_has_its_annotations(video, tmp_path, root):
    with pytest.raises(InputError, match="1 videos and 2 files"):
        import_videos([video], ["a.json", "b.json"], root, "train")


def test_one_file_may_annotate_several_videos(video, tmp_path, root):
    """YouTube-VIS's, frames in a folder of their video's name; numbers are of seconds."""
    other = video.with_name("other.mkv")
    shutil.copyfile(video, other)
    videos = []
    for index, stem in enumerate(("my video", "other")):
        names = [f"{stem}/{second:05d}.jpg" for second in (index, index + 1)]
        videos.append({"id": index, "file_names": names, "height": SIZE[0], "width": SIZE[1]})
    runs = {"size": list(SIZE), "counts": [7, 20, SIZE[0] * SIZE[1] - 27]}
    track = {"id": 4, "video_id": 1, "category_id": 7, "segmentations": [runs, None]}
    categories = [{"id": 7, "name": "dog"}]
    given = tmp_path / "all.json"
    given.write_text(
        json.dumps({"videos": videos, "annotations": [track], "categories": categories})
    )
    counted = import_videos([video, other], [given], root, "train", every=1.0)
    assert counted == {"clips": 2, "frames": 4}
    records, metadata = registered(root, "train")
    by_video = {record["video_id"][:5]: record for record in records}
    for stem, first in (("my-vi", 0), ("other", 1)):
        frame = read_image(by_video[stem]["file_names"][0]).astype(int)
        assert np.abs(frame - picture(RATE * first + RATE // 2)).max() <= 2
    labels = [
        read_label_map(name, by_video["other"]["label_format"], metadata.stuff_colors)
        for name in by_video["other"]["sem_seg_file_names"]
    ]
    assert [int((label == 1).sum()) for label in labels] == [20, 0]
    with pytest.raises(InputError, match="of which 0 are called third or third.mkv"):
        import_videos([other.rename(tmp_path / "third.mkv")], [given], root, "train")


def test_every_format_imports_the_same(video, tmp_path, root):
    given = read_annotations(annotations(tmp_path / "a.json", range(0, 8, 2), names=["dog"]))
    write_annotations(given, "cvat", tmp_path / "cvat")
    files = tmp_path / "a.json", tmp_path / "cvat" / "annotations.xml"
    roots = [root.with_name(f"{root.name}_{k}") for k in range(2)]
    for file, place in zip(files, roots):
        import_videos([video], [file], place, "train")
    (first, _), (second, _) = (registered(place, "train")[0] + [None] for place in roots)
    for key in ("file_names", "sem_seg_file_names"):
        for one, other in zip(first[key], second[key], strict=True):
            assert Path(one).read_bytes() == Path(other).read_bytes()


def test_masks_of_one_video_are_not_given_to_another(video, tmp_path, root):
    other = video.with_name("other.mkv")
    shutil.copyfile(video, other)
    given = annotations(tmp_path / "a.json", [0, 4])
    with pytest.raises(InputError, match="of which 0 are called my video or my video.mkv"):
        import_videos([video, other], [given], root, "train")
    assert not (root / "AVSBench_semantic" / "metadata.csv").exists()
