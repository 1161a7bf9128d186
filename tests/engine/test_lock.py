import os
import subprocess
import sys

import pytest
from detectron2.engine import HookBase

from qdformer.errors import InputError
from qdformer.io.folder_lock import lock_folder
from tests.engine.training import config, train


def test_one_process_at_a_time(tmp_path):
    held = lock_folder(tmp_path)
    with pytest.raises(InputError, match=f"process {os.getpid()} writes"):
        lock_folder(tmp_path)
    held.close()
    lock_folder(tmp_path).close()


def test_a_killed_process_leaves_no_lock(tmp_path):
    program = "import os, sys; from qdformer.io.folder_lock import lock_folder as lock; "
    program += "held = lock(sys.argv[1]); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", program, tmp_path])
    assert done.returncode == -9
    lock_folder(tmp_path).close()


def test_what_was_left_half_written_is_swept(tmp_path):
    (tmp_path / ".model_0000001.pth.part").touch()
    (tmp_path / "model_0000001.pth").touch()
    lock_folder(tmp_path).close()
    assert {path.name for path in tmp_path.iterdir()} == {"model_0000001.pth", ".lock"}


def test_a_folder_with_checkpoints_is_a_used_one(composed, tmp_path):
    """Also where last_checkpoint was lost: a new run would delete its own newest checkpoint."""
    cfg = config(tmp_path)
    first = train(cfg)
    state = {key: value.clone() for key, value in first.model.state_dict().items()}
    del first
    (tmp_path / "last_checkpoint").unlink()
    with pytest.raises(InputError, match="holds the checkpoints of a run"):
        train(cfg)
    again = train(cfg, resume=True)
    assert all((value == state[key]).all() for key, value in again.model.state_dict().items())


def test_a_reader_that_is_killed_costs_no_steps(composed, tmp_path):
    cfg = config(tmp_path, "tiny", "SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 100)

    class Kill(HookBase):
        """Fails as a loader does whose worker is gone."""

        def before_step(self):
            if self.trainer.iter == 3:
                raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    with pytest.raises(InputError, match="DataLoader worker .pid 7.*lower DATALOADER.NUM_WORKERS"):
        train(cfg, False, Kill())
    assert (tmp_path / "model_0000002.pth").exists()
