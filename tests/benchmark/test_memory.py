import os

import numpy as np
import pytest
import torch

from qdformer.benchmark import memory
from qdformer.benchmark.memory import peak_memory
from qdformer.benchmark.options import Workload
from qdformer.errors import InputError
from tests.samples import small_config


def test_a_run_needs_more_than_the_libraries_and_nothing_of_the_parents():
    ballast = np.ones(10**9, dtype=np.uint8)
    libraries = peak_memory(small_config(), Workload(), None)
    # 100 MB of weights that the libraries alone do not have.
    wide = small_config("MODEL.AUDIO.FC_DIMS", [5000, 4600, 16])
    run = peak_memory(wide, Workload(frames=2, size=32), "eval")
    assert 5e7 < libraries < run - 5e7
    assert run < len(ballast) + libraries / 2  # the parent holds the libraries too


def test_a_process_that_does_not_get_through(monkeypatch):
    monkeypatch.setattr(memory, "_peak", _abort)
    with pytest.raises(InputError, match="train with 1 x 60 frames of 640 pixels"):
        peak_memory(small_config(), Workload(frames=60, size=640), "train")


def _abort(*_):
    os.abort()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_memory_of_a_gpu():
    cfg = small_config("MODEL.DEVICE", "cuda")
    weights = 4 * 11e6
    assert peak_memory(cfg, Workload("cuda", frames=1, size=32), "eval") > weights
    assert peak_memory(cfg, Workload("cuda", frames=1, size=32), None) == 0
