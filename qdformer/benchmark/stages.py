"""Where a forward's time, FLOPs and parameters are: the boxes of Fig. 3."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

STAGES = {
    "collate": "collate (normalize, pad)",
    "backbone": "visual backbone",
    "encoder": "deformable encoder",
    "audio_encoder": "audio encoder (VGGish)",
    "fusion": "fusion of sound and image",
    "global_decomposition": "global decomposition",
    "codebook": "codebook",
    "recombination": "recombination",
    "fpn": "pixel features (FPN)",
    "local_calibration": "local calibration",
    "mask_decoder": "mask decoder",
    "inference": "inference (label maps)",
}
"""Stages in the order of Fig. 3, by the name of the model's child or method, and what to call them;
other children of a model come behind."""

METHODS = ("collate", "inference")
REST = "rest"


class Lap(NamedTuple):
    """One call of a stage: its name and the marks before and after it."""

    name: str
    start: Any
    end: Any


@contextmanager
def record_stages(model: nn.Module, mark: Callable[[], Any]) -> Iterator[list[Lap]]:
    """Note every call of a stage that the model's forward makes.

    A stage that is called inside of another one, as the codebook in local calibration, belongs to
    that other stage and is not noted.

    Args:
        model: a segmenter.
        mark: gives a point in time, or whatever else grows while the model works.

    Yields:
        The laps so far; may be emptied at any time between two forwards.
    """
    laps: list[Lap] = []
    running: list[Any] = []

    def enter(*_) -> None:
        # Nested calls keep their place only, so that the outermost one finds its own mark.
        running.append(None if running else mark())

    def leave(name: str) -> None:
        start = running.pop()
        if not running:
            laps.append(Lap(name, start, mark()))

    def wrapped(name: str, method: Callable) -> Callable:
        def call(*args, **kwargs):
            enter()
            result = method(*args, **kwargs)
            leave(name)
            return result

        return call

    hooks = []
    for name, child in model.named_children():
        hooks.append(child.register_forward_pre_hook(enter))
        hooks.append(child.register_forward_hook(lambda *_, name=name: leave(name)))
    for name in METHODS:
        setattr(model, name, wrapped(name, getattr(model, name)))
    try:
        yield laps
    finally:
        for hook in hooks:
            hook.remove()
        for name in METHODS:
            delattr(model, name)


def stage_totals(
    laps: list[Lap], difference: Callable[[Any, Any], float], whole: float
) -> dict[str, float]:
    """Add up the laps of one forward.

    Args:
        laps: see :func:`record_stages`.
        difference: what lies between two marks.
        whole: of the forward, in the same unit.

    Returns:
        A sum for each stage in the order of ``STAGES``, and what is in none of them as ``REST``.
    """
    totals: dict[str, float] = {}
    for lap in laps:
        totals[lap.name] = totals.get(lap.name, 0) + difference(lap.start, lap.end)
    order = [*STAGES, *totals]
    totals = dict(sorted(totals.items(), key=lambda item: order.index(item[0])))
    return totals | {REST: whole - sum(totals.values())}


def count_flops(model: nn.Module, forward: Callable[[], Any]) -> dict[str, float]:
    """Count the FLOPs of one forward, two for each multiply-add.

    Matrix products (attention's among them) and convolutions count; sampling, normalization,
    activations and whatever else works element by element do not.

    Args:
        model: a segmenter.
        forward: runs it once.

    Returns:
        FLOPs of each stage and ``REST``, see :func:`stage_totals`.
    """
    counter = FlopCounterMode(display=False)
    marked = record_stages(model, counter.get_total_flops)
    with _frozen(model), _unfused_attention(), counter, marked as laps:
        forward()
    return stage_totals(laps, lambda start, end: end - start, counter.get_total_flops())


def count_parameters(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Count what the children of a model hold, and what it holds itself.

    Args:
        model: a segmenter.

    Returns:
        Trained and all parameters by the name of the child, and the model's own as ``REST``.
    """
    counts = {name: _count(child.parameters()) for name, child in model.named_children()}
    return counts | {REST: _count(model.parameters(recurse=False))}


def _count(parameters: Iterator[nn.Parameter]) -> tuple[int, int]:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in parameters]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """For the counter, which stumbles over views of trained parameters where no graph is built."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def _unfused_attention() -> Iterator[None]:
    """For the counter, from which fused attention hides its products on some devices."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
