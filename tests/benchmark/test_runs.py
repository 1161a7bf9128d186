import pytest
import torch
from torch import nn

from qdformer.benchmark.options import Workload
from qdformer.benchmark.runs import EvalForward, Reference, TrainingStep, random_clips
from tests.samples import small_config

WORKLOAD = Workload(frames=2, size=64, batch=2)


def test_clips_are_the_mappers():
    clips = random_clips(WORKLOAD, num_classes=2)
    assert len(clips) == 2
    for clip in clips:
        assert clip["image"].shape == (2, 3, 64, 64)
        assert clip["image"].dtype == torch.uint8
        assert clip["audio"].shape == (2, 1, 96, 64)
        assert (clip["height"], clip["width"]) == (64, 64)
        assert clip["annotated"].tolist() == [True, True]
        for frame in clip["instances"]:
            assert sorted(frame.gt_classes.tolist()) == [0, 1]
            assert frame.gt_masks.tensor.shape == (2, 64, 64)
            assert frame.gt_masks.tensor.flatten(1).any(1).all()
    assert len(random_clips(WORKLOAD, num_classes=70)[0]["instances"][0]) == 3


def test_clips_are_always_the_same_and_labeled_for_training_only():
    first, second = random_clips(WORKLOAD), random_clips(WORKLOAD)
    assert torch.equal(first[1]["image"], second[1]["image"])
    assert not torch.equal(first[0]["image"], first[1]["image"])
    assert "instances" not in first[0]


def test_the_forward_ends_with_label_maps_of_every_clip():
    outputs = EvalForward(small_config(), WORKLOAD)()
    assert [output["sem_seg"].shape for output in outputs] == [(2, 64, 64)] * 2


def test_a_training_step_teaches_every_trained_parameter():
    step = TrainingStep(small_config(), WORKLOAD)
    before = {name: p.detach().clone() for name, p in step.model.named_parameters()}
    trained = {name: p for name, p in step.model.named_parameters() if p.requires_grad}
    taught = set()
    for name, p in trained.items():
        p.register_post_accumulate_grad_hook(lambda _, name=name: taught.add(name))
    step()
    assert taught == set(trained)
    moved = [name for name, p in trained.items() if not torch.equal(p, before[name])]
    assert len(moved) > 0.9 * len(trained)


def test_a_training_step_forgets_the_gradients_of_the_one_before():
    step = TrainingStep(small_config("SOLVER.BASE_LR", 0.0), WORKLOAD)
    weight = nn.Parameter(torch.zeros(()))
    step.model = lambda clips: {"loss": weight, "another": 2 * weight}
    step.optimizer = torch.optim.SGD([weight], lr=1.0)
    step()
    step()
    assert weight.item() == -6


def test_the_reference_gets_as_many_frames():
    reference = Reference(WORKLOAD)
    assert reference.frames.shape == (4, 3, 64, 64)
    assert reference().shape == (4, 1000)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_is_that_of_autocast(precision, dtype):
    with Workload(precision=precision).autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


def test_fast_is_the_accelerated_model():
    cfg = small_config("MODEL.QDFORMER.FAST_INFERENCE", True)
    assert EvalForward(cfg, WORKLOAD).model.accelerated
    assert not EvalForward(small_config(), WORKLOAD).model.accelerated
