"""Installs Detectron2 0.6 from PyPI as pure Python: ``python install/detectron2_wheel.py``.

Detectron2 publishes no package of its own. The source archive ``pb1-detectron2`` on PyPI holds the
Python files of upstream's tag v0.6, without the C++ sources that its ``setup.py`` wants to compile
and that QDFormer does not use. This script fetches the archive through pip's own index settings,
checks its SHA-256, packs its Python files as a wheel named ``detectron2`` and lets pip install that
into the environment that runs the script. Nothing in the archive is executed.
"""

import argparse
import base64
import hashlib
import importlib.util
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

PROJECT = "pb1-detectron2"
VERSION = "0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"

# Upstream's own list but for black (formats files that only LazyConfig writes), future and pydot
# (Caffe2 export).
REQUIREMENTS = (
    "Pillow>=7.1",
    "matplotlib",
    "pycocotools>=2.0.2",
    "termcolor>=1.1",
    "yacs>=0.1.8",
    "tabulate",
    "cloudpickle",
    "tqdm>4.29.0",
    "tensorboard",
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7,<0.1.10",
    "omegaconf>=2.1",
    "hydra-core>=1.1",
)


def fetch_sdist() -> bytes:
    """Downloads the archive from wherever pip is set to look, and returns its bytes.

    ``pip download`` would run the archive's ``setup.py`` to learn its metadata; pip's finder and
    session fetch the file alone, with the indexes, proxies and certificates of pip's settings.

    Raises:
        SystemExit: no configured index has the archive.
    """
    from pip._internal.commands import create_command
    from pip._vendor.packaging.specifiers import SpecifierSet

    command = create_command("download")
    options, _ = command.parse_args([])
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options, session)
        found = finder.find_best_candidate(PROJECT, SpecifierSet(f"=={VERSION}")).best_candidate
        if found is None:
            sys.exit(
                f"{PROJECT} {VERSION} was not found: the indexes in `pip config list` (PyPI where"
                " none is set) lack it or cannot be reached."
            )
        response = session.get(found.link.url_without_fragment)
        response.raise_for_status()
        return response.content


def check_hash(sdist: bytes, sha256: str = SHA256) -> None:
    """Refuses an archive that is not byte for byte the known one.

    Raises:
        SystemExit: the SHA-256 differs.
    """
    found = hashlib.sha256(sdist).hexdigest()
    if found != sha256:
        sys.exit(f"{PROJECT} {VERSION} has SHA-256 {found}, not {sha256}: it is not installed.")


def pack_wheel(sdist: bytes, folder: Path) -> Path:
    """Packs the Python files of a Detectron2 source archive as a wheel.

    Args:
        sdist: a gzipped tar archive with one top folder that holds ``detectron2/`` and ``LICENSE``.
        folder: where the wheel is written.

    Returns:
        The wheel's path. The same archive gives the same bytes.

    Raises:
        SystemExit: a member's path leads out of the archive, or the archive holds no Python file or
            no license.
    """
    info = f"detectron2-{VERSION}.dist-info"
    files = dict(_python_files(sdist, info))
    if f"{info}/LICENSE" not in files or "detectron2/__init__.py" not in files:
        sys.exit(f"{PROJECT} {VERSION} holds no detectron2/__init__.py or no LICENSE.")
    files[f"{info}/METADATA"] = _metadata().encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: qdformer\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()

    wheel = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            # A ZipInfo of its own has a fixed date, unlike writestr's default.
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return wheel


def _python_files(sdist: bytes, info: str):
    """Yields (path in the wheel, content) of what the wheel takes from the archive."""
    with tarfile.open(fileobj=io.BytesIO(sdist), mode="r:gz") as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts:
                sys.exit(f"{PROJECT} {VERSION} holds the path {member.name}: it is not installed.")
            name = PurePosixPath(*path.parts[1:])
            if not member.isfile():
                continue
            if name.parts[0] == "detectron2" and name.suffix == ".py":
                yield str(name), archive.extractfile(member).read()
            elif str(name) == "LICENSE":
                yield f"{info}/LICENSE", archive.extractfile(member).read()


def _metadata() -> str:
    return "\n".join(
        [
            "Metadata-Version: 2.1",
            "Name: detectron2",
            f"Version: {VERSION}",
            "Summary: Detectron2's Python files, without its compiled operators",
            "Home-page: https://github.com/facebookresearch/detectron2",
            "License: Apache-2.0",
            "License-File: LICENSE",
            "Requires-Python: >=3.6",
            *(f"Requires-Dist: {requirement}" for requirement in REQUIREMENTS),
            "",
        ]
    )


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def main() -> None:
    """Fetches, checks, packs and installs."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    if importlib.util.find_spec("pip") is None:
        sys.exit(f"{sys.prefix} has no pip: run `{sys.executable} -m ensurepip` first.")
    sdist = fetch_sdist()
    check_hash(sdist)
    with tempfile.TemporaryDirectory() as folder:
        wheel = pack_wheel(sdist, Path(folder))
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", wheel], check=True)


if __name__ == "__main__":
    main()
