"""AVSBench (Zhou et al., ECCV 2022 and IJCV 2024) as Detectron2 data sets of clips.

S4, MS3 and AVSS differ in where their files lie, and in nothing else: ``LAYOUTS`` says where, and
one reader serves the three. ``datasets/README.md`` shows the trees.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from string import Formatter
from typing import Any, get_args

from detectron2.data import DatasetCatalog, MetadataCatalog

from qdformer.data.datasets.classes import AVSS_CLASSES, BACKGROUND, read_classes
from qdformer.data.datasets.layout import Layout, clip_record, find_folder, read_table
from qdformer.errors import InputError
from qdformer.io.image import IGNORE_LABEL, LabelFormat, read_size
from qdformer.io.open_file import written_at
from qdformer.io.palette import class_palette

PREFIX = "avsbench"


def _s4_row(name: str, split: str, sounding: list[str], num_frames: int) -> dict[str, object]:
    return {"name": name, "start": 0, "category": sounding[0], "split": split}


def _ms3_row(name: str, split: str, sounding: list[str], num_frames: int) -> dict[str, object]:
    return {"video_id": name, "split": split}


def _avss_row(name: str, split: str, sounding: list[str], num_frames: int) -> dict[str, object]:
    return {
        "vid": name,
        "uid": f"{name}_0_{1000 * num_frames}",
        "s_min": 0,
        "s_sec": 0,
        "a_obj": ";".join(sounding),
        "split": split,
        "label": "v2" if num_frames != 5 else "v1s" if len(sounding) == 1 else "v1m",
    }


_LAYOUTS = (
    Layout(
        name="s4",
        folders=("Single-source",),
        table="s4_meta_data.csv",
        header=("name", "start", "category", "split"),
        columns={"name": "name", "category": "category", "split": "split"},
        frames="s4_data/visual_frames/{split}/{category}/{name}/{name}_{index}.png",
        masks=(("s4_data/gt_masks/{split}/{category}/{name}/{name}_{index}.png", "binary"),),
        sounds=(
            "s4_data/audio_wav/{split}/{category}/{name}.wav",
            "s4_data/audio_log_mel/{split}/{category}/{name}.pkl",
        ),
        evaluator_type="avs_object",
        published=(3452, 740, 740),
        single_source=("s4",),
        first_index=1,
        constant=True,
        row=_s4_row,
    ),
    Layout(
        name="ms3",
        folders=("Multi-sources",),
        table="ms3_meta_data.csv",
        header=("video_id", "split"),
        columns={"name": "video_id", "split": "split"},
        frames="ms3_data/visual_frames/{name}/{name}.mp4_{index}.png",
        masks=(("ms3_data/gt_masks/{split}/{name}/{name}_{index}.png", "binary"),),
        sounds=(
            "ms3_data/audio_wav/{split}/{name}.wav",
            "ms3_data/audio_log_mel/{split}/{name}.pkl",
        ),
        evaluator_type="avs_object",
        published=(296, 64, 64),
        first_index=1,
        row=_ms3_row,
    ),
    Layout(
        name="avss",
        folders=("AVSBench_semantic", "AVSS", "avs_released"),
        table="metadata.csv",
        header=("vid", "uid", "s_min", "s_sec", "a_obj", "split", "label"),
        columns={"name": "uid", "split": "split", "subset": "label"},
        frames="{subset}/{name}/frames/{index}.jpg",
        masks=(
            ("{subset}/{name}/labels_semantic/{index}.png", "index"),
            ("{subset}/{name}/labels_rgb/{index}.png", "palette"),
        ),
        sounds=("{subset}/{name}/audio.wav",),
        evaluator_type="avs_semantic",
        class_list="label2idx.json",
        # These numbers stand in no publication that could be checked.
        published=(8498, 1304, 1554),
        single_source=("v1s",),
        row=_avss_row,
    ),
    # Guo et al., Audio-Visual Instance Segmentation, CVPR 2025; one frame a second.
    Layout(
        name="aviseg",
        folders=("AVISeg",),
        table="{split}.json",
        frames="{split}/JPEGImages/{frame}",
        masks=(("{split}.json", "coco"),),
        sounds=("{split}/WAVAudios/{name}.wav",),
        evaluator_type="avs_semantic",
        class_list="train.json",
    ),
)
LAYOUTS = {layout.name: layout for layout in _LAYOUTS}
"""By name. A layout of one's own joins them by :func:`register_layout`."""


def register_layout(layout: Layout) -> None:
    """Let data sets of another layout be read, checked and registered like AVSBench's.

    Raises:
        InputError: there is one of this name, or it lacks a field that its paths are made of.
    """
    if layout.name in LAYOUTS:
        raise InputError(f"there is a layout {layout.name!r} already; give it another name")
    for problem in _problems(layout):
        raise InputError(f"layout {layout.name!r}: {problem}")
    LAYOUTS[layout.name] = layout


