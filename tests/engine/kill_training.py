"""Kills a training run again and again, resumes it, and compares its end with an unkilled run's.

python -m tests.engine.kill_training [--kills 20] [--in-write 5] [--seed 0] [--folder FOLDER]
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import qdformer.qdformer  # noqa: F401
from qdformer.data.compose import ComposeOptions, compose
from tests.samples import small_config

ROOT = Path(__file__).resolve().parents[2]
POLL = 0.001  # seconds


@dataclass(frozen=True)
class Kill:
    """One end of a process.

    Attributes:
        checkpoint: what a resumed run would follow then.
        in_write: a checkpoint was half written.
    """

    checkpoint: str
    in_write: bool


class Run:
    """A training run of a small network in a folder, resumed as often as it takes."""

    def __init__(self, folder: Path, iterations: int, period: int, workers: int):
        self.folder, self.log = folder, folder / "output.txt"
        folder.mkdir(parents=True)
        cfg = small_config(
            "OUTPUT_DIR", str(folder / "run"),
            "DATASETS.AVS_ROOTS", (str(folder.parent / "killed_clips"),),
            "DATASETS.TRAIN", ("killed_clips_avss_train",),
            "DATASETS.TEST", ("killed_clips_avss_test",),
            "MODEL.QDFORMER.NUM_CLASSES", 0,
            "INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MAX_SIZE_TRAIN", 64,
            "INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 64,
            "INPUT.RANDOM_FLIP", "horizontal", "INPUT.COLOR_JITTER", 0.3, "INPUT.AUDIO_GAIN", 3.0,
            "SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", iterations, "SOLVER.STEPS", (),
            "SOLVER.CHECKPOINT_PERIOD", period, "DATALOADER.NUM_WORKERS", workers,
            "TEST.EVAL_PERIOD", 3 * period, "TEST.NUM_SHEETS", 1, "SEED", 1,
        )  # fmt: skip
        (folder / "config.yaml").write_text(cfg.dump())

    def start(self) -> subprocess.Popen:
        """Start or resume the run; its output goes on in ``log``."""
        self.begun = time.time()
        command = [sys.executable, ROOT / "projects/QDFormer/train_net.py", "--resume"]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*command, "--config-file", self.folder / "config.yaml"],
                stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip

    def finish(self) -> None:
        """Resume and wait for the end."""
        process = self.start()
        if process.wait():
            sys.exit(f"the run ended with {process.returncode}:\n{self.log.read_text()[-3000:]}")

    def kill(self, moment: Callable[["Run"], Iterator[None]]) -> Kill | None:
        """Resume, and kill all processes of the run when ``moment`` says so.

        Returns:
            None if the run ended before.
        """
        process = self.start()
        for _ in moment(self):
            if process.poll() is not None:
                if process.returncode:
                    sys.exit(f"the run ended with {process.returncode}, see {self.log}")
                return None
            time.sleep(POLL)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        tag = self.folder / "run/last_checkpoint"
        return Kill(tag.read_text() if tag.exists() else "none", self.is_writing())

    def is_writing(self) -> bool:
        """Whether a checkpoint is half written, by the process that was started last."""
        for part in (self.folder / "run").glob(".*.pth.part"):
            with suppress(FileNotFoundError):  # it is complete by now
                if part.stat().st_mtime > self.begun:
                    return True
        return False

    def digest(self) -> str:
        """Of everything that the checkpoint at the end holds: weights, optimizer, results, seed."""
        state = torch.load(self.folder / "run/model_final.pth", weights_only=True)
        digest = hashlib.sha256()
        for name, value in _leaves(state):
            digest.update(f"{name}={value}".encode())
        return digest.hexdigest()


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        yield from _leaves(dict(enumerate(value)), name)
    elif isinstance(value, torch.Tensor):
        yield name, hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
    else:
        yield name, value


def in_write(run: Run) -> Iterator[None]:
    """Go on until a checkpoint is half written, the first or a later one, and a little longer."""
    for _ in range(random.randrange(3)):
        yield from _until(run.is_writing)
        yield from _until(lambda: not run.is_writing())
    yield from _until(run.is_writing)
    for _ in range(random.randrange(20)):
        yield


def _until(condition: Callable[[], bool]) -> Iterator[None]:
    while not condition():
        yield


def in_training(longest: float) -> Callable[[Run], Iterator[None]]:
    """A random moment within ``longest`` seconds from the first step."""

    def moment(run: Run) -> Iterator[None]:
        begun = run.log.stat().st_size if run.log.exists() else 0
        yield from _until(lambda: b"Starting training" in run.log.read_bytes()[begun:])
        end = time.monotonic() + random.uniform(0, longest)
        yield from _until(lambda: time.monotonic() > end)

    return moment


def compose_clips(folder: Path) -> None:
    """The clips that the runs in ``folder`` train on."""
    compose(
        ComposeOptions(
            output=folder / "killed_clips",
            classes=("bell", "drum", "siren"),
            frames=3,
            size=64,
            sources=(1, 2),
            clips={"train": 12, "val": 1, "test": 2},
            workers=1,
        )
    )


def main(args: argparse.Namespace) -> None:
    """Compare the two runs."""
    random.seed(args.seed)
    folder = Path(args.folder or tempfile.mkdtemp(prefix="killed_"))
    compose_clips(folder)
    unkilled, killed = (
        Run(folder / name, 6 * args.kills, 4, args.workers) for name in ("unkilled", "killed")
    )
    begin = time.monotonic()
    unkilled.finish()
    longest = 1.2 * (time.monotonic() - begin) / args.kills
    moments = [in_write] * args.in_write + [in_training(longest)] * (args.kills - args.in_write)
    random.shuffle(moments)
    kills = []
    for moment in tqdm(moments, "killing", unit="kill"):
        if (kill := killed.kill(moment)) is None:
            break
        kills.append(kill)
        tqdm.write(f"resumes from {kill.checkpoint}{', killed in a write' * kill.in_write}")
    killed.finish()
    writes = sum(kill.in_write for kill in kills)
    print(f"{len(kills)} kills, {writes} of them in a checkpoint's write")
    digests = unkilled.digest(), killed.digest()
    print(f"unkilled {digests[0]}\nkilled   {digests[1]}")
    if digests[0] != digests[1] or len(kills) < args.kills:
        sys.exit(f"the runs differ, or there were too few kills; see {folder}")
    print("the same, bit for bit")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--in-write", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="processes that read the clips")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", help="of the runs; a temporary one by default")
    main(parser.parse_args())
