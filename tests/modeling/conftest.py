import pytest
from detectron2.utils.events import EventStorage


@pytest.fixture
def storage():
    """What a training forward logs to."""
    with EventStorage() as storage:
        yield storage
