"""Kills a training run again and again, resumes it, and compares its end with an unkilled run's.

python -m tests.engine.kill_training [--kills 20] [--in-write 5] [--seed 0] [--folder FOLDER]
"""

import argparse
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

from tqdm import tqdm

from tests.engine.training import AUGMENTED, config, digest
from tests.samples import compose_tiny

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
    """A training run in a process of its own, resumed as often as it takes."""

    def __init__(self, cfg):
        self.cfg, self.folder = cfg, Path(cfg.OUTPUT_DIR)
        self.log, self.config_file = self.folder / "output.txt", self.folder / "given.yaml"
        self.config_file.write_text(cfg.dump())

    def start(self) -> subprocess.Popen:
        """Start or resume the run; its output goes on in ``log``."""
        self.begun = time.time()
        command = [sys.executable, ROOT / "projects/QDFormer/train_net.py", "--resume"]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*command, "--config-file", self.config_file],
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
        tag = self.folder / "last_checkpoint"
        return Kill(tag.read_text() if tag.exists() else "none", self.is_writing())

    def is_writing(self, size: int = 0) -> bool:
        """Whether a checkpoint is half written, by the process that was started last.

        Args:
            size: the least bytes that are there of it.
        """
        for part in self.folder.glob(".*.pth.part"):
            with suppress(FileNotFoundError):  # it is complete by now
                status = part.stat()
                if status.st_mtime > self.begun and status.st_size >= size:
                    return True
        return False


def in_write(earlier: int) -> Callable[[Run], Iterator[None]]:
    """When a checkpoint is written up to some byte, ``earlier`` ones after the first."""

    def moment(run: Run) -> Iterator[None]:
        size = random.randrange(1 << 20)
        for _ in range(earlier):
            yield from _until(run.is_writing)
            yield from _until(lambda: not run.is_writing())
        yield from _until(lambda: run.is_writing(size))

    return moment


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


def main(args: argparse.Namespace) -> None:
    """Compare the two runs."""
    random.seed(args.seed)
    folder = Path(args.folder or tempfile.mkdtemp(prefix="killed_"))
    root = compose_tiny(folder)
    options = (
        "DATASETS.AVS_ROOTS", (str(root),), "DATALOADER.NUM_WORKERS", args.workers,
        "SOLVER.MAX_ITER", 6 * args.kills, "SOLVER.CHECKPOINT_PERIOD", 4,
        "TEST.EVAL_PERIOD", 12, "TEST.NUM_SHEETS", 1,
    )  # fmt: skip
    unkilled, killed = (
        Run(config(folder / name, root.name, *AUGMENTED, *options))
        for name in ("unkilled", "killed")
    )
    begin = time.monotonic()
    unkilled.finish()
    longest = 1.2 * (time.monotonic() - begin) / args.kills
    moments = [in_write(random.randrange(3)) for _ in range(args.in_write)]
    moments += [in_training(longest)] * (args.kills - args.in_write)
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
    digests = digest(unkilled.cfg), digest(killed.cfg)
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
