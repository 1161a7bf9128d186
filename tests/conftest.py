"""For all tests: the package makes Detectron2 importable, so it comes before every test module."""

import qdformer  # noqa: F401
