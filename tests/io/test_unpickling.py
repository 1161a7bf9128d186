import io
import pickle
import re
import struct
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qdformer.io.unpickling import read_pickle
from tests.io.hostile_files import ARRAY, CODE, call, name, values

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
NUMBERS = st.one_of(
    st.integers(), st.floats(allow_nan=False), st.complex_numbers(allow_nan=False), st.booleans()
)
TYPES = st.sampled_from(
    [np.dtype(f"{order}{code}") for order in "<>" for code in ("f2", "f4", "f8", "i1", "i8", "u2")]
    + [np.dtype("bool"), np.dtype("c8"), np.dtype("longdouble")]
)
repeatable = settings(deadline=None, derandomize=True, max_examples=100)


def read(data):
    return read_pickle(io.BytesIO(data))


def refusal(data):
    with pytest.raises(pickle.UnpicklingError) as caught:
        read(data)
    return str(caught.value)


def plain(element):
    keys = st.one_of(st.text(), st.integers(), st.binary(), st.none())
    return st.one_of(
        st.lists(element),
        st.lists(element, max_size=5).map(tuple),
        st.dictionaries(keys, element),
    )


@repeatable
@given(
    st.recursive(st.one_of(NUMBERS.filter(lambda n: type(n) is not complex), st.text(),
                           st.binary(), st.none()), plain, max_leaves=20),
    st.sampled_from(PROTOCOLS),
)  # fmt: skip
def test_plain_data_come_back(data, protocol):
    found = read(pickle.dumps(data, protocol))
    assert found == data and repr(found) == repr(data)


@repeatable
@given(
    TYPES.flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, min_side=0))),
    st.sampled_from(PROTOCOLS),
    st.booleans(),
)
def test_arrays_come_back(array, protocol, turned):
    array = array.T if turned else array
    found = read(pickle.dumps({"a": array, "again": array}, protocol))
    np.testing.assert_array_equal(found["a"], array)
    assert found["a"].shape == array.shape and found["a"] is found["again"]
    # Whatever the order of its bytes was, torch takes only the machine's own.
    assert found["a"].dtype == array.dtype.newbyteorder("=") and found["a"].flags.writeable


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_turned_arrays_and_scalars_come_back(protocol):
    array = np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2)
    assert (read(pickle.dumps(array, protocol)) == array).all()
    for scalar in (np.float32(1.5), np.int64(-2), np.bool_(True)):
        found = read(pickle.dumps(scalar, protocol))
        assert found == scalar and type(found) is type(scalar)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tensors_come_back_without_their_gradients(protocol):
    base = torch.arange(24.0).reshape(2, 3, 4)
    for tensor in (
        base,
        base.t() if base.dim() == 2 else base.transpose(0, 2),
        base[:, 1:, ::2],
        base.bfloat16(),
        base.long(),
        base[0, 0, 0],
        base[:0],
        base.clone().requires_grad_(),
        torch.nn.Parameter(base),
    ):
        found = read(pickle.dumps(tensor, protocol))
        assert found.equal(tensor.detach()) and found.dtype == tensor.dtype
        assert type(found) is torch.Tensor and not found.requires_grad


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_weights_of_a_network_come_back(protocol):
    weights = torch.nn.BatchNorm2d(3).state_dict()
    found = read(pickle.dumps(weights, protocol))
    assert list(found) == list(weights)
    assert all(found[key].equal(weights[key]) for key in weights)
    assert read(pickle.dumps(OrderedDict(b=1, a=2), protocol)) == {"b": 1, "a": 2}


def python2_string(text):
    return b"U" + bytes([len(text)]) + text


