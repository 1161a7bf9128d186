from dataclasses import replace
from functools import partial

import pytest
import torch
from detectron2.data import DatasetCatalog

from qdformer.benchmark import measures
from qdformer.benchmark.charts import draw_growth
from qdformer.benchmark.measures import (
    MEASURES,
    attention_inputs,
    composed_set,
    default_measures,
    loader_rate,
    scored_clips,
)
from qdformer.benchmark.options import Workload
from qdformer.benchmark.stages import REST, STAGES, measure_forward
from qdformer.errors import InputError
from qdformer.evaluation.avs_object_evaluation import AVSObjectEvaluator
from qdformer.evaluation.avs_semantic_evaluation import AVSSemanticEvaluator
from qdformer.layers.ms_deform_attn import ms_deform_attn
from tests.samples import small_config


@pytest.fixture(autouse=True)
def fake_time(monkeypatch, ticking):
    monkeypatch.setattr(measures, "time_in_turn", partial(measures.time_in_turn, now=ticking))
    monkeypatch.setattr(
        measures, "measure_forward", lambda model, clips: measure_forward(model, clips, ticking)
    )
    monkeypatch.setattr(measures, "CLIPS", 5)


@pytest.mark.parametrize("name", ["eval", "train"])
def test_a_run_that_ticks_as_often_as_the_reference(name, options):
    (found,) = MEASURES[name](options.load_config(), options)
    assert found["seconds"] == found["ratio"] == {"median": 1, "min": 1, "max": 1}


def test_stages_add_up_to_the_whole(options):
    (found,) = MEASURES["stages"](options.load_config(), options)
    stages, whole = found["stages"], found["whole"]
    assert [stage["name"] for stage in stages] == [*STAGES, REST]
    for key in ("seconds", "ratio"):
        assert sum(stage[key]["median"] for stage in stages) == whole[key]["median"]
        assert min(stage[key]["median"] for stage in stages) > 0
    for key in ("flops", "parameters", "trained_parameters"):
        assert sum(stage[key] for stage in stages) == whole[key] > 0


def test_stages_of_more_frames_than_a_window_are_refused(options):
    options = replace(options, workload=replace(options.workload, frames=11))
    with pytest.raises(InputError, match="--frames is 11; .* TEST.WINDOW 10"):
        next(MEASURES["stages"](options.load_config(), options))


def test_each_peak_is_there_as_soon_as_it_is_measured(options, monkeypatch):
    peaks = {"eval": 5, "train": 7, None: 2}
    monkeypatch.setattr(measures, "peak_memory", lambda cfg, workload, run: peaks[run])
    found = [dict(result) for result in MEASURES["memory"](None, options)]
    assert found == [
        {"eval": 5},
        {"eval": 5, "train": 7},
        {"eval": 5, "train": 7, "libraries": 2},
    ]


def test_by_default_all_that_a_precision_can_do(options):
    assert default_measures(options.workload) == ("eval", "train", "memory", "stages")
    assert default_measures(Workload(precision="fast")) == ("eval", "memory", "stages")


def test_attention_reads_what_the_encoder_gives():
    arguments, gradient = attention_inputs(small_config(), Workload(frames=2, size=64, batch=2))
    value, shapes, neighbors, centers, offsets, weights = arguments
    assert shapes == [(8, 8), (4, 4), (2, 2)]
    assert value.shape == (4, 84, 4, 8)
    assert neighbors.tolist() == [[0, 0, 1], [0, 1, 1], [2, 2, 3], [2, 3, 3]]
    assert centers.shape == (84, 9, 2)
    # The first query stands on the first cell of its level, before the centers of larger ones.
    assert centers[0, :3].tolist() == [[0, 0], [-0.25, -0.25], [-0.375, -0.375]]
    torch.testing.assert_close(weights.sum((3, 4)), torch.ones(4, 84, 4))
    assert offsets.shape == (*weights.shape, 2)
    assert ms_deform_attn(*arguments).shape == gradient.shape


