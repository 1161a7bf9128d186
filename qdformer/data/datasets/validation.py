"""Looks through the files of a data set before a training relies on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qdformer.audio.log_mel import SAMPLE_RATE, read_log_mel, read_waveform, required_samples
from qdformer.data.datasets.avsbench import LAYOUTS
from qdformer.data.datasets.classes import read_classes
from qdformer.data.datasets.layout import (
    Layout,
    Mask,
    clip_record,
    find_folder,
    find_frames,
    find_masks,
    read_table,
)
from qdformer.errors import InputError
from qdformer.io.image import (
    IGNORE_LABEL,
    LabelFormat,
    read_brightness,
    read_image,
    read_label_map,
)
from qdformer.io.palette import class_palette
from qdformer.progress import Progress

# What keeps a training from starting or spoils it, and what it can do with.
ERRORS = {
    "missing": "missing files or unusable lists",
    "unreadable": "files that cannot be decoded",
    "size": "frames or masks of another size than their clip's first frame",
    "label": "labels out of range",
}
WARNINGS = {
    "count": "numbers of clips that differ from AVSBench's (as those of any other data do)",
    "classes": "class lists that differ from AVSBench's",
    "unannotated": "clips in which frames have no mask (they carry no loss and are not evaluated)",
    "color": "color masks with colors of no class (such pixels are ignored)",
    "disagreement": "color masks that disagree with the index masks (the index masks are used)",
    "dark": "masks in which something that is not black reads as background",
    "sound": "sound too short for its frames (continued by silence)",
}

_SHOWN = 5

# The largest part of what is not black that may be darker than the threshold, as around an object
# whose edges were smoothed.
_SOFT_EDGES = 0.2


@dataclass(frozen=True)
class Finding:
    """``kind`` is a key of ``ERRORS`` or ``WARNINGS``; ``text`` begins with the file's name."""

    kind: str
    text: str


