"""Runs of a small network on the composed clips."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from qdformer.engine.setup import check_datasets
from qdformer.engine.trainer import Trainer
from tests.samples import small_config

AUGMENTED = (
    "SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.WARMUP_ITERS", 3,
    "INPUT.RANDOM_FLIP", "horizontal", "INPUT.COLOR_JITTER", 0.3, "INPUT.AUDIO_GAIN", 3.0,
    "INPUT.NUM_FRAMES", 2, "TEST.EVAL_PERIOD", 2, "TEST.NUM_SHEETS", 0,
)  # fmt: skip
"""A run of six iterations with all that is random, and an evaluation after every second."""


def config(output, prefix="tiny", *overrides):
    """The config of a run of two iterations, with an evaluation at its end."""
    cfg = small_config(
        "OUTPUT_DIR", str(output),
        "DATASETS.TRAIN", (f"{prefix}_avss_train",),
        "DATASETS.TEST", (f"{prefix}_avss_test",),
        "MODEL.QDFORMER.NUM_CLASSES", 0, "MODEL.QDFORMER.DECODER_LAYERS", 1,
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


def digest(cfg):
    """Of the checkpoint at a run's end: weights, optimizer, results, seed.

    The description is the config's, and says how many processes read the clips.
    """
    state = torch.load(Path(cfg.OUTPUT_DIR, "model_final.pth"), weights_only=True)
    state.pop("description", None)
    digest = hashlib.sha256()
    for name, value in _leaves(state):
        digest.update(f"{name}={value}".encode())
    return digest.hexdigest()


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        yield from _leaves(dict(enumerate(value)), name)
    elif isinstance(value, torch.Tensor):
        yield name, hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
    else:
        yield name, value
