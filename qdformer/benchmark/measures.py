"""What can be measured: of a model, of the data and of the evaluators.

Each measure takes the model's config and the options, and yields what it knows so far, so that a
run that is cut off loses nothing.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MapDataset, MetadataCatalog
from torch import Tensor
from torch.utils.data import DataLoader

from qdformer.benchmark.memory import peak_memory
from qdformer.benchmark.options import BenchmarkOptions, Workload
from qdformer.benchmark.runs import RUNS, EvalForward, Reference
from qdformer.benchmark.stages import count_flops, count_parameters, measure_forward
from qdformer.benchmark.timing import REFERENCE, Spread, relative, spread, time_in_turn
from qdformer.benchmark.video_path import WHOLE, video_runs
from qdformer.data.dataset_mapper import build_mapper
from qdformer.data.datasets.avsbench import register_avs
from qdformer.errors import InputError
from qdformer.evaluation.avs_object_evaluation import AVSObjectEvaluator
from qdformer.evaluation.avs_semantic_evaluation import AVSSemanticEvaluator
from qdformer.evaluation.metrics import boundary_f
from qdformer.io.image import read_label_map
from qdformer.layers.ms_deform_attn import ms_deform_attn_plain, ms_deform_attn_triton
from qdformer.modeling.deformable_encoder import cell_centers, neighboring_frames
from qdformer.synthetic.composer import ComposeOptions, compose

GROWTH_REFERENCE = Workload(frames=5, size=224)
"""What ResNet-50 gets beside every point of growth."""

CLIPS = 24
"""Of the composed data set."""

VIDEO_SIZE, VIDEO_SECONDS = (720, 1280), 30

SCORED_SIZES = (224, 960)
"""AVSBench's frames, and as many pixels as 720p has."""

Runs = dict[str, Callable[[], Any]]

_FEW_REPEATS = 3
"""Of what takes long."""


def measure_eval(cfg: CfgNode, options: BenchmarkOptions) -> Iterator[dict[str, Any]]:
    """The forward in evaluation, beside ResNet-50."""
    yield _beside_reference(cfg, options, "eval")


def measure_training(cfg: CfgNode, options: BenchmarkOptions) -> Iterator[dict[str, Any]]:
    """The training step, beside ResNet-50."""
    yield _beside_reference(cfg, options, "train")


def _beside_reference(cfg: CfgNode, options: BenchmarkOptions, name: str) -> dict[str, Any]:
    workload = options.workload
    runs: Runs = {REFERENCE: Reference(workload), name: RUNS[name](cfg, workload)}
    seconds = time_in_turn(runs, options.repeats, name)
    return relative(seconds[name], seconds[REFERENCE])


def measure_memory(cfg: CfgNode, options: BenchmarkOptions) -> Iterator[dict[str, int]]:
    """Peak bytes of forward and training step, and on the CPU the libraries' share of them."""
    result = {}
    for name in (*options.workload.runs, *((None,) if options.workload.device == "cpu" else ())):
        result[name or "libraries"] = peak_memory(cfg, options.workload, name)
        yield result


def measure_stages(cfg: CfgNode, options: BenchmarkOptions) -> Iterator[dict[str, Any]]:
    """Times inside of whole forwards, FLOPs and parameters of each stage."""
    workload = options.workload
    if workload.frames > cfg.TEST.WINDOW:
        raise InputError(
            f"--frames is {workload.frames}; stages are measured in one window of the model, so "
            f"give at most TEST.WINDOW {cfg.TEST.WINDOW} or set that"
        )
    forward = EvalForward(cfg, workload)
    flops = count_flops(forward.model, forward.clips)
    parameters = count_parameters(forward.model)
    rounds: list[dict[str, float]] = []

    @torch.no_grad()
    def recorded() -> None:
        with workload.autocast():
            rounds.append(measure_forward(forward.model, forward.clips))

    runs: Runs = {REFERENCE: Reference(workload), "stages": recorded}
    references = time_in_turn(runs, options.repeats, "stages")[REFERENCE]
    del rounds[: -options.repeats]
    total = [sum(counts) for counts in zip(*parameters.values())]

    def row(seconds: list[float], flops: float, counts: Any) -> dict[str, Any]:
        return {
            **relative(seconds, references),
            "flops": flops,
            "trained_parameters": counts[0],
            "parameters": counts[1],
        }

    yield {
        "whole": row([sum(times.values()) for times in rounds], sum(flops.values()), total),
        "stages": [
            {"name": name}
            | row([times[name] for times in rounds], flops[name], parameters.get(name, (0, 0)))
            for name in rounds[0]
        ],
    }


