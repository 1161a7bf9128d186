"""The inputs of AVSBench's published metric values, 48 x 64 pixels."""

import numpy as np
import pytest

Y, X = np.mgrid[:48, :64]


@pytest.fixture
def binary_frames():
    """Probabilities (4, H, W) float32 and masks (4, H, W) bool; frames 1 and 2 are silent."""
    bump = (169 - (Y - 22) ** 2 - (X - 34) ** 2) / 50
    silent = np.zeros((48, 64), bool)
    logits = np.stack([bump, bump, np.full((48, 64), -1.0), -1 - 0.1 * (X % 5)])
    left = (Y - 24) ** 2 + (X - 30) ** 2 <= 14**2
    low = (Y - 30) ** 2 + (X - 20) ** 2 <= 9**2
    return 1 / (1 + np.exp(-logits.astype(np.float32))), np.stack([left, silent, silent, low])


@pytest.fixture
def label_maps():
    """Predicted and true label maps (4, H, W) of 5 classes; class 4 is absent from frame 3."""

    def lab(frame, shift, extra):
        value = (Y // 8 + 2 * ((X + shift) // 8) + frame + extra) % 7
        return np.where(value >= 5, 0, value)

    gt = np.stack([lab(f, 0, 0) for f in range(4)])
    pred = np.stack([lab(f, 2, Y > 40) for f in range(4)])
    gt[2:][gt[2:] == 4] = 0
    pred[3][pred[3] == 4] = 0
    return pred, gt
