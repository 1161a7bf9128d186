"""Deformable attention by itself: the versions that a device has, forward and with backward."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from qdformer.benchmark.options import BenchmarkOptions, Workload
from qdformer.benchmark.runs import Reference
from qdformer.benchmark.timing import REFERENCE, clock_of, relative, time_in_turn
from qdformer.layers.ms_deform_attn import ms_deform_attn_plain, ms_deform_attn_triton
from qdformer.modeling.deformable_encoder import cell_centers, neighboring_frames


def measure_attention(cfg, options: BenchmarkOptions) -> Iterator[dict[str, Any]]:
    """Time one layer's reading of the workload's frames; needs no model.

    Args:
        cfg: for heads, channels, points and the temporal window.
        options: the workload; in "bf16" and "fast" the values are bfloat16.

    Yields:
        Times relative to ResNet-50, by "<version> forward" and "<version> forward and backward".
    """
    versions: dict[str, Callable] = {"plain": ms_deform_attn_plain}
    if options.workload.device == "cuda" and ms_deform_attn_triton is not None:
        versions["Triton"] = ms_deform_attn_triton
    arguments, gradient = attention_inputs(cfg, options.workload)
    runs = {REFERENCE: Reference(options.workload)}
    for name, version in versions.items():
        runs[f"{name} forward"] = lambda version=version: _forward(version, arguments)
        runs[f"{name} forward and backward"] = lambda version=version: torch.autograd.grad(
            version(*arguments), (arguments[0], *arguments[4:]), gradient
        )
    clock = clock_of(options.workload.device)
    seconds = time_in_turn(runs, clock, options.repeats, "deformable attention")
    yield {name: relative(seconds[name], seconds[REFERENCE]) for name in list(runs)[1:]}


def attention_inputs(cfg, workload: Workload) -> tuple[tuple, Tensor]:
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


@torch.no_grad()
def _forward(version: Callable, arguments: tuple) -> Tensor:
    return version(*arguments)
