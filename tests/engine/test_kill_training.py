"""The short version of kill_training.py, which says more."""

from tests.engine.kill_training import Run, compose_clips, in_write


def test_a_run_that_is_killed_while_it_writes_ends_like_one_that_is_not(tmp_path):
    compose_clips(tmp_path)
    unkilled, killed = (Run(tmp_path / name, 4, 2, workers=1) for name in ("unkilled", "killed"))
    unkilled.finish()
    assert killed.kill(in_write) is not None
    killed.finish()
    assert killed.digest() == unkilled.digest()
