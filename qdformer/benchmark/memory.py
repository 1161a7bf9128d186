"""Peak memory of a run in a process of its own.

On a GPU it is what the run's tensors need, weights among them. On the CPU it is the resident set of
the whole process, libraries included; the peak of a process that only imports tells their share.
"""

import logging
import multiprocessing
import os
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from detectron2.config import CfgNode

from qdformer.benchmark.options import Workload
from qdformer.benchmark.runs import RUNS
from qdformer.config.loading import load_config
from qdformer.errors import InputError

_TIMES = {"eval": 2, "train": 4}
"""The optimizer's state is there from the second step on, and holes between tensors grow later."""


def peak_memory(cfg: CfgNode, workload: Workload, run: str | None) -> int:
    """Run something a few times in a fresh process.

    Args:
        cfg: of the model.
        workload: what it gets.
        run: of ``RUNS``; None only imports.

    Returns:
        Bytes: the peak resident set, or on a GPU ``torch.cuda.max_memory_allocated``.

    Raises:
        InputError: the process did not get through, most likely for lack of memory.
    """
    if workload.device == "cuda":
        torch.cuda.empty_cache()  # what this process keeps for later is missing in the other one
    with tempfile.TemporaryDirectory() as folder:
        config_file = Path(folder, "config.yaml")
        config_file.write_text(cfg.dump(), encoding="utf-8")
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=fresh) as process:
            try:
                return process.submit(_peak, str(config_file), workload, run).result()
            except BrokenProcessPool as error:
                raise InputError(
                    f"{run} with {workload.batch} x {workload.frames} frames of {workload.size} "
                    "pixels: the process that measures its memory was killed, most likely because "
                    "memory ran out; give less to it"
                ) from error


def _peak(config_file: str, workload: Workload, run: str | None) -> int:
    # The parent has warned of untrained weights and the like.
    logging.getLogger("qdformer").setLevel(logging.ERROR)
    if run:
        repeat = RUNS[run](load_config(config_file, []), workload)
        for _ in range(_TIMES[run]):
            repeat()
    if workload.device == "cuda":
        return torch.cuda.max_memory_allocated()
    # Linux hands ru_maxrss on through exec, so that it would tell the peak of the parent.
    status = Path(os.sep, "proc", "self", "status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return peaks[0] if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
