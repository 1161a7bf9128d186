"""Joins the processes of a training that a launcher started, such as torchrun or SLURM's srun."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from detectron2.engine import defaults
from detectron2.utils import comm
from torch import distributed

from qdformer.errors import InputError

_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def is_launched() -> bool:
    """Whether a launcher says, by torchrun's variables, which of several processes this is."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_restarted() -> bool:
    """Whether torchrun started this process in place of one that failed."""
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def join_processes(device: str) -> Iterator[None]:
    """Be one of the processes that a launcher started, until the block ends.

    Args:
        device: of the config; GPUs work together by NCCL, each process on that of its local rank,
            CPUs by gloo.

    Raises:
        InputError: a variable is missing, or this machine has fewer GPUs than processes.
    """
    if missing := [name for name in _NAMES if name not in os.environ]:
        raise InputError(f"{', '.join(missing)}: not set; start with torchrun, or set all it sets")
    numbers = {name: os.environ[name] for name in _NAMES if name != "MASTER_ADDR"}
    if wrong := [f"{name} {value}" for name, value in numbers.items() if not value.isdecimal()]:
        raise InputError(f"{', '.join(wrong)}: no number; start with torchrun, or set all it sets")
    rank, world, local_rank, local_world, _ = map(int, numbers.values())
    on_gpus = device.startswith("cuda")
    if on_gpus:
        if local_world > torch.cuda.device_count():
            raise InputError(
                f"{local_world} processes were started on a machine with "
                f"{torch.cuda.device_count()} GPUs; start one for each, or set MODEL.DEVICE cpu"
            )
        torch.cuda.set_device(local_rank)
    store, *_ = next(distributed.rendezvous("env://"))
    # What processes told each other that were started before and failed does not count any more.
    store = distributed.PrefixStore(f"start {_restarts()}", store)
    backend = "nccl" if on_gpus else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world)
    create_ddp_model = defaults.create_ddp_model
    if not on_gpus:
        # Detectron2 would put each replica on the GPU of its local rank.
        defaults.create_ddp_model = partial(create_ddp_model, device_ids=None)
    try:
        # Every process makes the group of each machine.
        for first in range(0, world, local_world):
            group = distributed.new_group(list(range(first, first + local_world)))
            if first <= rank < first + local_world:
                comm._LOCAL_PROCESS_GROUP = group
        yield
    finally:
        defaults.create_ddp_model = create_ddp_model
        comm._LOCAL_PROCESS_GROUP = None
        distributed.destroy_process_group()
