"""The notebook runs from top to bottom."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"
SMALL = {"CLIPS, ITERATIONS = 100, 60": "CLIPS, ITERATIONS = 4, 2"}

pytestmark = pytest.mark.slow


def test_it_runs_and_shows_what_it_says(tmp_path):
    """As a script, in a process of its own, with less data and fewer steps."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert content["nbformat"] == 4
    cells = ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]
    script = "\n".join(cells)
    for old, new in SMALL.items():
        assert old in script
        script = script.replace(old, new)
    # What a notebook shows is the value of its last line.
    *lines, last = script.splitlines()
    script = "\n".join([*lines, f"shown = {last}", "assert shown.width > 300", "print('shown')"])
    (tmp_path / "notebook.py").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "notebook.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "4 s: [" in done.stdout and done.stdout.endswith("shown\n")
    assert (tmp_path / "output/notebook/run/README.md").is_file()
