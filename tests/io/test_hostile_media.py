"""Damaged and hostile files; `break_media.py` is the long version of the first test."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from detectron2.utils.events import EventStorage
from PIL import Image

from qdformer.data.dataset_mapper import AVSDatasetMapper
from qdformer.errors import InputError
from qdformer.synthetic.assets import AssetFolders
from qdformer.synthetic.composer import ComposeOptions, compose
from tests.io.break_media import READERS, tally
from tests.io.hostile_media import damaged, hostile_files, mend_checksums, put
from tests.io.valid_media import sound_file, valid_files
from tests.samples import small_config, small_model

NUMBERS = {"mapper and model": 0, "mapper": 60, "assets": 60}


def test_every_input_ends_in_a_result_or_a_refusal_that_names_it():
    ranges = {name: range(NUMBERS.get(name, 45)) for name in READERS}
    for name, counts in tally(0, {name: r for name, r in ranges.items() if r}).items():
        assert not counts.failures
        assert counts.ends["results"] and counts.ends["refusals"], name
        assert sum(counts.ends.values()) == len(ranges[name])
        assert counts.growth < 1000  # MB


def test_damage_depends_on_the_seed_alone():
    for kind in ("image", "sound", "log-mel"):
        for seed in range(20):
            first, second = (damaged(kind, np.random.default_rng(seed)) for _ in range(2))
            assert first == second


def test_checksums_of_whole_files_are_right_already():
    for kind in ("image", "sound"):
        for name, data in valid_files(kind).items():
            assert mend_checksums(bytearray(data)) == data, name


@pytest.fixture(scope="module")
def network():
    return small_model("MODEL.QDFORMER.NUM_CLASSES", 11, "TEST.WINDOW", 100)


SOUNDS = {
    "silence": np.zeros(1),
    "one sample": np.ones(1),
    "dc": np.ones(90000),
    "greatest": np.tile([3e38, -3e38], 9000),
}
CLIPS = {
    "one pixel": {"size": (1, 1)},
    "one row": {"size": (1, 400)},
    "one frame": {"frames": 1},
    "many frames": {"frames": 300, "size": (32, 32)},
    "no object": {"labels": lambda size: np.zeros(size)},
    "ignored": {"labels": lambda size: np.full(size, 255)},
    "all foreground": {"labels": np.ones},
    "more objects than tokens": {"labels": lambda size: np.arange(size[0] * size[1]) % 12},
    **{name: {"sound": sound} for name, sound in SOUNDS.items()},
}


def record(folder, frames=2, size=(32, 48), labels=np.ones, sound=SOUNDS["dc"]):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "frame.png")
    Image.fromarray(labels(size).astype(np.uint8).reshape(size)).save(folder / "mask.png")
    put(sound_file(sound, "FLOAT"), folder / "sound.wav")
    return {
        "file_names": [str(folder / "frame.png")] * frames,
        "sem_seg_file_names": [str(folder / "mask.png")] * frames,
        "audio_file_name": str(folder / "sound.wav"),
        "label_format": "index",
        "video_id": "clip",
        "height": size[0],
        "width": size[1],
    }


@pytest.mark.parametrize("name", CLIPS)
def test_the_network_trains_on_and_segments_every_clip(tmp_path, network, name):
    clip = record(tmp_path, **CLIPS[name])
    cfg = small_config("MODEL.QDFORMER.NUM_CLASSES", 11, "INPUT.MIN_SIZE_TRAIN", (0,))
    cfg.INPUT.MIN_SIZE_TEST = 0
    with EventStorage():
        losses = network.train()([AVSDatasetMapper(cfg, is_train=True)(clip)])
    assert all(loss.isfinite() for loss in losses.values())
    with torch.no_grad():
        (result,) = network.eval()([AVSDatasetMapper(cfg, is_train=False)(clip)])
    expected = (len(clip["file_names"]), clip["height"], clip["width"])
    assert result["sem_seg"].shape == expected and result["foreground"].isfinite().all()


HOSTILE_ASSETS = {
    "cutouts/a/opaque.png": lambda path: Image.new("RGB", (4, 4)).save(path),
    "cutouts/a/clear.png": lambda path: Image.new("RGBA", (4, 4)).save(path),
    "cutouts/a/great.png": hostile_files("image")["8192x8193.png"],
    "cutouts/a/scans.png": hostile_files("image")["many_scans.jpg"],
    "sounds/a/nan.wav": hostile_files("sound")["nan.wav"],
    "sounds/a/pipe.wav": hostile_files("sound")["pipe.wav"],
    "sounds/a/one_sample.wav": hostile_files("sound")["one_sample.wav"],
    "sounds/a/silence.wav": hostile_files("sound")["silence.wav"],
    "sounds/a/greatest.wav": hostile_files("sound")["greatest.wav"],
}


def compose_with(folder, files) -> Path:
    for kind in ("cutouts/a", "sounds/a"):
        (folder / kind).mkdir(parents=True)
    Image.new("RGBA", (1, 1), (9, 9, 9, 255)).save(folder / "cutouts/a/pixel.png")
    soundfile.write(folder / "sounds/a/click.wav", np.full(200, 0.5), 16000)
    for name, content in files.items():
        put(content, folder / name)
    assets = AssetFolders(cutouts=folder / "cutouts", sounds=folder / "sounds")
    options = {"frames": 1, "size": 16, "sources": (1, 1), "clips": {"train": 1}, "workers": 1}
    return compose(ComposeOptions(output=folder / "out", folders=assets, **options))


def test_the_composer_takes_the_least_that_can_be_seen_and_heard(tmp_path):
    assert list(compose_with(tmp_path, {}).rglob("labels_semantic/*.png"))


@pytest.mark.parametrize("name", HOSTILE_ASSETS)
def test_the_composer_names_the_asset_and_writes_nothing(tmp_path, name):
    with pytest.raises(InputError) as caught:
        compose_with(tmp_path, {name: HOSTILE_ASSETS[name]})
    assert str(tmp_path / name) in str(caught.value)
    assert not list(tmp_path.rglob("*.csv"))
