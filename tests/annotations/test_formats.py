"""Masks survive every format, and are what other readers of the formats see."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from qdformer.annotations.document import Annotations
from qdformer.annotations.formats import WRITERS, find_pictures, read_annotations, write_annotations
from qdformer.commands import convert_annotations as command
from qdformer.errors import InputError
from qdformer.io.frame_annotation import AnnotatedObject, FrameAnnotation
from qdformer.io.run_lengths import encode

SIZE = (11, 17)
FILES = {"coco": "annotations.json", "youtube-vis": "instances.json", "cvat": "annotations.xml",
         "davis": "."}  # fmt: skip


def blob(seed):
    """Ragged, with holes, touching the edges now and then."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SIZE, bool)
    top, left = rng.integers(0, 8, 2)
    mask[top : top + 4, left : left + 9] = (
        rng.random(mask[top : top + 4, left : left + 9].shape) < 0.7
    )
    return mask


@pytest.fixture
def annotations():
    """Two videos of three frames: two dogs, of which one leaves, a car, and a silent frame."""
    frames = {}
    for v, video in enumerate(("a", "b")):
        for t in range(3):
            name, taken, objects = f"{video}/{t:05d}.jpg", np.zeros(SIZE, bool), []
            for label, track in ((2, 1), (2, 2), (1, 3)) if t < 2 else ():
                if track == 2 and t == 1:
                    continue
                mask = blob(100 * v + 10 * t + track) & ~taken
                taken |= mask
                objects.append(AnnotatedObject(label, encode(mask), track))
            frames[name] = FrameAnnotation("memory", name, SIZE, tuple(objects))
    return Annotations(("car", "dog"), frames)


def masks_by_track(annotations):
    """Label and masks of each object, whatever its number, as a set."""
    found = {}
    for video, frames in annotations.videos.items():
        for t, frame in enumerate(frames.values()):
            for item in frame.objects:
                key = video, item.label, item.track
                found.setdefault(key, {})[t] = frame.mask(item).tobytes()
    return sorted((key[:2], sorted(masks.items())) for key, masks in found.items())


@pytest.mark.parametrize("format", [*WRITERS])
def test_masks_classes_and_tracks_come_back(annotations, format, tmp_path):
    write_annotations(annotations, format, tmp_path)
    found = read_annotations(tmp_path / FILES[format])
    assert found.classes == annotations.classes
    assert [(video, len(frames)) for video, frames in found.videos.items()] == [
        ("a", 3),
        ("b", 3),
    ]
    for new, old in zip(found.frames.values(), annotations.frames.values()):
        np.testing.assert_array_equal(new.label_map(), old.label_map())
    assert masks_by_track(found) == masks_by_track(annotations)


@pytest.mark.parametrize("first", [*WRITERS])
@pytest.mark.parametrize("second", [*WRITERS])
def test_from_one_to_the_other_with_pictures(annotations, first, second, tmp_path):
    pictures = {}
    for k, name in enumerate(annotations.frames):
        pictures[name] = tmp_path / "given" / f"{k}.jpg"
        pictures[name].parent.mkdir(exist_ok=True)
        Image.new("RGB", SIZE[::-1], (10 * k, 0, 0)).save(pictures[name])
    assert write_annotations(annotations, first, tmp_path / "1", pictures) == 6
    command.main([str(tmp_path / "1" / FILES[first]), str(tmp_path / "2"), "--format", second])
    found = read_annotations(tmp_path / "2" / FILES[second])
    assert masks_by_track(found) == masks_by_track(annotations)
    copies = find_pictures(found, tmp_path / "2" / FILES[second])
    assert [path.read_bytes() for path in copies.values()] == [
        path.read_bytes() for path in pictures.values()
    ]


def test_pycocotools_reads_what_is_written(annotations, tmp_path):
    write_annotations(annotations, "coco", tmp_path)
    coco = COCO(str(tmp_path / "annotations.json"))
    for image in coco.loadImgs(coco.getImgIds()):
        expected = annotations.frames[image["file_name"]]
        items = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert len(items) == len(expected.objects)
        for item, given in zip(items, expected.objects):
            assert (
                coco.loadCats(item["category_id"])[0]["name"]
                == (annotations.classes[given.label - 1])
            )
            np.testing.assert_array_equal(coco.annToMask(item), expected.mask(given))
            assert item["area"] == expected.mask(given).sum()


def test_spans_and_scores_are_kept(tmp_path):
    item = AnnotatedObject(1, encode(blob(0)), None, 0.75)
    frame = FrameAnnotation("memory", "frames/000003.jpg", SIZE, (item,))
    given = Annotations(("dog",), {frame.frame: frame}, {frame.frame: (3.0, 4.0)})
    write_annotations(given, "coco", tmp_path)
    found = read_annotations(tmp_path / "annotations.json")
    assert found.spans == {"frames/000003.jpg": (3.0, 4.0)}
    assert found.frames["frames/000003.jpg"].objects[0].score == 0.75
    write_annotations(given, "youtube-vis", tmp_path)
    (track,) = json.loads((tmp_path / "instances.json").read_text())["annotations"]
    assert track["score"] == 0.75


def test_a_track_of_two_pieces_is_their_union(tmp_path):
    """YouTube-VIS has one mask a frame; objects without tracks are one of their class."""
    pieces = [blob(1), blob(2)]
    items = tuple(AnnotatedObject(1, encode(mask)) for mask in pieces)
    frame = FrameAnnotation("memory", "a/0.jpg", SIZE, items)
    write_annotations(Annotations(("dog",), {"a/0.jpg": frame}), "youtube-vis", tmp_path)
    (found,) = read_annotations(tmp_path / "instances.json").frames.values()
    (item,) = found.objects
    np.testing.assert_array_equal(found.mask(item), pieces[0] | pieces[1])


