import pytest

from tests.engine.training import AUGMENTED, config, train


@pytest.fixture(scope="session")
def whole(composed, tmp_path_factory):
    """A run of six iterations that nobody disturbed."""
    return train(config(tmp_path_factory.mktemp("whole"), "tiny", *AUGMENTED, "TEST.NUM_SHEETS", 1))
