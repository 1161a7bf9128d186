import pytest

from qdformer.benchmark.options import BenchmarkOptions, Workload
from tests.samples import small_config


class FakeClock:
    """Seconds that only pass when they are told to, or by a tick whenever they are read."""

    def __init__(self, tick=0):
        self.now, self.tick = 0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def ticking():
    return FakeClock(tick=1)


@pytest.fixture
def options(tmp_path):
    """A benchmark of the small network on hardly anything."""
    config_file = tmp_path / "small.yaml"
    config_file.write_text(small_config().dump())
    return BenchmarkOptions(
        config_file=str(config_file),
        output=tmp_path / "results" / "small.json",
        measures=("eval",),
        workload=Workload(frames=2, size=32),
        repeats=1,
        growth_frames=(1, 2),
        growth_sizes=(32, 64),
    )
