import json
import pickle
import shutil
import struct
import tracemalloc
import warnings
import zipfile
from collections import OrderedDict
from urllib.parse import urlparse

import numpy as np
import pytest
import safetensors.torch
import torch
from detectron2.checkpoint import DetectionCheckpointer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qdformer.checkpoint.weights import read_weights, write_weights
from qdformer.errors import InputError
from tests.io.hostile_files import CODE, CONFIGS, PICKLES, read_config

NETWORK = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
WEIGHTS = NETWORK.state_dict()
ARRAYS = {name: tensor.numpy() for name, tensor in WEIGHTS.items()}
CHECKPOINT = {
    "model": WEIGHTS,
    "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]},
    "iteration": 7,
}
BACKBONE = {"model": ARRAYS, "__author__": "torchvision", "matching_heuristics": True}


def save_pickle(data, path):
    path.write_bytes(pickle.dumps(data, 2))


def save_old(data, path):
    torch.save(data, path, _use_new_zipfile_serialization=False)


def save_safetensors(data, path):
    safetensors.torch.save_file(data, path)


def save_header(tensors, path):
    """Safetensors of float32 whose header says what it wants."""
    header = {
        name: value if name == "__metadata__"
        else {"dtype": "F32", "shape": [value[0]], "data_offsets": value[1]}
        for name, value in tensors.items()
    }  # fmt: skip
    text = json.dumps(header).encode()
    data = b"" if "__metadata__" in tensors else b"\0" * 8
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


FILES = {
    "checkpoint.pth": (torch.save, CHECKPOINT, CHECKPOINT),
    "checkpoint_of_old_torch.pth": (save_old, CHECKPOINT, CHECKPOINT),
    "vggish.pth": (torch.save, WEIGHTS, {"model": WEIGHTS}),
    "vggish_of_old_torch.pth": (save_old, dict(WEIGHTS), {"model": WEIGHTS}),
    "parameters.pth": (torch.save, OrderedDict(NETWORK.named_parameters()), None),
    "model.safetensors": (save_safetensors, dict(WEIGHTS), {"model": WEIGHTS}),
    "R-50.pkl": (save_pickle, BACKBONE, BACKBONE),
    "caffe2.pkl": (save_pickle, {"blobs": {**ARRAYS, "a_momentum": ARRAYS["1.bias"]}}, None),
    "plain.pkl": (save_pickle, ARRAYS, None),
    "torch.pkl": (torch.save, CHECKPOINT, CHECKPOINT),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for name, (save, data, _) in FILES.items():
        save(data, folder / name)
    return folder


def same(found, expected):
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            same(found[key], expected[key]) for key in expected
        )
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and found.equal(expected)
    if isinstance(expected, np.ndarray):
        return found.dtype == expected.dtype and np.array_equal(found, expected)
    return found == expected


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file(files, name):
    found = read_weights(str(files / name))
    expected = FILES[name][2]
    if expected is not None:
        assert same(found, expected)
    elif name.endswith(".pkl"):
        caffe2 = {"__author__": "Caffe2", "matching_heuristics": True}
        assert same(found, {"model": ARRAYS, **caffe2})
    else:
        assert same(found, {"model": dict(NETWORK.named_parameters())})


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"model.safetensors", "torch.pkl"}))
def test_the_same_as_detectron2(files, name):
    checkpointer = DetectionCheckpointer(torch.nn.Identity())
    checkpointer._parsed_url_during_load = urlparse(name)  # where the main branch wants one
    expected = checkpointer._load_file(str(files / name))
    assert same(read_weights(str(files / name)), expected)


def test_versions_of_modules_are_kept(files):
    assert read_weights(str(files / "checkpoint.pth"))["model"]._metadata == WEIGHTS._metadata


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("name", PICKLES)
def test_code_is_not_run(tmp_path, name, code):
    write, read = PICKLES[name]
    write(tmp_path / name, CODE[code](tmp_path / "marker"))
    with pytest.raises(InputError, match=name):
        read(str(tmp_path / name))
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", CONFIGS)
def test_code_in_a_config_is_not_run(tmp_path, name):
    (tmp_path / name).write_text(CONFIGS[name](tmp_path / "marker"))
    with pytest.raises(InputError, match=name):
        read_config(tmp_path / name)
    assert not (tmp_path / "marker").exists()


