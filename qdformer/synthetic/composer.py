"""Writes audio-visual segmentation data sets in AVSBench's layouts, composed of cutouts and sounds.

Objects move over a background, and in each second some of them sound: only those are labeled, so
that nothing but the sound tells which. Each clip has a generator of its own, seeded by the data
set's seed, its split and its number, and is moved into place when it is whole. So the bytes do not
depend on the number of processes, and an interrupted run continues where it ended.
"""

import hashlib
import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from qdformer.data.datasets.avsbench import LAYOUTS
from qdformer.data.datasets.classes import BACKGROUND
from qdformer.data.datasets.layout import SPLITS
from qdformer.errors import InputError
from qdformer.progress import Progress
from qdformer.synthetic.asset_readers import check_asset
from qdformer.synthetic.assets import Asset, AssetFolders, Library, load_libraries
from qdformer.synthetic.layout_writer import (
    clip_files,
    writable_layouts,
    write_bytes,
    write_clip,
    write_lists,
)
from qdformer.synthetic.scene import draw_frames, mix, plan_clip

SOURCES = {"single": (1, 1), "multi": (2, 3)}
MANIFEST = "compose.json"

_PARTIAL = ".partial"
_MAX_CLASSES = 254
_MIN_SIZE = 16


@dataclass(frozen=True)
class ComposeOptions:
    """What to compose.

    Attributes:
        output: the root of the data set.
        layouts: of ``"avss"``, ``"ms3"`` and ``"s4"``; each gets a tree of its own under the root.
        folders: where the assets lie; all are built in by default.
        classes: class names in the order of their labels (from 1); empty for all there are.
        frames: frames of a clip (T), one a second; the sound is as many seconds long.
        size: height and width of the frames, pixels.
        sources: the least and the greatest number of sources that sound in a clip. In the layout
            S4 it is always one, which sounds in every second.
        clips: the number of clips of each split, for each layout.
        snr: decibels between the sources and the off-screen noise; None for no noise.
        seed: the same seed writes the same bytes.
        workers: processes.
    """

    output: Path
    layouts: tuple[str, ...] = ("avss",)
    folders: AssetFolders = field(default_factory=AssetFolders)
    classes: tuple[str, ...] = ()
    frames: int = 5
    size: int = 224
    sources: tuple[int, int] = SOURCES["multi"]
    clips: dict[str, int] = field(default_factory=lambda: {"train": 800, "val": 100, "test": 100})
    snr: float | None = 20.0
    seed: int = 0
    workers: int = 2


def compose(options: ComposeOptions, libraries: dict[str, Library] | None = None) -> Path:
    """Composes a data set, or continues where an interrupted run with the same options ended.

    Args:
        options: what to compose.
        libraries: the assets of each split, in place of those that are shared out from
            ``options.folders``.

    Returns:
        The root of the data set.

    Raises:
        InputError: an option or an asset cannot be used, or the root cannot be written or holds
            other data.
    """
    _check_options(options)
    root, splits = Path(options.output), [split for split in SPLITS if split in options.clips]
    if libraries is None:
        libraries = load_libraries(options.folders, options.classes, splits)
    classes = list(libraries[splits[0]].sounds)
    _check_classes(options, classes)
    files = sorted(
        {asset for library in libraries.values() for asset in library.files()},
        key=lambda asset: (asset.kind, asset.group, asset.name),
    )
    try:
        manifest = _manifest(options, classes, files)
        _check_root(root, manifest)
        with _pool(options.workers) as run:
            for _ in Progress(
                run(check_asset, files), "checking assets", len(files), disable=not files
            ):
                pass
            _write_manifest(root, manifest)
            for layout in options.layouts:
                jobs = [(layout, split, i) for split in splits for i in range(options.clips[split])]
                work = run(_ClipWriter(options, libraries), jobs)
                rows = list(Progress(work, f"composing {layout}", len(jobs), unit="clip"))
                write_lists(root / LAYOUTS[layout].folders[0], LAYOUTS[layout], rows, classes)
        shutil.rmtree(root / _PARTIAL, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"{error.filename or root}: cannot be read or written ({error.strerror}); mend that or "
            "choose another output folder, then run the same command again to continue"
        ) from error
    return root