def test_more_objects_than_a_png_has_numbers(tmp_path):
    items = tuple(AnnotatedObject(1, encode(blob(k)), k) for k in range(1, 256))
    frame = FrameAnnotation("memory", "a/0.jpg", SIZE, items)
    with pytest.raises(InputError, match="davis cannot hold .* more than 254 objects"):
        write_annotations(Annotations(("dog",), {"a/0.jpg": frame}), "davis", tmp_path)
    with pytest.raises(InputError, match="give one of coco, youtube-vis"):
        write_annotations(Annotations(("dog",), {}), "voc", tmp_path)


def test_davis_keeps_the_numbers_of_frames_and_the_folders_of_videos(tmp_path):
    names = [f"day/clip.{v}/f_{t}.v.jpg" for v in (1, 2) for t in (7, 30)]
    item = AnnotatedObject(1, encode(blob(3)), 1)
    frames = {name: FrameAnnotation("memory", name, SIZE, (item,)) for name in names}
    write_annotations(Annotations(("dog",), frames), "davis", tmp_path / "out")
    found = read_annotations(tmp_path / "out")
    assert [*found.videos] == ["day/clip.1", "day/clip.2"]
    assert [*found.videos["day/clip.1"]] == ["day/clip.1/00007.png", "day/clip.1/00030.png"]
    with pytest.raises(InputError, match="Annotations: exists already"):
        write_annotations(Annotations(("dog",), frames), "davis", tmp_path / "out")
    for clash in (["b/0.jpg", "a/x.jpg"], ["a/1.jpg", "a/b_01.jpg"], ["1.jpg", "a/1.jpg"]):
        frames = {name: FrameAnnotation("memory", name, SIZE, ()) for name in clash}
        message = "davis cannot hold .* (no number in their names, or|no folder of their)"
        for _ in range(2):  # nothing is left that the second one stumbles over
            with pytest.raises(InputError, match=message):
                write_annotations(Annotations(("dog",), frames), "davis", tmp_path / "new")


@pytest.mark.parametrize("format", [*WRITERS])
def test_what_covers_others_comes_back(format, tmp_path):
    """A car on a dog with a smaller dog on it, and two tracks that change places."""
    whole, half, corner = (np.zeros(SIZE, bool) for _ in range(3))
    whole[:], half[:, :9], corner[:4, :4] = True, True, True
    pieces = [(1, whole, None), (2, half, None), (1, corner, None)]
    order = [(1, half, 0), (1, corner, 1)], [(1, corner, 1), (1, half, 0)]
    for name, groups in (("pieces", [pieces]), ("order", order)):
        frames = {}
        for t, group in enumerate(groups):
            items = tuple(AnnotatedObject(label, encode(mask), n) for label, mask, n in group)
            frames[f"a/{t}.jpg"] = FrameAnnotation("memory", f"a/{t}.jpg", SIZE, items)
        given = Annotations(("dog", "car"), frames)
        write_annotations(given, format, tmp_path / name)
        found = read_annotations(tmp_path / name / FILES[format])
        for new, old in zip(found.frames.values(), frames.values(), strict=True):
            np.testing.assert_array_equal(new.label_map(), old.label_map())
            assert new.has_tracks or name == "pieces"


def test_what_cannot_be_written_is_told(tmp_path):
    frames = {"a/0.jpg": FrameAnnotation("memory", "a/0.jpg", SIZE, ())}
    (tmp_path / "annotations.json").mkdir()
    with pytest.raises(InputError, match="cannot be written to"):
        write_annotations(Annotations(("dog",), frames), "coco", tmp_path)
    frames = {"b" * 300: FrameAnnotation("memory", "b" * 300, SIZE, ())}
    with pytest.raises(InputError, match="cannot hold"):
        write_annotations(Annotations(("dog",), frames), "coco", tmp_path)


def coco_of(tmp_path, *names):
    frames = {name: FrameAnnotation("memory", name, SIZE, ()) for name in names}
    write_annotations(Annotations(("dog",), frames), "coco", tmp_path)
    return str(tmp_path / "annotations.json")


@pytest.mark.parametrize("names", [(), ("frames/f_1.jpg", "f_1.jpg")])
def test_a_conversion_without_frames_or_with_two_of_one_name_fails(names, tmp_path):
    given = coco_of(tmp_path, *names)
    with pytest.raises(SystemExit, match="lists no frames|would be called .*f_1.jpg"):
        command.main([given, str(tmp_path / "out"), "--format", "coco"])


def test_dots_in_the_names_of_frames_are_kept(tmp_path):
    given = coco_of(tmp_path, "clip.2/frame.0001", "clip.2/frame.0002")
    for name in ("frame.0001", "frame.0002"):
        path = tmp_path / "clip.2" / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", SIZE[::-1]).save(path)
    command.main([given, str(tmp_path / "out"), "--format", "cvat"])
    found = read_annotations(tmp_path / "out" / "annotations.xml")
    assert [*found.frames] == ["clip.2/frame.0001.jpg", "clip.2/frame.0002.jpg"]


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "a/../../b.jpg"])
def test_no_name_leads_out_of_the_output(name, tmp_path):
    frame = FrameAnnotation("memory", name, SIZE, ())
    with pytest.raises(InputError, match="would lead out"):
        write_annotations(Annotations(("dog",), {name: frame}), "davis", tmp_path)
