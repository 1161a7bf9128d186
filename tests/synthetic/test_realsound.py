import csv
from dataclasses import replace

import cv2
import numpy as np
import pytest
import soundfile
from detectron2.data import DatasetCatalog, MetadataCatalog

from qdformer.commands import compose_realsound as command
from qdformer.engine.setup import register_roots
from qdformer.errors import InputError
from qdformer.synthetic import realsound
from qdformer.synthetic.realsound import (
    CLASSES,
    NOISE,
    SPLITS,
    compose_realsound,
    libraries_of_clones,
    libraries_of_tree,
)


@pytest.fixture(scope="module")
def clones(tmp_path_factory):
    """Stand-ins for ESC-50 and noto-emoji: a short recording for each fold, pictures of 16 px."""
    esc50, emoji = tmp_path_factory.mktemp("ESC-50"), tmp_path_factory.mktemp("noto-emoji")
    (esc50 / "audio").mkdir()
    (esc50 / "meta").mkdir()
    rng, rows = np.random.default_rng(0), []
    categories = [*(category for category, *_ in CLASSES.values()), *NOISE, "mouse_click"]
    for target, category in enumerate(categories):
        for fold in range(1, 6):
            name = f"{fold}-{100 * target + fold}-A-{target}.wav"
            soundfile.write(esc50 / "audio" / name, 0.3 * rng.standard_normal(24000), 16000)
            rows.append({"filename": name, "fold": fold, "target": target, "category": category})
    with open(esc50 / "meta" / "esc50.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    (emoji / "png" / "128").mkdir(parents=True)
    picture = rng.integers(0, 256, (16, 16, 4), dtype=np.uint8)
    picture[..., 3] = 255
    for _, *codes in CLASSES.values():
        for code in codes:
            cv2.imwrite(str(emoji / "png" / "128" / f"emoji_u{code}.png"), picture)
    return esc50, emoji


def test_no_recording_is_in_two_splits_and_every_class_is_in_all(clones):
    libraries = libraries_of_clones(*clones)
    assert list(libraries) == list(SPLITS)
    heard = {}
    for split, library in libraries.items():
        assert list(library.sounds) == list(library.cutouts) == list(CLASSES)
        files = [asset for assets in library.sounds.values() for asset in assets]
        files += library.noise
        heard[split] = {asset.path for asset in files}
        assert len(heard[split]) == (len(CLASSES) + len(NOISE)) * len(SPLITS[split])
        for asset in files:
            assert int(asset.path.name[0]) in SPLITS[split]
        assert all(len(library.cutouts[n]) == len(codes) - 1 for n, codes in CLASSES.items())
    assert not heard["train"] & heard["val"] and not heard["train"] & heard["test"]


def few(monkeypatch):
    clips = {"train": 3, "val": 2, "test": 1}
    small = {name: replace(chosen, clips=clips) for name, chosen in realsound.SETS.items()}
    monkeypatch.setattr(realsound, "SETS", small)


def test_the_command_composes_sets_that_can_be_trained_on(clones, tmp_path, monkeypatch, capsys):
    few(monkeypatch)
    esc50, emoji = map(str, clones)
    given = ["--esc50", esc50, "--noto-emoji", emoji, "--workers", "1", "--output", str(tmp_path)]
    command.main(given)
    assert "realsound_multi_ms3_val" in capsys.readouterr().out
    register_roots([str(tmp_path / name) for name in ("realsound", "realsound_multi")])
    records = DatasetCatalog.get("realsound_avss_train")
    assert len(records) == 3 and len(records[0]["file_names"]) == 5
    metadata = MetadataCatalog.get("realsound_avss_train")
    assert metadata.stuff_classes == ["background", *CLASSES]
    assert len(DatasetCatalog.get("realsound_multi_ms3_test")) == 1
    assert len(list((tmp_path / "realsound_single").rglob("*.wav"))) == 3 + 2 + 1


def test_everybody_writes_the_same_bytes(clones, tmp_path, monkeypatch):
    few(monkeypatch)
    libraries = libraries_of_clones(*clones)
    files = []
    for name, workers in (("a", 1), ("b", 2)):
        compose_realsound(tmp_path / name, libraries, ["avss"], workers)
        root = tmp_path / name
        files.append({p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()})
    assert files[0] == files[1] and len(files[0]) > 6 * 11


def test_a_tree_without_the_test_fold_has_no_test_split(clones, tmp_path):
    libraries = libraries_of_clones(*clones)
    for kind, names in (("sounds", CLASSES), ("cutouts", CLASSES), ("noise", NOISE)):
        for name in names:
            (tmp_path / kind / name).mkdir(parents=True)
    for split in ("train", "val"):
        library = libraries[split]
        for name in CLASSES:
            for asset in (*library.sounds[name], *library.cutouts[name]):
                target = tmp_path / asset.kind / name / asset.path.name
                target.write_bytes(asset.path.read_bytes())
        for index, asset in enumerate(library.noise):
            folder = tmp_path / "noise" / NOISE[index % len(NOISE)]
            (folder / asset.path.name).write_bytes(asset.path.read_bytes())
    found = libraries_of_tree(tmp_path)
    assert list(found) == ["train", "val"]
    for split, library in found.items():
        expected = libraries[split].sounds
        for name, assets in library.sounds.items():
            assert {a.path.name for a in assets} == {a.path.name for a in expected[name]}


def test_what_is_missing_is_named(clones, tmp_path):
    with pytest.raises(InputError, match="esc50.csv: is not there"):
        libraries_of_clones(tmp_path, clones[1])
    with pytest.raises(InputError, match="emoji_u1f6e9.png: is not there"):
        libraries_of_clones(clones[0], tmp_path)
    with pytest.raises(SystemExit, match="--noto-emoji"):
        command.main(["--output", str(tmp_path)])
    with pytest.raises(InputError, match="no set 'triple'; choose among single, multi, avss"):
        compose_realsound(tmp_path, {}, ["triple"], 1)
