"""Pages of words, from a stand-in for a model whose tokens are known."""

import base64
import io
import re

import cv2
import numpy as np
import pytest
import soundfile
import torch
from detectron2.data import DatasetCatalog, Metadata
from PIL import Image

from qdformer.checkpoint.metadata import read_metadata
from qdformer.commands import explain_codebook
from qdformer.io.image import write_image
from qdformer.reproduction.word_page import EXAMPLES, collect_words, write_word_page
from tests.videos import save_described

NAMES = ["background", "man", "<b>dog</b>"]
METADATA = Metadata(name="words_test", stuff_classes=NAMES, ignore_label=255)
FRAMES, SIZE = 8, (16, 32)
SCORES = torch.tensor([0.6, 0.9, 0.7, 0.95, 0.8, 0.85, 0.2, 0.65])


class Model:
    """Token 0 covers the left half with word 3, token 1 the right half with word 1."""

    def __call__(self, clips):
        masks = torch.full((FRAMES, 2, 4, 8), 0.01)
        masks[:, 0, :, :4] = masks[:, 1, :, 4:] = 0.99
        return [
            {
                "scores": torch.stack([SCORES, torch.full((FRAMES,), 0.9)], dim=1),
                "classes": torch.tensor([[2, 1]] * FRAMES),
                "masks": masks,
                "local_codes": torch.tensor([[3, 1]] * FRAMES),
                "global_codes": torch.tensor([[3, 1]] * FRAMES),
            }
            for _ in clips
        ]


@pytest.fixture
def clip(tmp_path):
    """A dog in the left half in all frames, nothing in the right one; second t sounds like t."""
    labels = np.zeros(SIZE, np.uint8)
    labels[:, : SIZE[1] // 2] = 2
    cv2.imwrite(str(tmp_path / "labels.png"), labels)
    for t in range(FRAMES):
        write_image(tmp_path / f"{t}.png", np.full((*SIZE, 3), 20 * t + 50, np.uint8))
    sound = np.repeat(np.arange(FRAMES) / 100, 16000)
    soundfile.write(tmp_path / "sound.wav", sound, 16000, subtype="FLOAT")
    return {
        "video_id": "clip",
        "image": torch.zeros(FRAMES, 3, *SIZE, dtype=torch.uint8),
        "file_names": [str(tmp_path / f"{t}.png") for t in range(FRAMES)],
        "sem_seg_file_names": [str(tmp_path / "labels.png")] * FRAMES,
        "audio_file_name": str(tmp_path / "sound.wav"),
        "label_format": "index",
        "height": SIZE[0],
        "width": SIZE[1],
    }


@pytest.fixture
def use(clip):
    return collect_words(Model(), [(clip, 1.0)], METADATA, 4, class_threshold=0.5)


def test_words_are_counted_by_the_class_that_they_cover(use):
    expected = np.zeros((4, 3), int)
    expected[3, 2], expected[1, 0] = 7, 8  # one token of word 3 is not confident
    assert use.counts.tolist() == expected.tolist()


def test_the_most_confident_seconds_are_kept(use):
    best = SCORES.sort(descending=True)
    assert [round(e.score, 4) for e in use.examples[3]] == [
        round(float(score), 4) for score in best.values[:EXAMPLES]
    ]
    for example, second in zip(use.examples[3], best.indices.tolist()):
        assert example.place == f"clip, second {second}" and example.name == NAMES[2]
        np.testing.assert_allclose(example.sound, second / 100, atol=1e-4)
        height, width = example.picture.shape[:2]
        lit, dark = example.picture[:, : width // 2 - 8], example.picture[:, width // 2 + 8 :]
        assert (lit == 20 * second + 50).all() and (dark < lit.min()).all()
        assert (height, width) == (128, 256)


def test_the_page_holds_what_it_shows(use):
    page = write_word_page(use, METADATA, "Words & more")
    assert "<b>dog" not in page and "&lt;b&gt;dog" in page and "Words &amp; more" in page
    assert page.index("Word 3:") < page.index("Word 1:"), "what stands for nothing comes last"
    sounds = re.findall(r"data:audio/ogg;base64,([^']*)", page)
    pictures = re.findall(r"data:image/jpeg;base64,([^']*)", page)
    assert len(sounds) == len(pictures) == sum(map(len, use.examples.values()))
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[0])))
    assert (len(samples), rate) == (16000, 16000)
    assert Image.open(io.BytesIO(base64.b64decode(pictures[0]))).size == (256, 128)


def test_the_command_reads_a_trained_model(composed, tmp_path):
    """Of which every confident token appears on the page with its word."""
    weights = save_described(tmp_path / "model.safetensors")
    config = tmp_path / "config.yaml"
    cfg, _ = read_metadata(str(weights))
    cfg.DATASETS.TEST = ("tiny_avss_test",)
    config.write_text(cfg.dump())
    page = tmp_path / "pages" / "words.html"
    explain_codebook.main(
        ["--config-file", str(config), "--output", str(page), "MODEL.WEIGHTS", str(weights),
         "MODEL.QDFORMER.CLASS_THRESHOLD", "0.0"]
    )  # fmt: skip
    counted = sum(map(int, re.findall(r"\(n = (\d+)\)", page.read_text())))
    frames = sum(len(record["file_names"]) for record in DatasetCatalog.get("tiny_avss_test"))
    assert counted == frames * cfg.MODEL.QDFORMER.NUM_TOKENS
