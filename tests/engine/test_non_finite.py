import pytest
import torch

from qdformer.checkpoint.weights import all_finite
from qdformer.engine.non_finite import NonFiniteLoss, replay
from qdformer.engine.trainer import Trainer
from tests.engine.test_resume import Act
from tests.engine.training import config, train


def test_all_finite():
    good = {"a": torch.zeros(2), "b": torch.tensor(3), "c": torch.empty(0)}
    assert all_finite(good)
    for bad in (float("nan"), float("inf"), -float("inf")):
        assert not all_finite(good | {"d": torch.tensor([0, bad])})


def test_a_loss_that_is_not_finite_names_the_clips_and_can_be_replayed(composed, tmp_path):
    cfg = config(tmp_path, "tiny", "SOLVER.MAX_ITER", 6, "DATASETS.TEST", ())
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    weights = trainer.model.mask_decoder.state_dict()

    def overflow():
        for value in weights.values():
            value.mul_(1e30)

    trainer.register_hooks([Act(3, overflow, before=True)])
    with pytest.raises(NonFiniteLoss, match="iteration 3: loss_.* not finite for the clips") as end:
        trainer.train()
    (path,) = tmp_path.glob("non_finite_0000003_0.pth")
    assert str(path) in str(end.value)
    clips = [clip["video_id"] for clip in torch.load(path)["clips"]]
    assert len(clips) == 2 and ", ".join(clips) in str(end.value)
    # The last checkpoint is the one before, and the file alone gives the same losses again.
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    losses = replay(Trainer.build_model(cfg), path)
    for name, loss in losses.items():
        assert bool(loss.isfinite()) != (name in str(end.value).split(" is not finite")[0]), name


def test_finite_losses_leave_nothing_behind(composed, tmp_path):
    trainer = train(config(tmp_path, "tiny", "DATASETS.TEST", ()))
    assert not list(tmp_path.glob("non_finite*")) and not trainer.model._forward_hooks
