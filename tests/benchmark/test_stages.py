import contextlib

import pytest
import torch
from torch import nn

from qdformer.benchmark.options import Workload
from qdformer.benchmark.runs import EvalForward
from qdformer.benchmark.stages import (
    REST,
    STAGES,
    count_flops,
    count_parameters,
    measure_forward,
)
from tests.samples import small_config


class Takes(nn.Module):
    """A stage that takes some seconds, and calls another one in between."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, inner=None):
        self.clock.now += self.seconds
        if inner is not None:
            inner()
        self.clock.now += self.seconds


class Segmenter(nn.Module):
    """Stages out of order, one nested in another, and work of its own between them."""

    precision = contextlib.nullcontext

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.local_calibration = Takes(clock, 10)
        self.backbone = Takes(clock, 1)
        self.codebook = Takes(clock, 2)
        self.unused = Takes(clock, 500)

    def collate(self, clips):
        self.clock.now += 3
        return clips

    def inference(self, segmentation, clips, batch):
        self.clock.now += 4

    def segment(self, batch):
        self.backbone()
        self.codebook()
        self.clock.now += 0.5
        self.local_calibration(self.codebook)
        self.backbone()


def test_nested_stages_count_once_and_nothing_is_lost(clock):
    totals = measure_forward(Segmenter(clock), [], clock)
    # Local calibration with the codebook inside: 10 + 2 + 2 + 10.
    assert list(totals.items()) == [
        ("collate", 3),
        ("backbone", 4),
        ("codebook", 4),
        ("local_calibration", 24),
        ("inference", 4),
        (REST, 0.5),
    ]
    assert sum(totals.values()) == clock.now


def test_afterwards_the_model_is_as_before(clock):
    model = Segmenter(clock)
    model.inference = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        measure_forward(model, [], clock)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("QDFormer", set()),
        (
            "QDFormerBaseline",
            {"global_decomposition", "codebook", "recombination", "local_calibration"},
        ),
    ],
)
def test_every_stage_of_a_model_in_the_order_of_the_figure(name, absent, ticking):
    cfg = small_config("MODEL.META_ARCHITECTURE", name)
    forward = EvalForward(cfg, Workload(frames=2, size=32))
    totals = measure_forward(forward.model, forward.clips, ticking)
    assert list(totals) == [*(stage for stage in STAGES if stage not in absent), REST]
    assert min(totals.values()) > 0


class Multiplies(nn.Module):
    """Layers whose multiply-adds are counted by hand."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.fusion = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fpn = nn.Linear(8, 5).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(7))

    precision = contextlib.nullcontext

    def collate(self, frames):
        return frames

    def segment(self, frames):
        tokens = self.backbone(frames).flatten(2).mT  # (1, 16, 8)
        return self.fpn(self.fusion(tokens, tokens, tokens, need_weights=False)[0])

    def inference(self, tokens, clips, batch):
        return tokens @ tokens.mT


def test_flops_by_hand_as_two_for_each_multiply_add():
    model = Multiplies().eval()
    assert count_flops(model, torch.zeros(1, 3, 4, 4)) == {
        "collate": 0,
        "backbone": 2 * (4 * 4) * 8 * (3 * 3 * 3),
        # In and out projections, and the two products of 2 heads of 4 channels.
        "fusion": 2 * 16 * 8 * (24 + 8) + 2 * 2 * (2 * 16 * 16 * 4),
        "fpn": 2 * 16 * 8 * 5,
        "inference": 2 * 16 * 16 * 5,
        REST: 0,
    }
    assert model.backbone.weight.requires_grad
    assert not model.fpn.weight.requires_grad
    assert torch.backends.mha.get_fastpath_enabled()


def test_parameters_trained_and_all():
    assert count_parameters(Multiplies()) == {
        "backbone": (216, 216),
        "fusion": (8 * 24 + 24 + 8 * 8 + 8,) * 2,
        "fpn": (0, 45),
        REST: (7, 7),
    }
