# SPDX-License-Identifier: Apache-2.0
"""Weights from a stranger: pickles, PyTorch files and safetensors that want to run code, or all of the memory."""

import io
import json
import pickle
import struct
import time
import tracemalloc
import zipfile

from paddle_dnl.errors import CheckpointError
from paddle_dnl.weights import restricted_pickle, safe_pickle
from paddle_dnl.weights.convert import read_torch_weights
from paddle_dnl.weights.loading import read_params

import hostile_pickles
import numpy as np
import pytest

MEMORY, SECONDS = 128 << 20, 60  # a million values take 66 MB, an empty file next to none
RUNNING = sorted(hostile_pickles.running("marker"))
SLOW = {
    "three million operations",
    "390,000 arrays of 64 bytes",
    "zip: 10^14 lists",
    "zip: an empty tensor 700,000 times",
    "zip: a small tensor 700,000 times",
}


def _cases(names) -> list:
    """The names as parameters, those that take seconds marked."""
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in names]


FILLING = _cases(sorted(hostile_pickles.filling()))


def _refused(read, path, memory: int = MEMORY) -> str:
    """The message with which `path` is refused, at a bounded price."""
    began = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.name in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert peak < memory, f"{peak >> 20} MB"
    assert time.monotonic() - began < SECONDS
    return str(caught.value)