def measure_attention(cfg: CfgNode, options: BenchmarkOptions) -> Iterator[dict[str, Any]]:
    """Deformable attention by itself, "<version> forward" and "<version> forward and backward".

    Each version that the device has reads the workload's frames, beside ResNet-50; in "bf16" and
    "fast" the values are bfloat16.
    """
    versions: dict[str, Callable] = {"plain": ms_deform_attn_plain}
    if options.workload.device == "cuda" and ms_deform_attn_triton is not None:
        versions["Triton"] = ms_deform_attn_triton
    arguments, gradient = attention_inputs(cfg, options.workload)
    runs: Runs = {REFERENCE: Reference(options.workload)}
    for name, version in versions.items():
        runs[f"{name} forward"] = partial(torch.no_grad()(version), *arguments)
        runs[f"{name} forward and backward"] = partial(_backward, version, arguments, gradient)
    seconds = time_in_turn(runs, options.repeats, "deformable attention")
    yield {name: relative(seconds[name], seconds[REFERENCE]) for name in list(runs)[1:]}


def _backward(version: Callable, arguments: tuple, gradient: Tensor) -> None:
    torch.autograd.grad(version(*arguments), (arguments[0], *arguments[4:]), gradient)


def attention_inputs(cfg: CfgNode, workload: Workload) -> tuple[tuple, Tensor]:
    """Arguments of ``ms_deform_attn`` as the encoder would give them, and an output's gradient."""
    model, device = cfg.MODEL.QDFORMER, torch.device(workload.device)
    heads, points = model.NUM_HEADS, model.ENCODER.NUM_POINTS
    lengths = [workload.frames] * workload.batch
    padded = -(-workload.size // 32) * 32
    strides = [2 ** int(name.removeprefix("res")) for name in model.ENCODER.IN_FEATURES]
    shapes = [(padded // stride,) * 2 for stride in strides]
    neighbors = neighboring_frames(lengths, model.ENCODER.TEMPORAL_WINDOW).to(device)
    centers = torch.cat([cell_centers(*shape, torch.empty(0, device=device)) for shape in shapes])
    sizes = torch.tensor([(w, h) for h, w in shapes] * neighbors.shape[1], device=device)
    centers = centers[:, None] * sizes - 0.5
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    # Autocast leaves what comes out of linear layers in half precision, not the softmax.
    dtype = torch.float32 if workload.precision == "fp32" else torch.bfloat16
    places = (sum(lengths), len(centers), heads, len(sizes), points)
    value = rand(sum(lengths), len(centers), heads, model.HIDDEN_DIM // heads).to(dtype)
    offsets, weights = 2 * rand(*places, 2), rand(*places).flatten(3).softmax(-1).view(places)
    value, offsets, weights = (x.requires_grad_() for x in (value, offsets.to(dtype), weights))
    gradient = rand(sum(lengths), len(centers), model.HIDDEN_DIM).to(dtype)
    return (value, shapes, neighbors, centers, offsets, weights), gradient


def _time_few(runs: Runs, options: BenchmarkOptions, title: str) -> dict[str, list[float]]:
    return time_in_turn(runs, min(options.repeats, _FEW_REPEATS), title, warmup=1)


def measure_growth(cfg: CfgNode, options: BenchmarkOptions) -> Iterator[list[dict[str, Any]]]:
    """Time and peak memory of the forward in evaluation at each length and each size."""
    base = options.workload
    workloads = [replace(base, frames=frames) for frames in options.growth_frames]
    workloads += [replace(base, size=size) for size in options.growth_sizes]
    points = []
    for workload in dict.fromkeys(workloads):
        reference = Reference(replace(GROWTH_REFERENCE, device=workload.device))
        runs: Runs = {REFERENCE: reference, "eval": EvalForward(cfg, workload)}
        title = f"growth, {workload.frames} x {workload.size} x {workload.size}"
        seconds = _time_few(runs, options, title)
        point: dict[str, Any] = {"frames": workload.frames, "size": workload.size}
        point |= relative(seconds["eval"], seconds[REFERENCE])
        points.append(point | {"memory": peak_memory(cfg, workload, "eval")})
        yield points


def measure_data(cfg: CfgNode, options: BenchmarkOptions) -> Iterator[dict[str, Any]]:
    """Clips a second of the mapper (on one thread) and of loaders with one and two workers.

    A composed AVSS set of the workload's size is read for training and for evaluation.
    """
    result: dict[str, Any] = {}
    workload = options.workload
    with composed_set(workload.frames, workload.size) as name:
        records, cfg = DatasetCatalog.get(name), cfg.clone()
        cfg.defrost()
        cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (name,)
        cfg.MODEL.QDFORMER.NUM_CLASSES = len(MetadataCatalog.get(name).stuff_classes) - 1
        cfg.INPUT.NUM_FRAMES, cfg.INPUT.MIN_SIZE_TRAIN = workload.frames, (workload.size,)
        cfg.INPUT.MAX_SIZE_TRAIN = cfg.INPUT.MIN_SIZE_TEST = workload.size
        cfg.INPUT.MAX_SIZE_TEST = workload.size
        for mode in ("train", "eval"):
            mapper = build_mapper(cfg, mode == "train")
            rates = result[mode] = {"mapper": _mapper_rate(mapper, records, options, mode)}
            yield result
            for workers in (1, 2):
                rate = loader_rate(mapper, records * 2, workers)
                rates[f"{workers} worker{'s' * (workers > 1)}"] = rate
                yield result


@contextmanager
def composed_set(frames: int, size: int) -> Iterator[str]:
    """The name of a data set that is registered as long as the context lasts."""
    with tempfile.TemporaryDirectory() as folder:
        root, before = Path(folder), set(DatasetCatalog.list())
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


def loader_rate(
    mapper: Callable[[dict], dict],
    records: list[dict],
    workers: int,
    now: Callable[[], float] = time.perf_counter,
) -> float:
    """Clips a second that a loader's processes deliver, of those behind the ones read ahead.

    Args:
        mapper: record to clip.
        records: each is read once; more than 4 for each worker.
        workers: processes.
        now: seconds.
    """
    loader: Any = DataLoader(
        MapDataset(records, mapper), batch_size=None, num_workers=workers, collate_fn=_unchanged
    )
    clips = iter(loader)
    ahead = sum(1 for _ in islice(clips, workers * loader.prefetch_factor * 2))
    start = now()
    counted = sum(1 for _ in clips)
    assert counted == len(records) - ahead > 0, f"{len(records)} clips, {ahead} of them ahead"
    return counted / (now() - start)


def _mapper_rate(mapper, records: list[dict], options: BenchmarkOptions, mode: str):
    def read_all() -> None:
        for record in records:
            mapper(record)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a loader's process
    try:
        seconds = _time_few({"mapper": read_all}, options, f"mapper, {mode}")
    finally:
        torch.set_num_threads(threads)
    return spread([len(records) / lap for lap in seconds["mapper"]])


def _unchanged(clip: Any) -> Any:
    return clip


def measure_evaluators(cfg: CfgNode, options: BenchmarkOptions) -> Iterator[dict[str, Any]]:
    """Frames a second of the evaluators' ``process``, files included, and of boundary F alone."""
    result: dict[str, Any] = {}
    for size in SCORED_SIZES:
        with composed_set(options.workload.frames, size) as name:
            result[f"{size} x {size}"] = _scored_rates(name, options)
        yield result


def _scored_rates(name: str, options: BenchmarkOptions) -> dict[str, Spread]:
    objects, semantics = AVSObjectEvaluator(name), AVSSemanticEvaluator(name)
    clips, outputs, truths = scored_clips(name)
    predicted = np.concatenate([output["sem_seg"].numpy() for output in outputs])
    pairs = list(zip(predicted > 0, np.concatenate(truths) > 0))
    runs = {
        "avs_object": lambda: objects.process(clips, outputs),
        "avs_semantic": lambda: semantics.process(clips, outputs),
        "boundary_f": lambda: [boundary_f(*pair) for pair in pairs],
    }
    seconds = _time_few(runs, options, f"evaluators, {name}")
    return {key: spread([len(pairs) / lap for lap in laps]) for key, laps in seconds.items()}


def scored_clips(name: str) -> tuple[list[dict], list[dict], list[np.ndarray]]:
    """Records of a data set, predictions that are a little out of place, and the ground truth."""
    records, outputs, truths = DatasetCatalog.get(name)[:4], [], []
    colors = MetadataCatalog.get(name).stuff_colors
    for record in records:
        files, form = record["sem_seg_file_names"], record["label_format"]
        truths.append(np.stack([read_label_map(file, form, colors) for file in files]))
        shift = -(-truths[-1].shape[-1] // 50)
        predicted = torch.from_numpy(np.roll(truths[-1], shift, axis=(-2, -1)))
        outputs.append({"sem_seg": predicted, "foreground": (predicted > 0).float()})
    return records, outputs, truths


def measure_video(cfg: CfgNode, options: BenchmarkOptions) -> Iterator[dict[str, Spread]]:
    """Seconds for each second of a video, of its parts and the whole, and the whole's overlap."""
    with tempfile.TemporaryDirectory() as folder:
        runs = video_runs(cfg, Path(folder), VIDEO_SIZE, VIDEO_SECONDS)
        seconds = _time_few(runs, options, "video")
    result = {name: spread([lap / VIDEO_SECONDS for lap in laps]) for name, laps in seconds.items()}
    longest = map(max, zip(*(laps for name, laps in seconds.items() if name != WHOLE)))
    yield result | {
        "whole / longest part": spread([a / b for a, b in zip(seconds[WHOLE], longest)])
    }


MEASURES: dict[str, Callable[[CfgNode, BenchmarkOptions], Iterator[Any]]] = {
    "eval": measure_eval,
    "train": measure_training,
    "memory": measure_memory,
    "stages": measure_stages,
    "attention": measure_attention,
    "growth": measure_growth,
    "data": measure_data,
    "evaluators": measure_evaluators,
    "video": measure_video,
}


def default_measures(workload: Workload) -> tuple[str, ...]:
    """The forward, and the training step if there is one, from all sides."""
    return (*workload.runs, "memory", "stages")
