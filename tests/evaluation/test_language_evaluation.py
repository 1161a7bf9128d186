import json

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog

from qdformer.evaluation.language_evaluation import LanguageEvaluator

NAME = "language_test"
MetadataCatalog.get(NAME).set(stuff_classes=["background", "man", "dog"], ignore_label=255)
# Words are corners of the plane; two slots, two frames a clip.
WORDS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])


@pytest.fixture
def clip(tmp_path):
    """Writes a clip whose left half is one class and right half another one in both frames."""

    def make(video_id, left, right, local, heard, scores):
        labels = np.full((8, 16), left, np.uint8)
        labels[:, 8:] = right
        name = str(tmp_path / f"{video_id}.png")
        cv2.imwrite(name, labels)
        masks = torch.full((2, 2, 2, 4), 0.01)
        masks[:, 0, :, :2] = masks[:, 1, :, 2:] = 0.99
        local, heard = torch.tensor(local), torch.tensor(heard).expand(2, 2)
        return {
            "video_id": video_id,
            "image": torch.zeros(2, 3, 8, 16, dtype=torch.uint8),
            "sem_seg_file_names": [name, name],
            "label_format": "index",
        }, {
            "scores": torch.tensor(scores),
            "classes": torch.ones(2, 2, dtype=torch.long),
            "masks": masks,
            "global_codes": heard,
            "local_codes": local,
            "global_tokens": WORDS[heard],
            "global_words": WORDS[heard],
            # Local tokens lie at 60 degrees from their words.
            "local_tokens": WORDS[local] / 2 + 3**0.5 / 2 * WORDS[(local + 1) % 4],
            "local_words": WORDS[local],
        }

    return make


def clips(clip):
    sure, unsure = [[0.9, 0.9], [0.9, 0.9]], [[0.9, 0.9], [0.9, 0.0]]
    return [
        clip("a", 1, 2, local=[[0, 1], [2, 1]], heard=[0, 1], scores=sure),
        # The last token is not confident, so that its word does not count as found.
        clip("b", 1, 0, local=[[0, 0], [2, 3]], heard=[0, 2], scores=unsure),
    ]


def evaluate(parts, folder=None):
    evaluator = LanguageEvaluator(NAME, folder, class_threshold=0.5)
    for part in parts:
        evaluator.process(*([half] for half in part))
    return evaluator.evaluate()


def test_values_by_hand(clip, tmp_path):
    (result,) = evaluate(clips(clip), str(tmp_path)).values()
    assert result["frames_with_repeats"] == pytest.approx(25)
    assert result["global_cosine"] == pytest.approx(1)
    assert result["local_cosine"] == pytest.approx(0.5)
    assert (result["global_words"], result["local_words"]) == (3, 4)
    # Slot 1 always holds word 0; slot 2 word 1 in half of the frames, word 2 in the others.
    slots = np.array([[1, 0], [1, 0], [0, 1], [-1, 0]], float).reshape(2, 2, 2)
    within = np.square(slots - slots.mean(1, keepdims=True)).sum()
    total = np.square(slots - slots.mean((0, 1))).sum()
    assert result["variance_within_slots"] == pytest.approx(100 * within / total)
    # Found: man by the words 0 and 2 twice each, dog by word 1 twice.
    assert result["purity"] == 100
    assert 0 < result["mutual_information"] < 1
    assert result["single_source_information"] == 0  # one class only
    written = json.loads((tmp_path / f"{NAME}_language.json").read_text())
    assert written["metrics"] == result and written["clips"] == 2


def test_order_does_not_matter(clip):
    parts = clips(clip)
    assert evaluate(parts) == evaluate(parts[::-1]) == evaluate([*parts, parts[0]])


def test_without_a_codebook_there_is_nothing_to_report(clip):
    _, output = part = clip("a", 1, 2, [[0, 1], [0, 1]], [0, 1], [[0.9, 0.9], [0.9, 0.9]])
    output["local_codes"] = None
    assert evaluate([part]) == {}
