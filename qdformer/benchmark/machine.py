"""What a benchmark ran on."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from qdformer.benchmark.options import ROOT


def describe_machine(device: str) -> dict[str, Any]:
    """Processor, threads and versions.

    Args:
        device: "cpu" or "cuda".

    Returns:
        ``cpu``, ``threads`` (of torch), ``gpu`` (None on the CPU), ``tf32`` (whether fp32
        convolutions and matrix products may round to it on a GPU), ``torch``, ``python`` and
        ``commit`` of QDFormer, None outside of a checkout.
    """
    return {
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "tf32": {
            "convolutions": torch.backends.cudnn.allow_tf32,
            "matrix products": torch.backends.cuda.matmul.allow_tf32,
        },
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _cpu() -> str:
    description = Path(os.sep, "proc", "cpuinfo")
    lines = description.read_text(encoding="utf-8").splitlines() if description.exists() else []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
