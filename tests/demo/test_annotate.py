import io
import json
import os
import subprocess
import threading
from contextlib import redirect_stdout

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools.coco import COCO

import qdformer.demo.annotate
from qdformer.demo.annotate import AnnotateOptions, annotate, overlaid, whole_folder
from qdformer.demo.history import History
from qdformer.engine.setup import register_roots
from qdformer.errors import InputError
from qdformer.io.image import read_image, read_label_map
from qdformer.own_data.video_import import import_videos
from qdformer.video.reader import Picture, VideoFile
from qdformer.visualization.overlay import Layer


@pytest.fixture(scope="module")
def annotated(predictor, video, tmp_path_factory):
    """The folder, what was found, and the seconds that were reported."""
    folder, seconds = tmp_path_factory.mktemp("output") / "clip", []
    history = annotate(predictor, VideoFile(video), folder, progress=seconds.append)
    return folder, history, seconds


def test_the_folder_holds_what_is_promised(annotated):
    folder, _, seconds = annotated
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    frames = ["frames", *(f"frames/{index:06d}.jpg" for index in range(3))]
    masks = ["masks", *(f"masks/{index:06d}.png" for index in range(3))]
    assert names == ["annotations.json", *frames, *masks, "overlay.mp4", "time_line.png"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert seconds == pytest.approx([index / 5 for index in range(15)])
    assert read_image(folder / "time_line.png").std() > 0


def test_the_overlay_has_the_videos_size_length_rate_and_sound(annotated, video):
    one, other = VideoFile(video), VideoFile(annotated[0] / "overlay.mp4")
    assert (one.height, one.width, one.rate) == (other.height, other.width, other.rate)
    times = [[picture.time for picture in file.pictures()] for file in (one, other)]
    assert times[0] == pytest.approx(times[1])
    sound = [file.sound().read(1024, 2 * 16000) for file in (one, other)]
    assert np.corrcoef(*sound)[0, 1] > 0.95


def test_label_maps_and_annotations_say_what_the_predictor_does(annotated, predictor, video):
    folder = annotated[0]
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "annotations.json"))
    document = json.loads((folder / "annotations.json").read_text())
    assert {c["id"]: c["name"] for c in document["categories"]} == dict(
        enumerate(predictor.metadata.stuff_classes[1:], start=1)
    )
    assert document["info"]["rate"] == 5 and document["info"]["every"] == 1
    drawn = 0
    for image, frame in zip(document["images"], predictor(video), strict=True):
        assert (image["begin"], image["end"]) == (frame.begin, frame.end)
        assert image["local_codes"] == frame.local_codes.tolist()
        assert image["global_codes"] == frame.global_codes.tolist()
        assert np.abs(read_image(folder / image["file_name"]) - frame.image.astype(int)).mean() < 8
        with Image.open(folder / image["label_map"]) as file:
            assert file.mode == "P"
            assert np.array_equal(np.asarray(file), frame.label_map)
            colors = np.asarray(file.convert("RGB"))
        assert np.array_equal(colors, np.asarray(predictor.metadata.stuff_colors)[frame.label_map])
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert len(found) == len(frame.instances)
        for annotation, mask, label, score in zip(
            found, frame.instances.pred_masks, frame.instances.pred_classes, frame.instances.scores
        ):
            assert np.array_equal(coco.annToMask(annotation).astype(bool), mask.numpy())
            assert annotation["category_id"] == label + 1
            assert annotation["area"] == mask.sum()
            assert annotation["score"] == pytest.approx(float(score))
            rows, columns = np.nonzero(mask.numpy())
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == box
            drawn += 1
    assert drawn == len(document["annotations"]) > 0


def test_annotations_can_be_trained_on(annotated, predictor, video, tmp_path):
    """The way back: frames and masks of the imported data set are those that were found."""
    root = tmp_path / "way_back"
    import_videos([video], [annotated[0] / "annotations.json"], root, "train")
    register_roots([str(root)])
    (record,) = DatasetCatalog.get("way_back_avss_train")
    metadata = MetadataCatalog.get("way_back_avss_train")
    assert list(metadata.stuff_classes) == list(predictor.metadata.stuff_classes)
    for name, labels, frame in zip(
        record["file_names"], record["sem_seg_file_names"], predictor(video), strict=True
    ):
        found = read_label_map(labels, record["label_format"], metadata.stuff_colors)
        assert np.array_equal(found, frame.label_map)
        assert np.abs(read_image(name) - frame.image.astype(int)).mean() < 8


