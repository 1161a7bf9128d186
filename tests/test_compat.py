"""The shims act on Detectron2 0.6 without its compiled module, and on nothing else."""

import importlib
import sys

import PIL.Image
import pytest

from qdformer.compat import prepare_detectron2

RELEASE = {
    "data/transforms/transform.py": "from PIL import Image\nDEFAULT = Image.LINEAR\n",
    "layers/deform_conv.py": "from detectron2 import _C\n",
}
MAIN = {
    "data/transforms/transform.py": "from PIL import Image\nDEFAULT = Image.BILINEAR\n",
    "layers/deform_conv.py": "try:\n    from detectron2 import _C\nexcept ImportError:\n    pass\n",
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package `detectron2` of the given files in front of the installed one."""
    for name in [name for name in sys.modules if name.split(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    # An attribute that the test's call adds is taken away again.
    monkeypatch.setattr(PIL.Image, "LINEAR", None, raising=False)
    monkeypatch.delattr(PIL.Image, "LINEAR")
    monkeypatch.syspath_prepend(tmp_path)

    def write(files):
        for name, text in {"__init__.py": "", **files}.items():
            path = tmp_path / "detectron2" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()

    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == "detectron2"]:
        del sys.modules[name]


def test_release_gets_both_shims_without_being_imported(install):
    install(RELEASE)
    prepare_detectron2()
    assert PIL.Image.LINEAR == PIL.Image.BILINEAR
    assert "detectron2" not in sys.modules

    from detectron2 import _C

    assert not _C.has_cuda()
    assert "pure Python" in _C.get_compiler_version()
    assert "pure Python" in _C.get_cuda_version()


def test_main_branch_is_left_alone(install):
    install(MAIN)
    prepare_detectron2()
    assert not hasattr(PIL.Image, "LINEAR")
    assert "detectron2._C" not in sys.modules


def test_compiled_module_is_kept(install):
    install({**RELEASE, "_C.py": "COMPILED = True\n"})
    prepare_detectron2()

    from detectron2 import _C

    assert _C.COMPILED


def test_older_pillow_keeps_its_own_constant(install, monkeypatch):
    install(RELEASE)
    monkeypatch.setattr(PIL.Image, "LINEAR", "its own", raising=False)
    prepare_detectron2()
    assert PIL.Image.LINEAR == "its own"


def test_repeating_changes_nothing(install):
    install(RELEASE)
    prepare_detectron2()
    module = sys.modules["detectron2._C"]
    prepare_detectron2()
    assert sys.modules["detectron2._C"] is module


def test_without_detectron2_nothing_happens(install, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    prepare_detectron2()
    assert not hasattr(PIL.Image, "LINEAR")
    assert "detectron2._C" not in sys.modules


def test_the_installed_detectron2_reports_its_environment():
    import detectron2.modeling  # noqa: F401  what the shims are for
    from detectron2.utils.collect_env import collect_env_info

    assert "detectron2" in collect_env_info()
