"""For all tests: the package makes Detectron2 importable, so it comes before every test module."""

import pytest

import qdformer  # noqa: F401


@pytest.fixture(scope="session")
def composed(tmp_path_factory):
    """A tiny synthetic data set in all three layouts, registered as tiny_*."""
    from tests.samples import compose_tiny

    return compose_tiny(tmp_path_factory.mktemp("datasets"))


def pytest_collection_modifyitems(items):
    """Slow modules first, so that no process waits for another at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
