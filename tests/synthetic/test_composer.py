import csv
import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from qdformer.audio.log_mel import clip_log_mel
from qdformer.commands import compose_avs
from qdformer.errors import InputError
from qdformer.synthetic import composer as compose_module
from qdformer.synthetic.assets import AssetFolders
from qdformer.synthetic.composer import ComposeOptions, compose
from qdformer.synthetic.sounds import SOUND_CLASSES


def options(root, **changes):
    small = ComposeOptions(
        root, size=32, frames=2, clips={"train": 3, "val": 2, "test": 2}, workers=1
    )
    return replace(small, **changes)


def contents(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    root = tmp_path_factory.mktemp("composed") / "data"
    clips = {"train": 2, "val": 2, "test": 2}
    return compose(options(root, layouts=("s4", "ms3", "avss"), frames=5, clips=clips))


def test_the_same_seed_writes_the_same_bytes_whatever_the_workers(tmp_path):
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    compose(options(one, seed=7))
    compose(options(two, seed=7, workers=2))
    compose(options(other, seed=8))
    assert contents(one) == contents(two)
    assert contents(one).keys() == contents(other).keys()
    frame = "AVSBench_semantic/v2/train00000_0_2000/frames/0.jpg"
    assert contents(one)[frame] != contents(other)[frame]


def test_clips_differ_between_splits_and_numbers(composed):
    frames = [path.read_bytes() for path in composed.rglob("frames/0.jpg")]
    assert len(set(frames)) == len(frames) == 6


@pytest.mark.parametrize("layouts", [("s4", "ms3"), ("avss",)])
def test_an_interrupted_run_continues_to_the_same_bytes(tmp_path, monkeypatch, layouts):
    whole = compose(options(tmp_path / "whole", layouts=layouts))
    begun, written = options(tmp_path / "begun", layouts=layouts), []

    def write_three(root, partial, *others):
        if len(written) == 3:
            (partial / "frames").mkdir(parents=True)
            raise KeyboardInterrupt
        written.append(partial)
        write_clip(root, partial, *others)

    write_clip = compose_module.write_clip
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(compose_module, "write_clip", write_three)
        compose(begun)
    before = {path: path.stat().st_mtime_ns for path in begun.output.rglob("*.wav")}
    assert len(before) == 3 and not list(begun.output.rglob("*.csv"))
    compose(begun)
    assert contents(begun.output) == contents(whole)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_finished_clips_are_not_written_again(tmp_path, monkeypatch):
    root = compose(options(tmp_path / "data"))
    before = contents(root)
    monkeypatch.setattr(compose_module, "write_clip", None)
    assert contents(compose(options(root))) == before


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"size": 48}, r"was composed with size 32 \(now 48\)"),
        ({"seed": 3}, r"seed 0 \(now 3\)"),
        ({"snr": None}, r"snr 20.0 \(now None\)"),
        ({"clips": {"train": 3}}, r"clips {.*} \(now {'train': 3}\)"),
        ({"classes": SOUND_CLASSES[:4], "frames": 3}, r"classes \[.*frames 2 \(now 3\)"),
    ],
)
def test_a_root_is_not_continued_with_other_options(tmp_path, changes, message):
    compose(options(tmp_path / "data"))
    with pytest.raises(InputError, match=message):
        compose(options(tmp_path / "data", **changes))


def test_other_data_are_not_written_over(tmp_path):
    (tmp_path / "AVSBench_semantic").mkdir()
    with pytest.raises(InputError, match="AVSBench_semantic: is there already"):
        compose(options(tmp_path))


def test_avss_tree(composed):
    folder = composed / "AVSBench_semantic"
    labels = json.loads((folder / "label2idx.json").read_text())
    assert labels == {name: i for i, name in enumerate(["background", *SOUND_CLASSES])}
    table = rows(folder / "metadata.csv")
    assert [row["split"] for row in table] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    assert {row["uid"] for row in table} == {path.name for path in (folder / "v1m").iterdir()}
    found = set()
    for row in table:
        clip = folder / row["label"] / row["uid"]
        heard = {labels[name] for name in row["a_obj"].split(";")}
        assert row["label"] == "v1m" and 2 <= len(heard) <= 3
        for t in range(5):
            assert cv2.imread(str(clip / "frames" / f"{t}.jpg")).shape == (32, 32, 3)
            index = Image.open(clip / "labels_semantic" / f"{t}.png")
            assert index.mode == "L" and set(np.unique(index)) <= heard | {0}
            found |= set(np.unique(index))
            colors = np.array(Image.open(clip / "labels_rgb" / f"{t}.png"))
            bell, bird = np.equal(index, 1), np.equal(index, 2)
            assert (colors[bell] == (128, 0, 0)).all() and (colors[bird] == (0, 128, 0)).all()
            assert (colors[np.equal(index, 0)] == 0).all()
        sound = soundfile.info(clip / "audio.wav")
        assert (sound.samplerate, sound.channels, sound.frames) == (16000, 1, 80000)
        assert sound.subtype == "PCM_16"
    assert len(found) > 3


