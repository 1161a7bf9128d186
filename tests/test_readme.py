"""What README says was measured is what docs/benchmark/*.json hold."""

from pathlib import Path

from qdformer.benchmark.report import load_result, readme_table

ROOT = Path(__file__).parents[1]


def test_the_speed_table_is_the_benchmarks():
    results = [load_result(path) for path in sorted((ROOT / "docs" / "benchmark").glob("*.json"))]
    assert readme_table(results) in (ROOT / "README.md").read_text(encoding="utf-8")
