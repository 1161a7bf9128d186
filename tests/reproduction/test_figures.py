import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from qdformer.data.dataset_mapper import AVSDatasetMapper
from qdformer.engine.trainer import Trainer
from qdformer.errors import InputError
from qdformer.evaluation.token_collection import match_tokens
from qdformer.reproduction.experiments import EXPERIMENTS
from qdformer.reproduction.figures import DRAW, FigureOptions, draw_figure
from qdformer.reproduction.runs import plan
from qdformer.reproduction.token_space import collect_tokens
from tests.engine.training import config, train
from tests.samples import small_config

OPTIONS = FigureOptions(snrs=(0.0, 10.0))


@pytest.fixture(scope="module")
def finished(composed, tmp_path_factory):
    """A model of two iterations, and the runs of each figure as if each had trained it."""
    folder = tmp_path_factory.mktemp("figures")
    trainer = train(config(folder / "run"))
    layers = trainer.cfg.MODEL.QDFORMER.DECODER_LAYERS
    small = small_config("INPUT.MIN_SIZE_TEST", 64, "MODEL.QDFORMER.DECODER_LAYERS", layers)
    (folder / "small.yaml").write_text(small.dump())
    metrics = Trainer.test(trainer.cfg, trainer.model)["avs_semantic"]

    def runs(name, data="tiny_avss"):
        planned = plan(
            EXPERIMENTS[name],
            data=[data],
            seeds=1,
            config_file=str(folder / "small.yaml"),
            overrides=["MODEL.QDFORMER.NUM_CLASSES", "0"],
            output=folder,
        )[:1]
        for run in planned:
            run.folder.mkdir(parents=True, exist_ok=True)
            for file in ("model_final.safetensors", "metrics.json"):
                (run.folder / file).write_bytes((folder / "run" / file).read_bytes())
            result = {"metrics": metrics, "error": None, "seconds": 1, "peak_memory_gb": 1}
            (run.folder / "result.json").write_text(json.dumps(result))
        return planned

    return runs


@pytest.mark.parametrize("name", DRAW)
def test_every_figure_is_drawn_for_its_data_set(finished, name):
    pictures = draw_figure(name, finished(name), OPTIONS)
    assert pictures and all(caption.startswith("tiny_avss: ") for caption in pictures)
    for picture in pictures.values():
        assert picture.dtype == np.uint8 and picture.shape[2] == 3 and picture.std() > 0


def test_a_run_that_has_not_ended_and_a_table_have_no_picture(finished):
    (run,) = finished("fig5")
    (run.folder / "result.json").unlink()
    assert draw_figure("fig5", [run], OPTIONS) == {}
    assert draw_figure("tabC", finished("figA"), OPTIONS) == {}


def test_noise_is_evaluated_once(finished, monkeypatch):
    runs = finished("fig7")
    first = draw_figure("fig7", runs, OPTIONS)
    kept = json.loads((runs[0].folder / "noise.json").read_text())
    assert set(kept) == {"mixture 0", "mixture 10"}
    monkeypatch.setattr(Trainer, "test", None)
    again = draw_figure("fig7", runs, OPTIONS)
    assert all(np.array_equal(first[caption], again[caption]) for caption in first)


def test_what_cannot_be_drawn_is_said(finished):
    with pytest.raises(InputError, match="has no class whale; known: bell, drum, siren"):
        draw_figure("fig6", finished("fig6"), FigureOptions(classes=("whale",)))
    (run,) = finished("figA", "tiny_ms3")
    metrics = {"metrics": {"J&F": 5.0}, "error": None}
    (run.folder / "result.json").write_text(json.dumps(metrics))
    with pytest.raises(InputError, match="tiny_ms3 has no classes to compare"):
        draw_figure("figA", [run], OPTIONS)


def test_tokens_are_those_of_the_model(composed):
    cfg = config(composed.parent / "tokens")
    model = Trainer.build_model(cfg).eval()
    name = "tiny_avss_train"
    metadata, mapper = MetadataCatalog.get(name), AVSDatasetMapper(cfg, False)
    clips = [mapper(record) for record in DatasetCatalog.get(name)]
    with torch.no_grad():
        # Tokens that cover everything match wherever an object is large.
        model.mask_decoder.class_head[-1].bias.fill_(3)
        matches = [match_tokens(clip, model([clip])[0], metadata) for clip in clips]
    space = collect_tokens(model, clips, metadata)
    expected = np.concatenate([match.classes[match.classes > 0] for match in matches])
    assert np.array_equal(space.classes, expected)
    assert len(space.decomposed.vectors) == len(space.codes) == len(expected)
    sounding = [labels for match in matches for labels in match.sounding if labels]
    assert len(space.mixed.vectors) == len(sounding) == len(space.mixed.classes)
    assert [name.count("+") + 1 for name in space.mixed.classes] == list(map(len, sounding))
    assert not model.fusion._forward_hooks and not model.local_calibration.decoder._forward_hooks
