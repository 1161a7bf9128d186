import subprocess
import sys

import pytest
import torch
import yaml
from detectron2.data import MetadataCatalog

from qdformer.checkpoint.metadata import CLASS_ROWS, read_metadata, reconcile, run_metadata
from qdformer.checkpoint.weights import read_weights, write_weights
from qdformer.errors import InputError
from tests.engine.training import config, train
from tests.samples import small_model
from tests.videos import save_described


@pytest.fixture
def stored(composed, tmp_path):
    """A checkpoint and its content."""
    path = save_described(tmp_path / "model.safetensors")
    return path, read_weights(str(path))


def test_every_checkpoint_of_a_run_says_what_it_is(composed, tmp_path):
    cfg = config(tmp_path, "tiny", "TEST.EVAL_PERIOD", 1)
    train(cfg)
    for name in ("model_final.pth", "model_final.safetensors", "model_best.safetensors"):
        found, metadata = read_metadata(str(tmp_path / name))
        assert metadata.stuff_classes == MetadataCatalog.get("tiny_avss_train").stuff_classes
        assert [*map(tuple, metadata.stuff_colors)] == [
            *map(tuple, MetadataCatalog.get("tiny_avss_train").stuff_colors)
        ]
        assert found.MODEL.WEIGHTS == str(tmp_path / name)
        # Where the run wrote its results is nobody's business.
        assert found.OUTPUT_DIR == ""
        expected = cfg.clone()
        for other in (found, expected):
            other.defrost()
            other.OUTPUT_DIR = other.MODEL.WEIGHTS = ""
            other.DATASETS.AVS_ROOTS = ()
        assert yaml.safe_load(found.dump()) == yaml.safe_load(expected.dump())


def test_a_process_that_has_no_data_can_use_it(stored):
    code = (
        "import sys; from qdformer.checkpoint.metadata import read_metadata as read;"
        "print(read(sys.argv[1])[1].stuff_classes)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, stored[0]], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(MetadataCatalog.get("tiny_avss_train").stuff_classes)


def test_describing_changes_nothing(composed, tmp_path):
    cfg = config(tmp_path)
    before = cfg.dump()
    run_metadata(cfg)
    assert cfg.dump() == before and cfg.is_frozen()


def rewritten(stored, **changes):
    path, content = stored
    write_weights(content["model"], path, content["description"] | changes)
    return str(path)


def with_settings(stored, *settings):
    cfg = yaml.safe_load(stored[1]["description"]["config"])
    for key, value in zip(settings[::2], settings[1::2]):
        *parents, last = key.split(".")
        node = cfg
        for parent in parents:
            node = node[parent]
        node[last] = value
    return rewritten(stored, config=yaml.safe_dump(cfg))


@pytest.mark.parametrize("description", [None, "text", [1]])
def test_a_checkpoint_without_one_asks_for_its_config(stored, description):
    path, content = stored
    write_weights(content["model"], path, description)
    with pytest.raises(InputError, match="model.safetensors: carries no config.*--config-file"):
        read_metadata(str(path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": 3}, "cannot be used"),
        ({"config": "[[[["}, "cannot be used"),
        ({"config": "[" * 5000}, "cannot be used"),
        ({"config": "- 1"}, "cannot be used"),
        ({"config": "MODEL: {NONE: 1}"}, "MODEL.NONE"),
        ({"config": "!!python/object/apply:os.system ['exit']"}, "python/object"),
        ({"config": "a: &a [1,1,1,1,1,1,1,1]\n" + "".join(
            f"{name}: &{name} [" + ",".join([f"*{before}"] * 8) + "]\n"
            for before, name in zip("abcdefgh", "bcdefghi"))}, "multiply"),
        ({"config": "a: 1" + "0" * 2**16}, "characters"),
        ({"config": "SEED: " + ":".join(["59"] * 1000)}, "colons"),
        ({"config": "a: &a {b: 1}\nc: {<<: *a}"}, "merge key"),
        ({"config": "a: &a {b: 1}\nc: {!!merge x: *a}"}, "merge key"),
        ({"config": 'a: !!int "1\\x3a1"'}, "the number '1:1'"),
        ({"config": "MODEL: {WEIGHTS: http://localhost/a}"}, "an address on a network"),
        ({"classes": ["background", "bell"]}, "2 names and 4 colors of 3 classes"),
        ({"classes": ["background", "bell", "drum", "\x1b[2J"]}, "printed"),
        ({"classes": ["background", "bell", "drum", 5]}, "printed"),
        ({"colors": [[0, 0, 0]] * 3}, "4 names and 3 colors"),
        ({"colors": [[0, 0, 256]] * 4}, "0 to 255"),
        ({"colors": [[0, 0]] * 4}, "three numbers"),
        ({"colors": [7] * 4}, "cannot be used"),
    ],
)  # fmt: skip
def test_a_broken_description_is_one_sentence(stored, changes, words):
    path = rewritten(stored, **changes)
    with pytest.raises(InputError, match=words) as error:
        read_metadata(path)
    assert str(error.value).startswith(path) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("MODEL.QDFORMER.DIM_FEEDFORWARD", 10**9), "a network of .* numbers"),
        (("MODEL.QDFORMER.CODEBOOK.NUM_CODES", 10**12), "a network of .* numbers"),
        (("MODEL.AUDIO.FC_DIMS", [2**20, 2**20]), "a network of .* numbers"),
        (("MODEL.QDFORMER.DECODER_LAYERS", 10**9), "DECODER_LAYERS is 1000000000"),
        (("INPUT.MIN_SIZE_TEST", 10**6), "MIN_SIZE_TEST is 1000000"),
        (("TEST.WINDOW", 10**9), "TEST.WINDOW is 1000000000"),
        (("MODEL.BACKBONE.NAME", "build_anything"), "MODEL.BACKBONE.NAME"),
        (("MODEL.META_ARCHITECTURE", "GeneralizedRCNN"), "META_ARCHITECTURE"),
    ],
)
def test_a_config_from_anywhere_takes_no_memory(stored, settings, words):
    path = with_settings(stored, *settings)
    with pytest.raises(InputError, match=words):
        read_metadata(path)


