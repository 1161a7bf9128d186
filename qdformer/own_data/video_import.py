"""Videos with annotations, made into a tree in AVSS's layout."""

from __future__ import annotations

import csv
import dataclasses
import logging
import re
import shutil
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import numpy as np

from qdformer.annotations.document import Annotations, frame_number
from qdformer.annotations.formats import read_annotations
from qdformer.data.datasets.avsbench import LAYOUTS
from qdformer.data.datasets.classes import read_classes
from qdformer.data.datasets.layout import SPLITS, check_field
from qdformer.errors import InputError, make_folder
from qdformer.io.audio_file import SAMPLE_RATE
from qdformer.io.frame_annotation import FrameAnnotation
from qdformer.synthetic.layout_writer import (
    ClipFiles,
    clip_files,
    move_clip,
    write_clip,
    write_lists,
)
from qdformer.video.audio_track import SoundTrack
from qdformer.video.reader import MAX_SECONDS, Picture, VideoFile

logger = logging.getLogger(__name__)

SHORTEST = 0.001
"""Seconds between numbered frames."""

MOST_FRAMES = 10
"""Of a clip; more are cut into several."""

_LONGEST = 100  # letters of a video's name in those of its clips


def _row(name: str, split: str, sounding: list[str], num_frames: int) -> dict[str, object]:
    # The subset whose clips are annotated in every frame, whatever their number.
    write_row = LAYOUTS["avss"].row
    assert write_row is not None
    return write_row(name, split, sounding, num_frames) | {"label": "v2"}


_LAYOUT = dataclasses.replace(LAYOUTS["avss"], row=_row)


def import_videos(
    videos: Sequence[str | Path],
    annotations: Sequence[str | Path],
    output: str | Path,
    split: str,
    every: float | None = None,
) -> dict[str, int]:
    """Add videos to a split of a data set, one frame for each annotated second.

    Of the frames that a file annotates, each second takes the one nearest to its middle. A second
    without any is left out; one whose frames are listed without objects is silent. Objects are
    those that *sound* in the frame. A video is known by the name of its file: what was imported of
    one of that name before is replaced.

    Args:
        videos: files with sound.
        annotations: of each, in any format of :func:`~qdformer.annotations.formats
            .read_annotations`, or one with a folder for each video in its frames' names. The last
            number in a frame's name is the frame's, from 0 on; with ``begin`` and ``end``, as
            ``demo.py`` writes them, their middle counts.
        output: the root; the name of its folder is that of the data set.
        split: train, val or test.
        every: seconds that each number stands for; by default they count the video's own frames.

    Returns:
        Clips and frames of the split that were written.

    Raises:
        InputError: a file cannot be used, or categories differ from those that the data set has.
    """
    if split not in SPLITS:
        raise InputError(f"split is {split!r}; give one of {', '.join(SPLITS)}")
    if len(annotations) not in (1, len(videos)):
        raise InputError(
            f"{len(videos)} videos and {len(annotations)} files of annotations were given; give "
            "one for each video, in the same order, or one for all"
        )
    if every is not None and not SHORTEST <= every <= MAX_SECONDS:
        raise InputError(f"every is {every} seconds; give {SHORTEST} to {MAX_SECONDS}")
    stems = [_safe(Path(video).stem) for video in videos]
    if len(set(stems)) < len(stems):
        raise InputError(
            f"{', '.join(map(str, videos))}: two of the names are alike, and so would their clips "
            "be; rename a video"
        )
    root = Path(output)
    folder = root / _LAYOUT.folders[0]
    make_folder(root, f"the output folder {output}")
    classes = _classes(annotations, folder)
    rows, counted = _listed(folder), {"clips": 0, "frames": 0}
    paths = annotations if len(annotations) == len(videos) else [*annotations] * len(videos)
    shared = len(annotations) < len(videos)
    annotated = [_frames_of(path, video, shared) for path, video in zip(paths, videos)]
    # All videos are read to their ends before a clip that was imported earlier is touched.
    written: list[ClipFiles] = []
    with TemporaryDirectory(prefix=".import_", dir=root) as scratch:
        for video, path, stem, chosen in zip(videos, paths, stems, annotated):
            file = VideoFile(video)
            if not file.num_sound_tracks:
                logger.warning("%s: has no sound, so that its clips are silent.", video)
            for name, frames, waveform in _clips(file, path, stem, chosen, every):
                present = {int(label) for _, labels in frames for label in np.unique(labels)}
                sounding = [classes[label - 1] for label in sorted(present - {0})]
                files = clip_files(_LAYOUT, name, split, sounding, len(frames))
                write_clip(Path(scratch), Path(scratch, "partial"), files, frames, waveform)
                written.append(files)
                counted["frames"] += len(frames)
        old = "|".join(map(re.escape, stems))
        for uid, row in [*rows.items()]:
            if re.fullmatch(rf"({old})_\d{{5}}", row["vid"]):
                shutil.rmtree(folder / rows.pop(uid)["label"] / uid, ignore_errors=True)
        for files in written:
            move_clip(Path(scratch), folder, files)
            rows[str(files.row["uid"])] = {k: str(v) for k, v in files.row.items()}
    write_lists(folder, _LAYOUT, list(rows.values()), classes)
    return counted | {"clips": len(written)}


