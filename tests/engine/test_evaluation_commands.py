"""A trained model's masks and its table of sounds, by the commands."""

import json

import pytest

from qdformer.checkpoint.metadata import read_metadata
from qdformer.commands import compare_sounds, train_net
from qdformer.evaluation.saved_predictions import score_predictions
from tests.videos import save_described

NAME = "tiny_avss_test"


@pytest.fixture
def arguments(composed, tmp_path):
    """Of a model that nobody trained and that is confident of what it says."""
    weights = save_described(
        tmp_path / "model.safetensors", "MODEL.QDFORMER.CLASS_THRESHOLD", 0.005
    )
    cfg, _ = read_metadata(str(weights))
    cfg.DATASETS.TEST = (NAME,)
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    config = tmp_path / "config.yaml"
    config.write_text(cfg.dump())
    return ["--config-file", str(config), "MODEL.WEIGHTS", str(weights)]


def test_saved_masks_score_as_the_model_did(arguments, tmp_path):
    train_net.main(["--eval-only", "--save-predictions", *arguments])
    folder = tmp_path / "output" / "inference" / NAME
    said = json.loads((folder / f"{NAME}_avs_semantic.json").read_text())["metrics"]
    found = score_predictions(NAME, folder / "masks")["avs_semantic"]
    assert {name: found[name] for name in said} == pytest.approx(said)


def test_sounds_are_compared_for_any_model(arguments, tmp_path, capsys):
    compare_sounds.main(["--snr", "0", "-10", *arguments])
    saved = json.loads((tmp_path / "output" / "sounds.json").read_text())
    assert [*saved][4:] == ["noise at 0 dB", "noise at -10 dB"]
    shown = capsys.readouterr().out
    for sound, results in saved.items():
        (line,) = [line for line in shown.splitlines() if line.startswith(sound)]
        assert float(line.split()[-3]) == pytest.approx(results["avs_semantic"]["mIoU"], abs=0.06)
