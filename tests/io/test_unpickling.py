import io
import pickle
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
    assert found["a"].dtype.newbyteorder("=") == array.dtype.newbyteorder("=")


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


REFUSED = {
    "persistent identifiers": b"Pid\n",
    "persistent identifiers in binary": b"K\x01Q",
    "EXT1": b"\x82\x01",
    "EXT2": b"\x83\x01\x00",
    "EXT4": b"\x84\x01\x00\x00\x00",
    "buffers from elsewhere": b"\x97",
    "copyreg": call("copyreg._reconstructor", 1, 2, None),
    "copy_reg": call("copy_reg._reconstructor", 1, 2, None),
    "getattr": call("builtins.getattr", "", "join"),
    "another kind of array": ARRAY + name("numpy.matrix") + b")NtR",
    "an attribute of what may be named": (
        b"\x80\x04" + values("numpy", "dtype.newbyteorder") + b"\x93"
    ),
    "nothing": b"",
}


@pytest.mark.parametrize("instructions", REFUSED.values(), ids=REFUSED)
def test_nothing_else_can_be_named(instructions):
    with pytest.raises(pickle.UnpicklingError):
        read(instructions + b".")


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class State(Call):
    """Pickles as a call whose result gets a state."""

    def __init__(self, state, *call):
        super().__init__(*call)
        self.state = state

    def __reduce__(self):
        return *self.call, self.state


POINTER = struct.pack("Q", 0x414141414141)
RECORD = (3, "|", None, ("f",), {"f": (np.dtype("f4"), 10**9)}, 4, 1, 0)
FORGED = {
    "objects out of the file's bytes": Call(torch.Tensor, Call(np.ndarray, (1,), "O", POINTER)),
    "an object hidden in a record": State(
        (3, "|", None, ("f",), {"f": (np.dtype("O"), 0)}, 8, 1, 63), np.dtype, "V8", False, True
    ),
    "a field outside its record": State(RECORD, np.dtype, "V4", False, True),
    "an array within a number": State(
        (3, "|", (np.dtype("f4"), (2**20,)), None, None, 4, 1, 0), np.dtype, "V4", False, True
    ),
    "fields given to a number": State(RECORD, np.dtype, "f4", False, True),
    "dates": Call(np.dtype, "M8[ns]"),
    "an array that has no content": Call(np.ndarray, (2**40,)),
    "a shape for more": np.zeros(4),
}


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_forged_arrays_are_refused(name, protocol):
    data = pickle.dumps({"weight": FORGED[name]}, protocol)
    if name == "a shape for more":
        data = data.replace(b"K\x04\x85", b"K\x05\x85").replace(b"(I4\n", b"(I5\n")
        data = data.replace(b"(K\x04t", b"(K\x05t")
    with pytest.raises(pickle.UnpicklingError):
        read(data)


@pytest.mark.parametrize("module", ["os.system", "numpy.load", "torch.load", "numpy.memmap"])
def test_what_is_refused_is_named(module):
    with pytest.raises(pickle.UnpicklingError, match=f"refers to {module},"):
        read(call(module, "a file") + b".")


@pytest.mark.parametrize("place", [b"r\xff\xff\xff\xff", b"p4000000000\n"])
def test_a_place_in_the_memo_takes_no_memory(place):
    tracemalloc.start()
    with pytest.raises(pickle.UnpicklingError, match="a place 4"):
        read(b"K\x01" + place + b".")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


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
