"""A log-mel spectrogram in axes whose x is seconds."""

import numpy as np
from matplotlib.axes import Axes

from qdformer.audio.log_mel import SILENT_LOG_MEL


def draw_spectrogram(axes: Axes, log_mel: np.ndarray, end: float) -> None:
    """Draw a sound, and silence in black around it.

    Args:
        axes: to draw in; its limits stay with the caller.
        log_mel: (columns, 64), evenly from second 0 on.
        end: seconds that they last.
    """
    bands = log_mel.shape[1]
    axes.set_facecolor("black")
    if len(log_mel):
        axes.imshow(
            log_mel.T,
            origin="lower",
            extent=(0, end, 0, bands),
            aspect="auto",
            cmap="magma",
            vmin=SILENT_LOG_MEL,
            vmax=max(0.0, log_mel.max()),
        )
    axes.set_yticks([0, bands], ["125 Hz", "7.5 kHz"], fontsize=9)
