import re
from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg

from qdformer.config.defaults import add_qdformer_config
from qdformer.config.loading import load_config
from qdformer.errors import InputError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def added_keys():
    plain, ours = get_cfg(), get_cfg()
    add_qdformer_config(ours)
    return sorted(set(leaves(ours)) - set(leaves(plain)))


@pytest.mark.parametrize("key", added_keys())
def test_every_key_is_read(key):
    name = key.split(".")[-1]
    sources = [p.read_text() for p in (ROOT / "qdformer").rglob("*.py") if p.name != "defaults.py"]
    assert any(re.search(rf"\.{name}\b|\"{name}\"", source) for source in sources)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_configs_are_complete_and_deltas(path):
    cfg = load_config(str(path), [])
    assert cfg.MODEL.META_ARCHITECTURE == "QDFormer"
    by_steps = cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupMultiStepLR"
    assert not by_steps or cfg.SOLVER.MAX_ITER > max(cfg.SOLVER.STEPS, default=0)
    assert path.name.startswith("Base") or "_BASE_" in path.read_text()


def test_a_shipped_config_is_found_by_its_place_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("realsound/avss.yaml", "configs/realsound/avss.yaml"):
        assert load_config(name, []).MODEL.AUDIO.NAME == "YAMNet"
    with pytest.raises(InputError, match="no such config file"):
        load_config("configs/../pyproject.toml", [])


def test_the_papers_numbers_are_the_defaults():
    cfg = load_config(str(ROOT / "configs" / "qdformer_swin_t.yaml"), [])
    model = cfg.MODEL.QDFORMER
    assert (model.NUM_TOKENS, model.CODEBOOK.NUM_CODES, model.DECODER_LAYERS) == (5, 128, 3)
    assert (model.HIDDEN_DIM, model.DIM_FEEDFORWARD, model.ENCODER.LAYERS) == (256, 1024, 3)
    loss = model.LOSS
    assert (loss.QUANT, loss.CLASS, loss.MASK, loss.DICE, loss.L1, loss.GIOU) == (1, 2, 5, 2, 5, 2)
    assert (model.MASK_THRESHOLD, model.CLASS_THRESHOLD) == (0.5, 0.1)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.BACKBONE_MULTIPLIER) == (1e-4, 0.5)
    assert (cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.IMS_PER_BATCH) == (5e-4, 4)
    epochs = {"qdformer_swin_t": (8498, 16, 14), "qdformer_swin_t_s4": (3452, 13, 11),
              "qdformer_swin_t_ms3": (296, 13, 11)}  # fmt: skip
    for name, (clips, length, decay) in epochs.items():
        solver = load_config(str(ROOT / "configs" / f"{name}.yaml"), []).SOLVER
        assert solver.MAX_ITER == pytest.approx(clips / 4 * length, abs=1)
        assert solver.STEPS[0] == pytest.approx(clips / 4 * decay, abs=1)


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("configs/none.yaml", [], "configs/none.yaml: no such config file"),
        ("", ["MODEL.QDFORMER.NUM_TOKEN", "3"], "NUM_TOKEN"),
        ("", ["MODEL.QDFORMER.NUM_TOKENS", "many"], "NUM_TOKENS"),
        ("", ["MODEL.QDFORMER.NUM_TOKENS"], "MODEL.QDFORMER.NUM_TOKENS"),
    ],
)
def test_a_wrong_key_or_value_is_named(config, overrides, message):
    with pytest.raises(InputError, match=message):
        load_config(config, overrides)


def test_a_config_file_executes_nothing(tmp_path):
    touched, path = tmp_path / "touched", tmp_path / "evil.yaml"
    path.write_text(f'MODEL: !!python/object/apply:os.system ["touch {touched}"]\n')
    with pytest.raises(InputError, match="evil.yaml"):
        load_config(str(path), [])
    assert not touched.exists()


@pytest.mark.parametrize("text", ["", "words", "MODEL: 3", "MODEL: [", "_BASE_: nowhere.yaml"])
def test_a_file_that_is_no_config_is_named(tmp_path, text):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="odd.yaml"):
        load_config(str(path), [])


def test_a_typo_in_a_file_is_named(tmp_path):
    path = tmp_path / "typo.yaml"
    path.write_text("MODEL:\n  QDFORMER:\n    NUM_TOKEN: 3\n")
    with pytest.raises(InputError, match=r"typo\.yaml.*NUM_TOKEN"):
        load_config(str(path), [])


@pytest.mark.parametrize(
    "text", ["# begun at 10:30", "OUTPUT_DIR: '/data/run 10:30'", "OUTPUT_DIR: /data/<<x"]
)
def test_texts_with_colons_are_read(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(f"_BASE_: {ROOT}/configs/quickstart.yaml\n{text}\n")
    assert load_config(str(path), []).SOLVER.MAX_ITER == 800


def test_merges_and_bases_that_multiply_are_refused_at_once(tmp_path):
    merged = "a0: &a0 {x: 1}\n" + "".join(
        f"a{i}: &a{i}\n  !!merge x: [{', '.join([f'*a{i - 1}'] * 8)}]\n" for i in range(1, 30)
    )
    path = tmp_path / "merged.yaml"
    path.write_text(merged)
    with pytest.raises(InputError, match="merged.yaml: has a merge key"):
        load_config(str(path), [])
    for number in range(20):
        base = f"[c{number + 1}.yaml, c{number + 1}.yaml]" if number < 19 else "[]"
        (tmp_path / f"c{number}.yaml").write_text(f"_BASE_: {base}\nSEED: 1\n")
    with pytest.raises(InputError, match="c0.yaml: is based on more than 30 configs"):
        load_config(str(tmp_path / "c0.yaml"), [])
    (tmp_path / "five.yaml").write_text("_BASE_: 5\n")
    with pytest.raises(InputError, match="five.yaml: its _BASE_ is 5"):
        load_config(str(tmp_path / "five.yaml"), [])
