"""The short version of kill_training.py, which says more."""

from tests.engine.kill_training import Run, in_write
from tests.engine.training import AUGMENTED, config, digest


def test_a_run_that_is_killed_while_it_writes_ends_like_one_that_is_not(whole, composed, tmp_path):
    roots = ("DATASETS.AVS_ROOTS", (str(composed),), "DATALOADER.NUM_WORKERS", 1)
    killed = Run(config(tmp_path, "tiny", *AUGMENTED, *roots))
    # From the second write on, there is a checkpoint to resume from; a write may end too early.
    kills = iter(lambda: killed.kill(in_write(earlier=1)), None)
    assert any(kill.in_write and kill.checkpoint != "none" for kill in kills)
    killed.finish()
    assert digest(killed.cfg) == digest(whole.cfg)