REFUSED = {
    "a list.pth": (torch.save, [torch.zeros(1)], "it holds list, not a dict"),
    "a number.pth": (torch.save, {"a": 1}, "its a is int, not a tensor"),
    "a deep dict.pth": (torch.save, {"a": {"b": torch.zeros(1)}}, "its a is dict"),
    "a model.pth": (torch.save, {"model": [1]}, "its model is list"),
    "numbers as names.pth": (torch.save, {1: torch.zeros(1)}, "a weight named 1"),
    "a list.pkl": (save_pickle, [1], "it holds list, not a dict"),
    "a number.pkl": (save_pickle, {"a": 1}, "its a is int"),
    "no author.pkl": (save_pickle, {"model": ARRAYS}, "its model is dict, not a tensor"),
    "blobs.pkl": (save_pickle, {"blobs": 3}, "its blobs are int"),
    "objects.pkl": (save_pickle, {"a": np.array([None])}, "which are no numbers"),
    "no text.safetensors": (lambda _, path: path.write_bytes(b"\0" * 9), None, "cannot be used"),
    "claims.safetensors": (
        lambda _, path: path.write_bytes(struct.pack("<Q", 2**62) + b"{}"), None, "cannot be used"
    ),
    "no model.safetensors": (lambda _, path: path.write_bytes(b""), None, "cannot be used"),
    "more than it holds.safetensors": (save_header, {"a": [2**40, [0, 2**42]]}, "cannot be used"),
    "one storage twice.safetensors": (
        save_header, {"a": [2, [0, 8]], "b": [2, [0, 8]]}, "cannot be used"
    ),
    "a long description.safetensors": (
        save_header, {"__metadata__": {"description": "x" * 70_000}}, "has 70000 characters"
    ),
    "no description.safetensors": (
        save_header, {"__metadata__": {"description": "["}}, "cannot be used"
    ),
    "folder.pth": (lambda _, path: path.mkdir(), None, "no such file"),
    "nowhere.pth": (lambda _, path: None, None, "no such file"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_no_weights(tmp_path, name):
    save, data, message = REFUSED[name]
    save(data, tmp_path / name)
    tracemalloc.start()
    with pytest.raises(InputError, match=message) as caught:
        read_weights(str(tmp_path / name))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    text = str(caught.value)
    assert name in text and ".safetensors" in text and "\n" not in text and len(text) < 500
    assert "weights_only" not in text  # torch's advice to load the file without restriction
    assert peak < 2**22


def test_a_description_comes_back(tmp_path):
    weights = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(3)}
    weights["again"] = weights["a"]
    write_weights(weights, tmp_path / "model.safetensors", {"classes": ["é", "b"]})
    found = read_weights(str(tmp_path / "model.safetensors"))
    assert found["description"] == {"classes": ["é", "b"]} and same(found["model"], weights)


def repack(source, target, change=lambda name, data: data, **options):
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w", **options) as after:
        for entry in before.infolist():
            after.writestr(entry.filename, change(entry.filename, before.read(entry)))


def test_a_compressed_archive_is_not_unpacked(tmp_path):
    torch.save({"a": torch.zeros(2**22)}, tmp_path / "large.pth")
    repack(tmp_path / "large.pth", tmp_path / "bomb.pth", compression=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb.pth").stat().st_size < 2**18
    tracemalloc.start()
    with pytest.raises(InputError, match="bomb.pth: .* an archive that unpacks to more"):
        read_weights(str(tmp_path / "bomb.pth"))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_damage_that_torch_does_not_see(files, tmp_path):
    whole = (files / "checkpoint.pth").read_bytes()
    raw = WEIGHTS["0.weight"].numpy().tobytes()
    place = whole.index(raw) + 5
    path = tmp_path / "damaged.pth"
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert not torch.load(path, weights_only=True)["model"]["0.weight"].equal(WEIGHTS["0.weight"])
    with pytest.raises(InputError, match=r"damaged.pth: .*its part .*/data/\d+ has another check"):
        read_weights(str(path))


@settings(
    deadline=None,
    derandomize=True,
    max_examples=500,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7), st.booleans()),
        min_size=1,
        max_size=4,
    ),
    st.floats(0, 1),
)
def test_any_damage_ends_in_weights_or_in_the_one_error(files, tmp_path, name, flips, kept):
    data = bytearray((files / name).read_bytes())
    for place, bit, early in flips:
        data[int(place * (min(len(data), 500) if early else len(data)))] ^= 1 << bit
    if kept < 0.3:
        data = data[: int(kept / 0.3 * len(data))]
    path = tmp_path / f"damaged_{name}"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about protocols and sparse tensors
        try:
            found = read_weights(str(path))
        except InputError as error:
            text = str(error)
            assert path.name in text and "\n" not in text and "weights_only" not in text
        else:
            assert isinstance(found["model"], dict)


def test_the_file_is_left_alone(files, tmp_path):
    for name in FILES:
        path = tmp_path / name
        shutil.copy(files / name, path)
        path.chmod(0o400)
        before = path.read_bytes()
        read_weights(str(path))
        assert path.read_bytes() == before
