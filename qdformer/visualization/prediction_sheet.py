"""The sheet of one clip of a data set: what its record holds beside what a model says of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import Metadata
from torch import Tensor

from qdformer.audio.log_mel import read_log_mel, read_waveform
from qdformer.io.image import read_image, read_label_map

from .clip_sheet import clip_sheet


def prediction_sheet(
    record: Mapping[str, Any], output: Mapping[str, Tensor], metadata: Metadata
) -> np.ndarray:
    """Draw a clip, its ground truth and a prediction; see :func:`clip_sheet`.

    Args:
        record: a clip, see :func:`qdformer.data.datasets.avsbench.load_avs`.
        output: what the model says of it.
        metadata: of the data set.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    palette, sound = metadata.stuff_colors, record["audio_file_name"]
    codes: dict[str, np.ndarray] | None = None
    if output["local_codes"] is not None:
        # A clip that was segmented in windows has the codewords of each, one after the other.
        windows = output["global_codes"].unique_consecutive(dim=0).flatten()
        codes = {"global": windows.cpu().numpy(), "local": output["local_codes"].cpu().numpy()}
    return clip_sheet(
        images=[read_image(name) for name in record["file_names"]],
        waveform=read_log_mel(sound) if Path(sound).suffix == ".pkl" else read_waveform(sound),
        ground_truth=[
            None if name is None else read_label_map(name, record["label_format"], palette)
            for name in record["sem_seg_file_names"]
        ],
        prediction=list(output["sem_seg"].cpu().numpy()),
        metadata=metadata,
        codes=codes,
        title=record["video_id"],
    )