@pytest.fixture
def cage(tmp_path, monkeypatch):
    """The working folder of the test; only the hostile file may be in it afterwards."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith("hostile")] == []


@pytest.mark.parametrize("name", RUNNING)
def test_pickles_run_nothing(cage, name):
    path = cage / "hostile.pdparams"
    path.write_bytes(hostile_pickles.running(cage / "marker")[name])
    assert "can be read safely" in _refused(read_params, path)


@pytest.mark.parametrize("name", FILLING)
def test_pickles_have_a_bounded_price(cage, name):
    content = hostile_pickles.filling()[name]
    path = cage / "hostile.pdparams"
    path.write_bytes(content)
    _refused(read_params, path, MEMORY + 10 * len(content))


def test_the_reader_is_the_same_after_all_of_them(cage):
    """An attack on the reader itself would work on the file that is read next."""
    before = {key: (type(value), getattr(value, "call", value)) for key, value in safe_pickle._ADMITTED.items()}
    functions = [value.call for value in safe_pickle._ADMITTED.values() if hasattr(value, "call")]
    inner = [(f.__dict__ if isinstance(f, type) else (f.__defaults__, f.__code__)) for f in functions]
    inner = [dict(part) if not isinstance(part, tuple) else part for part in inner]
    for name, content in hostile_pickles.running(cage / "marker").items():
        (cage / "hostile.pdparams").write_bytes(content)
        with pytest.raises(CheckpointError):
            read_params(cage / "hostile.pdparams")
        now = [(f.__dict__ if isinstance(f, type) else (f.__defaults__, f.__code__)) for f in functions]
        assert [dict(part) if not isinstance(part, tuple) else part for part in now] == inner, name
    assert before == {key: (type(value), getattr(value, "call", value)) for key, value in safe_pickle._ADMITTED.items()}


def test_what_follows_the_end_is_not_read(cage):
    path = cage / "hostile.pdparams"
    path.write_bytes(pickle.dumps({"w": 1}) + hostile_pickles.running(cage / "marker")["os.system"])
    assert read_params(path) == {"w": 1}


def test_attributes_of_an_ordered_mapping_are_dropped(cage):
    """`items` of the instance would be called in place of the method."""
    body = b"\x80\x04ccollections\nOrderedDict\n)R(X\x01\x00\x00\x00wK\x05u}X\x05\x00\x00\x00itemsNsb."
    path = cage / "hostile.pdparams"
    path.write_bytes(body)
    assert read_params(path) == {"w": 5}


def test_only_named_operations_exist():
    missing = {name for name in ("INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT4", "PERSID", "NEXT_BUFFER", "EMPTY_SET")}
    codes = {getattr(pickle, name)[0] for name in missing}
    assert not codes & set(restricted_pickle.RestrictedUnpickler.dispatch)


# ------------------------------------------------------------------------------------------------ .pth


def _pth(data: bytes, storages: dict[str, bytes] | None = None, method=zipfile.ZIP_STORED, root="archive") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as bundle:
        bundle.writestr(f"{root}/data.pkl", data)
        for key, content in (storages or {}).items():
            bundle.writestr(f"{root}/data/{key}", content)
    return stream.getvalue()


def _tensor(
    size: int,
    shape: tuple | bytes,
    strides: tuple,
    key: str | bytes = "0",
    offset: int = 0,
    kind: bytes = b"storage",
) -> bytes:
    """A state dict with one tensor, as PyTorch pickles it; bytes are operations to use as they are."""

    def numbers(values) -> bytes:
        if isinstance(values, bytes):
            return values
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", v) for v in values) + b"t"

    def text(value: bytes) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value

    key = key if isinstance(key, bytes) else text(key.encode())
    reference = b"(" + text(kind) + b"ctorch\nFloatStorage\n" + key + text(b"cpu")
    reference += b"\x8a\x08" + struct.pack("<q", size) + b"tQ"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + b"\x8a\x08" + struct.pack("<q", offset)
    call += numbers(shape) + numbers(strides) + b"\x89N" + b"tR"
    return b"\x80\x02}" + text(b"w") + call + b"s."


def _many_views(count: int) -> bytes:
    """One large storage, seen by many tensors, each of which would be a copy."""
    one = _tensor(1 << 20, (1 << 20,), (1,))[3:-2]
    body = b"".join(
        one.replace(b"\x01\x00\x00\x00w", b"\x04\x00\x00\x00" + b"%04d" % i, 1) + b"s" for i in range(count)
    )
    return _pth(b"\x80\x02}" + body + b".", {"0": bytes(4 << 20)})


def _same_tensor(shape: tuple, size: int = 1 << 20) -> bytes:
    """Lists that hold one tensor of `shape` 700,000 times, each of which would be a copy."""
    one = _tensor(size, shape, (1,) * len(shape))[3:-2][6:]
    lists = b"q\x000(" + b"h\x00" * 700 + b"lq\x010(" + b"h\x01" * 1_000 + b"l"
    return _pth(b"\x80\x02" + one + lists + b".", {"0": bytes(4 * size)})


def _stream(content: bytes, keys: bytes) -> bytes:
    """The older format, up to the list of keys."""
    magic = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
    return magic + b"\x80\x02M\xe9\x03." + b"\x80\x02}." + content + b"\x80\x02" + keys + b"."


def _overlapping() -> bytes:
    """Two hundred names in the table of a zip for the same 1 MB."""
    whole = bytearray(_pth(_tensor(1, (1,), (1,)), {"0": bytes(1 << 20)}))
    with zipfile.ZipFile(io.BytesIO(bytes(whole))) as bundle:
        start = bundle.start_dir
    table = bytes(whole[start:-22])
    entry = table[table.index(b"PK\1\2", 4) :]
    table += entry * 200
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 202, 202, len(table), start, 0)
    return bytes(whole[:start]) + table + end


GOOD = _tensor(4, (2, 2), (2, 1))
PTH = {
    **{f"zip: {name}": (lambda name=name: _pth(hostile_pickles.running("marker")[name])) for name in (
        "os.system", "eval", "subprocess", "INST", "OBJ", "EXT1", "dotted name", "reader's function changed")},
    **{f"stream: {name}": (lambda name=name: hostile_pickles.running("marker")[name]) for name in ("os.system", "INST")},
    **{f"zip: {name}": (lambda name=name: _pth(hostile_pickles.filling()[name])) for name in (
        "memo place 2^31", "2^62 bytes", "colliding keys", "10^14 lists")},
    **{f"stream: {name}": (lambda name=name: hostile_pickles.filling()[name]) for name in ("memo place 2^31", "frame of 2^62")},
    "zip: two data.pkl": lambda: _pth(GOOD, {"/../data.pkl": GOOD}),
    "zip: compressed": lambda: _pth(GOOD, {"0": bytes(64 << 20)}, zipfile.ZIP_DEFLATED),
    "zip: members over each other": _overlapping,
    "zip: other data than tensors": lambda: _pth(_tensor(4, (2, 2), (2, 1), kind=b"module"), {"0": bytes(16)}),
    "zip: key that leads out": lambda: _pth(_tensor(4, (2, 2), (2, 1), key="../../../../etc/passwd"), {"0": bytes(16)}),
    "zip: data cut": lambda: _pth(GOOD, {"0": bytes(15)}),
    "zip: shape beyond": lambda: _pth(_tensor(4, (1 << 40,), (0,)), {"0": bytes(16)}),
    "zip: strides beyond": lambda: _pth(_tensor(4, (2, 2), (1 << 40, 1)), {"0": bytes(16)}),
    "zip: stride below zero": lambda: _pth(_tensor(4, (2, 2), (-1, 1)), {"0": bytes(16)}),
    "zip: offset below zero": lambda: _pth(_tensor(4, (2, 2), (2, 1), offset=-1), {"0": bytes(16)}),
    "zip: size below zero": lambda: _pth(_tensor(-4, (2, 2), (2, 1)), {"0": bytes(16)}),
    "zip: one storage in 100 tensors": lambda: _many_views(100),
    "zip: key of 10^28 lists": lambda: _pth(_tensor(4, (2, 2), (2, 1), key=hostile_pickles.lists())),
    "zip: key of 2^60 pairs": lambda: _pth(_tensor(4, (2, 2), (2, 1), key=hostile_pickles.tuples())),
    "zip: key that is a long text": lambda: _pth(_tensor(4, (2, 2), (2, 1), key="x" * 1_000_000)),
    "zip: names of long texts": lambda: _pth(b"\x80\x02}X" + struct.pack("<I", 1_000_000) + b"x" * 1_000_000 + b"Ns."),
    "zip: name that is a long number": lambda: _pth(b"\x80\x02}" + hostile_pickles.integer(100_000) + b"Ns."),
    "stream: key of 2^60 pairs": lambda: _stream(GOOD, hostile_pickles.tuples() + b"\x85"),
    "stream: key that is a long text": lambda: _stream(GOOD, b"X" + struct.pack("<I", 1_000_000) + b"x" * 1_000_000 + b"\x85"),
    "zip: dimensions of 1 MB": lambda: _pth(
        _tensor(4, b"(" + hostile_pickles.integer(1 << 20) + b"q\x00" + b"h\x00" * 31 + b"t", (1,) * 32), {"0": bytes(16)}),
    "zip: 40,000 dimensions": lambda: _pth(_tensor(4, (1 << 62,) * 40_000, (1,) * 40_000), {"0": bytes(16)}),
    "zip: dimension that is a truth": lambda: _pth(_tensor(4, b"(\x88K\x01t", (1, 1)), {"0": bytes(16)}),
    "zip: offset beyond all files": lambda: _pth(_tensor(4, (0, 4), (1, 1), offset=1 << 60), {"0": bytes(16)}),
    "zip: stride beyond all files": lambda: _pth(_tensor(4, (1, 4), (1 << 60, 1)), {"0": bytes(16)}),
    "zip: 660,000 mappings of 64": lambda: _pth(hostile_pickles.ordered_again(660_000)),
    "zip: an empty tensor 700,000 times": lambda: _same_tensor((0,) + 30 * (1,)),
    "zip: a small tensor 700,000 times": lambda: _same_tensor(31 * (1,)),
}  # fmt: skip


@pytest.mark.parametrize("name", _cases(PTH))
def test_pytorch_files(cage, name):
    content = PTH[name]()
    path = cage / "hostile.pth"
    path.write_bytes(content)
    _refused(read_torch_weights, path, MEMORY + 12 * len(content))


def test_the_pytorch_files_of_this_test_are_read_when_they_are_whole(cage):
    (cage / "hostile.pth").write_bytes(_pth(GOOD, {"0": np.arange(4, dtype="<f4").tobytes()}))
    np.testing.assert_array_equal(read_torch_weights(cage / "hostile.pth")["w"], [[0, 1], [2, 3]])


# ------------------------------------------------------------------------------------------------ safetensors


def _safetensors(header, data: bytes = bytes(16), length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def _entry(dtype="F32", shape=(2, 2), offsets=(0, 16)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


SAFETENSORS = {
    "empty": lambda: b"",
    "header of 2^63": lambda: _safetensors(b"{}", length=1 << 63),
    "header of 200 MB": lambda: _safetensors(b" " * (200 << 20)),
    "header beyond the file": lambda: _safetensors({"w": _entry()}, length=1 << 20),
    "not JSON": lambda: _safetensors(b"{'w': eval('1')}"),
    "not UTF-8": lambda: _safetensors(b'{"\xff": 1}'),
    "deep JSON": lambda: _safetensors(b"[" * 100_000),
    "a pickle": lambda: hostile_pickles.running("marker")["os.system"],
    "tensors over each other": lambda: _safetensors({"a": _entry(), "b": _entry(shape=(2,), offsets=(8, 16))}),
    "a hole": lambda: _safetensors({"a": _entry(shape=(1,), offsets=(0, 4)), "b": _entry(shape=(1,), offsets=(12, 16))}),
    "data left over": lambda: _safetensors({"w": _entry()}, bytes(64)),
    "data cut": lambda: _safetensors({"w": _entry()}, bytes(15)),
    "negative offset": lambda: _safetensors({"w": _entry(offsets=(-16, 0))}),
    "end before start": lambda: _safetensors({"w": _entry(offsets=(16, 0))}),
    "shape that overflows": lambda: _safetensors({"w": _entry(shape=(1 << 62, 1 << 62))}),
    "shape of another size": lambda: _safetensors({"w": _entry(shape=(3, 3))}),
    "negative shape": lambda: _safetensors({"w": _entry(shape=(-2, -2))}),
    "unknown type": lambda: _safetensors({"w": _entry(dtype="object")}),
    "a name twice": lambda: _safetensors(
        b'{"w": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}, "w": {"dtype":"F32","shape":[3],"data_offsets":[0,12]}}'),
    "numbers that are not those written": lambda: _safetensors(
        {"__metadata__": {"sha256_of_tensors": "0" * 64}, "w": _entry()}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors(cage, name):
    path = cage / "hostile.safetensors"
    path.write_bytes(SAFETENSORS[name]())
    _refused(read_params, path)


def test_the_safetensors_of_this_test_are_read_when_they_are_whole(cage):
    (cage / "hostile.safetensors").write_bytes(_safetensors({"w": _entry()}, np.arange(4, dtype="<f4").tobytes()))
    np.testing.assert_array_equal(read_params(cage / "hostile.safetensors")["w"], [[0, 1], [2, 3]])
