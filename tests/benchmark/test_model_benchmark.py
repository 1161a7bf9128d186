import pytest

from qdformer.benchmark import model_benchmark
from qdformer.benchmark.model_benchmark import (
    measure_eval,
    measure_memory,
    measure_stages,
    measure_training,
)
from qdformer.benchmark.stages import REST, STAGES


@pytest.fixture(autouse=True)
def fake_clock(monkeypatch, ticking):
    monkeypatch.setattr(model_benchmark, "clock_of", lambda device: ticking)


@pytest.mark.parametrize("measure", [measure_eval, measure_training])
def test_a_run_that_ticks_as_often_as_the_reference(measure, options):
    (found,) = measure(options.load_config(), options)
    assert found["seconds"] == found["ratio"] == {"median": 1, "min": 1, "max": 1}


def test_stages_add_up_to_the_whole(options):
    (found,) = measure_stages(options.load_config(), options)
    stages, whole = found["stages"], found["whole"]
    assert [stage["name"] for stage in stages] == [*STAGES, REST]
    for key in ("seconds", "ratio"):
        assert sum(stage[key]["median"] for stage in stages) == whole[key]["median"]
        assert min(stage[key]["median"] for stage in stages) > 0
    # Every stage ticks at its end, and once between itself and the next one.
    assert whole["seconds"]["median"] == 2 * len(STAGES) + 1
    for key in ("flops", "parameters", "trained_parameters"):
        assert sum(stage[key] for stage in stages) == whole[key] > 0


def test_each_peak_is_there_as_soon_as_it_is_measured(options, monkeypatch):
    peaks = {"eval": 5, "train": 7, None: 2}
    monkeypatch.setattr(model_benchmark, "peak_memory", lambda cfg, workload, run: peaks[run])
    found = [dict(result) for result in measure_memory(None, options)]
    assert [list(result)[1:] for result in found] == [
        ["eval"],
        ["eval", "train"],
        ["eval", "train", "libraries"],
    ]
    assert found[-1] == {
        "method": "peak resident set of a fresh process, libraries included",
        "eval": 5,
        "train": 7,
        "libraries": 2,
    }
