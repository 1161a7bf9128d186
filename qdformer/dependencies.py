"""What the package stands on, and the sentence that says what to install.

``make`` runs this file before anything else, so it needs nothing but the standard library, and an
old Python can still read it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

OLDEST_PYTHON = (3, 10)

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
"""What the package's metadata declares, too."""

MINIMUM_VERSIONS = dict(
    line.split(">=") for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")
)
"""Distributions by their name on PyPI, with the oldest version that serves."""

OPENCV = "opencv-python-headless"
"""One of several distributions that bring ``cv2``; any of them serves."""


def check_dependencies(tools: Sequence[str] = ()) -> None:
    """Checks that every dependency is installed and new enough, importing none of them.

    Args:
        tools: distributions that are needed besides, whose modules have their names, but for a
            plugin's ``pytest-``.

    Raises:
        ImportError: one sentence that names everything missing or too old and how to install it.
    """
    problems, packages, remedies = [], [], []
    if sys.version_info < OLDEST_PYTHON:
        problems.append(f"its Python is {sys.version.split()[0]}")
        remedies.append("an environment with Python 3.10, 3.11 or 3.12")
    for name, minimum in MINIMUM_VERSIONS.items():
        found = _installed(name)
        if found is None or _release(found) < _release(minimum):
            problems.append(f"{name} is {'missing' if found is None else found}")
            packages.append(f'"{name}>={minimum}"')
    modules = {tool.removeprefix("pytest-"): tool for tool in tools}
    for module, package in {"cv2": OPENCV, **modules}.items():
        if find_spec(module) is None:
            problems.append(f"{module} is missing")
            packages.append(package)
    if packages:
        remedies.append(f"`pip install {' '.join(packages)}`")
    if find_spec("detectron2") is None:
        problems.append("detectron2 is missing")
        remedies.append(f"`python {_detectron2_installer()}`")
    if problems:
        raise ImportError(
            f"QDFormer cannot run in {sys.prefix}, because {', '.join(problems)}: "
            f"use {' and '.join(remedies)}."
        )


def _detectron2_installer() -> str:
    """What Python runs to install Detectron2: a script of the checkout or a module of the wheel."""
    script = Path(__file__).resolve().parents[1] / "install" / "detectron2_wheel.py"
    return str(script) if script.is_file() else "-m qdformer_install.detectron2_wheel"


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _release(text: str) -> tuple[int, ...]:
    """The numbers a version starts with, so that 0.10 is newer than 0.9."""
    beginning = re.split(r"[^\d.]", text)[0]
    return tuple(int(number) for number in re.findall(r"\d+", beginning))


if __name__ == "__main__":
    try:
        check_dependencies(sys.argv[1:])
    except ImportError as error:
        sys.exit(str(error))
