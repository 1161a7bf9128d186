"""Batches of training clips, each a function of the run's seed and of its own number."""

import os
import random
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from detectron2.data import samplers
from detectron2.data.common import AspectRatioGroupedDataset, DatasetFromList
from detectron2.utils import comm
from fvcore.common.registry import Registry
from torch.utils.data import DataLoader, Dataset

SAMPLER_REGISTRY = Registry("SAMPLER")
SAMPLER_REGISTRY.__doc__ = """
Samplers for ``DATALOADER.SAMPLER_TRAIN``: ``function(cfg, num_clips, seed)`` returns this process's
endless stream of indices below ``num_clips``.
"""


@SAMPLER_REGISTRY.register()
def TrainingSampler(cfg, num_clips: int, seed: int) -> Iterable[int]:
    """Detectron2's."""
    return samplers.TrainingSampler(num_clips, seed=seed)


@SAMPLER_REGISTRY.register()
def RandomSubsetTrainingSampler(cfg, num_clips: int, seed: int) -> Iterable[int]:
    """Detectron2's."""
    return samplers.RandomSubsetTrainingSampler(
        num_clips, cfg.DATALOADER.RANDOM_SUBSET_RATIO, seed_shuffle=seed, seed_subset=seed
    )


def build_sampler(cfg, num_clips: int, seed: int) -> Iterable[int]:
    """The sampler that ``DATALOADER.SAMPLER_TRAIN`` names."""
    return SAMPLER_REGISTRY.get(cfg.DATALOADER.SAMPLER_TRAIN)(cfg, num_clips, seed)


class TrainLoader:
    """Mapped clips in batches, without end.

    What is drawn for a clip (frames, flips, colors) depends on the seed and on the clip's place in
    the stream, not on what was drawn before or in which process. So a run that was cut off goes on
    with the very batches it would have had, and any number of workers gives the same ones.
    """

    def __init__(
        self,
        records: list[dict[str, Any]],
        mapper: Callable[[dict[str, Any]], dict[str, Any]],
        build_sampler: Callable[[int], Iterable[int]],
        *,
        batch_size: int,
        num_workers: int,
        aspect_ratio_grouping: bool,
    ):
        """
        Args:
            records: the clips.
            mapper: reads and augments one.
            build_sampler: makes this process's stream of indices of ``records`` from a seed, see
                Detectron2's training samplers.
            batch_size: clips of a batch of this process.
            num_workers: processes that read; 0 reads in this one.
            aspect_ratio_grouping: a batch holds either wide clips or tall ones.
        """
        self.records, self.mapper, self.build_sampler = records, mapper, build_sampler
        self.batch_size, self.num_workers = batch_size, num_workers
        self.aspect_ratio_grouping = aspect_ratio_grouping
        self.seed, self.first = 0, 0

    def begin(self, seed: int, first: int) -> None:
        """Say, before the first batch is asked for, where the stream begins.

        Args:
            seed: of the run.
            first: batches that the run has had already.
        """
        self.seed, self.first = seed, first

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        # Detectron2 asks for the iterator before the run knows where it resumes: a generator starts
        # with its first batch.
        yield from DataLoader(
            _DrawnClips(self.records, self.mapper, self.seed),
            batch_sampler=self._batches(),
            num_workers=self.num_workers,
            collate_fn=list,
            worker_init_fn=_leave_signals_to_parent,
            # Its own, because making the loader must not cost the model a draw.
            generator=torch.Generator(),
        )

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        """Lists of (place in the stream of all processes, index of the record)."""
        rank, processes = comm.get_rank(), comm.get_world_size()
        grouped = self.aspect_ratio_grouping
        stream = (
            {
                "draw": (rank + count * processes, index),
                "width": self.records[index]["width"] if grouped else 0,
                "height": self.records[index]["height"] if grouped else 0,
            }
            for count, index in enumerate(self.build_sampler(self.seed))
        )
        batches = iter(AspectRatioGroupedDataset(stream, self.batch_size))
        for batch in islice(batches, self.first, None):
            yield [clip["draw"] for clip in batch]


class _DrawnClips(Dataset):
    """Clips by (place in the stream, index of the record)."""

    def __init__(self, records, mapper, seed: int):
        # Shared by the workers, where a list would be copied little by little.
        self.records = DatasetFromList(records)
        self.mapper, self.seed = mapper, seed

    def __getitem__(self, draw: tuple[int, int]) -> dict[str, Any]:
        place, index = draw
        with drawn_from(self.seed, place):
            return self.mapper(self.records[index])


@contextmanager
def drawn_from(*numbers: int) -> Iterator[None]:
    """Inside, what Python, NumPy and PyTorch's CPU draw is a function of ``numbers``.

    Outside, nobody notices.
    """
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=()):
        seed = combined_seed(*numbers)
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def combined_seed(*numbers: int) -> int:
    """One seed, 0 to 2**32 - 1, for several numbers of at least 0."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _leave_signals_to_parent(_worker: int) -> None:
    """Who stops a run often signals all of its processes, and the run still wants its batch then.

    Only the run itself ends its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # macOS has none
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
