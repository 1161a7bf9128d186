import json
import shutil
from pathlib import Path

import cv2
import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase

from qdformer.checkpoint.checkpointer import AVSCheckpointer, load_audio_network
from qdformer.engine.hooks import BestCheckpointer, Preempted
from qdformer.engine.setup import register_roots
from qdformer.engine.trainer import Trainer, primary_metric
from qdformer.errors import InputError
from qdformer.evaluation.language_evaluation import MEASURES
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
    of_masks = {f"loss_{name}" for name in ("class", "mask", "dice", "bbox", "giou")}
    of_clips = {name.replace("_", "_global_") for name in of_masks}
    losses = of_masks | of_clips | {"loss_quant"}
    codebook = {"usage", "perplexity", "closed", "global_distance", "local_distance"}
    assert losses | {f"codebook/{name}" for name in codebook} <= set(logged)
    assert {primary_metric(cfg), *(f"language/{name}" for name in MEASURES)} <= set(logged)
    assert logged["total_loss"] == pytest.approx(sum(logged[name] for name in losses), rel=1e-4)
    assert (output / "model_final.pth").exists() and (output / "model_best.safetensors").exists()
    (sheet,) = (output / "sheets").glob("*.png")
    assert cv2.imread(str(sheet)).std() > 0
    assert list(output.glob("events.out.tfevents.*"))
    assert list((output / "inference" / "tiny_avss_test").glob("*.json"))


def test_resume_restores_weights_optimizer_and_schedule(finished, tmp_path):
    cfg, trainer = finished
    shutil.copytree(cfg.OUTPUT_DIR, tmp_path / "run")
    longer = cfg.clone()
    longer.defrost()
    longer.merge_from_list(["OUTPUT_DIR", str(tmp_path / "run"), "SOLVER.MAX_ITER", 4])
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
    for task, metrics in Trainer.test(cfg, model).items():
        assert metrics == pytest.approx(first[task], rel=0, abs=0, nan_ok=True)
    assert 0 <= first["avs_semantic"]["mIoU"] <= 100


def test_the_evaluator_is_the_metadatas(composed):
    for layout, evaluator in (("ms3", "AVSObjectEvaluator"), ("avss", "AVSSemanticEvaluator")):
        name = f"tiny_{layout}_test"
        DatasetCatalog.get(name)
        built = Trainer.build_evaluator(small_config(), name)
        assert [type(each).__name__ for each in built._evaluators] == [
            evaluator, "LanguageEvaluator", "TrackEvaluator"
        ]  # fmt: skip
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
def test_an_unreadable_test_clip_is_skipped_and_named(composed, tmp_path, caplog, workers):
    root = tmp_path / f"unreadable{workers}"
    shutil.copytree(composed, root)
    register_roots([str(root)])
    broken = DatasetCatalog.get(f"{root.name}_avss_test")[1]["file_names"][0]
    cfg = config(
        tmp_path / "run", root.name, "TEST.EVAL_PERIOD", 2, "SOLVER.MAX_ITER", 4,
        "SOLVER.CHECKPOINT_PERIOD", 100, "DATALOADER.NUM_WORKERS", workers,
    )  # fmt: skip
    Path(broken).write_bytes(b"\xff\xd8 no picture")
    with caplog.at_level("WARNING", logger="qdformer"):
        trainer = train(cfg)
    assert trainer.iter == 4
    frames = sum(len(r["file_names"]) for r in DatasetCatalog.get(f"{root.name}_avss_test"))
    scored = Trainer.test(cfg, trainer.model)["avs_semantic"]["frames"]
    assert 0 < scored < frames
    assert broken in (tmp_path / "run" / "skipped_clips.txt").read_text()
    (report,) = [r.getMessage() for r in caplog.records if "could not be read" in r.getMessage()]
    assert report.startswith("1 clips")


def test_weights_of_another_architecture_are_refused(finished, tmp_path):
    cfg, _ = finished
    path = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    other = small_model("MODEL.QDFORMER.NUM_CLASSES", 3, "MODEL.QDFORMER.HIDDEN_DIM", 64)
    with pytest.raises(InputError, match="weights of another architecture"):
        AVSCheckpointer(other, complete=True).load(path)
    with pytest.raises(InputError, match="none.pth: no such file"):
        AVSCheckpointer(other).load(str(tmp_path / "none.pth"))
    (tmp_path / "broken.pth").write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="broken.pth: cannot be used as weights"):
        AVSCheckpointer(other).load(str(tmp_path / "broken.pth"))
    with pytest.raises(InputError, match="MODEL.WEIGHTS is empty"):
        AVSCheckpointer(other, complete=True).load("")