def test_ms3_tree(composed):
    folder = composed / "Multi-sources"
    table = rows(folder / "ms3_meta_data.csv")
    assert list(table[0]) == ["video_id", "split"] and len(table) == 6
    for row in table:
        for k in range(1, 6):
            name = row["video_id"]
            frame = folder / "ms3_data" / "visual_frames" / name / f"{name}.mp4_{k}.png"
            mask = folder / "ms3_data" / "gt_masks" / row["split"] / name / f"{name}_{k}.png"
            assert Image.open(frame).mode == "RGB" and Image.open(mask).mode == "L"
            assert set(np.unique(Image.open(mask))) <= {0, 255}


def test_s4_has_one_source_that_sounds_in_every_second(composed):
    folder = composed / "Single-source"
    table = rows(folder / "s4_meta_data.csv")
    assert list(table[0]) == ["name", "start", "category", "split"] and len(table) == 6
    for row in table:
        clip = Path(row["split"]) / row["category"] / row["name"]
        masks = sorted((folder / "s4_data" / "gt_masks" / clip).iterdir())
        assert len(masks) == (1 if row["split"] == "train" else 5)
        sound, _ = soundfile.read(folder / "s4_data" / "audio_wav" / f"{clip}.wav")
        level = np.sqrt(np.square(sound.reshape(5, -1)).mean(1))
        assert level.min() > 0.3 * level.max() > 0.005


def test_the_same_clip_has_the_same_labels_in_both_layouts_of_many_sources(composed):
    masks = sorted((composed / "Multi-sources").rglob("gt_masks/val/*/*.png"))
    assert len(masks) == 10
    for path in masks:
        name, _, k = path.stem.rpartition("_")
        clip = composed / "AVSBench_semantic" / "v1m" / f"{name}_0_5000"
        labels = cv2.imread(str(clip / "labels_semantic" / f"{int(k) - 1}.png"), -1)
        np.testing.assert_array_equal(cv2.imread(str(path), -1) > 0, labels > 0)


def test_single_sources_and_other_lengths_choose_the_subset(tmp_path):
    single = compose(options(tmp_path / "a", sources=(1, 1), frames=5))
    assert {row["label"] for row in rows(single / "AVSBench_semantic/metadata.csv")} == {"v1s"}
    train = sorted((single / "AVSBench_semantic" / "v1s").glob("train*"))[0]
    assert [path.name for path in (train / "labels_semantic").iterdir()] == ["0.png"]
    longer = compose(options(tmp_path / "b", frames=7, clips={"test": 1}))
    clip = longer / "AVSBench_semantic" / "v2" / "test00000_0_7000"
    assert len(list((clip / "labels_rgb").iterdir())) == 7
    assert soundfile.info(clip / "audio.wav").duration == 7


def write_assets(root, classes=("cat", "dog")):
    for name in classes:
        for folder in ("cutouts", "sounds"):
            (root / folder / name).mkdir(parents=True)
        Image.new("RGBA", (9, 9), (200, 0, 0, 255)).save(root / "cutouts" / name / "1.png")
        for i in range(3):
            sound = np.random.default_rng(i).uniform(-0.5, 0.5, 30000)
            soundfile.write(root / "sounds" / name / f"1-{i}-A.flac", sound, 22050)
    return AssetFolders.under(root, None, None, None, None)


def test_assets_from_folders(tmp_path):
    folders = write_assets(tmp_path / "assets")
    root = compose(options(tmp_path / "data", folders=folders, sources=(1, 2)))
    labels = json.loads((root / "AVSBench_semantic" / "label2idx.json").read_text())
    assert labels == {"background": 0, "cat": 1, "dog": 2}
    soundfile.write(tmp_path / "assets/sounds/dog/2-1-A.wav", np.full(20000, 0.1), 16000)
    with pytest.raises(InputError, match="was composed with assets"):
        compose(options(root, folders=folders, sources=(1, 2)))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_undecodable_asset_is_named_before_any_clip_is_written(tmp_path, workers):
    folders = write_assets(tmp_path / "assets")
    (tmp_path / "assets/sounds/dog/broken-1.wav").write_text("no sound")
    with pytest.raises(InputError, match="broken-1.wav"):
        compose(options(tmp_path / "data", folders=folders, sources=(1, 2), workers=workers))
    assert not (tmp_path / "data").exists()
    (tmp_path / "assets/sounds/dog/broken-1.wav").unlink()
    compose(options(tmp_path / "data", folders=folders, sources=(1, 2), workers=workers))


