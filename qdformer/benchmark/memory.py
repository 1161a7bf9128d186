"""Peak memory of a run in a process of its own.

On a GPU it is what the run's tensors need, weights among them. On the CPU it is the resident set of
the whole process, libraries included; the peak of a process that only imports tells their share.
"""

import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

from qdformer.benchmark.options import ROOT, Workload
from qdformer.benchmark.runs import RUNS
from qdformer.config.loading import load_config
from qdformer.errors import InputError

METHODS = {
    "cpu": "peak resident set of a fresh process, libraries included",
    "cuda": "torch.cuda.max_memory_allocated in a fresh process",
}

_TIMES = {"eval": 2, "train": 4}
"""The optimizer's state is there from the second step on, and holes between tensors grow later."""


def peak_memory(cfg, workload: Workload, run: str | None) -> int:
    """Run something a few times in a fresh process.

    Args:
        cfg: of the model.
        workload: what it gets.
        run: of ``RUNS``; None only imports.

    Returns:
        Bytes, see ``METHODS``.

    Raises:
        InputError: the process did not get through, most likely for lack of memory.
    """
    if workload.device == "cuda":
        torch.cuda.empty_cache()  # what this process keeps for later is missing in the other one
    with tempfile.TemporaryDirectory() as folder:
        config_file = Path(folder, "config.yaml")
        config_file.write_text(cfg.dump(), encoding="utf-8")
        order = {"config_file": str(config_file), "workload": asdict(workload), "run": run}
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        child = subprocess.run(
            [sys.executable, "-m", "qdformer.benchmark.memory", json.dumps(order)],
            env=os.environ | {"PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            text=True,
        )
    if child.returncode:
        raise InputError(
            f"{run} with {workload.batch} x {workload.frames} frames of {workload.size} pixels: "
            f"the process that measures its memory ended with status {child.returncode}; see its "
            "message above, or give less to it if there is none, as when memory runs out"
        )
    return int(child.stdout.splitlines()[-1])


def main() -> None:
    """What the fresh process does: an order in, bytes out."""
    # The parent has warned of untrained weights and the like.
    logging.getLogger("qdformer").setLevel(logging.ERROR)
    order = json.loads(sys.argv[1])
    workload = Workload(**order["workload"])
    if order["run"]:
        run = RUNS[order["run"]](load_config(order["config_file"], []), workload)
        for _ in range(_TIMES[order["run"]]):
            run()
    on_gpu = workload.device == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else _peak_resident_set()
    sys.stdout.write(f"{peak}\n")


def _peak_resident_set() -> int:
    # Linux hands ru_maxrss on through exec, so that it would tell the peak of the parent.
    status = Path(os.sep, "proc", "self", "status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
