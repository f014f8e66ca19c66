"""Writes state dicts in PyTorch's zip format without PyTorch, so that tests can make files of any model."""

import pickle
import zipfile

import numpy as np

_STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


def _text(value: str) -> bytes:
    raw = value.encode()
    return pickle.BINUNICODE + len(raw).to_bytes(4, "little") + raw


def _int(value: int) -> bytes:
    return pickle.BININT + value.to_bytes(4, "little", signed=True)


def _tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _call(function: bytes, *arguments: bytes) -> bytes:
    return function + _tuple(*arguments) + pickle.REDUCE


def _tensor(array: np.ndarray, key: str) -> bytes:
    strides = [stride // array.itemsize for stride in array.strides]
    storage = _global("torch", _STORAGES[array.dtype.name])
    identity = _tuple(_text("storage"), storage, _text(key), _text("cpu"), _int(array.size))
    reference = identity + pickle.BINPERSID
    shape, steps = _tuple(*map(_int, array.shape)), _tuple(*map(_int, strides))
    hooks = _call(_global("collections", "OrderedDict"))
    rebuild = _global("torch._utils", "_rebuild_tensor_v2")
    return _call(rebuild, reference, _int(0), shape, steps, pickle.NEWFALSE, hooks)


def save(state: dict[str, np.ndarray], path, wrapper: str | None = "state_dict", prefix: str = "") -> None:
    """Writes `state`, inside `{wrapper: ...}` if one is named, with `prefix` in front of every key."""
    arrays = {prefix + key: np.array(value, order="C") for key, value in state.items()}
    items = b"".join(_text(key) + _tensor(value, str(i)) for i, (key, value) in enumerate(arrays.items()))
    body = pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
    if wrapper:
        body = pickle.EMPTY_DICT + _text(wrapper) + body + pickle.SETITEM
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickle.PROTO + b"\x02" + body + pickle.STOP)
        archive.writestr("archive/byteorder", "little")
        for i, value in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{i}", value.tobytes())