def test_a_file_of_python_2():
    """As numpy 1 on Python 2 wrote arrays: bytes are strings there, and dtypes are shared."""
    raw = np.array([1.5, -2.0], "<f4").tobytes()
    element = (
        name("numpy.dtype") + b"(" + python2_string(b"f4") + b"K\x00K\x01tRq\x05"
        b"(K\x03" + python2_string(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    start = ARRAY + name("numpy.ndarray") + b"K\x00\x85" + python2_string(b"b") + b"tR"
    state = [b"(K\x01K\x02\x85" + kind + b"\x89" + python2_string(raw) + b"tb"
             for kind in (element, b"h\x05")]  # fmt: skip
    items = b"".join(
        python2_string(key) + start + part for key, part in zip((b"conv1_w", b"\xe9"), state)
    )
    found = read(b"\x80\x02}(" + items + b"u.")
    assert list(found) == ["conv1_w", "\xe9"]
    for array in found.values():
        np.testing.assert_array_equal(array, np.array([1.5, -2], np.float32), strict=True)


def test_numpy_by_its_other_name():
    for protocol in PROTOCOLS:
        data = pickle.dumps(np.arange(3), protocol)
        for old, new in ((b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")):
            renamed = data.replace(old, new) if protocol < 4 else data
            assert (read(renamed) == np.arange(3)).all()


@pytest.mark.parametrize("instructions", CODE.values(), ids=CODE)
def test_code_is_not_run(instructions, tmp_path):
    marker = tmp_path / "marker"
    with pytest.raises(pickle.UnpicklingError):
        read(instructions(marker) + b".")
    assert not marker.exists()


@pytest.mark.parametrize("instructions", CODE.values(), ids=CODE)
def test_the_same_code_is_run_by_pythons_unpickler(instructions, tmp_path):
    """Otherwise the test above would show nothing."""
    try:
        pickle.loads(instructions(tmp_path / "marker") + b".")
    except RuntimeError:
        pass  # after the code has run
    assert (tmp_path / "marker").exists()


def array_of(kind, shape, raw):
    raw = raw if raw.startswith(b"h") else values(raw)
    return (
        ARRAY + name("numpy.ndarray") + values((0,), b"b") + b"tR(K\x01" + values(shape)
        + call("numpy.dtype", kind, False, True) + b"\x89" + raw + b"tb"
    )  # fmt: skip


def tensor_of(numbers, offset, size, stride):
    raw = io.BytesIO()
    storage = torch.zeros(numbers).storage()
    torch.save(storage, raw, _use_new_zipfile_serialization=False)
    return (
        name("torch._utils._rebuild_tensor_v2") + b"("
        + call("torch.storage._load_from_bytes", raw.getvalue())
        + values(offset, size, stride, False, {}) + b"tR"
    )  # fmt: skip


def archived_storage():
    raw = io.BytesIO()
    torch.save(torch.zeros(1).storage(), raw)
    return raw.getvalue()


TRICKS = {
    "objects": (array_of("O8", (1,), b"8 bytes."), "'O8', which are no numbers"),
    "records": (array_of([("a", "f4")], (1,), b"abcd"), "no numbers"),
    "dates": (array_of("M8[ns]", (1,), b"8 bytes."), "no numbers"),
    "text": (array_of("U1", (1,), b"abcd"), "no numbers"),
    "a shape for more": (array_of("f4", (2**40,), b"abcd"), r"claims the shape \(1099511627776,\)"),
    "a shape that wraps around": (array_of("f4", (2**33, 2**33), b"abcd"), "claims the shape"),
    "a negative shape": (array_of("f4", (-1, -1), b"abcd"), "no valid shape"),
    "a shape for less": (array_of("f4", (1,), b"eight by"), "damaged"),
    "no tuple as shape": (array_of("f4", 1, b"abcd"), "no valid shape"),
    "an array never finished": (ARRAY + name("numpy.ndarray") + b")N" + b"tR", "unfinished"),
    "an array finished later": (
        b"]" + ARRAY + name("numpy.ndarray") + b")NtRq\x01ah\x010", "uses POP"
    ),
    "an array in an array": (ARRAY + name("numpy.matrix") + b")NtR", "numpy.matrix"),
    "state of an array": (
        array_of("f4", (1,), b"abcd") + values((1, (9,), None, False, b"")) + b"b",
        "sets attributes of ndarray",
    ),
    "fields of a dtype": (
        call("numpy.dtype", "f4", False, True)
        + values((3, "<", None, ("a",), {"a": None}, 4, 4, 0)) + b"b",
        "records or objects",
    ),
    "state of a name": (name("numpy.dtype") + values({"a": 1}) + b"b", "attributes of _Name"),
    "a name": (name("torch.storage._load_from_bytes"), "holds torch.storage._load_from_bytes"),
    "a name in a dict": (b"}" + values("a") + name("numpy.dtype") + b"s", "holds numpy.dtype"),
    "a call of data": (values({}, ()) + b"R", "it calls dict"),
    "a tensor of one element": (tensor_of(1, 0, (2**40,), (0,)), "claims the shape"),
    "a tensor behind its storage": (tensor_of(4, 2, (4,), (1,)), "damaged: setStorage"),
    "a tensor before its storage": (tensor_of(4, 2, (4,), (-1,)), "damaged"),
    "strides beyond the storage": (tensor_of(4, 0, (2, 2), (2**40, 1)), "damaged: setStorage"),
    "an archive in a tensor": (
        call("torch.storage._load_from_bytes", archived_storage()), "a tensor in an archive"
    ),
    "the same bytes in many arrays": (
        values(b"x" * 1000)[:-2] + b"q\x63" + array_of("u1", (1000,), b"h\x63") * 50,
        "more data than it holds",
    ),
    "the same pairs in many dicts": (
        values([(f"k{number}", number) for number in range(100)]) + b"q\x63"
        + name("collections.OrderedDict") + b"q\x62" + b"h\x62h\x63\x85R" * 100,
        "more data than it holds",
    ),
    "a deep tuple as key": (b"}K\x01" + b"\x85" * 200_000 + b"Ns", "a key of type tuple"),
    "persistent identifiers": (b"Pid\n", "uses PERSID"),
    "persistent identifiers in binary": (b"K\x01Q", "uses BINPERSID"),
    "EXT1": (b"\x82\x01", "uses EXT1"),
    "EXT2": (b"\x83\x01\x00", "uses EXT2"),
    "EXT4": (b"\x84\x01\x00\x00\x00", "uses EXT4"),
    "buffers from elsewhere": (b"\x97", "uses NEXT_BUFFER"),
    "sets": (b"\x8f", "uses EMPTY_SET"),
    "copyreg": (
        call("copyreg._reconstructor", 1, 2, None), "refers to copyreg._reconstructor, which"
    ),
    "copy_reg": (call("copy_reg._reconstructor", 1, 2, None), "refers to copy_reg"),
    "getattr": (call("builtins.getattr", "", "join"), "refers to builtins.getattr"),
    "two values": (b"K\x01K\x02", "damaged"),
    "nothing": (b"", "damaged"),
}  # fmt: skip


@pytest.mark.parametrize(("instructions", "message"), TRICKS.values(), ids=TRICKS)
def test_tricks_are_refused(instructions, message):
    assert re.search(message, refusal(instructions + b"."))


@pytest.mark.parametrize(
    "data",
    [
        b"K\x01r\xff\xff\xff\xff.",  # LONG_BINPUT: a memo of 4 billion places
        b"\x8e" + struct.pack("<Q", 2**40) + b".",  # BINBYTES8
        b"\x96" + struct.pack("<Q", 2**40) + b".",  # BYTEARRAY8
        b"\x8d" + struct.pack("<Q", 2**40) + b".",  # BINUNICODE8
        b"\x8b" + struct.pack("<i", 2**31 - 1) + b".",  # LONG4
        b"\x95" + struct.pack("<Q", 2**62) + b"N.",  # FRAME
    ],
)
def test_claims_take_no_memory(data):
    tracemalloc.start()
    try:
        read(data)
    except pickle.UnpicklingError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**20


VALID = [
    pickle.dumps(data, protocol)
    for protocol in PROTOCOLS
    for data in (
        {"model": {"w": np.arange(6.0).reshape(2, 3).T, "b": np.float32(1)}, "n": [1, (2.5, "é")]},
        OrderedDict(w=torch.nn.Parameter(torch.ones(2, 2)), v=torch.arange(3)),
    )
]


@settings(repeatable, max_examples=600)
@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    st.floats(0, 1),
)
def test_any_damage_ends_in_data_or_in_the_one_error(data, changes, kept):
    damaged = bytearray(data)
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    if kept < 0.5:
        damaged = damaged[: int(2 * kept * len(damaged))]
    try:
        read(bytes(damaged))
    except pickle.UnpicklingError as error:
        assert "\n" not in str(error) and len(str(error)) < 300
