import gc

import pytest
import torch

from qdformer.benchmark.timing import relative, time_in_turn


def test_every_round_runs_the_reference_and_each_candidate_once_in_turn(clock):
    calls = []

    def run(name, seconds):
        def call():
            calls.append(name)
            clock.now += next(seconds)

        return call

    runs = {"reference": run("r", iter([50, 10, 20])), "model": run("m", iter([90, 30, 50]))}
    assert time_in_turn(runs, 2, "test", warmup=1, now=clock) == {
        "reference": [10, 20],
        "model": [30, 50],
    }
    assert calls == ["r", "m"] * 3


def test_no_garbage_is_collected_inside_of_what_is_timed(clock):
    seen = []
    time_in_turn({"run": lambda: seen.append(gc.isenabled())}, 1, "test", warmup=0, now=clock)
    assert seen == [False] and gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        time_in_turn({"run": lambda: 1 / 0}, 1, "test")
    assert gc.isenabled()


def test_the_ratio_is_the_median_of_the_rounds_ratios():
    found = relative([2.0, 9.0, 4.0], [1.0, 3.0, 4.0])
    assert found == {
        "seconds": {"median": 4.0, "min": 2.0, "max": 9.0},
        "reference_seconds": {"median": 3.0, "min": 1.0, "max": 4.0},
        "ratio": {"median": 2.0, "min": 1.0, "max": 3.0},
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_timer_waits_for_a_gpu():
    matrix = torch.ones(4096, 4096, device="cuda")
    runs = {"one": lambda: matrix @ matrix, "ten": lambda: [matrix @ matrix for _ in range(10)]}
    seconds = time_in_turn(runs, 5, "test")
    assert min(seconds["ten"]) > 3 * min(seconds["one"])