@dataclass
class Report:
    """What :func:`check_tree` found: the number of clips by (layout, split), and the findings."""

    clips: dict[tuple[str, str], int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def can_train(self) -> bool:
        """Whether there are no findings but warnings."""
        return not any(finding.kind in ERRORS for finding in self.findings)

    def __str__(self) -> str:
        lines = [f"{layout} {split}: {n:,}" for (layout, split), n in self.clips.items()]
        for level, kinds in (("ERROR", ERRORS), ("WARNING", WARNINGS)):
            for kind, title in kinds.items():
                texts = [finding.text for finding in self.findings if finding.kind == kind]
                if texts:
                    lines += ["", f"{level}: {title}: {len(texts):,}"]
                    lines += [f"  {text}" for text in texts[:_SHOWN]]
                if len(texts) > _SHOWN:
                    lines.append(f"  ... and {len(texts) - _SHOWN:,} more")
        errors = sum(finding.kind in ERRORS for finding in self.findings)
        warnings = len(self.findings) - errors
        verdict = "can start" if self.can_train else "cannot start"
        lines += ["", f"Training {verdict}: {errors:,} errors, {warnings:,} warnings."]
        return "\n".join(lines)


def check_tree(
    root: str | Path,
    layouts: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    workers: int = 1,
) -> Report:
    """Opens every file of the data sets under a root.

    Args:
        root: the folder that holds the data sets' folders, see ``datasets/README.md``.
        layouts: which of ``"s4"``, ``"ms3"`` and ``"avss"``; None takes those whose folders exist.
        classes: names of the AVSS classes, the background first, that the tree is registered with.
            None takes them from its ``label2idx.json``, like :func:`register_avs`.
        workers: number of threads.

    Raises:
        InputError: the root does not exist, or holds none of the data sets.
    """
    if layouts is None:
        layouts = [
            name
            for name, layout in LAYOUTS.items()
            if any(Path(root, folder).is_dir() for folder in layout.folders)
        ]
    if not layouts:
        folders = [folder for layout in LAYOUTS.values() for folder in layout.folders]
        raise InputError(
            f"{root}: holds none of the folders {', '.join(folders)}; give the folder above them, "
            "see datasets/README.md."
        )
    if unknown := [name for name in layouts if name not in LAYOUTS]:
        raise InputError(f"there is no layout {unknown[0]!r}; known: {', '.join(LAYOUTS)}")
    report = Report()
    for name in layouts:
        try:
            _check_layout(report, root, LAYOUTS[name], classes, workers)
        except InputError as error:
            report.findings.append(Finding("missing", str(error)))
    return report


def _check_layout(
    report: Report, root: str | Path, layout: Layout, classes: Sequence[str] | None, workers: int
) -> None:
    folder = find_folder(root, layout)
    clips = read_table(folder, layout)
    report.findings += _check_counts(report, folder / layout.table, layout, clips)
    num_classes = 2
    if layout.class_list:
        path = folder / layout.class_list
        if classes is None:
            classes = read_classes(path)
        else:
            report.findings += _check_classes(path, classes)
        num_classes = len(classes)

    check = partial(_check_clip, folder, layout, class_palette(num_classes))
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(check, clips)
        for findings in Progress(results, layout.name, total=len(clips), unit="clip"):
            report.findings += findings


def _check_counts(
    report: Report, path: Path, layout: Layout, clips: Sequence[Mapping[str, str]]
) -> Iterator[Finding]:
    found = Counter(clip["split"] for clip in clips)
    numbers = tuple(found.pop(split, 0) for split in layout.splits)
    report.clips.update({(layout.name, split): n for split, n in zip(layout.splits, numbers)})
    if not numbers[0]:
        yield Finding("missing", f"{path}: the split {layout.splits[0]!r} is empty.")
    if layout.published and numbers != layout.published:
        doubt = " (unverified)" if layout.name == "avss" else ""
        yield Finding(
            "count",
            f"{path}: {_listed(numbers)} clips in {', '.join(layout.splits)}; AVSBench has "
            f"{_listed(layout.published)}{doubt}.",
        )
    for split, number in found.items():
        yield Finding("count", f"{path}: {number:,} clips have the split {split!r}: not read.")


def _listed(numbers: Sequence[int]) -> str:
    return " / ".join(f"{number:,}" for number in numbers)


def _check_classes(path: Path, classes: Sequence[str]) -> Iterator[Finding]:
    try:
        listed = read_classes(path)
    except InputError as error:
        yield Finding("classes", str(error))
        return
    if len(listed) != len(classes):
        yield Finding("classes", f"{path}: {len(listed)} classes, AVSBench has {len(classes)}.")
    for index, (found, published) in enumerate(zip(listed, classes)):
        if found != published:
            yield Finding("classes", f"{path}: {index} is {found!r}, in AVSBench {published!r}.")


def _check_clip(
    folder: Path, layout: Layout, palette: np.ndarray, clip: Mapping[str, str]
) -> list[Finding]:
    if clip["split"] not in layout.splits:
        return []
    try:
        record = clip_record(folder, layout, clip)
        frames = find_frames(folder, layout, clip)
        masks = {
            form: find_masks(folder, layout, template, form, clip, frames)
            for template, form in layout.masks
        }
    except InputError as error:
        return [Finding("missing", str(error))]
    is_train = clip["split"] == layout.splits[0]
    findings = [*_check_annotation(is_train, record, frames, masks), *_check_sound(record)]
    first = None
    for index, frame in frames.items():
        try:
            size = read_image(frame).shape[:2]
        except InputError as error:
            findings.append(Finding("unreadable", str(error)))
            continue
        first = first or size
        if size != first:
            findings.append(Finding("size", _sizes(frame, size, first)))
        paths = {form: files[index] for form, files in masks.items() if index in files}
        findings += _check_masks(paths, record["label_format"], first, palette)
    return findings


def _check_annotation(
    is_train: bool,
    record: Mapping[str, Any],
    frames: Mapping[int, str],
    masks: Mapping[LabelFormat, Mapping[int, Mask]],
) -> Iterator[Finding]:
    for files in masks.values():
        for index in files.keys() - frames.keys():
            yield Finding("missing", f"{files[index]}: this mask's frame {index} is missing.")
    annotated = [mask is not None for mask in record["sem_seg_file_names"]]
    # A training clip with a mask for its first frame alone is how S4 and v1s are published.
    as_published = is_train and annotated[0] and sum(annotated) == 1
    if not all(annotated) and not as_published:
        yield Finding(
            "unannotated",
            f"{record['file_names'][0]}: {sum(annotated)} masks for the {len(annotated)} frames.",
        )


def _check_masks(
    paths: Mapping[LabelFormat, Mask],
    used_format: LabelFormat,
    size: tuple[int, int],
    palette: np.ndarray,
) -> Iterator[Finding]:
    """Checks the mask that is used, and any other of the same frame against it."""
    if used_format not in paths:
        return
    path = paths[used_format]
    try:
        labels = read_label_map(path, used_format, palette)
    except InputError as error:
        yield Finding("unreadable", str(error))
        return
    if labels.shape != size:
        yield Finding("size", _sizes(path, labels.shape, size))
    if used_format == "binary" and isinstance(path, str):
        yield from _check_dark(path, labels)
    outside = labels[labels >= len(palette)]
    if used_format == "palette" and outside.size:
        yield Finding("color", f"{path}: {outside.size:,} pixels have the color of no class.")
    elif strange := sorted(set(outside.tolist()) - {IGNORE_LABEL}):
        yield Finding(
            "label",
            f"{path}: labels {strange}; the classes are 0 to {len(palette) - 1}, and "
            f"{IGNORE_LABEL} is ignored.",
        )
    for other_format in paths.keys() - {used_format}:
        yield from _check_other(paths[other_format], other_format, labels, palette)


def _check_dark(path: str, labels: np.ndarray) -> Iterator[Finding]:
    """Dark objects beside bright ones read as background, as the soft edges of these should."""
    dark = (read_brightness(path) > 0) & (labels == 0)
    if dark.sum() > _SOFT_EDGES * (dark.sum() + labels.sum()):
        yield Finding(
            "dark",
            f"{path}: {int(dark.sum()):,} pixels are not black but darker than 128, and read as "
            "background.",
        )


def _check_other(
    path: Mask, label_format: LabelFormat, used: np.ndarray, palette: np.ndarray
) -> Iterator[Finding]:
    try:
        labels = read_label_map(path, label_format, palette)
    except InputError as error:
        yield Finding("disagreement", str(error))
        return
    if labels.shape != used.shape:
        yield Finding("disagreement", _sizes(path, labels.shape, used.shape))
    elif number := int((labels != used).sum()):
        # A writer with OpenCV's order of channels is the likeliest reason.
        swapped = read_label_map(path, label_format, palette[:, ::-1])
        hint = ", none with red and blue swapped" if (swapped == used).all() else ""
        yield Finding("disagreement", f"{path}: {number:,} pixels differ{hint}.")


def _sizes(path: Mask, found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    found_size, wanted_size = ("x".join(map(str, size[::-1])) for size in (found, wanted))
    return f"{path}: {found_size} pixels where {wanted_size} are expected."


def _check_sound(record: Mapping[str, Any]) -> Iterator[Finding]:
    path, num_frames = record["audio_file_name"], len(record["file_names"])
    needed = required_samples(num_frames)
    try:
        if path.endswith(".pkl"):
            found = required_samples(len(read_log_mel(path)))
        else:
            found = len(read_waveform(path))
    except InputError as error:
        yield Finding("unreadable", str(error))
        return
    if found < needed:
        yield Finding(
            "sound",
            f"{path}: {found / SAMPLE_RATE:.3f} s of sound for {num_frames} frames, which take "
            f"{needed / SAMPLE_RATE:.3f} s.",
        )
