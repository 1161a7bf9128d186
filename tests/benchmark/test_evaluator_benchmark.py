import numpy as np

from qdformer.benchmark import evaluator_benchmark
from qdformer.benchmark.blobs import moving_blobs
from qdformer.benchmark.evaluator_benchmark import FRAMES, measure_evaluators, scored_clip
from qdformer.evaluation.avs_object_evaluation import AVSObjectEvaluator
from qdformer.evaluation.avs_semantic_evaluation import AVSSemanticEvaluator


def test_blobs_are_seen_and_move():
    masks = moving_blobs(np.random.default_rng(0), 3, 2, (60, 80))
    assert masks.shape == (3, 2, 60, 80)
    assert (masks.mean(axis=(2, 3)) > 0.01).all()
    assert (masks.mean(axis=(2, 3)) < 0.25).all()
    assert (masks[0] != masks[2]).any(axis=(1, 2)).all()


def test_the_prediction_is_nearly_right(tmp_path):
    clip, output = scored_clip(tmp_path, (90, 120))
    objects = AVSObjectEvaluator("avsbench_ms3_test")
    objects.process([clip], [output])
    scores = objects.evaluate()["avs_object"]
    assert scores["frames"] == FRAMES
    assert 60 < scores["J"] < 100
    assert 30 < scores["F"] < 100
    semantics = AVSSemanticEvaluator("avsbench_avss_test")
    semantics.process([clip], [output])
    assert 20 < semantics.evaluate()["avs_semantic"]["foreground_mIoU"] < scores["J"]
    assert 0 <= output["foreground"].min() < output["foreground"].max() <= 1


def test_frames_a_second_of_each(options, monkeypatch, ticking):
    monkeypatch.setattr(evaluator_benchmark, "SIZES", ((45, 60), (60, 45)))
    monkeypatch.setattr(evaluator_benchmark, "CPUClock", lambda: ticking)
    *_, found = measure_evaluators(None, options)
    rate = {"median": FRAMES, "min": FRAMES, "max": FRAMES}
    rates = {"avs_object": rate, "avs_semantic": rate, "boundary_f": rate}
    assert found == {"60 x 45": rates, "45 x 60": rates}
