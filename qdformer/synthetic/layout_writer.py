"""Writes clips in the layouts of :mod:`qdformer.data.datasets.avsbench`."""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import soundfile

from qdformer.audio.log_mel import SAMPLE_RATE, clip_log_mel, write_log_mel
from qdformer.data.datasets.avsbench import LAYOUTS
from qdformer.data.datasets.classes import BACKGROUND
from qdformer.data.datasets.layout import Layout
from qdformer.io.palette import class_palette

Paint = Callable[[np.ndarray], np.ndarray]

_ENCODING = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95], ".png": []}
_PALETTE = class_palette(256)


@dataclass(frozen=True)
class ClipFiles:
    """The files of a clip, relative to the folder of its layout.

    Attributes:
        frames: T paths.
        masks: T lists of a path and what turns labels (H, W) into the picture to be stored there,
            gray (H, W) or RGB (H, W, 3); empty for a frame without a mask.
        audio: the sound files: samples, and for layouts that have it pickled log-mel.
        parts: the files and folders to be moved into place in this order, so that a clip is whole
            when the last one is there.
        row: the clip's line in the list.
    """

    frames: list[Path]
    masks: list[list[tuple[Path, Paint]]]
    audio: list[Path]
    parts: list[Path]
    row: dict[str, object]


def write_clip(
    root: Path,
    partial: Path,
    files: ClipFiles,
    frames: Iterable[tuple[np.ndarray, np.ndarray]],
    waveform: np.ndarray,
) -> None:
    """Writes a clip elsewhere and moves it into place.

    Args:
        root: the folder of the layout.
        partial: a folder of the clip's own on the same file system, to be used and removed.
        files: what goes where.
        frames: T pairs of a frame (H, W, 3) uint8 RGB and its labels (H, W) uint8.
        waveform: (L,) float32 mono at 16 kHz; stored with 16 bits.
    """
    shutil.rmtree(partial, ignore_errors=True)
    for t, (frame, labels) in enumerate(frames):
        _write_image(partial / files.frames[t], frame)
        for path, paint in files.masks[t]:
            _write_image(partial / path, paint(labels))
    samples, *log_mel = [partial / path for path in files.audio]
    for path in files.audio:
        (partial / path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(samples, waveform, SAMPLE_RATE, "PCM_16", format="WAV")
    for path in log_mel:
        write_log_mel(path, clip_log_mel(samples, len(files.frames)))
    move_clip(partial, root, files)
    shutil.rmtree(partial)


def move_clip(source: Path, root: Path, files: ClipFiles) -> None:
    """Moves a clip to another folder on the same file system, in the place of one of its name."""
    for part in files.parts:
        target = root / part
        if target.is_dir():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source / part, target)


def write_lists(
    folder: Path, layout: Layout, rows: Sequence[Mapping[str, object]], classes: Sequence[str]
) -> None:
    """Writes the list of a data set's clips and, where the layout has one, that of its classes.

    Args:
        folder: of the layout.
        layout: whose lists they are.
        rows: a line for each clip, at least one, see ``ClipFiles.row``.
        classes: names without background.
    """
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(folder / layout.table, table.getvalue().encode())
    if layout.class_list:
        labels = {name: index for index, name in enumerate([BACKGROUND, *classes])}
        write_bytes(folder / layout.class_list, (json.dumps(labels, indent=1) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _write_image(path: Path, picture: np.ndarray) -> None:
    stored = picture[..., ::-1] if picture.ndim == 3 else picture
    _, data = cv2.imencode(path.suffix, stored, _ENCODING[path.suffix])
    write_bytes(path, data.tobytes())


def _binary(labels: np.ndarray) -> np.ndarray:
    return np.where(labels > 0, 255, 0).astype(np.uint8)


def _index(labels: np.ndarray) -> np.ndarray:
    return labels


def _color(labels: np.ndarray) -> np.ndarray:
    return _PALETTE[labels]


_PAINT: dict[str, Paint] = {"binary": _binary, "index": _index, "palette": _color}


def writable_layouts() -> list[str]:
    """Names of the layouts in which clips can be written."""
    return [layout.name for layout in LAYOUTS.values() if layout.row]


def clip_files(
    layout: Layout, name: str, split: str, sounding: list[str], num_frames: int
) -> ClipFiles:
    """Where the layout wants the files of a clip.

    Args:
        layout: one of :func:`writable_layouts`.
        name: of the clip.
        split: of ``layout.splits``.
        sounding: the classes that sound in it.
        num_frames: T.
    """
    assert layout.row is not None, layout.name
    row = layout.row(name, split, sounding, num_frames)
    fields = {field: str(row[column]) for field, column in layout.columns.items()}
    fields = {"subset": layout.name, **fields}
    first_only = split == layout.splits[0] and fields["subset"] in layout.single_source
    numbers = range(layout.first_index, layout.first_index + num_frames)
    masks = [(Path(template.format(**fields, index="{index}")), _PAINT[form])
             for template, form in layout.masks]  # fmt: skip
    files = [layout.frames, *(template for template, _ in layout.masks), *layout.sounds]
    return ClipFiles(
        frames=[Path(layout.frames.format(**fields, index=k)) for k in numbers],
        masks=[
            [(Path(str(path).format(index=k)), paint) for path, paint in masks]
            if k == layout.first_index or not first_only
            else []
            for k in numbers
        ],
        audio=[Path(template.format(**fields)) for template in layout.sounds],
        parts=list(dict.fromkeys(Path(_own_part(template).format(**fields)) for template in files)),
        row=row,
    )


def _own_part(template: str) -> str:
    """The file or folder of a template in which nothing of other clips lies."""
    parts = template.split("/")
    own = next(k for k, part in enumerate(parts) if "{name}" in part)
    return "/".join(parts[: own + 1])
