import json
import math

import av
import cv2
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import nn

from qdformer.data.dataset_mapper import AVSDatasetMapper
from qdformer.engine.quickstart import show
from qdformer.engine.sound_comparison import RIGHT, WRONG, compare_sounds, save, table
from qdformer.evaluation.language_evaluation import MEASURES
from qdformer.io.image import read_label_map
from tests.samples import small_config

NAME = "tiny_avss_test"


class Listener(nn.Module):
    """Knows the ground truth of every sound, and sees nothing in a sound it does not know."""

    def __init__(self, cfg):
        super().__init__()
        self.known = []
        for record in DatasetCatalog.get(NAME):
            maps = [
                read_label_map(name, record["label_format"])
                for name in record["sem_seg_file_names"]
            ]
            clip = AVSDatasetMapper(cfg, False)(record)
            self.known.append((clip["audio"], torch.stack([torch.from_numpy(m) for m in maps])))

    def forward(self, clips):
        outputs = []
        for clip in clips:
            empty = torch.zeros(
                len(clip["image"]), clip["height"], clip["width"], dtype=torch.uint8
            )
            found = [maps for audio, maps in self.known if torch.equal(audio, clip["audio"])]
            sem_seg = found[0] if found else empty
            outputs.append(
                {"sem_seg": sem_seg, "foreground": (sem_seg > 0).float(), "local_codes": None}
            )
        return outputs


@pytest.fixture
def cfg(composed, tmp_path):
    DatasetCatalog.get(NAME)
    classes = len(MetadataCatalog.get(NAME).stuff_classes) - 1
    cfg = small_config(
        "DATASETS.TEST", (NAME,), "OUTPUT_DIR", str(tmp_path), "DATALOADER.NUM_WORKERS", 0,
        "MODEL.QDFORMER.NUM_CLASSES", classes,
        "INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 64,
    )  # fmt: skip
    cfg.freeze()
    return cfg


def test_a_model_that_listens_is_right_with_the_right_sound_only(cfg):
    comparison = compare_sounds(cfg, Listener(cfg), snrs=[-20.0])
    scores = (results["avs_semantic"] for results in comparison.values())
    right, silence, white, other, noise = scores
    assert list(comparison) == [RIGHT, *WRONG, "noise at -20 dB"]
    assert right["mIoU"] == right["foreground_mIoU"] == pytest.approx(100)
    assert silence["foreground_mIoU"] == noise["foreground_mIoU"] == white["foreground_mIoU"] == 0
    assert silence["foreground_share"] == 0 < right["foreground_share"]
    assert other["foreground_mIoU"] < 60


def test_the_table_says_what_was_measured(cfg, tmp_path):
    comparison = compare_sounds(cfg, Listener(cfg))
    lines = table(comparison, NAME).splitlines()
    share = f"{comparison[RIGHT]['avs_semantic']['foreground_share']:.1f}"
    assert lines[1].split() == ["right", "sound", "100.0", "100.0", share]
    assert len(lines) == 5
    comparison[RIGHT]["language"] = dict.fromkeys(MEASURES, math.nan) | {"local_cosine": 0.91}
    lines = table(comparison, NAME).splitlines()
    line = next(line for line in lines if "cosine of a local" in line)
    assert line.split()[-1] == "0.91"
    save(comparison, tmp_path / "sounds.json")
    saved = json.loads((tmp_path / "sounds.json").read_text())[RIGHT]
    assert saved["language"]["local_cosine"] == 0.91 and saved["language"]["purity"] is None
    assert saved["avs_semantic"]["mIoU"] == pytest.approx(100)


def test_pictures_and_a_video_with_its_sound(cfg, tmp_path):
    files = show(cfg, Listener(cfg), tmp_path / "shown")
    assert all(file.stat().st_size for file in files)
    (video,) = [file for file in files if file.suffix == ".mp4"]
    with av.open(str(video)) as container:
        assert {stream.type for stream in container.streams} == {"video", "audio"}
        assert container.duration / av.time_base == pytest.approx(3, abs=0.1)
    assert all(cv2.imread(str(file)) is not None for file in files if file.suffix == ".png")
