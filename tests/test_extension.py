"""What Detectron2 leaves open is open here: by a module of one's own, and from one's own script."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model

import qdformer
from qdformer import AudioVisualPredictor, add_qdformer_config, register_avs_dataset
from qdformer.commands import demo
from qdformer.data.datasets.avsbench import load_avs
from qdformer.engine.trainer import Trainer
from qdformer.errors import InputError
from tests.samples import SMALL, small_config

ROOT = Path(__file__).parents[1]

OWN = (
    "MODEL.META_ARCHITECTURE", "OwnQDFormer", "MODEL.BACKBONE.NAME", "build_own_backbone",
    "MODEL.OWN.WIDTH", 12, "MODEL.QDFORMER.NUM_CLASSES", 0, "INPUT.MAPPER", "OwnMapper",
    "DATALOADER.SAMPLER_TRAIN", "in_order", "SOLVER.LR_SCHEDULER_NAME", "halving",
    "DATASETS.TRAIN", "('own_train',)", "DATASETS.TEST", "('own_test',)",
    "SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0,
    "SOLVER.BASE_LR", 0.001, "TEST.EVAL_PERIOD", 2, "TEST.NUM_SHEETS", 0,
    "INPUT.MAX_SIZE_TRAIN", 64, "INPUT.MAX_SIZE_TEST", 64,
)  # fmt: skip


def test_a_module_of_ones_own_trains_through_train_net(composed, tmp_path):
    command = [sys.executable, ROOT / "projects/QDFormer/train_net.py", "--import"]
    command += ["tests.extension", *SMALL, *OWN, "OUTPUT_DIR", tmp_path]
    environment = os.environ | {"OWN_CLIPS": str(composed), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "metrics.json").read_text().splitlines()
    logged = {key: value for line in lines for key, value in json.loads(line).items()}
    assert logged["own/clips"] == 3
    assert logged["loss_own"] > 0
    # Detectron2 logs the rate after its step.
    assert logged["lr"] in (pytest.approx(0.0005), pytest.approx(0.00025))
    assert torch.load(tmp_path / "model_final.pth")["model"]["backbone.stem.weight"].shape[0] == 12
    assert (tmp_path / "model_best.safetensors").exists()


@pytest.mark.parametrize("name", ["no.such.module", "./good", ".good", "", "good.py"])
def test_a_module_that_is_not_there_is_named(name):
    with pytest.raises(SystemExit, match=f"--import is {name!r}"):
        demo.main(["--import", name, "--input", "a.mp4"])


def test_a_script_of_ones_own_trains_on_a_set_of_ones_own(composed, tmp_path):
    """The classes of NUM_CLASSES 0 are the data set's, without train_net.py, too."""
    records = load_avs(composed, "avss", "train")
    register_avs_dataset("script_train", records, ["bell", "drum", "siren"])
    cfg = small_config(
        "MODEL.QDFORMER.NUM_CLASSES", 0, "DATASETS.TRAIN", ("script_train",), "DATASETS.TEST", (),
        "OUTPUT_DIR", str(tmp_path), "SOLVER.MAX_ITER", 1, "SOLVER.IMS_PER_BATCH", 2,
        "DATALOADER.NUM_WORKERS", 0, "INPUT.MAX_SIZE_TRAIN", 64,
    )  # fmt: skip
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert not (tmp_path / "skipped_clips.txt").exists()
    register_avs_dataset("broken_train", [{"video_id": "a"}], ["bell"])
    cfg.DATASETS.TRAIN = ("broken_train",)
    with pytest.raises(InputError, match="'broken_train': its clip a has no file_names"):
        Trainer(cfg)


def test_the_defaults_alone_can_be_built():
    cfg = get_cfg()
    add_qdformer_config(cfg)
    assert cfg.MODEL.QDFORMER.NUM_CLASSES == 0
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    assert model.mask_decoder.class_head[-1].out_features == 70


def test_the_package_names_what_users_import():
    assert AudioVisualPredictor.__module__ == "qdformer.predictor"
    for name in qdformer.__all__:
        assert getattr(qdformer, name)
    with pytest.raises(AttributeError, match="no attribute 'Predictor'.*AudioVisualPredictor"):
        qdformer.Predictor  # noqa: B018


TOO_MANY = [f"c{k}" for k in range(255)]


@pytest.mark.parametrize(
    "classes", [[], ["a", "a"], ["background"], "dog", {"a", "b"}, [1], [""], TOO_MANY]
)
def test_classes_that_cannot_be(classes):
    with pytest.raises(InputError, match="'odd_classes'.*give a list of at least one"):
        register_avs_dataset("odd_classes", [], classes)


def test_a_name_is_registered_once(composed):
    with pytest.raises(InputError, match="tiny_avss_test.* is registered already"):
        register_avs_dataset("tiny_avss_test", [], ["a"])
