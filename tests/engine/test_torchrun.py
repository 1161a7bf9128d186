"""Two processes that torchrun starts, on gloo."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qdformer.checkpoint.checkpointer import AVSCheckpointer
from qdformer.engine.processes import join_processes
from qdformer.engine.trainer import Trainer
from qdformer.errors import InputError
from tests.engine.training import config

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "projects" / "QDFormer" / "train_net.py")
EXTENSION = """
import os, signal, time
from qdformer.data.dataset_mapper import MAPPER_REGISTRY, AVSDatasetMapper

@MAPPER_REGISTRY.register()
class Mortal(AVSDatasetMapper):
    \"\"\"Of two processes the second dies in its fifth step, once.\"\"\"

    read = 0

    def __call__(self, record):
        Mortal.read += 1
        first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if first and os.environ["RANK"] == "1" and Mortal.read == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(record)

@MAPPER_REGISTRY.register()
class Slow(AVSDatasetMapper):
    \"\"\"Tests take for ever.\"\"\"

    def __call__(self, record):
        if not self.is_train:
            print("evaluating", flush=True)
            time.sleep(600)
        return super().__call__(record)
"""


@pytest.fixture
def start(composed, tmp_path):
    """Starts a training of the tiny set; returns the process and its config."""
    (tmp_path / "mortal.py").write_text(EXTENSION)

    def run(name, *overrides):
        cfg = config(
            tmp_path / name, "tiny", "SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 2,
            "SOLVER.IMS_PER_BATCH", 2, "DATASETS.AVS_ROOTS", (str(composed),), *overrides,
        )  # fmt: skip
        file = tmp_path / f"{name}.yaml"
        file.write_text(cfg.dump())
        command = ["-m", "torch.distributed.run", "--standalone", "--max-restarts", 1]
        command += ["--nproc-per-node", 2, SCRIPT, "--import", "mortal"]
        command += ["--config-file", file]
        paths = os.pathsep.join([str(ROOT), str(tmp_path)])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        return cfg, subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip

    return run


def finish(process):
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
def test_a_killed_process_costs_nothing_and_evaluations_agree_to_the_last_bit(start):
    cfg, process = start("whole")
    finish(process)
    mortal, process = start("killed", "INPUT.MAPPER", "Mortal")
    output = finish(process)
    assert re.search(r"SIGKILL|Signal 9|exitcode: -9", output), output
    states = [
        torch.load(Path(c.OUTPUT_DIR, "model_final.pth"), weights_only=True)["model"]
        for c in (cfg, mortal)
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())

    def results_of(run):
        files = sorted(Path(run.OUTPUT_DIR, "inference").rglob("*.json"))
        assert files
        return [json.loads(file.read_text()) for file in files]

    # Both of the run's processes evaluated its last weights, and so does this one.
    alone = cfg.clone()
    alone.defrost()
    alone.OUTPUT_DIR = f"{cfg.OUTPUT_DIR}_alone"
    model = Trainer.build_model(alone)
    AVSCheckpointer(model, complete=True).load(f"{cfg.OUTPUT_DIR}/model_final.safetensors")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    Trainer.test(alone, model)
    torch.set_num_threads(threads)
    assert results_of(cfg) == results_of(alone)


@pytest.mark.slow
def test_a_signal_to_the_launcher_ends_all_of_them_in_an_evaluation(start):
    cfg, process = start("stopped", "INPUT.MAPPER", "Slow", "TEST.EVAL_PERIOD", 3)
    for line in process.stdout:
        if "evaluating" in line:
            break
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    # torchrun kills who does not end by itself in half a minute, and says so.
    assert process.returncode != 0 and "SIGKILL" not in output, output
    state = torch.load(Path(cfg.OUTPUT_DIR, "model_0000002.pth"), weights_only=True)
    assert state["iteration"] == 2


def test_what_a_launcher_did_not_set_is_named(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="LOCAL_RANK, .*MASTER_PORT: not set; start with torchrun"):
        with join_processes("cpu"):
            pass


def test_a_number_that_is_none_is_named(monkeypatch):
    values = {"RANK": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2",
              "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "abc"}  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="RANK x, MASTER_PORT abc: no number"):
        with join_processes("cpu"):
            pass
