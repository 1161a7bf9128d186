import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from qdformer.data.datasets.classes import AVSS_CLASSES
from qdformer.data.datasets.validation import ERRORS, check_tree
from qdformer.errors import InputError

AVSS = "AVSBench_semantic"
SCRIPT = Path(__file__).parents[3] / "datasets/prepare_avsbench.py"


def findings(root, *args, **kwargs):
    """The texts by kind, without the counts, which differ in every small tree."""
    report = check_tree(root, *args, **kwargs)
    texts = {}
    for finding in report.findings:
        texts.setdefault(finding.kind, []).append(finding.text)
    assert report.can_train == (not texts.keys() & ERRORS.keys())
    texts.pop("count", None)
    return texts


def single_finding(root, kind, *args, **kwargs):
    texts = findings(root, *args, **kwargs)
    assert list(texts) == [kind] and len(texts[kind]) == 1, texts
    return texts[kind][0]


def paint(path, pixels):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def test_sound_trees_have_nothing_but_small_counts(
    avsbench_tree_s4, avsbench_tree_ms3, avsbench_tree_avss
):
    report = check_tree(avsbench_tree_s4, classes=AVSS_CLASSES, workers=2)
    assert report.can_train and {finding.kind for finding in report.findings} == {"count"}
    assert report.clips == {
        **{("s4", "train"): 2, ("s4", "val"): 1, ("s4", "test"): 1},
        **{("ms3", "train"): 1, ("ms3", "val"): 1, ("ms3", "test"): 1},
        **{("avss", "train"): 2, ("avss", "val"): 1, ("avss", "test"): 1},
    }
    text = str(report)
    assert "s4 train: 2\ns4 val: 1\n" in text
    expected = "2 / 1 / 1 clips in train, val, test; AVSBench has 3,452 / 740 / 740."
    assert f"s4_meta_data.csv: {expected}" in text
    assert "AVSBench has 8,498 / 1,304 / 1,554 (unverified)." in text
    assert text.endswith("Training can start: 0 errors, 3 warnings.")


def test_missing_files_are_named(avsbench_tree_s4):
    data = avsbench_tree_s4 / "Single-source/s4_data"
    (data / "audio_wav/val/dog_barking/c.wav").unlink()
    (data / "visual_frames/test/race_car/d/d_3.png").unlink()
    (data / "gt_masks/train/race_car/b_2/b_2_1.png").unlink()
    texts = findings(avsbench_tree_s4)
    assert texts.keys() == {"missing"}
    mask, sound, frame = texts["missing"]
    assert "b_2_1.png: no frame of this clip has a mask" in mask
    assert "c.wav" in sound and "c.pkl: the sound of this clip is missing" in sound
    assert "frame 3 of this clip is missing" in frame


def test_mask_without_its_frame_is_a_missing_frame(avsbench_tree_s4):
    (avsbench_tree_s4 / "Single-source/s4_data/visual_frames/val/dog_barking/c/c_5.png").unlink()
    text = single_finding(avsbench_tree_s4, "missing")
    assert "gt_masks" in text and "c_5.png: this mask's frame 5 is missing" in text


def test_frames_without_masks_are_told_but_for_the_published_kind(avsbench_tree_s4):
    (avsbench_tree_s4 / "Single-source/s4_data/gt_masks/val/dog_barking/c/c_2.png").unlink()
    text = single_finding(avsbench_tree_s4, "unannotated")
    assert "c_1.png: 4 masks for the 5 frames" in text


def test_files_that_cannot_be_decoded_are_named(avsbench_tree_ms3):
    data = avsbench_tree_ms3 / "Multi-sources/ms3_data"
    broken = [
        data / "visual_frames/v/v.mp4_4.png",
        data / "gt_masks/val/v/v_2.png",
        data / "audio_wav/val/v.wav",
        data / "audio_log_mel/train/x_1_y.pkl",
    ]
    for path in broken:
        path.write_bytes(path.read_bytes()[:40])
    texts = findings(avsbench_tree_ms3)
    assert texts.keys() == {"unreadable"} and len(texts["unreadable"]) == 4
    for path in broken:
        assert any(text.startswith(f"{path}: ") for text in texts["unreadable"])


