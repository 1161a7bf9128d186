"""Made-up masks: a few round shapes that move."""

import numpy as np


def moving_blobs(
    rng: np.random.Generator, frames: int, objects: int, size: tuple[int, int]
) -> np.ndarray:
    """Draw objects with uneven outlines that each drift in one direction.

    Args:
        rng: what they look like.
        frames: T.
        objects: M.
        size: height and width, pixels.

    Returns:
        (T, M, H, W) bool; an object may leave the frame.
    """
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    masks = np.zeros((frames, objects, height, width), dtype=bool)
    for index in range(objects):
        radius = rng.uniform(0.1, 0.2) * min(size)
        start, step = rng.uniform(0.25, 0.75, 2) * size, rng.uniform(-0.02, 0.02, 2) * size
        lobes, phase = rng.integers(3, 8), rng.uniform(0, 2 * np.pi)
        for t in range(frames):
            top, left = start + t * step
            outline = 1 + 0.2 * np.sin(lobes * np.arctan2(y - top, x - left) + phase)
            masks[t, index] = np.hypot(y - top, x - left) < radius * outline
    return masks
