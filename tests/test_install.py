"""Detectron2's source archive becomes a wheel: checked, complete, and without running it."""

import base64
import gzip
import hashlib
import io
import re
import runpy
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = SimpleNamespace(**runpy.run_path(str(ROOT / "install" / "detectron2_wheel.py")))
INFO = "detectron2-0.6.dist-info"
FILES = {
    "LICENSE": "the license",
    "setup.py": "raise SystemExit('the archive must not be run')",
    "detectron2/__init__.py": "raise SystemExit('the archive must not be run')",
    "detectron2/layers/nms.py": "NMS = 1",
    "detectron2/model_zoo/configs/Base.yaml": "A: 1",
    "projects/PointRend/point_rend/__init__.py": "",
}


def sdist(files, top="pb1-detectron2-0.6/"):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(top + name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(data.getvalue(), mtime=0)


def test_wheel_holds_the_python_files_and_the_license(tmp_path):
    wheel = SCRIPT.pack_wheel(sdist(FILES), tmp_path)
    assert wheel.name == "detectron2-0.6-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == {
            "detectron2/__init__.py",
            "detectron2/layers/nms.py",
            *(f"{INFO}/{name}" for name in ("LICENSE", "METADATA", "WHEEL", "RECORD")),
        }
        assert archive.read("detectron2/layers/nms.py") == b"NMS = 1"
        assert archive.read(f"{INFO}/LICENSE") == b"the license"
        assert b"Tag: py3-none-any\n" in archive.read(f"{INFO}/WHEEL")


def test_record_has_the_digest_and_size_of_every_file(tmp_path):
    with zipfile.ZipFile(SCRIPT.pack_wheel(sdist(FILES), tmp_path)) as archive:
        rows = [line.split(",") for line in archive.read(f"{INFO}/RECORD").decode().splitlines()]
        assert [name for name, _, _ in rows] == archive.namelist()
        assert rows.pop() == [f"{INFO}/RECORD", "", ""]
        for name, digest, size in rows:
            data = archive.read(name)
            assert int(size) == len(data)
            padded = digest.removeprefix("sha256=") + "="
            assert base64.urlsafe_b64decode(padded) == hashlib.sha256(data).digest()


def test_metadata_asks_for_nothing_that_breaks_current_pythons(tmp_path):
    with zipfile.ZipFile(SCRIPT.pack_wheel(sdist(FILES), tmp_path)) as archive:
        lines = archive.read(f"{INFO}/METADATA").decode().splitlines()
    assert {"Name: detectron2", "Version: 0.6", "License: Apache-2.0"} <= set(lines)
    wanted = [line.removeprefix("Requires-Dist: ") for line in lines if "Requires-Dist" in line]
    assert "iopath>=0.1.7,<0.1.10" in wanted
    assert not any("black" in requirement for requirement in wanted)


def test_same_archive_gives_the_same_bytes(tmp_path):
    wheels = []
    for name in "ab":
        (tmp_path / name).mkdir()
        wheels.append(SCRIPT.pack_wheel(sdist(FILES), tmp_path / name).read_bytes())
    assert wheels[0] == wheels[1]


def test_pip_accepts_the_wheel(tmp_path):
    wheel = SCRIPT.pack_wheel(sdist(FILES), tmp_path)
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    command += ["--no-index", "--disable-pip-version-check", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True)
    assert (target / "detectron2" / "layers" / "nms.py").read_text() == "NMS = 1"


def test_archive_of_another_hash_is_refused():
    with pytest.raises(SystemExit, match=r"has SHA-256 [0-9a-f]{64}, not 5d2e9e51e5"):
        SCRIPT.check_hash(sdist(FILES))


def test_archive_of_the_given_hash_is_accepted():
    SCRIPT.check_hash(b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")


@pytest.mark.parametrize("name", ["../evil.py", "detectron2/../../evil.py"])
def test_member_that_leads_outside_is_refused(tmp_path, name):
    with pytest.raises(SystemExit, match=re.escape(name)):
        SCRIPT.pack_wheel(sdist({**FILES, name: ""}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_absolute_member_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="evil.py"):
        SCRIPT.pack_wheel(sdist({"/evil.py": ""}, top=""), tmp_path)


@pytest.mark.parametrize("missing", ["LICENSE", "detectron2/__init__.py"])
def test_incomplete_archive_is_refused(tmp_path, missing):
    files = {name: text for name, text in FILES.items() if name != missing}
    with pytest.raises(SystemExit, match="holds no"):
        SCRIPT.pack_wheel(sdist(files), tmp_path)


def test_lock_names_each_package_once_for_each_python():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    pattern = r'[a-z0-9-]+==[\w.]+(; python_version (<|>=) "3\.11")?'
    assert all(re.fullmatch(pattern, pin) for pin in pins)
    for marker in ("<", ">="):
        names = [pin.split("==")[0] for pin in pins if ";" not in pin or f" {marker} " in pin]
        assert len(names) == len(set(names))


def test_lock_satisfies_the_requirements_of_the_package():
    from qdformer.dependencies import MINIMUM_VERSIONS, OPENCV

    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = {line.split("==")[0] for line in lines}
    wanted = {re.split("[<>=]", requirement)[0] for requirement in SCRIPT.REQUIREMENTS}
    missing = {name.lower() for name in {*MINIMUM_VERSIONS, *wanted, OPENCV}} - locked
    assert not missing
