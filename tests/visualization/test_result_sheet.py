import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from qdformer.visualization.prediction_sheet import prediction_sheet
from qdformer.visualization.result_sheet import result_sheet


@pytest.fixture
def results(composed):
    """Two clips of three frames and one of two, each with an empty prediction."""
    records = DatasetCatalog.get("tiny_avss_test")[:3]
    shorter = {key: records[2][key][:2] for key in ("file_names", "sem_seg_file_names")}
    records[2] = {**records[2], **shorter}
    clips = []
    for record in records:
        count = len(record["file_names"])
        codes = torch.zeros(count, 4, dtype=torch.int64)
        labels = torch.zeros(count, record["height"], record["width"], dtype=torch.uint8)
        output = {"sem_seg": labels, "local_codes": codes, "global_codes": codes}
        clips.append((record, output))
    return clips


def test_clips_stand_below_each_other(results):
    metadata = MetadataCatalog.get("tiny_avss_test")
    sheets = [prediction_sheet(*clip, metadata) for clip in results]
    drawn = result_sheet(iter(results), metadata)
    assert drawn.dtype == np.uint8
    assert drawn.shape[1] == sheets[0].shape[1] > sheets[2].shape[1]
    top = 0
    for sheet in sheets:
        height, width = sheet.shape[:2]
        np.testing.assert_array_equal(drawn[top : top + height, :width], sheet)
        assert (drawn[top : top + height, width:] == 255).all()
        top += height + 4
    assert top == len(drawn) + 4


def test_a_single_clip_is_its_sheet(results):
    metadata = MetadataCatalog.get("tiny_avss_test")
    expected = prediction_sheet(*results[0], metadata)
    np.testing.assert_array_equal(result_sheet(results[:1], metadata), expected)
