"""Several clips with what a model makes of them on one sheet (Fig. 5)."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from detectron2.data import Metadata
from torch import Tensor

from .prediction_sheet import prediction_sheet

_RULE = 4


def result_sheet(
    results: Iterable[tuple[Mapping[str, Any], Mapping[str, Tensor]]], metadata: Metadata
) -> np.ndarray:
    """Draw clips one below the other, a dark line between; see :func:`prediction_sheet` for each.

    Args:
        results: the record of each clip and the model's output for it, at least one.
        metadata: of the data set.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    sheets = [prediction_sheet(record, output, metadata) for record, output in results]
    width = max(sheet.shape[1] for sheet in sheets)
    rule = np.full((_RULE, width, 3), 64, np.uint8)
    rows = []
    for sheet in sheets:
        margin = ((0, 0), (0, width - sheet.shape[1]), (0, 0))
        rows += [rule, np.pad(sheet, margin, constant_values=255)]
    return np.concatenate(rows[1:])
