import pytest
from detectron2.data import DatasetCatalog

from qdformer.benchmark import data_benchmark
from qdformer.benchmark.data_benchmark import composed_set, data_config, loader_rate, measure_data
from qdformer.data.dataset_mapper import AVSDatasetMapper


@pytest.fixture(autouse=True)
def few_clips(monkeypatch):
    monkeypatch.setattr(data_benchmark, "CLIPS", 5)


def test_clips_come_at_the_size_and_length_of_the_workload(options):
    with composed_set(options.workload.frames, options.workload.size) as name:
        records = DatasetCatalog.get(name)
        cfg = data_config(options.load_config(), options, name)
        assert len(records) == 5
        for is_train in (True, False):
            clip = AVSDatasetMapper(cfg, is_train)(records[0])
            assert clip["image"].shape == (2, 3, 32, 32)
            assert ("instances" in clip) == is_train
    assert name not in DatasetCatalog.list()


def test_the_rate_is_that_of_the_clips_behind_those_read_ahead():
    seconds = iter([100.0, 102.0])
    records = [{"number": number} for number in range(20)]
    # A worker has two clips in hand, and as many are left to it to get going.
    assert loader_rate(dict, records, 1, now=lambda: next(seconds)) == 16 / 2


def test_rates_of_the_mapper_and_of_one_and_two_workers(options, monkeypatch):
    monkeypatch.setattr(data_benchmark, "loader_rate", lambda mapper, records, workers: workers)
    *_, found = measure_data(options.load_config(), options)
    assert found["clips"] == 5
    for mode in ("train", "eval"):
        assert found[mode]["mapper"]["min"] > 0
        assert (found[mode]["1 worker"], found[mode]["2 workers"]) == (1, 2)