def test_other_sizes_are_named(avsbench_tree_ms3):
    data = avsbench_tree_ms3 / "Multi-sources/ms3_data"
    paint(data / "gt_masks/test/t/t_3.png", np.zeros((24, 16)))
    text = single_finding(avsbench_tree_ms3, "size")
    assert text.endswith("t_3.png: 16x24 pixels where 24x16 are expected.")
    paint(data / "visual_frames/t/t.mp4_5.png", np.zeros((8, 8, 3)))
    assert len(findings(avsbench_tree_ms3)["size"]) == 2


def test_dark_objects_beside_bright_ones_are_told(avsbench_tree_ms3):
    path = next((avsbench_tree_ms3 / "Multi-sources/ms3_data/gt_masks").rglob("*.png"))
    pixels = np.zeros(Image.open(path).size[::-1], np.uint8)
    pixels[:4], pixels[4:8] = 64, 192
    paint(path, pixels)
    assert str(path) in single_finding(avsbench_tree_ms3, "dark")
    pixels[1:4] = 0  # an edge that was smoothed
    pixels[4:] = 255
    paint(path, pixels)
    assert findings(avsbench_tree_ms3) == {}


def test_labels_out_of_range_are_named(avsbench_tree_avss):
    clip = avsbench_tree_avss / AVSS / "v2/t_5000_15000"
    for path in (clip / "labels_rgb").iterdir():
        path.unlink()
    mask = np.zeros((16, 24))
    mask[0, :3] = 70, 71, 255
    paint(clip / "labels_semantic/7.png", mask)
    text = single_finding(avsbench_tree_avss, "label", classes=AVSS_CLASSES)
    assert text.endswith(
        "labels_semantic/7.png: labels [71]; the classes are 0 to 70, and 255 is ignored."
    )


def test_a_trees_own_classes_set_the_range(avsbench_tree_avss):
    class_list = avsbench_tree_avss / AVSS / "label2idx.json"
    class_list.write_text(json.dumps({name: i for i, name in enumerate(AVSS_CLASSES[:18])}))
    # Dog is 17, car and cat come before it; violin is 68.
    texts = findings(avsbench_tree_avss)
    assert "classes" not in texts and len(texts["label"]) == 10
    assert all("labels [68]; the classes are 0 to 17" in text for text in texts["label"])
    class_list.unlink()
    assert "label2idx.json: no such file" in single_finding(avsbench_tree_avss, "missing")


def test_class_list_that_is_not_the_published_one_is_told(avsbench_tree_avss):
    class_list = avsbench_tree_avss / AVSS / "label2idx.json"
    names = list(AVSS_CLASSES)
    names[49], names[28] = names[28], names[49]
    class_list.write_text(json.dumps({name: index for index, name in enumerate(names)}))
    texts = findings(avsbench_tree_avss, classes=AVSS_CLASSES)
    assert texts.keys() == {"classes"}
    assert texts["classes"][0].endswith("28 is 'pipa', in AVSBench 'guitar'.")
    class_list.write_text(json.dumps({name: i for i, name in enumerate(AVSS_CLASSES[:70])}))
    text = single_finding(avsbench_tree_avss, "classes", classes=AVSS_CLASSES)
    assert text.endswith("70 classes, AVSBench has 71.")


def test_color_masks_that_disagree_are_told(avsbench_tree_avss):
    colors = avsbench_tree_avss / AVSS / "v1m/s_0_5000/labels_rgb"
    pixels = np.array(Image.open(colors / "0.png"))
    pixels[0, 0] = 1, 2, 3
    paint(colors / "0.png", pixels)
    text = single_finding(avsbench_tree_avss, "disagreement")
    assert text.endswith("labels_rgb/0.png: 1 pixels differ.")


def test_swapped_channels_are_recognized(avsbench_tree_avss):
    colors = avsbench_tree_avss / AVSS / "v1m/s_0_5000/labels_rgb"
    paint(colors / "0.png", np.array(Image.open(colors / "0.png"))[..., ::-1])
    text = single_finding(avsbench_tree_avss, "disagreement")
    assert text.endswith("labels_rgb/0.png: 192 pixels differ, none with red and blue swapped.")


