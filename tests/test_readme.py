"""What README says was measured is what docs/benchmark/*.json hold."""

from pathlib import Path

import pytest

from qdformer.benchmark.report import load_result, measurements

ROOT = Path(__file__).parents[1]
COLUMNS = (
    "eval / ResNet-50",
    "training step / ResNet-50",
    "peak memory eval, GB",
    "peak memory train, GB",
)


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "benchmark").glob("*.json")), ids=str)
def test_the_speed_table_is_the_benchmarks(path):
    result = load_result(path)
    numbers = [measurements(result).get(column) for column in COLUMNS]
    cells = ["-" if number is None else f"{number:.2f}" for number in numbers]
    config, settings = Path(result["settings"]["config"]).stem, result["settings"]
    row = " | ".join([config, settings["precision"], *cells])
    assert row in (ROOT / "README.md").read_text(encoding="utf-8")
    assert result["machine"]["cpu"] in (ROOT / "README.md").read_text(encoding="utf-8")