def test_growth_takes_each_length_and_size_once_beside_the_same_reference(
    options, monkeypatch, tmp_path
):
    asked, references = [], set()

    def peak_memory(cfg, workload, run):
        asked.append((workload, run))
        return 10**9 * workload.frames

    def reference(workload):
        references.add(workload)
        return lambda: None

    monkeypatch.setattr(measures, "peak_memory", peak_memory)
    monkeypatch.setattr(measures, "Reference", reference)
    options = replace(options, workload=Workload(frames=2, size=32, batch=2))
    found = [list(points) for points in MEASURES["growth"](options.load_config(), options)]
    assert [len(points) for points in found] == [1, 2, 3]
    points = found[-1]
    assert [(point["frames"], point["size"]) for point in points] == [(1, 32), (2, 32), (2, 64)]
    assert [point["memory"] for point in points] == [10**9, 2 * 10**9, 2 * 10**9]
    assert all(point["ratio"]["median"] == 1 for point in points)
    assert asked[0] == (Workload(frames=1, size=32, batch=2), "eval")
    assert references == {Workload(frames=5, size=224, batch=1)}

    result = {"settings": options.settings(), "results": {"growth": points}}
    draw_growth(result, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_clips_come_at_the_size_and_length_of_the_workload(options, monkeypatch):
    clips = []

    def rate(mapper, records, workers):
        clips.append(mapper(records[0]))
        assert len(records) == 2 * 5
        return workers

    monkeypatch.setattr(measures, "loader_rate", rate)
    before = DatasetCatalog.list()
    *_, found = MEASURES["data"](options.load_config(), options)
    assert DatasetCatalog.list() == before
    for mode in ("train", "eval"):
        assert found[mode]["mapper"]["min"] > 0
        assert (found[mode]["1 worker"], found[mode]["2 workers"]) == (1, 2)
    assert [clip["image"].shape for clip in clips] == [(2, 3, 32, 32)] * 4
    assert ["instances" in clip for clip in clips] == [True, True, False, False]


def test_the_rate_is_that_of_the_clips_behind_those_read_ahead():
    seconds = iter([100.0, 102.0])
    records = [{"number": number} for number in range(20)]
    # A worker has two clips in hand, and as many are left to it to get going.
    assert loader_rate(dict, records, 1, now=lambda: next(seconds)) == 16 / 2


def test_scored_predictions_are_nearly_right():
    with composed_set(3, 96) as name:
        clips, outputs, truths = scored_clips(name)
        objects, semantics = AVSObjectEvaluator(name), AVSSemanticEvaluator(name)
        for evaluator in (objects, semantics):
            evaluator.process(clips, outputs)
        assert objects.evaluate()["avs_object"]["frames"] == sum(map(len, truths)) == 12
        assert 60 < objects.evaluate()["avs_object"]["AVSBench_mIoU"] < 100
        assert 20 < semantics.evaluate()["avs_semantic"]["foreground_mIoU"] < 100


def test_a_video_is_measured_in_parts_and_as_a_whole(options, monkeypatch):
    monkeypatch.setattr(measures, "VIDEO_SIZE", (32, 48))
    monkeypatch.setattr(measures, "VIDEO_SECONDS", 2)
    (found,) = MEASURES["video"](options.load_config(), options)
    half = {"median": 0.5, "min": 0.5, "max": 0.5}
    parts = dict.fromkeys(("decoding", "sound and network", "drawing", "encoding", "whole"), half)
    assert found == parts | {"whole / longest part": {"median": 1, "min": 1, "max": 1}}


def test_frames_a_second_of_each_evaluator(options, monkeypatch):
    monkeypatch.setattr(measures, "SCORED_SIZES", (32, 48))
    *_, found = MEASURES["evaluators"](None, options)
    frames = 4 * options.workload.frames
    rate = {"median": frames, "min": frames, "max": frames}
    rates = {"avs_object": rate, "avs_semantic": rate, "boundary_f": rate}
    assert found == {"32 x 32": rates, "48 x 48": rates}
