"""The colors that stand for indices in pictures."""

import numpy as np


def class_palette(num_classes: int) -> np.ndarray:
    """The colors of the PASCAL VOC rule, which AVSBench's color masks follow.

    Bits 0, 3 and 6 of the index are the top bits of red, from the highest down; bits 1, 4 and 7
    those of green, bits 2 and 5 those of blue.

    Returns:
        (num_classes, 3) uint8 RGB; index 0 is black. Distinct up to 256 classes.
    """
    bits = np.arange(num_classes)[:, None] >> np.arange(3)  # (num_classes, 3): R, G, B
    shifted = [((bits >> 3 * i) & 1) << (7 - i) for i in range(3)]
    return np.sum(shifted, axis=0).astype(np.uint8)
