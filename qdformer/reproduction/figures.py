"""The pictures of the paper's figures, from runs that ended."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from qdformer.checkpoint.checkpointer import AVSCheckpointer
from qdformer.data.dataset_mapper import build_mapper
from qdformer.engine.setup import check_datasets
from qdformer.engine.trainer import Trainer, predict_some
from qdformer.errors import InputError
from qdformer.io.atomic_write import write_json
from qdformer.reproduction.runs import Run, headline
from qdformer.reproduction.token_space import collect_tokens, draw_token_space
from qdformer.synthetic.variants import register_noise_variants
from qdformer.visualization.class_bars import class_bars
from qdformer.visualization.result_sheet import result_sheet
from qdformer.visualization.snr_curve import snr_curve
from qdformer.visualization.training_curves import training_curves

CLIPS_OF_SHEET = 3
CLIPS_OF_MAP = 200

Pictures = dict[str, np.ndarray]


@dataclass(frozen=True)
class FigureOptions:
    """What the figures leave to choose.

    Attributes:
        snrs: Fig. 7: energy of the sound over that of the noise, dB.
        noise: Fig. 7: a folder of recordings, or a name of ``qdformer.synthetic.noise``.
        classes: Fig. 6: names of classes; none takes three that often sound together.
    """

    snrs: tuple[float, ...] = (-10, -5, 0, 5, 10, 20)
    noise: str = "mixture"
    classes: tuple[str, ...] = ()


def draw_figure(name: str, runs: Sequence[Run], options: FigureOptions) -> Pictures:
    """Draw a figure, a set of pictures for each data set.

    Args:
        name: of the experiment; a table has no picture.
        runs: of it; those that did not end well are left out.
        options: what there is to choose.

    Returns:
        (h, w, 3) uint8 RGB by caption.

    Raises:
        InputError: the options or the data cannot give this figure.
    """
    pictures: Pictures = {}
    done = [run for run in runs if run.is_done()]
    for data in dict.fromkeys(run.data for run in done):
        drawn = DRAW.get(name, _nothing)([run for run in done if run.data == data], options)
        pictures |= {f"{data}: {caption}": picture for caption, picture in drawn.items()}
    return pictures


def _nothing(_runs: Sequence[Run], _options: FigureOptions) -> Pictures:
    return {}


def _results(runs: Sequence[Run], _options: FigureOptions) -> Pictures:
    """Fig. 5."""
    cfg, model = _load(runs[0])
    metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
    sheet = result_sheet(predict_some(cfg, model, CLIPS_OF_SHEET), metadata)
    caption = (
        "frames, sound, ground truth, prediction, and the codeword of each token by second "
        "(held-out clips, evenly spread)"
    )
    return {caption: sheet}


def _tokens(runs: Sequence[Run], options: FigureOptions) -> Pictures:
    """Fig. 6."""
    cfg, model = _load(runs[0])
    name = cfg.DATASETS.TEST[0]
    metadata = MetadataCatalog.get(name)
    known = metadata.stuff_classes[1:]
    if unknown := set(options.classes) - set(known):
        raise InputError(
            f"{name} has no class {', '.join(sorted(unknown))}; known: {', '.join(known)}"
        )
    records, mapper = DatasetCatalog.get(name), build_mapper(cfg, False)
    step = -(-len(records) // CLIPS_OF_MAP)
    clips = (mapper(record) for record in records[::step])
    fitting = (clip for clip in clips if len(clip["image"]) <= model.window)
    space = collect_tokens(model, fitting, metadata)
    return draw_token_space(space, options.classes, metadata, cfg.MODEL.QDFORMER.CODEBOOK.NUM_CODES)


def _noise(runs: Sequence[Run], options: FigureOptions) -> Pictures:
    """Fig. 7."""
    name = f"{runs[0].data}_test"
    task, metric = headline(runs[0].data)
    models: dict[str, dict[float, list[float]]] = {}
    for run in runs:
        values = models.setdefault(run.row.name, {})
        values.setdefault(math.inf, []).append(run.metrics()[metric])
        for snr, value in _under_noise(run, options, task, metric).items():
            values.setdefault(snr, []).append(value)
    curve = snr_curve(models, len(DatasetCatalog.get(name)), f"{metric} (%)")
    return {f"{metric} against the strength of background noise ({options.noise})": curve}


def _under_noise(run: Run, options: FigureOptions, task: str, metric: str) -> dict[float, float]:
    """What is evaluated is kept, ratio by ratio."""
    path = run.folder / "noise.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    missing = [snr for snr in options.snrs if f"{options.noise} {snr:g}" not in kept]
    if missing:
        cfg, model = _load(run)
        for snr in missing:
            variant = register_noise_variants(f"{run.data}_test", [snr], options.noise)
            cfg.DATASETS.TEST = tuple(variant)
            kept[f"{options.noise} {snr:g}"] = Trainer.test(cfg, model)[task][metric]
            write_json(path, kept)
    return {snr: kept[f"{options.noise} {snr:g}"] for snr in options.snrs}


def _classes(runs: Sequence[Run], _options: FigureOptions) -> Pictures:
    """Fig. A."""
    metrics = [run.metrics() for run in runs]
    names = MetadataCatalog.get(f"{runs[0].data}_test").stuff_classes
    if f"IoU_{names[0]}" not in metrics[0]:
        raise InputError(f"{runs[0].data} has no classes to compare; Fig. A needs an AVSS set")
    values = {name: _mean(metric.get(f"IoU_{name}") for metric in metrics) for name in names}
    bars = class_bars({runs[0].row.name: values}, int(metrics[0]["frames"]))
    return {f"IoU per class, the mean over {len(runs)} seeds": bars}


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return math.fsum(found) / len(found) if found else None


def _training(runs: Sequence[Run], _options: FigureOptions) -> Pictures:
    """Fig. B."""
    metric = "/".join(headline(runs[0].data))
    wanted = {"total_loss": "training loss", metric: "of the test set (%)"}
    panels: dict[str, dict[str, list]] = {}
    for key, meaning in wanted.items():
        panel = panels.setdefault(f"{key.rpartition('/')[2]}, {meaning}", {})
        for run in runs:
            points = [(line["iteration"], line[key]) for line in _logged(run.folder) if key in line]
            panel.setdefault(run.row.name, []).append(tuple(zip(*points)) or ((), ()))
    return {"training with and without single-source clips": training_curves(panels)}


def _logged(folder: Path) -> list[Mapping[str, float]]:
    text = (folder / "metrics.json").read_text(encoding="utf-8")
    return [line for line in map(json.loads, text.splitlines()) if "iteration" in line]


def _load(run: Run) -> tuple[CfgNode, Any]:
    """The config and the trained model of a run."""
    cfg = run.cfg.clone()
    cfg.OUTPUT_DIR = str(run.folder)
    check_datasets(cfg, eval_only=True)
    model = Trainer.build_model(cfg)
    AVSCheckpointer(model, complete=True).load(str(run.folder / "model_final.safetensors"))
    return cfg, model.eval()


DRAW: dict[str, Callable[[Sequence[Run], FigureOptions], Pictures]] = {
    "fig5": _results,
    "fig6": _tokens,
    "fig7": _noise,
    "figA": _classes,
    "figB": _training,
}
