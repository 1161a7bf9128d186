"""A run that is cut off, and resumed, ends as one that was not."""

import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase

from qdformer.checkpoint.checkpointer import AVSCheckpointer
from qdformer.engine.hooks import BestCheckpointer, Preempted
from qdformer.engine.trainer import Trainer
from qdformer.errors import InputError
from tests.engine.training import AUGMENTED, assert_same_state, config, train

pytestmark = pytest.mark.slow


class Act(HookBase):
    """Does something after the step of an iteration, or before it."""

    def __init__(self, iteration, action, before=False):
        self.iteration, self.action, self.before = iteration, action, before

    def before_step(self):
        if self.before and self.trainer.iter == self.iteration:
            self.action()

    def after_step(self):
        if not self.before and self.trainer.iter == self.iteration:
            self.action()


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def best_of(trainer):
    return next(hook for hook in trainer._hooks if isinstance(hook, BestCheckpointer))


def test_any_number_of_workers_ends_with_the_same_weights(whole, tmp_path):
    options = ("DATALOADER.NUM_WORKERS", 4, "TEST.EVAL_PERIOD", 0)
    assert_same_state(whole, train(config(tmp_path, "tiny", *AUGMENTED, *options)))


def test_evaluations_and_pictures_do_not_change_the_weights(whole, tmp_path):
    alone = config(tmp_path, "tiny", *AUGMENTED, "DATASETS.TEST", ())
    assert_same_state(whole, train(alone))


@pytest.mark.parametrize(
    ("iteration", "before", "saved"), [(2, True, 2), (3, False, 3), (0, True, 0)]
)
def test_sigterm_finishes_the_step_saves_and_exits_with_its_code(
    whole, tmp_path, iteration, before, saved
):
    cfg = config(tmp_path, "tiny", *AUGMENTED)
    with pytest.raises(SystemExit) as stopped:
        train(cfg, False, Act(iteration, terminate, before))
    assert isinstance(stopped.value, Preempted) and stopped.value.code == os.EX_TEMPFAIL
    assert (tmp_path / "last_checkpoint").read_text() == f"model_{saved:07d}.pth"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    resumed = train(cfg, True)
    assert resumed.start_iter == saved + 1
    assert_same_state(whole, resumed)
    assert best_of(resumed).state_dict() == best_of(whole).state_dict()


def test_an_evaluation_is_left_at_once_and_made_up_for(whole, tmp_path, monkeypatch):
    cfg, evaluated = config(tmp_path, "tiny", *AUGMENTED, "TEST.NUM_SHEETS", 1), []

    def test(cls, cfg, model, evaluators=None):
        evaluated.append(1)
        terminate()

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "test", classmethod(test))
        with pytest.raises(Preempted):
            train(cfg)
    assert evaluated == [1]
    resumed = train(cfg, True)
    assert resumed.start_iter == 2
    assert_same_state(whole, resumed)
    assert best_of(resumed).state_dict() == best_of(whole).state_dict()


def test_what_was_evaluated_is_not_evaluated_again(whole, tmp_path):
    cfg, results = config(tmp_path, "tiny", *AUGMENTED), []
    with pytest.raises(Preempted):
        train(cfg, False, Act(2, terminate, before=True))
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    record = next(hook for hook in trainer._hooks if hasattr(hook, "completed"))
    for hook in record.evaluation:
        hook.after_step = lambda: results.append(trainer.iter)
    trainer.train()
    assert {iteration for iteration in results} == {2, 3, 4, 5}


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(whole, tmp_path, caplog, damage):
    cfg = config(tmp_path, "tiny", *AUGMENTED)
    with pytest.raises(Preempted):
        train(cfg, False, Act(4, terminate, before=True))
    newest = tmp_path / "model_0000004.pth"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 16
    newest.write_bytes(content[:-1000] if damage == "truncated" else content)
    with caplog.at_level("WARNING", logger="qdformer"):
        resumed = train(cfg, True)
    assert "model_0000004.pth" in caplog.text and resumed.start_iter == 4
    assert_same_state(whole, resumed)


def test_a_run_without_any_readable_checkpoint_says_so(tmp_path, composed):
    cfg = config(tmp_path)
    for name in ("model_0000001.pth", "model_final.pth"):
        (tmp_path / name).write_bytes(b"damaged")
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    with pytest.raises(InputError, match=r"no checkpoint can be read \(model_final.pth, model_0"):
        Trainer(cfg).resume_or_load(resume=True)


def test_a_new_run_does_not_overwrite_another(whole):
    with pytest.raises(InputError, match="which holds the checkpoints of a run; add --resume"):
        Trainer(whole.cfg).resume_or_load(resume=False)


@pytest.mark.parametrize(("keep", "left"), [(2, [3, 5]), (0, [1, 3, 5])])
def test_the_newest_checkpoints_stay(tmp_path, composed, keep, left):
    overrides = (*AUGMENTED, "SOLVER.KEEP_CHECKPOINTS", keep, "TEST.EVAL_PERIOD", 0)
    train(config(tmp_path, "tiny", *overrides))
    names = [f"model_{iteration:07d}.pth" for iteration in left]
    assert sorted(path.name for path in tmp_path.glob("model_0*.pth")) == names
    for name in ("model_final.pth", "model_final.safetensors", "model_best.safetensors"):
        assert (tmp_path / name).exists()


def test_a_full_disk_ends_the_run_with_the_last_checkpoint_intact(whole, tmp_path):
    cfg = config(tmp_path, "tiny", *AUGMENTED)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        half = (tmp_path / "model_0000001.pth").stat().st_size // 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (half, unlimited[1]))

    try:
        with pytest.raises(InputError, match="cannot be written .*last good .* model_0000001.pth"):
            train(cfg, False, Act(2, fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert not list(tmp_path.glob(".*.part"))
    resumed = train(cfg, True)
    assert resumed.start_iter == 2
    assert_same_state(whole, resumed)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    model = torch.nn.Linear(2, 2)
    checkpointer = AVSCheckpointer(model, str(tmp_path))
    checkpointer.save("model_0000000")
    good = (tmp_path / "model_0000000.pth").read_bytes()
    model.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match="some weights are NaN .*is model_0000000.pth"):
        checkpointer.save("model_0000000")
    assert (tmp_path / "model_0000000.pth").read_bytes() == good


def test_a_run_without_a_seed_resumes_its_own(composed, tmp_path):
    cfg = config(tmp_path, "tiny", *AUGMENTED, "SEED", -1)
    with pytest.raises(Preempted):
        train(cfg, False, Act(1, terminate))
    seeds = []
    for _ in range(2):
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=True)
        seeds.append(trainer.seed)
    assert seeds[0] == seeds[1] and Path(cfg.OUTPUT_DIR, "model_0000001.pth").exists()


def test_a_run_that_is_killed_before_its_final_checkpoint_gets_one(whole, tmp_path):
    cfg = config(tmp_path, "tiny", *AUGMENTED)
    shutil.copytree(whole.cfg.OUTPUT_DIR, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model_final.pth").unlink()
    (tmp_path / "last_checkpoint").write_text("model_0000005.pth")
    assert_same_state(whole, train(cfg, True))
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
