"""Package metadata; every file is pure Python."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
DEPENDENCIES = runpy.run_path(str(ROOT / "qdformer" / "dependencies.py"))

# Detectron2 and OpenCV are not named here: PyPI has no package `detectron2`, and either may be
# there under several names. `import qdformer` checks for both and says what to install.
setup(
    name="qdformer",
    version="0.1.0",
    description="Audio-visual segmentation with quantised audio semantics, on Detectron2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The QDFormer open-source authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["qdformer*"]),
    install_requires=[
        f"{name}>={version}" for name, version in DEPENDENCIES["MINIMUM_VERSIONS"].items()
    ],
    extras_require={
        "onnx": ["onnx>=1.16", "onnxscript>=0.5", "onnxruntime>=1.20"],
        "web": ["gradio>=6"],
        "test": ["pytest>=7.4", "hypothesis>=6.80", "playwright>=1.40", "ruff>=0.6"],
    },
)
