import json
import re

import numpy as np

from qdformer.reproduction.experiments import Experiment, Row
from qdformer.reproduction.report import write_report
from qdformer.reproduction.runs import Run
from tests.samples import small_config

ONE, TWO = Row("one <token>", {}, {"avss": 40.2}), Row("two | tokens")


def runs(folder, results):
    """Runs of (row, seed) with the given mIoU, an error, or nothing at all."""
    made = []
    for (row, seed), result in results.items():
        run = Run(row, "tiny_avss", seed, folder / f"{row.name[:3]}_{seed}", small_config())
        if result is not None:
            run.folder.mkdir(parents=True)
            failed = isinstance(result, str)
            content = {
                "metrics": {} if failed else {"mIoU": result},
                "error": result if failed else None,
                "seconds": 90,
                "peak_memory_gb": 1.25,
            }
            (run.folder / "result.json").write_text(json.dumps(content))
        made.append(run)
    return made


def test_mean_deviation_and_what_failed(composed, tmp_path):
    made = runs(
        tmp_path,
        {(ONE, 0): 10.0, (ONE, 1): 14.0, (ONE, 2): 12.0, (TWO, 0): "out of memory", (TWO, 1): None},
    )
    picture = np.zeros((4, 5, 3), np.uint8)
    experiment = Experiment("Tab. X: <tokens>", (ONE, TWO))
    markdown, page = write_report(
        tmp_path / "report", experiment, made, {"a <picture>": picture}, {"cpu": "some"}
    )
    text = markdown.read_text()
    (row,) = re.findall(r"^\| one <token>.*$", text, re.MULTILINE)
    assert [cell.strip() for cell in row.split("|")[2:4]] == ["12.0 ± 2.0 (3)", "40.2"]
    (row,) = re.findall(r"^\| two .*$", text, re.MULTILINE)
    assert "two \\| tokens" in row and "-, 1 failed" in row
    assert text.count("out of memory") == 1 and text.count("not run") == 1
    assert "tiny_avss, mIoU" in text and "published mIoU" in text and "NUM_TOKENS: 5" in text
    content = page.read_text()
    assert "12.0 ± 2.0 (3)" in content and "a &lt;picture&gt;" in content
    assert "<token>" not in content and "one &lt;token&gt;" in content
    # One file is enough.
    assert not re.search(r"(src|href)=.(?!data:)", content)


def test_what_the_machine_is_reads_as_text(composed, tmp_path):
    machine = {"threads": 1, "gpu": None, "tf32": {"convolutions": True, "products": False}}
    made = runs(tmp_path, {(ONE, 0): 1.0})
    experiment = Experiment("Tab. X", (ONE,))
    markdown, _ = write_report(tmp_path / "report", experiment, made, {}, machine)
    rows = re.findall(r"^\| (threads|gpu|tf32) +\| (.*?) *\|$", markdown.read_text(), re.MULTILINE)
    assert dict(rows) == {"threads": "1", "gpu": "none", "tf32": "convolutions on, products off"}


def test_a_report_of_nothing(composed, tmp_path):
    experiment = Experiment("Tab. X", (ONE,))
    made = runs(tmp_path, {(ONE, 0): None})
    markdown, _ = write_report(tmp_path / "report", experiment, made, {}, {})
    (row,) = re.findall(r"^\| one.*40.2.*$", markdown.read_text(), re.MULTILINE)
    assert row.split("|")[2].strip() == "-"