def test_faults_of_unused_color_masks_keep_no_training_from_starting(avsbench_tree_avss):
    colors = avsbench_tree_avss / AVSS / "v1m/s_0_5000/labels_rgb"
    (colors / "0.png").write_text("no picture")
    paint(colors / "1.png", np.zeros((8, 8, 3)))
    texts = findings(avsbench_tree_avss)
    assert texts.keys() == {"disagreement"} and len(texts["disagreement"]) == 2


def test_stray_colors_of_used_color_masks_are_told(avsbench_tree_avss):
    clip = avsbench_tree_avss / AVSS / "v1m/s_0_5000"
    for path in (clip / "labels_semantic").iterdir():
        path.unlink()
    pixels = np.array(Image.open(clip / "labels_rgb/3.png"))
    pixels[0, :2] = 1, 2, 3
    paint(clip / "labels_rgb/3.png", pixels)
    text = single_finding(avsbench_tree_avss, "color")
    assert text.endswith("labels_rgb/3.png: 2 pixels have the color of no class.")


def test_short_sound_is_told(avsbench_tree_avss, avsbench_tree_ms3):
    sound = avsbench_tree_avss / AVSS / "v1m/s_0_5000/audio.wav"
    soundfile.write(sound, np.zeros(77040), 16000)
    assert findings(avsbench_tree_avss) == {}
    soundfile.write(sound, np.zeros(77039), 16000)
    text = single_finding(avsbench_tree_avss, "sound")
    assert text.endswith("audio.wav: 4.815 s of sound for 5 frames, which take 4.815 s.")


def test_unusable_lists_do_not_end_the_check(avsbench_tree_ms3, avsbench_tree_s4):
    (avsbench_tree_s4 / "Single-source/s4_meta_data.csv").write_text("name\n../x")
    (avsbench_tree_ms3 / "Multi-sources/ms3_meta_data.csv").write_text(
        "video_id,split\nv,val\nt,test\nq,dev\n"
    )
    report = check_tree(avsbench_tree_ms3)
    errors = [finding.text for finding in report.findings if finding.kind == "missing"]
    assert "s4_meta_data.csv: the first line must name" in errors[0]
    assert "ms3_meta_data.csv: the split 'train' is empty" in errors[1]
    assert "1 clips have the split 'dev': not read" in str(report)


def test_layouts_can_be_chosen(avsbench_tree_ms3):
    assert {layout for layout, _ in check_tree(avsbench_tree_ms3).clips} == {"ms3"}
    report = check_tree(avsbench_tree_ms3, ["ms3", "s4"])
    assert not report.can_train and "holds no folder Single-source" in str(report)


def test_a_root_without_data_is_refused(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="holds none of the folders Single-source, Multi-sour"):
            check_tree(root)


def test_long_lists_are_cut(avsbench_tree_avss):
    for path in avsbench_tree_avss.glob(f"{AVSS}/v2/*/frames/*.jpg"):
        path.write_text("no picture")
    text = str(check_tree(avsbench_tree_avss))
    assert "ERROR: files that cannot be decoded: 20" in text
    assert text.count("cannot be decoded as an image") == 5 and "... and 15 more" in text
    assert text.endswith("Training cannot start: 20 errors, 1 warnings.")


@pytest.fixture
def main(monkeypatch):
    spec = importlib.util.spec_from_file_location("prepare_avsbench", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        return module.main()

    return run


def test_exit_code_says_whether_training_can_start(avsbench_tree_ms3, main, monkeypatch, capsys):
    assert main("--check", "--root", avsbench_tree_ms3, "--workers", 2) == 0
    assert "Training can start" in capsys.readouterr().out
    monkeypatch.setenv("DETECTRON2_DATASETS", str(avsbench_tree_ms3))
    assert main("--check", "--layout", "ms3") == 0
    assert main("--check", "--layout", "s4", "ms3") == 1
    assert "Training cannot start" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="nowhere: holds none of the folders"):
        main("--check", "--root", avsbench_tree_ms3 / "nowhere")
