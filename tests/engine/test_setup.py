import pytest
import soundfile
from detectron2.data import DatasetCatalog

from qdformer.config.loading import load_config
from qdformer.engine.setup import check_datasets, load_records, register_roots
from qdformer.errors import InputError
from qdformer.synthetic.variants import register_sound_variants
from tests.samples import small_config

# Each line stands for ten times the values of the one before.
LAUGHS = "A0: &a0 1\n" + "".join(
    f"A{n + 1}: &a{n + 1} {{{', '.join(f'b{k}: *a{n}' for k in range(10))}}}\n" for n in range(12)
)


def config(train, test, classes=0):
    return small_config(
        "DATASETS.TRAIN", train, "DATASETS.TEST", test, "MODEL.QDFORMER.NUM_CLASSES", classes
    )


def test_classes_come_from_the_data(composed):
    for layout, classes in (("avss", 3), ("ms3", 1), ("s4", 1)):
        cfg = config((f"tiny_{layout}_train",), (f"tiny_{layout}_test",))
        check_datasets(cfg, eval_only=False)
        assert cfg.MODEL.QDFORMER.NUM_CLASSES == classes


@pytest.mark.parametrize(
    ("train", "test", "classes", "message"),
    [
        (
            ("tiny_avss_trian",),
            (),
            0,
            "'tiny_avss_trian' is not registered; known: .*tiny_avss_train",
        ),
        (("tiny_avss_train",), ("tiny_ms3_test",), 0, "tiny_ms3_test has other classes than"),
        (("tiny_avss_train",), (), 70, "NUM_CLASSES is 70, but tiny_avss_train has 3"),
        ((), (), 0, "DATASETS.TRAIN is empty"),
    ],
)
def test_wrong_data_sets(composed, train, test, classes, message):
    if not train:
        with pytest.raises(InputError, match="DATASETS.TEST is empty"):
            check_datasets(config(train, test, classes), eval_only=True)
        return
    with pytest.raises(InputError, match=message):
        check_datasets(config(train, test, classes), eval_only=False)


def test_evaluation_needs_no_training_data(composed):
    cfg = config(("avsbench_avss_train",), ("tiny_avss_test",))
    check_datasets(cfg, eval_only=True)
    assert cfg.MODEL.QDFORMER.NUM_CLASSES == 3


def test_a_folder_that_is_not_there_is_named(tmp_path):
    register_roots([str(tmp_path / "nowhere")])
    with pytest.raises(InputError, match="nowhere"):
        load_records("nowhere_avss_train")


def test_registering_twice(composed, tmp_path):
    register_roots([str(composed)])
    with pytest.raises(InputError, match="tiny"):
        register_roots([str(tmp_path / "tiny")])


def test_sound_variants_change_the_sound_alone(composed, tmp_path):
    names = register_sound_variants("tiny_avss_test", str(tmp_path))
    right, silent, noise, other = (DatasetCatalog.get(name) for name in names)
    sounds = [record["audio_file_name"] for record in right]
    assert [record["audio_file_name"] for record in other] == [*sounds[1:], sounds[0]]
    assert {record["audio_file_name"] for record in silent} == {str(tmp_path / "silence.wav")}
    assert not soundfile.read(tmp_path / "silence.wav")[0].any()
    waveform, _ = soundfile.read(noise[0]["audio_file_name"])
    assert abs(waveform.std() - 3**-0.5) < 0.01  # uniform from -1 to 1
    for records in (silent, noise, other):
        for record, original in zip(records, right):
            assert {k: v for k, v in record.items() if k != "audio_file_name"} == {
                k: v for k, v in original.items() if k != "audio_file_name"
            }
    assert register_sound_variants("tiny_avss_test", str(tmp_path)) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_BASE_: other.yaml\n", "other.yaml: its _BASE_ .*config.yaml is based on it"),
        ("_BASE_: [none.yaml]\n", "none.yaml: no such config file"),
        ("SEED: &a [*a]\n", "config.yaml: stands for more than 100000 values"),
        (LAUGHS, "config.yaml: stands for more than 100000 values"),
        ("SEED: " + "[" * 1000 + "]" * 1000, "config.yaml: "),
        ("SEED: [1\n", "config.yaml: "),
        ("- 1\n- 2\n", "config.yaml: "),
    ],
    ids=["loop", "no base", "in itself", "aliases", "deep", "broken", "list"],
)
def test_configs_that_cannot_be_read(tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text("_BASE_: config.yaml\n")
    with pytest.raises(InputError, match=message):
        load_config(str(tmp_path / "config.yaml"), [])


def test_a_config_may_have_several_bases(tmp_path):
    (tmp_path / "a.yaml").write_text("SEED: 5\nOUTPUT_DIR: a\n")
    (tmp_path / "b.yaml").write_text("OUTPUT_DIR: b\n")
    (tmp_path / "config.yaml").write_text("_BASE_: [a.yaml, b.yaml]\n")
    cfg = load_config(str(tmp_path / "config.yaml"), ["SEED", "6"])
    assert (cfg.SEED, cfg.OUTPUT_DIR) == (6, "b")


def test_a_config_that_detectron2_dumped_may_have_aliases(tmp_path):
    cfg = small_config("MODEL.FPN.IN_FEATURES", ["a"])
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES
    assert "*id" in cfg.dump()
    (tmp_path / "config.yaml").write_text(cfg.dump())
    found = load_config(str(tmp_path / "config.yaml"), [])
    assert found.MODEL.RESNETS.OUT_FEATURES == found.MODEL.FPN.IN_FEATURES == ["a"]
