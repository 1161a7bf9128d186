import json
import shutil
from pathlib import Path

import cv2
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from qdformer.engine.checkpointer import AVSCheckpointer, load_vggish
from qdformer.engine.hooks import BestCheckpointer
from qdformer.engine.setup import register_roots
from qdformer.engine.trainer import Trainer, headline_metric
from qdformer.errors import InputError, sentence
from tests.engine.training import assert_same_state, config, train
from tests.samples import small_config, small_model


@pytest.fixture(scope="module")
def finished(composed, tmp_path_factory):
    """A run of two iterations that ended."""
    cfg = config(tmp_path_factory.mktemp("run"))
    return cfg, train(cfg)


def test_a_run_leaves_scalars_results_pictures_and_the_best_checkpoint(finished):
    cfg, _ = finished
    output = Path(cfg.OUTPUT_DIR)
    logged = {}
    for line in (output / "metrics.json").read_text().splitlines():
        logged |= json.loads(line)
    losses = {"loss_class", "loss_mask", "loss_dice", "loss_bbox", "loss_giou", "loss_quant"}
    assert losses | {"codebook/usage", "codebook/perplexity", headline_metric(cfg)} <= set(logged)
    assert logged["total_loss"] == pytest.approx(sum(logged[name] for name in losses), rel=1e-4)
    assert (output / "model_final.pth").exists() and (output / "model_best.pth").exists()
    (sheet,) = (output / "sheets").glob("*.png")
    assert cv2.imread(str(sheet)).std() > 0
    assert list(output.glob("events.out.tfevents.*"))
    assert list((output / "inference" / "tiny_avss_test").glob("*.json"))


def test_resume_restores_weights_optimizer_and_schedule(finished):
    cfg, trainer = finished
    longer = cfg.clone()
    longer.defrost()
    longer.SOLVER.MAX_ITER = 4
    resumed = Trainer(longer)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 2
    assert_same_state(trainer, resumed)
    resumed.train()
    assert resumed.iter == 4


def test_evaluation_of_a_checkpoint_repeats_the_runs_result(finished):
    cfg, trainer = finished
    first = Trainer.test(cfg, trainer.model)
    model = Trainer.build_model(cfg)
    path = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    AVSCheckpointer(model, complete=True).load(path)
    assert Trainer.test(cfg, model) == first
    assert 0 <= first["avs_semantic"]["mIoU"] <= 100


def test_the_evaluator_is_the_metadatas(composed):
    for layout, evaluator in (("ms3", "AVSObjectEvaluator"), ("avss", "AVSSemanticEvaluator")):
        name = f"tiny_{layout}_test"
        DatasetCatalog.get(name)
        built = Trainer.build_evaluator(small_config(), name)
        assert type(built).__name__ == evaluator
        assert MetadataCatalog.get(name).evaluator_type in ("avs_object", "avs_semantic")


def test_undecodable_clips_are_skipped_counted_and_named(composed, tmp_path, caplog):
    root = tmp_path / "damaged"
    shutil.copytree(composed, root)
    register_roots([str(root)])
    broken = DatasetCatalog.get("damaged_avss_train")[:3]
    for record in broken:
        Path(record["file_names"][1]).write_bytes(b"\xff\xd8 no picture")
    cfg = config(tmp_path / "run", "damaged", "DATASETS.TEST", (), "SOLVER.MAX_ITER", 6)
    with caplog.at_level("WARNING", logger="qdformer"):
        train(cfg)
    report = [r.getMessage() for r in caplog.records if "could not be read" in r.getMessage()]
    assert len(report) == 1
    named = {record["video_id"] for record in broken if record["video_id"] in report[0]}
    assert named and (tmp_path / "run" / "model_final.pth").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_test_clip_is_named_and_costs_nothing(composed, tmp_path, workers):
    root = tmp_path / f"unreadable{workers}"
    shutil.copytree(composed, root)
    register_roots([str(root)])
    broken = DatasetCatalog.get(f"{root.name}_avss_test")[1]["file_names"][0]
    cfg = config(
        tmp_path / "run", root.name, "TEST.EVAL_PERIOD", 2, "SOLVER.MAX_ITER", 4,
        "SOLVER.CHECKPOINT_PERIOD", 100, "DATALOADER.NUM_WORKERS", workers,
    )  # fmt: skip
    Path(broken).write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(InputError) as caught:
        Trainer(cfg).train()
    assert broken in sentence(caught.value) and "Traceback" not in sentence(caught.value)
    resumed = Trainer(cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 2


def test_weights_of_another_architecture_are_refused(finished, tmp_path):
    cfg, _ = finished
    path = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    other = small_model("MODEL.QDFORMER.NUM_CLASSES", 3, "MODEL.QDFORMER.HIDDEN_DIM", 64)
    for complete in (True, False):
        with pytest.raises(InputError, match="weights of another architecture"):
            AVSCheckpointer(other, complete=complete).load(path)
    with pytest.raises(InputError, match="none.pth: no such file"):
        AVSCheckpointer(other).load(str(tmp_path / "none.pth"))
    (tmp_path / "broken.pth").write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="broken.pth: cannot be used as weights"):
        AVSCheckpointer(other).load(str(tmp_path / "broken.pth"))
    with pytest.raises(InputError, match="MODEL.WEIGHTS is empty"):
        AVSCheckpointer(other, complete=True).load("")


