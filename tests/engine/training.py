"""Runs of a small network on the composed clips."""

from pathlib import Path

import torch

from qdformer.engine.setup import check_datasets
from qdformer.engine.trainer import Trainer
from tests.samples import small_config


def config(output, prefix="tiny", *overrides):
    """The config of a run of two iterations, with an evaluation at its end."""
    cfg = small_config(
        "OUTPUT_DIR", str(output),
        "DATASETS.TRAIN", (f"{prefix}_avss_train",),
        "DATASETS.TEST", (f"{prefix}_avss_test",),
        "MODEL.QDFORMER.NUM_CLASSES", 0,
        "INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MAX_SIZE_TRAIN", 64,
        "INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 64,
        "SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 2, "SOLVER.STEPS", (),
        "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.WARMUP_ITERS", 0,
        "DATALOADER.NUM_WORKERS", 0,
        "TEST.EVAL_PERIOD", 0, "TEST.NUM_SHEETS", 1,
        "SEED", 1, *overrides,
    )  # fmt: skip
    check_datasets(cfg, eval_only=False)
    cfg.freeze()
    Path(output).mkdir(exist_ok=True)
    return cfg


def train(cfg, resume=False, *hooks):
    """Run to the end; returns the trainer."""
    torch.manual_seed(cfg.SEED)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.register_hooks(list(hooks))
    trainer.train()
    return trainer


def assert_same_state(first, second):
    """Weights, optimizer and schedule of two trainers agree bit for bit."""
    for key, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[key]), key
    moments, others = (t._trainer.optimizer.state_dict()["state"] for t in (first, second))
    assert moments.keys() == others.keys() and moments
    for index, state in moments.items():
        for name, value in state.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(others[index][name])), name
    assert first.scheduler.state_dict() == second.scheduler.state_dict()