@pytest.mark.parametrize(
    ("key", "value", "anew"),
    [
        ("NUM_CLASSES", 5, {"mask_decoder.class_head.2.weight", "mask_decoder.class_head.2.bias"}),
        ("NUM_TOKENS", 7, {"prototypes", "recombination.phi.weight"}),
        ("CODEBOOK.NUM_CODES", 9, {"codebook.codewords", "codebook.usage"}),
    ],
)
def test_fine_tuning_begins_anew_where_shapes_differ_and_says_where(
    tmp_path, caplog, key, value, anew
):
    source, target = small_model(), small_model(f"MODEL.QDFORMER.{key}", value)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter += 1
    torch.save({"model": source.state_dict()}, tmp_path / "source.pth")
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with caplog.at_level("WARNING", logger="qdformer"):
        AVSCheckpointer(target).load(str(tmp_path / "source.pth"))
    after, given = target.state_dict(), source.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in anew)
    assert all(torch.equal(after[name], given[name]) for name in given.keys() - anew)
    (record,) = [r for r in caplog.records if "begin anew" in r.getMessage()]
    assert all(name in record.getMessage() for name in anew)


def test_fine_tuning_keeps_the_words_and_opens_the_bottleneck_again(finished, tmp_path, caplog):
    cfg, trainer = finished
    tuned = config(tmp_path / "tuned", "tiny", "MODEL.WEIGHTS", f"{cfg.OUTPUT_DIR}/model_final.pth",
                   "SOLVER.MAX_ITER", 10)  # fmt: skip
    other = Trainer(tuned)
    with caplog.at_level("INFO", logger="qdformer"):
        other.resume_or_load(resume=False)
    words = trainer.model.codebook.codewords
    assert torch.equal(other.model.codebook.codewords, words)
    assert float(trainer.model.codebook.closed) == 1 and float(other.model.codebook.closed) == 0
    assert any("FADE_IN" in record.getMessage() for record in caplog.records)


def test_a_resumed_run_takes_the_configs_rates_and_says_so(finished, tmp_path, caplog):
    cfg, _ = finished
    shutil.copytree(cfg.OUTPUT_DIR, tmp_path / "run")
    changed = cfg.clone()
    changed.defrost()
    changed.merge_from_list([
        "OUTPUT_DIR", str(tmp_path / "run"), "SOLVER.BASE_LR", cfg.SOLVER.BASE_LR / 100,
        "SOLVER.WEIGHT_DECAY", 0.25, "SOLVER.MAX_ITER", 4,
    ])  # fmt: skip
    with caplog.at_level("INFO", logger="qdformer"):
        resumed = train(changed, True)
    groups = resumed.optimizer.param_groups
    assert max(group["lr"] for group in groups) == pytest.approx(changed.SOLVER.BASE_LR)
    assert {group["weight_decay"] for group in groups} == {0.0, 0.25}
    assert any("Resuming with learning rate" in record.getMessage() for record in caplog.records)


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


def test_checkpoints_from_when_vggish_was_the_only_network_load(tmp_path):
    source, model = small_model(), small_model()
    weights = {
        name.replace("audio_encoder.network.", "audio_encoder.vggish."): value + 1
        for name, value in source.state_dict().items()
    }
    torch.save({"model": weights}, tmp_path / "old.pth")
    AVSCheckpointer(model, complete=True).load(str(tmp_path / "old.pth"))
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value + 1), name


def test_weights_of_an_audio_network(tmp_path):
    source, model = small_model(), small_model()
    vggish = source.audio_encoder.network
    weights = {key: value + 1 for key, value in vggish.state_dict().items()}
    torch.save(weights, tmp_path / "vggish.pth")
    load_audio_network(model, str(tmp_path / "vggish.pth"))
    for key, value in weights.items():
        assert torch.equal(model.audio_encoder.network.state_dict()[key], value)
    weights.pop("features.0.weight")
    torch.save(weights, tmp_path / "part.pth")
    with pytest.raises(InputError, match="part.pth: features.0.weight has shape missing"):
        load_audio_network(model, str(tmp_path / "part.pth"))
    with pytest.raises(InputError, match="none.pth: no such file"):
        load_audio_network(model, str(tmp_path / "none.pth"))
    torch.save(source, tmp_path / "module.pth")
    with pytest.raises(InputError, match="module.pth: cannot be used as weights"):
        load_audio_network(model, str(tmp_path / "module.pth"))


def test_a_card_says_what_the_final_model_is(finished):
    cfg, _ = finished
    output = Path(cfg.OUTPUT_DIR)
    text = (output / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "qdformer"
    assert (output / "model_final.safetensors").exists() and "model_final.safetensors" in body
    classes = MetadataCatalog.get("tiny_avss_train").stuff_classes[1:]
    assert all(name in body for name in classes)
    value = finished[1]._last_eval_results["avs_semantic"]["mIoU"]
    assert f"| tiny_avss_test | **mIoU** | **{value:.1f}** |" in body


def test_a_run_that_was_stopped_has_no_card(composed, tmp_path):
    cfg = config(tmp_path / "run", "tiny", "SOLVER.MAX_ITER", 3)

    class Stop(HookBase):
        def after_step(self):
            raise Preempted

    with pytest.raises(Preempted):
        train(cfg, False, Stop())
    assert not (tmp_path / "run" / "README.md").exists()