def test_the_history_is_that_of_the_results(annotated, predictor, video):
    expected = np.zeros((3, len(predictor.metadata.stuff_classes)))
    for row, frame in zip(expected, predictor(video)):
        row[frame.instances.pred_classes.numpy() + 1] = frame.instances.scores.numpy()
    assert np.allclose(annotated[1].scores, expected)
    assert isinstance(annotated[1], History)


def pictures_of(video):
    return list(VideoFile(video).pictures())


def test_masks_are_held_for_their_span(predictor, video):
    pictures, frames = pictures_of(video), list(predictor(video))
    drawn = list(overlaid(pictures, iter(frames), predictor.metadata, AnnotateOptions()))
    for picture, result in zip(pictures, drawn, strict=True):
        frame = frames[int(picture.time)]
        layer = Layer.draw(frame.label_map, frame.label_map.shape, predictor.metadata)
        assert np.array_equal(result.image, layer.over(picture.image))
        assert (result.pts, result.time, result.duration) == (
            picture.pts, picture.time, picture.duration,
        )  # fmt: skip


def test_tracked_masks_move_and_stand_where_they_were_found(predictor, video, monkeypatch):
    asked = []

    def shifted(before, after):
        asked.append((before, after))
        return np.full((*after.shape[:2], 2), (-8, 0), np.float32)

    monkeypatch.setattr(qdformer.demo.annotate, "motion", shifted)
    pictures, frames = pictures_of(video), list(predictor(video))
    options = AnnotateOptions(tracked=True)
    (first, *_) = overlaid(pictures[:1], iter(frames), predictor.metadata, options)
    assert np.array_equal(asked[0][0], frames[0].image)
    assert np.array_equal(asked[0][1], pictures[0].image)
    layer = Layer.draw(frames[0].label_map, frames[0].label_map.shape, predictor.metadata)
    offset = np.full((*frames[0].label_map.shape, 2), (-8, 0), np.float32)
    assert np.array_equal(first.image, layer.moved(offset).over(pictures[0].image))
    assert not np.array_equal(first.image, layer.over(pictures[0].image))


def test_pictures_beyond_the_last_span_keep_it(predictor, video):
    pictures, frames = pictures_of(video), list(predictor(video))
    late = Picture(pictures[0].image, 99, 99.0)
    (drawn,) = overlaid([late], iter(frames), predictor.metadata, AnnotateOptions())
    layer = Layer.draw(frames[-1].label_map, frames[-1].label_map.shape, predictor.metadata)
    assert np.array_equal(drawn.image, layer.over(late.image))


def test_a_last_picture_that_is_shown_long_has_all_of_its_spans(predictor, tmp_path):
    path = tmp_path / "still.gif"
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    pictures = [Image.fromarray(picture) for picture in noise]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[500, 3600])
    history = annotate(predictor, VideoFile(path), tmp_path / "out")
    assert len(history.scores) == 5
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 5


def test_results_are_asked_for_as_the_pictures_come(predictor, video):
    frames, pictures = list(predictor(video)), pictures_of(video)
    taken = []
    results = (taken.append(frame.begin) or frame for frame in frames)
    stream = overlaid(pictures, results, predictor.metadata, AnnotateOptions())
    for count, _ in enumerate(stream, start=1):
        assert len(taken) == (count + 4) // 5


def test_a_failure_leaves_the_older_results(annotated, predictor, video, tmp_path):
    folder = tmp_path / "clip"
    annotate(predictor, VideoFile(video), folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    class Broken(VideoFile):
        def pictures(self):
            yield from list(super().pictures())[:7]
            raise InputError("the disk is on fire")

    with pytest.raises(InputError, match="fire"):
        annotate(predictor, Broken(video), folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert list(tmp_path.iterdir()) == [folder]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_what_is_no_result_is_never_replaced(predictor, video, tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("mine")
    for name in ("clip", "file"):
        with pytest.raises(InputError, match="is there already"):
            annotate(predictor, VideoFile(video), tmp_path / name)
    assert (tmp_path / "clip" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "mine"


def test_folders_of_ended_processes_are_swept(predictor, video, tmp_path):
    with subprocess.Popen(["true"]) as ended:
        pass
    left = [tmp_path / f".{ended.pid}-abc.part", tmp_path / f".{os.getpid()}-abc.part"]
    for folder in left:
        folder.mkdir()
        (folder / "overlay.mp4").touch()
    with whole_folder(tmp_path / "out"):
        pass
    assert [folder.exists() for folder in left] == [False, True]
