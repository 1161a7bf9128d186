"""Runs of the rows: each a process of its own, skipped when done, resumed when cut off."""

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from qdformer.config.loading import find_config, load_config
from qdformer.engine.hooks import Preempted
from qdformer.engine.setup import load_records, register_roots
from qdformer.errors import InputError
from qdformer.evaluation.registry import find_evaluator
from qdformer.io.atomic_write import write_json
from qdformer.progress import Progress
from qdformer.reproduction.experiments import Experiment, Row

TRAIN = (sys.executable, "-m", "qdformer.commands.train_net")
RESULT, LOG = "result.json", "output.txt"
POLL = 0.5  # seconds


@dataclass(frozen=True)
class Run:
    """One row on one data set with one seed.

    Attributes:
        row: what is run.
        data: the data set, a registered name without its split.
        seed: of the run.
        folder: what it writes goes there; the same config has the same one in every table.
        cfg: its whole config.
        weights: the checkpoint that is evaluated; None trains.
    """

    row: Row
    data: str
    seed: int
    folder: Path
    cfg: CfgNode
    weights: Path | None = None

    @property
    def iterations(self) -> int:
        """What is left for the progress bar when nothing is done."""
        return 0 if self.weights else self.cfg.SOLVER.MAX_ITER

    def is_done(self) -> bool:
        """Whether it ended without an error."""
        result = self.result()
        return result is not None and result["error"] is None

    def result(self) -> dict[str, Any] | None:
        """What :func:`execute` wrote, if the run has ended."""
        path = self.folder / RESULT
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def metrics(self) -> dict[str, float]:
        """Of a run that has ended."""
        result = self.result()
        assert result is not None, self.folder
        return result["metrics"]


def headline(data: str) -> tuple[str, str]:
    """Task and metric that a data set is compared by: J&F or mIoU."""
    evaluator = find_evaluator(f"{data}_test")
    return evaluator.task, evaluator.primary_metric


def plan(
    experiment: Experiment,
    *,
    data: Sequence[str],
    seeds: int,
    config_file: str,
    overrides: Sequence[str],
    output: Path,
) -> list[Run]:
    """The runs of a table or figure, those that others need first; nothing is run.

    Args:
        experiment: what to run.
        data: registered data sets without their split, e.g. ``avsbench_ms3``.
        seeds: runs of each row, with seeds 0, 1, ...
        config_file: that the rows change.
        overrides: keys and values in turn, for all rows; a row's own come last.
        output: of all runs.

    Raises:
        InputError: a key, a value or a data set cannot be used.
    """
    config_file = find_config(config_file)
    cfg = load_config(config_file, list(overrides))
    register_roots(cfg.DATASETS.AVS_ROOTS)
    for name in data:
        load_records(f"{name}_train"), load_records(f"{name}_test")
    files = dict.fromkeys(find_config(row.config) or config_file for row in experiment.rows)
    scheduled = {(name, file): config_of(name, file, overrides) for name in data for file in files}
    runs: list[Run] = []
    for name in data:
        for seed in range(seeds):
            trained: dict[str, Path] = {}
            for row in experiment.rows:
                file = scheduled[name, find_config(row.config) or config_file]
                cfg = _config(row, name, seed, file, overrides)
                weights = trained[row.weights_of] if row.weights_of else None
                source = cfg.dump() + str(weights and weights.name)
                digest = hashlib.sha256(source.encode()).hexdigest()[:10]
                slug = re.sub(r"\W+", "_", row.name).strip("_").lower()
                folder = output / "runs" / f"{name}_{slug}_seed{seed}_{digest}"
                trained[row.name] = folder
                final = weights and weights / "model_final.safetensors"
                runs.append(Run(row, name, seed, folder, cfg, final))
    return runs


def config_of(data: str, config_file: str, overrides: Sequence[str]) -> str:
    """The config whose schedule is a data set's: iterations mean epochs of the clips they count.

    Args:
        data: a registered data set without its split.
        config_file: what the user gave; one that names no data set serves all.
        overrides: keys and values in turn; with ``SOLVER.MAX_ITER`` the schedule is the user's own.

    Returns:
        The given file, or what stands beside it with the data set's layout in its name, as
        ``qdformer_r50_ms3.yaml`` beside ``qdformer_r50.yaml``.

    Raises:
        InputError: neither trains on the data set.
    """
    own, named = (f"{data}_train",), load_config(config_file, list(overrides)).DATASETS.TRAIN
    if "SOLVER.MAX_ITER" in overrides or named in ((), own):
        return config_file
    given = Path(config_file)
    sibling = given.with_name(f"{given.stem}_{data.rpartition('_')[2]}{given.suffix}")
    if sibling.is_file() and load_config(str(sibling), list(overrides)).DATASETS.TRAIN == own:
        return str(sibling)
    raise InputError(
        f"{config_file} has a schedule for {named[0]}, not for {own[0]}, which has other clips; "
        "give a config that trains on it, or the keys SOLVER.MAX_ITER, SOLVER.STEPS and "
        "TEST.EVAL_PERIOD"
    )


