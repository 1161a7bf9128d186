"""AVSBench (Zhou et al., ECCV 2022 and IJCV 2024) as Detectron2 data sets of clips.

S4, MS3 and AVSS differ in where their files lie, and in nothing else: ``LAYOUTS`` says where, and
one reader serves the three. ``datasets/README.md`` shows the trees.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from qdformer.data.boundary import check_inside
from qdformer.data.classes import AVSS_CLASSES, BACKGROUND, class_palette, read_classes
from qdformer.data.clips import SPLITS, Layout, clip_record, find_folder, read_table
from qdformer.data.image import IGNORE_LABEL, read_size
from qdformer.errors import InputError

PREFIX = "avsbench"

_LAYOUTS = (
    Layout(
        name="s4",
        folders=("Single-source",),
        table="s4_meta_data.csv",
        columns={"name": ("name", 0), "category": ("category", 2), "split": ("split", 3)},
        frames="s4_data/visual_frames/{split}/{category}/{name}/{name}_{index}.png",
        masks=(("s4_data/gt_masks/{split}/{category}/{name}/{name}_{index}.png", "binary"),),
        sounds=(
            "s4_data/audio_wav/{split}/{category}/{name}.wav",
            "s4_data/audio_log_mel/{split}/{category}/{name}.pkl",
        ),
        evaluator_type="avs_object",
    ),
    Layout(
        name="ms3",
        folders=("Multi-sources",),
        table="ms3_meta_data.csv",
        columns={"name": ("video_id", 0), "split": ("split", 1)},
        frames="ms3_data/visual_frames/{name}/{name}.mp4_{index}.png",
        masks=(("ms3_data/gt_masks/{split}/{name}/{name}_{index}.png", "binary"),),
        sounds=(
            "ms3_data/audio_wav/{split}/{name}.wav",
            "ms3_data/audio_log_mel/{split}/{name}.pkl",
        ),
        evaluator_type="avs_object",
    ),
    Layout(
        name="avss",
        folders=("AVSBench_semantic", "AVSS", "avs_released"),
        table="metadata.csv",
        columns={"name": ("uid", 1), "split": ("split", 5), "subset": ("label", 6)},
        frames="{subset}/{name}/frames/{index}.jpg",
        masks=(
            ("{subset}/{name}/labels_semantic/{index}.png", "index"),
            ("{subset}/{name}/labels_rgb/{index}.png", "palette"),
        ),
        sounds=("{subset}/{name}/audio.wav",),
        evaluator_type="avs_semantic",
        class_list="label2idx.json",
    ),
)
LAYOUTS = {layout.name: layout for layout in _LAYOUTS}


def register_avs(prefix: str, root: str | Path, classes: Sequence[str] | None = None) -> None:
    """Registers ``{prefix}_{s4,ms3,avss}_{train,val,test}``; reads nothing before a load.

    Args:
        prefix: the first part of the names.
        root: the folder that holds the data sets' folders, see ``datasets/README.md``.
        classes: names of the AVSS classes, the background first. None takes them from the tree's
            ``label2idx.json`` when the data set is loaded, and sets them in its metadata then.

    Raises:
        InputError: another root is registered under this prefix.
    """
    for layout in LAYOUTS.values():
        for split in SPLITS:
            name = f"{prefix}_{layout.name}_{split}"
            metadata = MetadataCatalog.get(name)
            if name in DatasetCatalog.list():
                if Path(metadata.get("root", "")).resolve() != Path(root).resolve():
                    raise InputError(
                        f"{root}: the name {name} is taken by {metadata.get('root')}; give the "
                        "folder another name."
                    )
                continue
            DatasetCatalog.register(name, partial(_load, name, layout, split))
            metadata.set(
                root=str(root), evaluator_type=layout.evaluator_type, ignore_label=IGNORE_LABEL
            )
            names = classes if layout.class_list else (BACKGROUND, "object")
            if names is not None:
                _set_classes(name, names)


def load_avs(root: str | Path, layout: str, split: str) -> list[dict[str, Any]]:
    """Lists the clips of a split.

    Args:
        root: the folder that holds the data sets' folders, see ``datasets/README.md``.
        layout: ``"s4"``, ``"ms3"`` or ``"avss"``.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Returns:
        A record for each clip, with the keys

        * ``file_names``: T paths of frames, in the order of their numbers;
        * ``audio_file_name``: path of its sound, a sound file or released log-mel (``.pkl``);
        * ``sem_seg_file_names``: T paths of masks, None for a frame that has none;
        * ``label_format``: how to read them, see :func:`qdformer.data.image.read_label_map`;
        * ``video_id``: the clip's name, made unique;
        * ``height``, ``width``: pixels of the first frame;
        * ``subset``: ``"s4"``, ``"ms3"`` or the part of AVSS: ``"v1s"``, ``"v1m"``, ``"v2"``.

    Raises:
        InputError: there is no such layout or split; the tree, its list or a file that the list
            asks for is missing; a name in the list or a link leads out of the tree; the first frame
            of a clip is no image; the split has no clips.
    """
    if layout not in LAYOUTS:
        raise InputError(f"There is no layout {layout!r}; choose one of {', '.join(LAYOUTS)}.")
    if split not in SPLITS:
        raise InputError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
    spec = LAYOUTS[layout]
    folder = find_folder(root, spec)
    records = []
    for clip in read_table(folder, spec):
        if clip["split"] == split:
            record = clip_record(folder, spec, clip)
            height, width = read_size(record["file_names"][0])
            records.append({**record, "height": height, "width": width})
    if not records:
        raise InputError(
            f"{folder / spec.table}: the split {split!r} is empty; a clip must have it in the "
            "column 'split'."
        )
    return records


def _load(name: str, layout: Layout, split: str) -> list[dict[str, Any]]:
    metadata = MetadataCatalog.get(name)
    if layout.class_list and metadata.get("stuff_classes") is None:
        folder = find_folder(metadata.root, layout)
        check_inside(folder, folder / layout.class_list)
        _set_classes(name, read_classes(folder / layout.class_list))
    table = find_folder(metadata.root, layout) / layout.table
    written = table.stat().st_mtime_ns if table.is_file() else None
    return pickle.loads(_pickled_records(metadata.root, layout.name, split, written))


@cache
def _pickled_records(root: str, layout: str, split: str, written: int | None) -> bytes:
    """The records for as long as the list, the only file that is watched, stays as ``written``.

    A run asks for them again at every evaluation, and finding the files of a clip is slow. Each
    caller unpickles records of its own.
    """
    return pickle.dumps(load_avs(root, layout, split))


def _set_classes(name: str, classes: Sequence[str]) -> None:
    colours = [tuple(colour) for colour in class_palette(len(classes)).tolist()]
    MetadataCatalog.get(name).set(stuff_classes=list(classes), stuff_colors=colours)


register_avs(PREFIX, os.getenv("DETECTRON2_DATASETS", "datasets"), AVSS_CLASSES)