class _ClipWriter:
    """Writes clip (layout, split, number) unless it is there; returns its line of the list."""

    def __init__(self, options: ComposeOptions, libraries: dict[str, Library]) -> None:
        self.options = options
        self.libraries = libraries

    def __call__(self, job: tuple[str, str, int]) -> dict[str, object]:
        name, split, number = job
        options, library, layout = self.options, self.libraries[split], LAYOUTS[name]
        rng = np.random.default_rng([options.seed, SPLITS.index(split), number])
        sources = SOURCES["single"] if layout.constant else options.sources
        # Of what has a single source in training, layouts annotate the first frame alone.
        first_only = bool(layout.single_source) and split == layout.splits[0]
        clip = plan_clip(
            rng, library, options.frames, sources, layout.constant, first_heard=first_only
        )
        names = list(library.sounds)
        sounding = [names[source.class_index - 1] for source in clip.sources]
        files = clip_files(layout, f"{split}{number:05d}", split, sounding, options.frames)
        root = Path(options.output)
        if not (root / layout.folders[0] / files.parts[-1]).exists():
            partial = root / _PARTIAL / f"{name}_{split}{number:05d}"
            frames, waveform = draw_frames(clip, options.size), mix(rng, clip, options.snr)
            write_clip(root / layout.folders[0], partial, files, frames, waveform)
        return files.row


@contextmanager
def _pool(workers: int) -> Iterator[Callable[[Callable, Iterable], Iterator]]:
    """Hands out ``run(function, jobs)``, which yields the results in the order of the jobs."""
    if workers == 1:
        yield map
        return
    # OpenCV hangs in a forked process that changes the number of threads it had before the fork.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    executor = ProcessPoolExecutor(workers, initializer=_start_worker)
    try:
        yield lambda function, jobs: executor.map(function, jobs, chunksize=4)
    finally:
        executor.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads)


def _start_worker() -> None:
    # The parent answers Ctrl-C for all, and threads would only compete with the other workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _manifest(options: ComposeOptions, classes: list[str], files: list[Asset]) -> dict[str, object]:
    """What the bytes of a data set depend on."""
    sizes = "".join(
        f"{a.kind}/{a.group}/{a.name} {a.path.stat().st_size}\n" for a in files if a.path
    )
    return {
        "layouts": list(options.layouts),
        "classes": classes,
        "frames": options.frames,
        "size": options.size,
        "sources": list(options.sources),
        "clips": options.clips,
        "snr": options.snr,
        "seed": options.seed,
        "assets": hashlib.sha256(sizes.encode()).hexdigest() if files else "built in",
    }


def _check_root(root: Path, manifest: dict[str, object]) -> None:
    """A root is continued only with the options that it was begun with."""
    path = root / MANIFEST
    if not path.exists():
        for layout in LAYOUTS.values():
            if (folder := root / layout.folders[0]).exists():
                raise InputError(
                    f"{folder}: is there already, and no {MANIFEST} beside it tells that it was "
                    "composed; choose another output folder"
                )
        return
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path}: not the JSON that the composer writes; choose another output folder"
        ) from error
    differing = [key for key, value in manifest.items() if before.get(key) != value]
    if differing:
        told = ", ".join(f"{key} {before.get(key)} (now {manifest[key]})" for key in differing)
        raise InputError(
            f"{root}: was composed with {told}; give the same options to continue, or choose "
            "another output folder"
        )


def _write_manifest(root: Path, manifest: dict[str, object]) -> None:
    partial = root / f"{MANIFEST}{_PARTIAL}"
    write_bytes(partial, (json.dumps(manifest, indent=1) + "\n").encode())
    os.replace(partial, root / MANIFEST)


def _check_options(options: ComposeOptions) -> None:
    (low, high), names = options.sources, options.classes
    layouts, clips, known = options.layouts, options.clips, writable_layouts()
    for key, valid, allowed in (
        ("layouts", layouts and set(layouts) <= set(known), f"some of {', '.join(known)}"),
        (
            "clips",
            clips and set(clips) <= set(SPLITS) and min(clips.values()) > 0,
            f"a number above 0 for some of {', '.join(SPLITS)}; leave out a split to have none",
        ),
        ("frames", options.frames > 0, "1 or more"),
        ("size", options.size >= _MIN_SIZE, f"{_MIN_SIZE} pixels or more"),
        ("sources", 0 < low <= high, "the least and the greatest number of sources, from 1 up"),
        ("snr", options.snr is None or math.isfinite(options.snr), "decibels, or None"),
        ("seed", options.seed >= 0, "0 or more"),
        ("workers", options.workers > 0, "1 or more"),
        ("classes", len(set(names)) == len(names), "names that differ"),
    ):
        if not valid:
            raise InputError(f"{key}: {getattr(options, key)!r} is not possible; give {allowed}")


def _check_classes(options: ComposeOptions, classes: list[str]) -> None:
    if BACKGROUND in classes:
        raise InputError(f"class {BACKGROUND!r} would be label 0; rename its folders")
    high = max(1 if LAYOUTS[name].constant else options.sources[1] for name in options.layouts)
    if not high <= len(classes) <= _MAX_CLASSES:
        raise InputError(
            f"classes: found {len(classes)}, but {high} to {_MAX_CLASSES} are possible, since the "
            "sources that sound in one clip are of different classes; change the sources or classes"
        )
