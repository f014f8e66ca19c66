# SPDX-License-Identifier: Apache-2.0
"""Writes state dicts in both of PyTorch's formats without PyTorch, so that tests can make files of any model."""

import pickle
import zipfile

import numpy as np

_STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


def _text(value: str) -> bytes:
    raw = value.encode()
    return pickle.BINUNICODE + len(raw).to_bytes(4, "little") + raw


def _int(value: int) -> bytes:
    return pickle.BININT + value.to_bytes(4, "little", signed=True)


def _long(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return pickle.LONG1 + bytes([len(raw)]) + raw


def _tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _call(function: bytes, *arguments: bytes) -> bytes:
    return function + _tuple(*arguments) + pickle.REDUCE


def _tensor(array: np.ndarray, key: str, view: bytes) -> bytes:
    strides = [stride // array.itemsize for stride in array.strides]
    storage = _global("torch", _STORAGES[array.dtype.name])
    identity = _tuple(_text("storage"), storage, _text(key), _text("cpu"), _int(array.size), *([view] if view else []))
    reference = identity + pickle.BINPERSID
    shape, steps = _tuple(*map(_int, array.shape)), _tuple(*map(_int, strides))
    hooks = _call(_global("collections", "OrderedDict"))
    rebuild = _global("torch._utils", "_rebuild_tensor_v2")
    return _call(rebuild, reference, _int(0), shape, steps, pickle.NEWFALSE, hooks)


def _body(arrays: dict[str, np.ndarray], wrapper: str | None, view: bytes = b"") -> bytes:
    items = b"".join(_text(key) + _tensor(value, str(i), view) for i, (key, value) in enumerate(arrays.items()))
    body = pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
    return pickle.EMPTY_DICT + _text(wrapper) + body + pickle.SETITEM if wrapper else body


def _whole(body: bytes) -> bytes:
    return pickle.PROTO + b"\x02" + body + pickle.STOP


def save(state: dict[str, np.ndarray], path, wrapper: str | None = "state_dict", prefix: str = "") -> None:
    """The zip format: `state`, inside `{wrapper: ...}` if one is named, with `prefix` in front of every key."""
    arrays = {prefix + key: np.array(value, order="C") for key, value in state.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", _whole(_body(arrays, wrapper)))
        archive.writestr("archive/byteorder", "little")
        for i, value in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{i}", value.tobytes())


def save_stream(state: dict[str, np.ndarray], path, wrapper: str | None = "state_dict", prefix: str = "") -> None:
    """The same in the older format: a stream of pickles, then the numbers."""
    arrays = {prefix + key: np.array(value, order="C") for key, value in state.items()}
    keys = b"".join(_text(str(i)) for i in range(len(arrays)))
    with open(path, "wb") as file:
        file.write(_whole(_long(0x1950A86A20F9469CFC6C)) + _whole(_int(1001)))
        file.write(_whole(pickle.EMPTY_DICT) + _whole(_body(arrays, wrapper, view=pickle.NONE)))
        file.write(_whole(pickle.EMPTY_LIST + pickle.MARK + keys + pickle.APPENDS))
        for value in arrays.values():
            file.write(value.size.to_bytes(8, "little") + value.tobytes())