def _clips(
    video: VideoFile, path: str | Path, stem: str, annotated: Annotations, every: float | None
) -> Iterator[tuple[str, list[tuple[np.ndarray, np.ndarray]], np.ndarray]]:
    """Name, pairs of frame and labels, and sound of each run of annotated seconds."""
    chosen, sound = _by_second(path, annotated, video, every), video.sound()
    run: list[int] = []
    frames: list[tuple[np.ndarray, np.ndarray]] = []
    shown = _shown_at(video, [time for time, _ in chosen.values()])
    for (second, (time, annotation)), picture in zip(chosen.items(), shown):
        if picture is None:
            raise InputError(
                f"{path}: annotates a frame at {time:.2f} s, where {video.name} has ended; give "
                "the annotations of this video"
            )
        if run and (second != run[-1] + 1 or len(run) == MOST_FRAMES):
            yield _clip(stem, run, frames, sound)
            run, frames = [], []
        run.append(second)
        frames.append((picture, _labels(annotation, picture)))
    if run:
        yield _clip(stem, run, frames, sound)


def _clip(
    stem: str, run: list[int], frames: list[tuple[np.ndarray, np.ndarray]], sound: SoundTrack
) -> tuple[str, list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    waveform = sound.read(run[0] * SAMPLE_RATE, len(run) * SAMPLE_RATE)
    return f"{stem}_{run[0]:05d}", frames, waveform


def _shown_at(video: VideoFile, times: Sequence[float]) -> Iterator[np.ndarray | None]:
    """The picture that is shown at each of the ascending times; None after the last one's end."""
    wanted = deque(times)
    shown: Picture | None = None
    for picture in video.pictures():
        while wanted and shown is not None and picture.time > wanted[0] + 1e-3:
            wanted.popleft()
            yield shown.image
        if not wanted:
            return
        shown = picture
    end = shown.time + 1 / float(video.rate) if shown is not None else 0.0
    for time in wanted:
        yield shown.image if shown is not None and time < end + 1e-3 else None


def _by_second(
    path: str | Path, annotations: Annotations, video: VideoFile, every: float | None
) -> dict[int, tuple[float, FrameAnnotation]]:
    """The annotated frame of each second that is nearest to its middle, and its time."""
    best: dict[int, tuple[float, FrameAnnotation]] = {}
    shown: list[float] = []
    if every is None and annotations.frames.keys() - annotations.spans.keys():
        shown = [picture.time for picture in video.pictures()]
    for name, annotation in annotations.frames.items():
        if name in annotations.spans:
            begin, end = annotations.spans[name]
            if not 0 <= begin <= end <= MAX_SECONDS:
                raise InputError(f"{path}: its image {name} is of {begin} to {end} seconds")
            time = (begin + end) / 2
        else:
            number = frame_number(path, name)
            if every is None and number >= len(shown):
                raise InputError(
                    f"{path}: annotates {name}, but {video.name} has {len(shown)} pictures; give "
                    "the annotations of this video, or --every for names that count seconds"
                )
            time = shown[number] if every is None else (number + 0.5) * every
        second = int(time)
        if second not in best or abs(time % 1 - 0.5) < abs(best[second][0] % 1 - 0.5):
            best[second] = time, annotation
    if len(annotations.frames) > 1 and [*best] == [0]:
        logger.warning(
            "%s: its %d frames are all taken for the first second of %s; if their numbers count "
            "seconds, give --every 1.",
            path,
            len(annotations.frames),
            video.name,
        )
    return dict(sorted(best.items()))


def _frames_of(path: str | Path, video: str | Path, shared: bool) -> Annotations:
    """The annotations of a video.

    Args:
        path: of the annotations.
        video: its path; folders of frames are called after its name without the suffix.
        shared: the annotations are of several videos; where they are of one, the name of its folder
            does not matter.
    """
    annotations = read_annotations(path)
    if not annotations.frames:
        raise InputError(f"{path}: lists no frame of {video}")
    videos = annotations.videos
    if not shared and len(videos) < 2:
        return annotations
    # demo.py calls its folders by the video's whole name.
    names = {Path(video).name, Path(video).stem}
    found = [folder for folder in videos if PurePosixPath(folder).name in names]
    if len(found) != 1:
        raise InputError(
            f"{path}: annotates {', '.join(sorted(videos))[:200]}, of which {len(found)} are "
            f"called {' or '.join(sorted(names))}; frames of several videos are in folders of "
            "their video's name"
        )
    return dataclasses.replace(annotations, frames=videos[found[0]])


def _labels(annotation: FrameAnnotation, picture: np.ndarray) -> np.ndarray:
    labels = annotation.label_map()
    if labels.shape != picture.shape[:2]:
        raise InputError(
            f"{annotation}: is {labels.shape[1]} x {labels.shape[0]} pixels, but the video is "
            f"{picture.shape[1]} x {picture.shape[0]} as it is shown"
        )
    return labels


def _classes(annotations: Sequence[str | Path], folder: Path) -> list[str]:
    known = {str(path): list(read_annotations(path).classes) for path in annotations}
    assert _LAYOUT.class_list is not None
    if (listed := folder / _LAYOUT.class_list).exists():
        known = {str(listed): list(read_classes(listed)[1:])} | known
    (first, classes), *others = known.items()
    for path, names in others:
        if names != classes:
            raise InputError(
                f"{path}: its categories are {', '.join(names)}, but {first} has "
                f"{', '.join(classes)}; a data set has one list of classes"
            )
    return classes


def _listed(folder: Path) -> dict[str, dict[str, str]]:
    table = folder / _LAYOUT.table
    if not table.exists():
        return {}
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read ({error}); choose another output folder") from (
            error
        )
    if any(None in row or None in row.values() or set(row) != {*_LAYOUT.header} for row in rows):
        raise InputError(
            f"{table}: its columns are not {', '.join(_LAYOUT.header)}; choose another output "
            "folder"
        )
    for row in rows:
        for key in ("uid", "label"):
            check_field(f"{table}", key, row[key])
    return {row["uid"]: row for row in rows}


def _safe(name: str) -> str:
    """A name of letters, digits and dashes, as names of clips are, for each name another one."""
    safe = re.sub(r"[^\w-]+", "-", name).strip("-")[:_LONGEST]
    return safe if safe == name else f"{safe}-{zlib.crc32(name.encode(errors='replace')):08x}"
