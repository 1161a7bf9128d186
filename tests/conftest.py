"""For all tests: the package makes Detectron2 importable, so it comes before every test module."""

import pytest

import qdformer  # noqa: F401


@pytest.fixture(scope="session")
def composed(tmp_path_factory):
    """A tiny composed data set in all three layouts, registered as tiny_*."""
    from qdformer.data.compose import ComposeOptions, compose
    from qdformer.engine.setup import register_roots

    root = tmp_path_factory.mktemp("datasets") / "tiny"
    compose(
        ComposeOptions(
            output=root,
            layouts=("avss", "ms3", "s4"),
            classes=("bell", "drum", "siren"),
            frames=3,
            size=64,
            sources=(1, 2),
            clips={"train": 8, "val": 2, "test": 3},
            workers=1,
        )
    )
    register_roots([str(root)])
    return root
