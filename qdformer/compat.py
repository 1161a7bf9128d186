"""Makes Detectron2 0.6 importable beside current libraries and without its compiled operators.

Detectron2's main branch and its release carry the same version number, so what an installation
needs is read from its source; nothing of Detectron2 is imported to find out.
"""

import importlib.util
import re
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_COMPILED = "detectron2._C"


def prepare_detectron2() -> None:
    """Puts in place what the installed Detectron2 misses, before its first import.

    Release 0.6 names ``PIL.Image.LINEAR``, which Pillow 10 removed, and imports its compiled module
    unconditionally. The main branch does neither and is left alone, and so are a compiled module
    and an older Pillow. Without any Detectron2 nothing happens.
    """
    import PIL.Image  # not before the package has checked that it is installed

    spec = importlib.util.find_spec("detectron2")
    if spec is None:
        return
    if not hasattr(PIL.Image, "LINEAR") and _matches(
        spec, "data/transforms/transform.py", r"\bImage\.LINEAR\b"
    ):
        PIL.Image.LINEAR = PIL.Image.BILINEAR  # type: ignore[attr-defined]
    if (
        _COMPILED not in sys.modules
        and PathFinder.find_spec(_COMPILED, spec.submodule_search_locations) is None
        and _matches(spec, "layers/deform_conv.py", r"(?m)^from detectron2 import _C$")
    ):
        sys.modules[_COMPILED] = _operators_left_out()


def _matches(spec: ModuleSpec, file: str, pattern: str) -> bool:
    """Whether a source file of the package contains the pattern; False where there is no file."""
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, file)
        if path.is_file():
            return re.search(pattern, path.read_text(encoding="utf-8")) is not None
    return False


def _operators_left_out() -> ModuleType:
    """A module without operators that answers what Detectron2's environment report asks of it."""
    module: Any = ModuleType(_COMPILED, "Stands where Detectron2's compiled operators would be.")
    module.get_compiler_version = lambda: "none: pure Python installation"
    module.get_cuda_version = lambda: "none: pure Python installation"
    module.has_cuda = lambda: False
    return module