def _problems(layout: Layout) -> Iterator[str]:
    if lacking := {"name", "split"} - layout.columns.keys():
        yield f"columns names no {' and no '.join(sorted(lacking))}"
    if unknown := set(layout.columns.values()) - {*layout.header}:
        yield f"columns names {', '.join(sorted(unknown))}, and header does not"
    for key in ("folders", "splits", "masks", "sounds"):
        if not isinstance(getattr(layout, key), tuple) or not getattr(layout, key):
            yield f"{key} is {getattr(layout, key)!r}; give a tuple of at least one"
    named = "{frame}" in layout.frames
    templates = [(layout.frames, 0 if named else 1), *((t, 0) for t in layout.sounds)]
    for template, label_format in layout.masks:
        if label_format not in get_args(LabelFormat):
            yield f"masks are {label_format!r}; known: {', '.join(get_args(LabelFormat))}"
        templates.append((template, int(label_format != "coco")))
    for template, numbers in templates:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
        if unknown := {*fields} - {"index", "frame", "subset", *layout.columns}:
            yield f"{template} has {', '.join(sorted(unknown))}, which columns does not name"
        if fields.count("index") != numbers:
            yield f"{template} must have {{index}} {'once' if numbers else 'nowhere'}"


def register_avs(
    prefix: str,
    root: str | Path,
    classes: Sequence[str] | None = None,
    layouts: Sequence[str] | None = None,
) -> None:
    """Registers ``{prefix}_{layout}_{split}`` for every layout; reads nothing before a load.

    Args:
        prefix: the first part of the names.
        root: the folder that holds the data sets' folders, see ``datasets/README.md``.
        classes: names of the AVSS classes, the background first. None takes them from the tree's
            ``label2idx.json`` when the data set is loaded, and sets them in its metadata then.
        layouts: names of some layouts; None takes all.

    Raises:
        InputError: another root is registered under this prefix.
    """
    for layout in map(LAYOUTS.__getitem__, LAYOUTS if layouts is None else layouts):
        for split in layout.splits:
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
        * ``label_format``: how to read them, see :func:`qdformer.io.image.read_label_map`;
        * ``video_id``: the clip's name, made unique;
        * ``height``, ``width``: pixels of the first frame;
        * ``subset``: ``"s4"``, ``"ms3"`` or the part of AVSS: ``"v1s"``, ``"v1m"``, ``"v2"``.

    Raises:
        InputError: there is no such layout or split; the tree, its list or a file that the list
            asks for is missing; a name in the list leads out of the tree; the first frame
            of a clip is no image; the split has no clips.
    """
    if layout not in LAYOUTS:
        raise InputError(f"There is no layout {layout!r}; choose one of {', '.join(LAYOUTS)}.")
    spec = LAYOUTS[layout]
    if split not in spec.splits:
        raise InputError(f"There is no split {split!r}; choose one of {', '.join(spec.splits)}.")
    folder = find_folder(root, spec)
    records = []
    for clip in read_table(folder, spec):
        if clip["split"] == split:
            record = clip_record(folder, spec, clip)
            height, width = read_size(record["file_names"][0])
            records.append({**record, "height": height, "width": width})
    if not records:
        raise InputError(
            f"{folder / spec.table.format(split=split)}: lists no clip of the split {split!r}; add "
            "some."
        )
    return records


def _load(name: str, layout: Layout, split: str) -> list[dict[str, Any]]:
    metadata = MetadataCatalog.get(name)
    if layout.class_list and metadata.get("stuff_classes") is None:
        folder = find_folder(metadata.root, layout)
        _set_classes(name, read_classes(folder / layout.class_list))
    table = find_folder(metadata.root, layout) / layout.table.format(split=split)
    return pickle.loads(_pickled_records(metadata.root, layout.name, split, written_at(table)))


@cache
def _pickled_records(root: str, layout: str, split: str, written: int | None) -> bytes:
    """The records for as long as the list, the only file that is watched, stays as ``written``.

    A run asks for them again at every evaluation, and finding the files of a clip is slow. Each
    caller unpickles records of its own.
    """
    return pickle.dumps(load_avs(root, layout, split))


def _set_classes(name: str, classes: Sequence[str]) -> None:
    colors = [tuple(color) for color in class_palette(len(classes)).tolist()]
    MetadataCatalog.get(name).set(stuff_classes=list(classes), stuff_colors=colors)


register_avs(
    PREFIX, os.getenv("DETECTRON2_DATASETS", "datasets"), AVSS_CLASSES, ("s4", "ms3", "avss")
)