def test_a_damaged_manifest(tmp_path):
    (tmp_path / "compose.json").write_text("[1")
    with pytest.raises(InputError, match="compose.json: not the JSON"):
        compose(options(tmp_path))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"layouts": ()}, "layouts: .* some of s4, ms3, avss"),
        ({"layouts": ("coco",)}, "layouts: .*coco.* some of s4, ms3, avss"),
        ({"clips": {}}, "clips: .* some of train, val, test"),
        ({"clips": {"train": 3, "val": 0}}, "clips: .*'val': 0"),
        ({"clips": {"dev": 3}}, "clips: .*dev"),
        ({"frames": 0}, "frames: 0"),
        ({"size": 4}, "size: 4 .* 16 pixels"),
        ({"sources": (3, 2)}, r"sources: \(3, 2\)"),
        ({"sources": (0, 2)}, r"sources: \(0, 2\)"),
        ({"sources": (2, 9)}, "classes: found 8, but 9 to 254 are possible"),
        ({"snr": float("nan")}, "snr: nan"),
        ({"seed": -1}, "seed: -1"),
        ({"workers": 0}, "workers: 0"),
        ({"classes": ("bell", "bell")}, "classes: .* names that differ"),
        ({"classes": ("bell", "lion")}, "class 'lion' has no cutouts: .* bell, bird"),
    ],
)
def test_options_that_are_not_possible(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        compose(options(tmp_path / "data", **changes))
    assert not (tmp_path / "data").exists()


def test_a_class_must_not_be_named_background(tmp_path):
    folders = write_assets(tmp_path / "assets", ("background", "dog"))
    with pytest.raises(InputError, match="class 'background' would be label 0"):
        compose(options(tmp_path / "data", folders=folders, sources=(1, 2)))


def test_an_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file.*: cannot be read or written .*again to continue"):
        compose(options(tmp_path / "file" / "data"))


def run_command(*arguments):
    compose_avs.main([*map(str, arguments)])


def test_command_line(tmp_path, capsys):
    arguments = "--layout ms3 avss --sources 1-2 --clips train=1,test=2 --size 32 --frames 2"
    more = "--classes drum,bell --snr none --seed 5 --workers 1"
    root = tmp_path / "data"
    run_command("--output", root, *arguments.split(), *more.split())
    assert "composed" in capsys.readouterr().out
    expected = options(
        tmp_path / "same",
        layouts=("ms3", "avss"),
        sources=(1, 2),
        clips={"train": 1, "test": 2},
        classes=("drum", "bell"),
        snr=None,
        seed=5,
    )
    assert contents(root) == contents(compose(expected))


@pytest.mark.parametrize(
    "arguments", [["--classes", "bell,lion"], ["--assets", "nowhere"], ["--clips", "train=-1"]]
)
def test_command_line_tells_wrong_input_in_one_line(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        run_command("--output", tmp_path / "data", *arguments)
    told = capsys.readouterr().err
    assert stop.value.code == 2
    assert re.fullmatch(r"[^\n]*(lion|nowhere|-1)[^\n]*\n", told)


def test_a_clip_whose_first_frame_alone_is_annotated_is_heard_in_it(tmp_path):
    """Half of them would otherwise teach that nothing sounds."""
    root = compose(
        ComposeOptions(output=tmp_path / "v1s", frames=5, size=32, sources=(1, 1),
                       clips={"train": 30, "val": 30}, workers=1)
    )  # fmt: skip

    def heard(split):
        masks = sorted((root / "AVSBench_semantic/v1s").glob(f"{split}*/labels_semantic/0.png"))
        assert len(masks) == 30
        return [bool(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED).any()) for mask in masks]

    assert all(heard("train")) and not all(heard("val"))


def test_log_mel_is_what_avsbenchs_loaders_of_s4_and_ms3_unpickle(tmp_path):
    """They call ``pickle.load`` and ``detach``, and take five examples."""
    options = ComposeOptions(output=tmp_path / "a", layouts=("s4", "ms3"), frames=5, size=32,
                             clips={"train": 2}, workers=1)  # fmt: skip
    roots = [compose(options), compose(replace(options, output=tmp_path / "b"))]
    files = [sorted(root.rglob("*.pkl")) for root in roots]
    assert len(files[0]) == len(files[1]) == 4
    for file, again in zip(*files):
        assert file.read_bytes() == again.read_bytes()
        with open(file, "rb") as opened:
            examples = pickle.load(opened).detach()
        assert examples.shape == (5, 1, 96, 64) and examples.dtype == torch.float32
        wav = Path(str(file).replace("audio_log_mel", "audio_wav")).with_suffix(".wav")
        assert torch.equal(examples, clip_log_mel(wav, 5))
        assert torch.equal(examples, clip_log_mel(file, 5))
