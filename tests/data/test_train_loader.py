import multiprocessing
import random
import subprocess
from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.data.samplers import TrainingSampler

from qdformer.data.train_loader import TrainLoader, combined_seed, drawn_from

RECORDS = [{"id": index, "width": 4 + index % 2, "height": 4} for index in range(7)]


def mapper(record):
    return {
        **record,
        "numpy": np.random.rand(),
        "python": random.random(),
        "torch": torch.rand(()).item(),
    }


def batches(count, first=0, seed=3, workers=0, batch_size=2, grouping=True):
    loader = TrainLoader(
        RECORDS,
        mapper,
        lambda seed: TrainingSampler(len(RECORDS), seed=seed),
        batch_size=batch_size,
        num_workers=workers,
        aspect_ratio_grouping=grouping,
    )
    stream = iter(loader)  # before the run knows where it begins, as Detectron2 does
    loader.begin(seed, first)
    return list(islice(stream, count))


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_gives_the_same_batches(workers):
    assert batches(9, workers=workers) == batches(9)


@pytest.mark.parametrize("first", [1, 5, 40])
@pytest.mark.parametrize("grouping", [False, True])
def test_a_stream_goes_on_where_it_was_left(first, grouping):
    whole = batches(first + 4, grouping=grouping)
    assert batches(4, first=first, grouping=grouping) == whole[first:]


def test_each_pass_has_every_clip_once_and_draws_anew():
    clips = [clip for batch in batches(14, batch_size=1, grouping=False) for clip in batch]
    for half in (clips[:7], clips[7:]):
        assert sorted(clip["id"] for clip in half) == list(range(7))
    for kind in ("numpy", "python", "torch"):
        assert len({clip[kind] for clip in clips}) == 14


def test_seeds_differ():
    assert batches(3) != batches(3, seed=4)


def test_batches_hold_wide_clips_or_tall_ones():
    widths = [{clip["width"] for clip in batch} for batch in batches(20)]
    assert all(len(width) == 1 for width in widths)
    assert any(len({c["width"] for c in batch}) == 2 for batch in batches(20, grouping=False))


def draw():
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_draws_are_a_function_of_the_numbers_and_leave_no_trace():
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = draw()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    with drawn_from(1, 2):
        first = draw()
    assert draw() == expected
    with drawn_from(1, 2):
        assert draw() == first
    with drawn_from(2, 1):
        assert draw() != first


def test_seeds_of_several_numbers_do_not_collide():
    seeds = {combined_seed(a, b, c) for a in range(10) for b in range(10) for c in range(100)}
    assert len(seeds) > 9990 and all(0 <= seed < 2**32 for seed in seeds)


def test_workers_end_with_their_loader_and_not_by_a_signal_to_all():
    loader = TrainLoader(
        RECORDS,
        mapper,
        lambda seed: TrainingSampler(len(RECORDS), seed=seed),
        batch_size=2,
        num_workers=1,
        aspect_ratio_grouping=False,
    )
    others = set(multiprocessing.active_children())
    stream = iter(loader)
    next(stream)
    (worker,) = set(multiprocessing.active_children()) - others
    # From a process that is not the worker's parent, as a scheduler's signal is.
    for name in ("TERM", "INT"):
        subprocess.run(["sh", "-c", f"kill -{name} {worker.pid}; :"], check=True)
    assert [len(batch) for batch in islice(stream, 20)] == [2] * 20
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0
