"""How what is seen moves from one picture of a video to another."""

import cv2
import numpy as np

# Pixels of the shorter side at which motion is looked for: more takes longer and tells little
# more, and fewer than two of the patches that are compared hold too little.
_LARGEST, _SMALLEST = 180, 16
# Gray levels by which a picture that shows anything deviates from its mean.
_PLAIN = 1


def motion(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Find where each pixel of a picture was in another one, by OpenCV's DIS optical flow.

    The answer is that nothing moved where there is none to find: in plain or very small pictures,
    and across a cut, which shows in that for most pixels the way there and back leads elsewhere.

    Args:
        before: (H, W, 3) uint8 RGB.
        after: (H, W, 3) uint8 RGB.

    Returns:
        (H, W, 2) float32, x and y offsets in pixels: what ``after`` shows at (x, y), ``before``
        showed at (x, y) plus the offset.
    """
    height, width = after.shape[:2]
    still = np.zeros((height, width, 2), np.float32)
    scale = min(1, _LARGEST / min(height, width))
    size = round(width * scale), round(height * scale)
    if min(size) < _SMALLEST:
        return still
    first, second = (
        cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        for image in (before, after)
    )
    if min(first.std(), second.std()) < _PLAIN:
        return still
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow = search.calc(second, first, None)
    if not _leads_back(flow, search.calc(first, second, None)):
        return still
    flow *= np.divide((width, height), size).astype(np.float32)
    return cv2.resize(flow, (width, height))


def follow(image: np.ndarray, motion: np.ndarray, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """Move a picture.

    Args:
        image: (H, W, C) uint8 or float32, C up to 4.
        motion: (H, W, 2) float32, from where each pixel comes, see :func:`motion`.
        border: OpenCV's name for what comes from outside, by default 0.

    Returns:
        Like ``image``.
    """
    rows, columns = np.indices(motion.shape[:2], np.float32)
    x, y = columns + motion[..., 0], rows + motion[..., 1]
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, None, border)


def _leads_back(there: np.ndarray, back: np.ndarray) -> bool:
    """Whether most pixels, moved one way and then the other, come back to where they were."""
    # Every fourth row and column is enough to tell.
    back = follow(back, there, cv2.BORDER_REPLICATE)[::4, ::4]
    there = there[::4, ::4]
    # Half a pixel and a tenth of the way are what is left between two good answers.
    allowed = 0.5 + 0.01 * (np.square(there) + np.square(back)).sum(axis=2)
    return bool((np.square(there + back).sum(axis=2) < allowed).mean() > 0.5)