def execute(runs: Sequence[Run]) -> None:
    """Run what is missing, with the time that is left for all of it.

    A run that fails is reported with its error, and the rest goes on.

    Raises:
        Preempted: somebody stopped a run; the same call goes on.
    """
    missing = {run.folder: run for run in runs if not run.is_done()}
    total = sum(run.iterations for run in missing.values())
    with Progress(total=total, unit="it", desc=f"{len(missing)} runs", smoothing=0.02) as bar:
        for number, run in enumerate(missing.values(), start=1):
            bar.set_description(f"{number}/{len(missing)} {run.row.name}, seed {run.seed}")
            _execute(run, bar)


def _execute(run: Run, bar: Progress) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    cfg_file = run.folder / "run.yaml"
    cfg_file.write_text(run.cfg.dump(), encoding="utf-8")
    command = [*TRAIN, "--config-file", cfg_file]
    command += ["--eval-only"] if run.weights else ["--resume"]
    options = ["OUTPUT_DIR", run.folder] + (["MODEL.WEIGHTS", run.weights] if run.weights else [])
    begin = time.monotonic()
    counted = 0
    with _alone(run.folder, bar) as lock, (run.folder / LOG).open("ab") as log:
        start = log.tell()
        process = subprocess.Popen(
            [*map(str, [*command, *options])], stdout=log, stderr=log, pass_fds=[lock]
        )
        try:
            while True:
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
                done = min(_iterations_done(run.folder), run.iterations)
                bar.update(done - counted)
                counted = done
                if ended:
                    break
                time.sleep(POLL)
        except BaseException:
            process.terminate()  # it saves
            process.wait()
            raise
    process.returncode = code = os.waitstatus_to_exitcode(status)
    if code == os.EX_TEMPFAIL:
        raise Preempted
    bar.update(run.iterations - counted)
    text = (run.folder / LOG).read_bytes()[start:].decode(errors="replace")
    write_json(run.folder / RESULT, {
        "metrics": _metrics(run) if code == 0 else {},
        "error": None if code == 0 else _reason(code, text),
        "seconds": time.monotonic() - begin,
        "peak_memory_gb": usage.ru_maxrss * 1024 / 1e9,
    })  # fmt: skip


@contextmanager
def _alone(folder: Path, bar: Progress):
    """Wait for a process of an earlier call that still works in the folder."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            bar.set_postfix_str("an earlier call's process is still at it; waiting for its end")
            fcntl.flock(lock, fcntl.LOCK_EX)
            bar.set_postfix_str("")
        yield lock.fileno()


def _config(row: Row, data: str, seed: int, config_file: str, overrides: Sequence[str]) -> CfgNode:
    fixed = {
        "DATASETS.TRAIN": (f"{data}_train",),
        "DATASETS.TEST": (f"{data}_test",),
        # Nothing may be chosen by the test set; tables hold the last model of each run.
        "TEST.SAVE_BEST": False,
        "SEED": seed,
        "OUTPUT_DIR": "",
    }
    changes = [part for item in (fixed | row.overrides).items() for part in item]
    return load_config(config_file, [*overrides, *map(str, changes)])


def _iterations_done(folder: Path) -> int:
    path = folder / "metrics.json"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in reversed(lines):
        if found := re.search(r'"iteration": (\d+)', line):
            return int(found[1]) + 1
    return 0


def _metrics(run: Run) -> dict[str, float | None]:
    name, (task, _) = f"{run.data}_test", headline(run.data)
    path = run.folder / "inference" / name / f"{name}_{task}.json"
    return json.loads(path.read_text(encoding="utf-8"))["metrics"]


def _reason(code: int, text: str) -> str:
    """Why a run failed, in a line."""
    if code < 0:
        return f"killed by signal {-code}; memory may have run out"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {code}"
