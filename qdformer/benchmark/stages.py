"""Where a forward's time, FLOPs and parameters are: the boxes of Fig. 3."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark.utils.timer import timer
from torch.utils.flop_counter import FlopCounterMode

from qdformer.modeling.meta_arch.segmenter import AudioVisualSegmenter

STAGES = {
    "collate": "collate (normalize, pad)",
    "backbone": "visual backbone",
    "encoder": "deformable encoder",
    "audio_encoder": "audio encoder",
    "fusion": "fusion of sound and image",
    "global_decomposition": "global decomposition",
    "codebook": "codebook",
    "recombination": "recombination",
    "fpn": "pixel features (FPN)",
    "local_calibration": "local calibration",
    "mask_decoder": "mask decoder",
    "inference": "inference (label maps)",
}
"""Stages in the order of Fig. 3, and what to call them; other children of a model come behind."""

REST = "rest"


def measure_forward(
    model: AudioVisualSegmenter, clips: list[dict], mark: Callable[[], float] = timer
) -> dict[str, float]:
    """Run a forward in evaluation step by step.

    Args:
        model: a segmenter.
        clips: of one size, none longer than the model's window.
        mark: gives a point in time, or whatever else grows while the model works.

    Returns:
        How far ``mark`` moved in each stage, in the order of ``STAGES``, and in none as ``REST``.
        A stage that another one calls, as local calibration the codebook, belongs to that other.
    """
    totals: dict[str, float] = {}
    with model.precision(), _add_up(model, totals, mark) as stage:
        start = mark()
        with stage("collate"):
            batch = model.collate(clips)
        segmentation = model.segment(batch)
        with stage("inference"):
            model.inference(segmentation, clips, batch)
        whole = mark() - start
    order = [*STAGES, *totals]
    totals = dict(sorted(totals.items(), key=lambda item: order.index(item[0])))
    return totals | {REST: whole - sum(totals.values())}


@contextmanager
def _add_up(model: nn.Module, totals: dict[str, float], mark: Callable[[], float]) -> Iterator:
    running: list[float] = []  # where each call began that has not ended

    def enter(*_) -> None:
        running.append(mark())

    def leave(name: str) -> None:
        start = running.pop()
        if not running:
            totals[name] = totals.get(name, 0) + mark() - start

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        enter()
        yield
        leave(name)

    hooks = []
    for name, child in model.named_children():
        hooks.append(child.register_forward_pre_hook(enter))
        hooks.append(child.register_forward_hook(lambda *_, name=name: leave(name)))
    try:
        yield stage
    finally:
        for hook in hooks:
            hook.remove()


def count_flops(model: AudioVisualSegmenter, clips: list[dict]) -> dict[str, float]:
    """FLOPs of each stage, see :func:`measure_forward`, two for each multiply-add.

    Matrix products (attention's among them) and convolutions count; sampling, normalization,
    activations and whatever else works element by element do not.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    counter = FlopCounterMode(display=False)
    try:
        # The counter does not see into fused attention, and stumbles over views of trained
        # parameters where no graph is built.
        torch.backends.mha.set_fastpath_enabled(False)
        for parameter in trained:
            parameter.requires_grad_(False)
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), counter:
            return measure_forward(model, clips, counter.get_total_flops)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for parameter in trained:
            parameter.requires_grad_(True)


def count_parameters(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Trained and all parameters of each child of a model, and its own as ``REST``."""
    groups = {name: list(child.parameters()) for name, child in model.named_children()}
    groups[REST] = list(model.parameters(recurse=False))
    return {
        name: (sum(p.numel() for p in group if p.requires_grad), sum(p.numel() for p in group))
        for name, group in groups.items()
    }
