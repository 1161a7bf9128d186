"""A wheel, installed in a fresh environment away from the checkout, does all of it."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest

from qdformer.video.writer import write_video
from tests.samples import SMALL

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow

RUN = (
    *SMALL, "MODEL.QDFORMER.NUM_CLASSES", 0, "SOLVER.MAX_ITER", 10, "SOLVER.IMS_PER_BATCH", 2,
    "DATALOADER.NUM_WORKERS", 0, "TEST.NUM_SHEETS", 0, "DATASETS.AVS_ROOTS", "('clips',)",
    "DATASETS.TRAIN", "('clips_avss_train',)", "DATASETS.TEST", "('clips_avss_test',)",
)  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Runs a command of the environment in an empty folder."""
    folder = tmp_path_factory.mktemp("installed")
    # pip would take the checkout for what is to be installed.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run([*pip, *map(str, build)], check=True, env=environment, cwd=folder)
    (wheel,) = folder.glob("qdformer-*.whl")
    venv.create(folder / "venv", with_pip=False)
    scripts = folder / "venv" / "bin"
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    # What the package stands on is there already; of this checkout nothing is.
    (site / "below.pth").write_text(sysconfig.get_path("purelib"))
    target = ["--python", scripts / "python", "install", "--no-deps", "--no-index", wheel]
    subprocess.run([*pip, *map(str, target)], check=True, env=environment, cwd=folder)

    def run(*arguments):
        done = subprocess.run(
            [str(scripts / arguments[0]), *map(str, arguments[1:])],
            cwd=folder, env=environment | {"DETECTRON2_DATASETS": str(folder)},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return folder, run


def test_it_composes_trains_evaluates_predicts_and_reproduces(installed):
    folder, run = installed
    where = run("python", "-c", "import qdformer; print(qdformer.__file__)")
    assert where.startswith(str(folder / "venv"))
    run("qdformer", "compose", "--output", "clips", "--clips", "train=4,test=2", "--size", 64,
        "--frames", 3, "--classes", "bell,drum,siren", "--sources", "1-2")  # fmt: skip
    run("qdformer", "train", "--config-file", "quickstart.yaml", *RUN, "OUTPUT_DIR", "run")
    trained = ("MODEL.WEIGHTS", "run/model_final.safetensors", "OUTPUT_DIR", "again")
    run("qdformer", "eval", "--config-file", "quickstart.yaml", *RUN, *trained)
    name = "inference/clips_avss_test/clips_avss_test_avs_semantic.json"
    first, second = (json.loads((folder / at / name).read_text()) for at in ("run", "again"))
    assert first["metrics"] == second["metrics"]

    frames = (np.full((48, 64, 3), 30 * k, np.uint8) for k in range(3))
    write_video(folder / "film.mp4", frames, 1.0, np.zeros(48000, np.float32))
    run("qdformer", "predict", "--input", "film.mp4", "--weights", "run/model_final.safetensors",
        "--output", "out")  # fmt: skip
    assert (folder / "out/film.mp4/overlay.mp4").stat().st_size

    run("qdformer", "reproduce", "figA", "--data", "clips_avss", "--config-file",
        "quickstart.yaml", "--output", "tables", *RUN)  # fmt: skip
    assert (folder / "tables/figA/report.html").exists() or list(
        (folder / "tables").glob("**/*.html")
    )


def test_without_detectron2_the_message_names_a_command_of_the_wheel(installed):
    _, run = installed
    program = (
        "import importlib.util as u, qdformer.dependencies as d; print(d._detectron2_installer())"
    )
    assert run("python", "-c", program).strip() == "-m qdformer_install.detectron2_wheel"
    assert "Detectron2 0.6" in run("python", "-m", "qdformer_install.detectron2_wheel", "--help")
