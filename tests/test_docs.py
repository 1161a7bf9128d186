"""What the docs say was measured was, and their links lead somewhere."""

import re
from pathlib import Path

import pytest

from qdformer.benchmark.report import load_result, measurements

ROOT = Path(__file__).parents[1]
DOCS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("datasets/*.md")]
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
    text = (ROOT / "docs" / "BENCHMARK.md").read_text(encoding="utf-8")
    assert row in text and result["machine"]["cpu"] in text


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(path):
    text = path.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    for target in targets:
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), target
        if heading:
            assert heading in _headings(linked.read_text(encoding="utf-8")), target


def _headings(text):
    """As GitHub names them."""
    lines = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}
