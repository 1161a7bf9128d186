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
    record_stages,
    stage_totals,
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

    def inference(self, clips):
        self.clock.now += 4
        return clips

    def forward(self, clips):
        clips = self.collate(clips)
        self.backbone()
        self.codebook()
        self.clock.now += 0.5
        self.local_calibration(self.codebook)
        self.backbone()
        return self.inference(clips)


def test_nested_stages_count_once_and_nothing_is_lost(clock):
    model = Segmenter(clock)
    with record_stages(model, clock.mark) as laps:
        assert model("clips") == "clips"
    totals = stage_totals(laps, clock.seconds, whole=clock.now)
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
    with pytest.raises(ZeroDivisionError), record_stages(model, clock.mark) as laps:
        raise ZeroDivisionError
    model("clips")
    assert laps == []
    assert not {"collate", "inference"} & vars(model).keys()


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
    start = ticking.mark()
    with record_stages(forward.model, ticking.mark) as laps:
        forward()
    totals = stage_totals(laps, ticking.seconds, ticking.seconds(start, ticking.mark()))
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

    def collate(self, frames):
        return frames

    def inference(self, tokens):
        return tokens @ tokens.mT

    def forward(self, frames):
        tokens = self.backbone(self.collate(frames)).flatten(2).mT  # (1, 16, 8)
        tokens = self.fpn(self.fusion(tokens, tokens, tokens, need_weights=False)[0])
        return self.inference(tokens)


def test_flops_by_hand_as_two_for_each_multiply_add():
    model = Multiplies().eval()

    @torch.no_grad()
    def forward():
        model(torch.zeros(1, 3, 4, 4))

    assert count_flops(model, forward) == {
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
