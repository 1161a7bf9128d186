"""How fast clips come from the disk: the mapper alone, and loaders with processes."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MapDataset, MetadataCatalog
from torch.utils.data import DataLoader

from qdformer.benchmark.options import BenchmarkOptions
from qdformer.benchmark.timing import FEW_REPEATS, FEW_WARMUP, CPUClock, spread, time_in_turn
from qdformer.data.dataset_mapper import build_mapper
from qdformer.data.datasets.avsbench import register_avs
from qdformer.synthetic.composer import ComposeOptions, compose

CLIPS = 24
WORKERS = (1, 2)

_PASSES = 2


def measure_data(cfg, options: BenchmarkOptions) -> Iterator[dict[str, Any]]:
    """Clips a second in training and in evaluation, of a composed AVSS set of the workload's size.

    Args:
        cfg: how clips are read and augmented; their size and length are the workload's.
        options: the workload, and how often the mapper is timed (at most 3 times).

    Yields:
        ``clips``, and for ``train`` and ``eval`` the clips/s of ``mapper`` (one thread, the spread
        of whole passes), ``1 worker`` and ``2 workers``, as far as they are there.
    """
    result: dict[str, Any] = {"clips": CLIPS}
    with composed_set(options.workload.frames, options.workload.size) as name:
        records, cfg = DatasetCatalog.get(name), data_config(cfg, options, name)
        for mode in ("train", "eval"):
            mapper = build_mapper(cfg, mode == "train")
            rates = result[mode] = {}
            rates["mapper"] = _mapper_rate(mapper, records, options.repeats, f"mapper, {mode}")
            yield result
            for workers in WORKERS:
                rate = loader_rate(mapper, records * _PASSES, workers)
                rates[f"{workers} worker{'s' * (workers > 1)}"] = rate
                yield result


@contextmanager
def composed_set(frames: int, size: int) -> Iterator[str]:
    """A registered data set in a folder that lasts as long as the context.

    Args:
        frames: of each clip.
        size: of the frames, pixels.

    Yields:
        Its name.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        before = set(DatasetCatalog.list())
        compose(
            ComposeOptions(output=root, frames=frames, size=size, clips={"train": CLIPS}, workers=1)
        )
        register_avs(root.name, root)
        try:
            yield f"{root.name}_avss_train"
        finally:
            for name in set(DatasetCatalog.list()) - before:
                DatasetCatalog.remove(name)
                MetadataCatalog.remove(name)


def data_config(cfg, options: BenchmarkOptions, name: str) -> CfgNode:
    """The config with one loaded data set for all, whose clips it neither cuts nor scales."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (name,)
    cfg.MODEL.QDFORMER.NUM_CLASSES = len(MetadataCatalog.get(name).stuff_classes) - 1
    cfg.INPUT.NUM_FRAMES = options.workload.frames
    size = options.workload.size
    cfg.INPUT.MIN_SIZE_TRAIN = (size,)
    cfg.INPUT.MAX_SIZE_TRAIN = cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = size
    return cfg


def loader_rate(
    mapper: Callable[[dict], dict],
    records: list[dict],
    workers: int,
    now: Callable[[], float] = time.perf_counter,
) -> float:
    """Clips a second that a loader's processes deliver once they are under way.

    Args:
        mapper: record to clip.
        records: each is read once; more than 4 for each worker.
        workers: processes.
        now: seconds.

    Returns:
        Of the clips after those that the processes read ahead.
    """
    loader = DataLoader(
        MapDataset(records, mapper), batch_size=None, num_workers=workers, collate_fn=_unchanged
    )
    clips = iter(loader)
    ahead = sum(1 for _ in islice(clips, workers * loader.prefetch_factor * 2))
    start = now()
    counted = sum(1 for _ in clips)
    assert counted == len(records) - ahead > 0, f"{len(records)} clips, {ahead} of them ahead"
    return counted / (now() - start)


def _mapper_rate(mapper, records: list[dict], repeats: int, title: str) -> dict[str, float]:
    def read_all() -> None:
        for record in records:
            mapper(record)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a loader's process
    try:
        repeats = min(repeats, FEW_REPEATS)
        seconds = time_in_turn({"mapper": read_all}, CPUClock(), repeats, title, FEW_WARMUP)
    finally:
        torch.set_num_threads(threads)
    return spread([len(records) / lap for lap in seconds["mapper"]])


def _unchanged(clip: dict) -> dict:
    return clip
