import gc

import pytest
import torch

from qdformer.benchmark.timing import CPUClock, CUDAClock, clock_of, relative, time_in_turn


def test_every_round_runs_the_reference_and_each_candidate_once_in_turn(clock):
    calls = []

    def run(name, seconds):
        def call():
            calls.append(name)
            clock.now += next(seconds)

        return call

    runs = {"reference": run("r", iter([50, 10, 20])), "model": run("m", iter([90, 30, 50]))}
    assert time_in_turn(runs, clock, 2, "test", warmup=1) == {
        "reference": [10, 20],
        "model": [30, 50],
    }
    assert calls == ["r", "m"] * 3


def test_no_garbage_is_collected_inside_of_what_is_timed(clock):
    seen = []
    time_in_turn({"run": lambda: seen.append(gc.isenabled())}, clock, 1, "test", warmup=0)
    assert seen == [False]
    assert gc.isenabled()


def test_garbage_is_collected_again_after_a_failure(clock):
    with pytest.raises(ZeroDivisionError):
        time_in_turn({"run": lambda: 1 / 0}, clock, 1, "test")
    assert gc.isenabled()


def test_the_ratio_is_the_median_of_the_rounds_ratios():
    found = relative([2.0, 9.0, 4.0], [1.0, 3.0, 4.0])
    assert found == {
        "seconds": {"median": 4.0, "min": 2.0, "max": 9.0},
        "reference_seconds": {"median": 3.0, "min": 1.0, "max": 4.0},
        "ratio": {"median": 2.0, "min": 1.0, "max": 3.0},
    }


def test_each_device_has_its_clock():
    assert isinstance(clock_of("cpu"), CPUClock)
    assert isinstance(clock_of("cuda"), CUDAClock)
    assert CPUClock().seconds(1.5, 4.0) == 2.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_events_on_a_gpu():
    clock = CUDAClock()
    matrix = torch.ones(64, 64, device="cuda")
    seconds = time_in_turn({"product": lambda: matrix @ matrix}, clock, 2, "test")
    assert min(seconds["product"]) > 0
