"""What a benchmark measures, and on what."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from qdformer.config.loading import load_config
from qdformer.config.validation import check_config, check_device
from qdformer.errors import InputError

NUM_CLASSES = 70
"""Of AVSS without background; taken where the config leaves the classes to a data set."""

UNTRAINED = (
    "MODEL.QDFORMER.CLASS_THRESHOLD",
    "0.0",
    "MODEL.AUDIO.WEIGHTS",
    "vggish-10086976.pth",
)
"""Untrained weights are sure of nothing. With every token taken for confident, label maps cost the
most that they can, instead of nothing. The audio network is frozen where the config wants that of
released weights; the file is not read."""

PRECISIONS = ("fp32", "bf16", "fast")
"""``fast`` is MODEL.QDFORMER.FAST_INFERENCE, which evaluation alone can have."""


@dataclass(frozen=True)
class Workload:
    """What one run of a model gets.

    Attributes:
        device: "cpu" or "cuda".
        frames: T, of each clip.
        size: height and width of the frames, pixels.
        batch: B, clips of a batch.
        precision: of ``PRECISIONS``; "bf16" is autocast.
    """

    device: str = "cpu"
    frames: int = 5
    size: int = 224
    batch: int = 1
    precision: str = "fp32"

    @property
    def runs(self) -> tuple[str, ...]:
        """What can be measured: a model in "fast" is fit for evaluation alone."""
        return ("eval",) if self.precision == "fast" else ("eval", "train")

    def autocast(self) -> torch.autocast:
        """The context in which the model runs."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")


@dataclass(frozen=True)
class BenchmarkOptions:
    """A whole benchmark.

    Attributes:
        config_file: of the model.
        output: the JSON; pictures go beside it.
        measures: names of ``qdformer.benchmark.measures.MEASURES``.
        overrides: keys and values of the config in turn.
        workload: what the model gets.
        repeats: how often each thing is timed.
        growth_frames: values of T at which growth is measured, at the workload's size.
        growth_sizes: sizes at which growth is measured, at the workload's T.
    """

    config_file: str
    output: Path
    measures: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    workload: Workload = Workload()
    repeats: int = 10
    growth_frames: tuple[int, ...] = (1, 2, 5, 10, 20, 40, 60)
    growth_sizes: tuple[int, ...] = (224, 320, 384, 448, 640)

    def check(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            InputError: names the option, its value and what is allowed.
        """
        workload = self.workload
        for name, values, least in (
            ("--frames", (workload.frames,), 1),
            ("--size", (workload.size,), 32),
            ("--batch", (workload.batch,), 1),
            ("--repeats", (self.repeats,), 1),
            ("--growth-frames", self.growth_frames, 1),
            ("--growth-sizes", self.growth_sizes, 32),
        ):
            if min(values) < least:
                raise InputError(f"{name} is {min(values)}; it must be at least {least}")
        if workload.precision not in PRECISIONS:
            raise InputError(
                f"--precision is {workload.precision!r}; allowed: {', '.join(PRECISIONS)}"
            )
        if "train" in self.measures and "train" not in workload.runs:
            raise InputError(
                f"--precision {workload.precision} is for evaluation; leave train out of --measure"
            )
        check_device(workload.device)

    def settings(self) -> dict[str, Any]:
        """What a result depends on, for the JSON."""
        return {
            "config": self.config_file,
            "overrides": list(self.overrides),
            **asdict(self.workload),
            "repeats": self.repeats,
        }

    def load_config(self) -> CfgNode:
        """The model's config on the workload's device, with ``UNTRAINED`` before the overrides.

        Raises:
            InputError: no such file, no such key, or a setting that cannot work.
        """
        cfg = load_config(self.config_file, [*UNTRAINED, *self.overrides])
        cfg.MODEL.DEVICE = self.workload.device
        cfg.MODEL.QDFORMER.FAST_INFERENCE |= self.workload.precision == "fast"
        cfg.MODEL.QDFORMER.NUM_CLASSES = cfg.MODEL.QDFORMER.NUM_CLASSES or NUM_CLASSES
        check_config(cfg)
        cfg.freeze()
        return cfg
