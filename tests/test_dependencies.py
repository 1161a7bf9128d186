"""Missing and too old dependencies are told in one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

from qdformer import dependencies
from qdformer.dependencies import MINIMUM_VERSIONS, check_dependencies

ROOT = Path(__file__).parents[1]


@pytest.fixture
def environment(monkeypatch):
    """Versions by distribution and a set of modules, to be changed by the test."""
    versions, modules = dict(MINIMUM_VERSIONS), {"cv2", "detectron2", "pytest"}

    def version(name):
        if name not in versions:
            raise dependencies.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(dependencies, "version", version)
    monkeypatch.setattr(dependencies, "find_spec", lambda name: name in modules or None)
    return versions, modules


def message(tools=()):
    with pytest.raises(ImportError) as caught:
        check_dependencies(tools)
    return str(caught.value)


def test_oldest_allowed_versions_pass(environment):
    check_dependencies(["pytest"])


@pytest.mark.parametrize("found", ["2.10.0", "2.4.1+cu121", "2.5.0a0+git1234", "3"])
def test_newer_versions_pass(environment, found):
    environment[0]["torch"] = found
    check_dependencies()


@pytest.mark.parametrize("found", ["2.3.9", "1.13.1+cpu", "2"])
def test_older_version_is_named_with_its_remedy(environment, found):
    environment[0]["torch"] = found
    assert f'torch is {found}: use `pip install "torch>=2.4"`.' in message()


def test_everything_wrong_is_told_at_once(environment):
    versions, modules = environment
    del versions["timm"]
    versions["scipy"] = "1.9.3"
    modules -= {"cv2", "pytest"}
    text = message(["pytest"])
    assert "timm is missing, scipy is 1.9.3, cv2 is missing, pytest is missing" in text
    assert '`pip install "timm>=1" "scipy>=1.10" opencv-python-headless pytest`' in text
    assert "\n" not in text


def test_detectron2_is_not_looked_for_on_pypi(environment):
    environment[1].remove("detectron2")
    assert (
        f"detectron2 is missing: use `python {ROOT / 'install/detectron2_wheel.py'}`" in message()
    )


def test_old_python_is_told(environment, monkeypatch):
    monkeypatch.setattr(dependencies, "OLDEST_PYTHON", (99, 0))
    assert "use an environment with Python 3.10, 3.11 or 3.12." in message()


def test_the_command_ends_with_the_sentence_alone():
    command = [sys.executable, "qdformer/dependencies.py", "no_such_tool"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no_such_tool is missing" in done.stderr