def checkpoint_of(names, **inputs):
    """A checkpoint whose class head has in each row the place of its class, from 0 on."""
    rows = torch.arange(float(len(names)))
    config = {"INPUT": {"FORMAT": "RGB", "AUDIO_HOP": 0.96} | inputs}
    config |= {"MODEL": {"PIXEL_MEAN": [1.0] * 3, "PIXEL_STD": [1.0] * 3}}
    weights = {key: rows[:, None].expand(-1, 2) if "weight" in key else rows for key in CLASS_ROWS}
    description = {"config": yaml.safe_dump(config), "classes": ["background", *names]}
    return {"model": weights, "description": description}


def rows_after(checkpoint, names, whole, **inputs):
    """What the rows of the checkpoint become in a run with these classes; -1 are the run's own."""
    run = checkpoint_of(names, **inputs)
    own = {key: torch.full_like(value, -1) for key, value in run["model"].items()}
    reconcile(checkpoint, run["description"], own, "model.safetensors", whole)
    weight, bias = (checkpoint["model"][key] for key in CLASS_ROWS)
    assert torch.equal(weight[:, 0], bias)
    return bias.tolist()


@pytest.mark.parametrize("whole", [False, True])
def test_classes_in_another_order_are_mapped_by_name(whole):
    assert rows_after(checkpoint_of(["a", "b", "c"]), ["a", "b", "c"], whole) == [0, 1, 2]
    assert rows_after(checkpoint_of(["a", "b", "c"]), ["c", "a", "b"], whole) == [2, 0, 1]
    assert rows_after(checkpoint_of(["a", "b", "c"]), ["c"], whole) == [2]


def test_classes_that_the_checkpoint_lacks_begin_anew_or_are_refused(caplog):
    with caplog.at_level("WARNING", logger="qdformer"):
        assert rows_after(checkpoint_of(["a", "b"]), ["b", "new", "a"], False) == [1, -1, 0]
    assert "new" in caplog.text
    with pytest.raises(InputError, match="model.safetensors: .* new"):
        rows_after(checkpoint_of(["a", "b"]), ["b", "new"], True)


@pytest.mark.parametrize("inputs", [{"FORMAT": "BGR"}, {"AUDIO_HOP": 1.0}])
def test_inputs_that_a_checkpoint_was_not_trained_on_are_refused(inputs):
    (key,) = inputs
    with pytest.raises(InputError, match=f"model.safetensors: .*INPUT.{key}"):
        rows_after(checkpoint_of(["a"]), ["a"], True, **inputs)


def test_another_audio_hop_may_be_tuned_to(caplog):
    with caplog.at_level("WARNING", logger="qdformer"):
        assert rows_after(checkpoint_of(["a"]), ["a"], False, AUDIO_HOP=1.0) == [0]
    assert "INPUT.AUDIO_HOP" in caplog.text


def test_a_description_that_is_none_is_told(caplog):
    checkpoint = checkpoint_of(["a"])
    checkpoint["description"]["config"] = "{"
    with pytest.raises(InputError, match="model.safetensors: what it says of its config"):
        rows_after(checkpoint, ["a"], True)


def test_what_a_run_writes_can_be_read_and_names_no_folder(composed, tmp_path):
    cfg = config(tmp_path, "tiny", "DATASETS.AVS_ROOTS", ("/data/2026-11-27_10:30",),
                 "MODEL.AUDIO.WEIGHTS", "/home/me/10:30/vggish.pth")  # fmt: skip
    path = tmp_path / "model.safetensors"
    model = small_model("MODEL.QDFORMER.NUM_CLASSES", 3, "MODEL.QDFORMER.DECODER_LAYERS", 1)
    write_weights(model.state_dict(), path, run_metadata(cfg))
    found, _ = read_metadata(str(path))
    assert found.MODEL.AUDIO.WEIGHTS == "vggish.pth" and found.DATASETS.AVS_ROOTS == ()
    assert b"home" not in path.read_bytes() and b"/data" not in path.read_bytes()


@pytest.mark.parametrize("rows", [torch.zeros(1), torch.zeros(4), torch.tensor(1.0)])
def test_rows_that_are_not_the_classes_are_told(rows):
    checkpoint = checkpoint_of(["a", "b"])
    checkpoint["model"][CLASS_ROWS[1]] = rows
    with pytest.raises(InputError, match="names 2 classes, and its mask_decoder"):
        rows_after(checkpoint, ["b", "a"], False)
