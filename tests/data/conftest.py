"""Small trees in AVSBench's layouts: a few clips of 24 x 16 pixels, with sound."""

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from qdformer.data.datasets.classes import AVSS_CLASSES
from qdformer.io.palette import class_palette

HEIGHT, WIDTH = 16, 24
RATE = 16000


def _save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _save_frame(path, number):
    # jpg keeps a flat picture within a gray level or two, so a frame's number can be read off it.
    _save(path, np.full((HEIGHT, WIDTH, 3), 20 * number, np.uint8))


def _save_sound(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * RATE))
    soundfile.write(path, samples, RATE)


def _save_log_mel(path, num_examples):
    path.parent.mkdir(parents=True, exist_ok=True)
    # As released: float64 turned into float32, with a gradient attached.
    examples = torch.arange(num_examples, dtype=torch.float64)[:, None, None].expand(-1, 96, 64)
    with open(path, "wb") as file:
        pickle.dump(examples.clone().requires_grad_()[:, None].float(), file)


def _save_table(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(","), *rows])


def _half(value):
    """A mask whose left half is ``value``."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, : WIDTH // 2] = value
    return mask


@pytest.fixture
def avsbench_tree_s4(tmp_path) -> Path:
    """S4: two training clips with one mask each, one validation and one test clip with five."""
    base = tmp_path / "Single-source"
    rows = [
        ("-a_1", 0, "dog_barking", "train"),
        ("b_2", 3, "race_car", "train"),
        ("c", 0, "dog_barking", "val"),
        ("d", 0, "race_car", "test"),
    ]
    _save_table(base / "s4_meta_data.csv", "name,start,category,split", rows)
    for name, _, category, split in rows:
        where = f"{split}/{category}/{name}"
        for k in range(1, 6):
            _save_frame(base / f"s4_data/visual_frames/{where}/{name}_{k}.png", k)
            if k == 1 or split != "train":
                _save(base / f"s4_data/gt_masks/{where}/{name}_{k}.png", _half(255))
        _save_sound(base / f"s4_data/audio_wav/{where}.wav", 5)
    return tmp_path


@pytest.fixture
def avsbench_tree_ms3(tmp_path) -> Path:
    """MS3: one clip a split, with released log-mel instead of sound in train."""
    base = tmp_path / "Multi-sources"
    rows = [("x_1_y", "train"), ("v", "val"), ("t", "test")]
    _save_table(base / "ms3_meta_data.csv", "video_id,split", rows)
    for name, split in rows:
        for k in range(1, 6):
            _save_frame(base / f"ms3_data/visual_frames/{name}/{name}.mp4_{k}.png", k)
            _save(base / f"ms3_data/gt_masks/{split}/{name}/{name}_{k}.png", _half(255))
        if split == "train":
            _save_log_mel(base / f"ms3_data/audio_log_mel/{split}/{name}.pkl", 5)
        else:
            _save_sound(base / f"ms3_data/audio_wav/{split}/{name}.wav", 5)
    return tmp_path


@pytest.fixture
def avsbench_tree_avss(tmp_path) -> Path:
    """AVSS: v1s (one mask) and v2 in train, v1m in val, v2 in test; both kinds of masks."""
    base = tmp_path / "AVSBench_semantic"
    rows = [
        ("p", "p_q_0_5000", 0, 0, "dog", "train", "v1s"),
        ("r", "r_0_10000", 0, 0, "car", "train", "v2"),
        ("s", "s_0_5000", 0, 0, "cat_dog", "val", "v1m"),
        ("t", "t_5000_15000", 0, 5, "violin", "test", "v2"),
    ]
    _save_table(base / "metadata.csv", "vid,uid,s_min,s_sec,a_obj,split,label", rows)
    (base / "label2idx.json").write_text(json.dumps({n: i for i, n in enumerate(AVSS_CLASSES)}))
    for _, uid, _, _, objects, split, subset in rows:
        mask = _half(AVSS_CLASSES.index(objects.split("_")[0]))
        num_frames = 10 if subset == "v2" else 5
        for i in range(num_frames):
            clip = base / subset / uid
            _save_frame(clip / f"frames/{i}.jpg", i)
            if i == 0 or not (subset == "v1s" and split == "train"):
                _save(clip / f"labels_semantic/{i}.png", mask)
                _save(clip / f"labels_rgb/{i}.png", class_palette(71)[mask])
        _save_sound(clip / "audio.wav", num_frames)
    return tmp_path