def test_a_checkpoint_of_a_larger_model_is_not_evaluated(tmp_path):
    torch.save({"model": small_model().state_dict()}, tmp_path / "whole.pth")
    smaller = small_model("MODEL.META_ARCHITECTURE", "QDFormerBaseline")
    with pytest.raises(InputError, match="that the model does not have"):
        AVSCheckpointer(smaller, complete=True).load(str(tmp_path / "whole.pth"))


def test_a_file_without_any_known_tensor_is_refused(tmp_path):
    torch.save({"foo": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="weights of another architecture: 0 of"):
        AVSCheckpointer(small_model()).load(str(tmp_path / "other.pth"))


def test_resuming_with_other_trained_parameters_is_refused(finished):
    cfg, _ = finished
    frozen = cfg.clone()
    frozen.defrost()
    frozen.MODEL.AUDIO.WEIGHTS = "vggish.pth"
    with pytest.raises(InputError, match="the run trained other parameters than this config"):
        Trainer(frozen).resume_or_load(resume=True)


def test_the_best_metric_survives_a_resume(finished):
    cfg, trainer = finished
    hook = next(hook for hook in trainer._hooks if isinstance(hook, BestCheckpointer))
    state, other = trainer.state_dict(), Trainer(cfg)
    assert hook.best_metric is not None
    other.load_state_dict(state)
    resumed = next(hook for hook in other._hooks if isinstance(hook, BestCheckpointer))
    assert resumed.best_metric == hook.best_metric


def test_a_backbone_alone_may_start_training_but_not_be_evaluated(tmp_path):
    source, model = small_model(), small_model()
    weights = {k: v + 1 for k, v in source.state_dict().items() if k.startswith("backbone.")}
    torch.save({"model": weights}, tmp_path / "backbone.pth")
    AVSCheckpointer(model).load(str(tmp_path / "backbone.pth"))
    for key, value in weights.items():
        assert torch.equal(model.state_dict()[key], value)
    with pytest.raises(InputError, match="weights of another architecture"):
        AVSCheckpointer(model, complete=True).load(str(tmp_path / "backbone.pth"))


def test_vggish_weights(tmp_path):
    source, model = small_model(), small_model()
    vggish = source.audio_encoder.vggish
    weights = {key: value + 1 for key, value in vggish.state_dict().items()}
    torch.save(weights, tmp_path / "vggish.pth")
    load_vggish(model, str(tmp_path / "vggish.pth"))
    for key, value in weights.items():
        assert torch.equal(model.audio_encoder.vggish.state_dict()[key], value)
    weights.pop("features.0.weight")
    torch.save(weights, tmp_path / "part.pth")
    with pytest.raises(InputError, match="part.pth: features.0.weight has shape missing"):
        load_vggish(model, str(tmp_path / "part.pth"))
    with pytest.raises(InputError, match="none.pth: no such file"):
        load_vggish(model, str(tmp_path / "none.pth"))
    torch.save(source, tmp_path / "module.pth")
    with pytest.raises(InputError, match="module.pth: cannot be used as weights"):
        load_vggish(model, str(tmp_path / "module.pth"))
