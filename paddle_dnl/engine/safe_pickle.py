"""Reads .pdparams, .pdopt and .pdstates files without running code from them.

These files are Python pickles, and a pickle may name any function to be called while it is read. The reader below
admits exactly what PaddlePaddle writes: NumPy arrays and scalars of plain number types inside dicts, lists, tuples,
strings and numbers. Anything else is refused before it is called.
"""

import collections
import io
import pickle
from pathlib import Path

from paddle_dnl.errors import CheckpointError

import numpy as np

# NumPy 1 and 2 spell the module differently; both occur in files in the wild.
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NDARRAY_TOKEN = "numpy.ndarray"


def _reconstruct(subtype, shape, typecode):
    """Stands in for NumPy's `_reconstruct`; only the empty array that unpickling fills afterwards is made."""
    if subtype != _NDARRAY_TOKEN or tuple(shape) != (0,):
        raise pickle.UnpicklingError("unusual array header")
    return np.ndarray((0,), dtype="int8")


def _dtype(code, align=False, copy=True):
    """Stands in for `numpy.dtype`; admits numbers and booleans, no objects, records or strings."""
    dtype = np.dtype(code) if isinstance(code, str) and len(code) <= 4 else None
    if dtype is None or dtype.kind not in "biufc":
        raise pickle.UnpicklingError(f"array type {str(code)[:40]!r} is not a number type")
    return np.dtype(code, align=False, copy=True)


def _scalar(dtype, data=None):
    """Stands in for NumPy's `scalar`."""
    return np.frombuffer(data, dtype=dtype, count=1)[0]


def _encode(text, encoding="latin1"):
    """Stands in for `_codecs.encode`, with which protocol 2 writes bytes."""
    return str(text).encode("latin1")


_ALLOWED = {("numpy", "ndarray"): _NDARRAY_TOKEN, ("numpy", "dtype"): _dtype, ("_codecs", "encode"): _encode}
_ALLOWED[("collections", "OrderedDict")] = collections.OrderedDict
for _module in _MULTIARRAY:
    _ALLOWED[(_module, "_reconstruct")] = _reconstruct
    _ALLOWED[(_module, "scalar")] = _scalar


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        try:
            return _ALLOWED[(module, name)]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which weights never need") from None

    def persistent_load(self, pid):
        raise pickle.UnpicklingError("it refers to objects outside the file")


def _plain(value, depth: int = 0):
    """Checks that only arrays, numbers, strings and containers came out; returns OrderedDicts as dicts."""
    if depth > 16:
        raise pickle.UnpicklingError("its containers are nested more than 16 deep")
    if isinstance(value, dict):
        return {_key(k): _plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v, depth + 1) for v in value)
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.ndarray, np.generic)):
        return value
    raise pickle.UnpicklingError(f"it holds a {type(value).__name__}")


def _key(key):
    if isinstance(key, (str, int)):
        return key
    raise pickle.UnpicklingError(f"a key is a {type(key).__name__}")


def _join_big_arrays(state):
    """Puts together the arrays that PaddlePaddle splits at 1 GiB under pickle protocol 2 and 3."""
    parts = state.pop("UnpackBigParamInfor@@", None) if isinstance(state, dict) else None
    for key, info in (parts or {}).items():
        state[key] = np.concatenate([state.pop(part) for part in info["slices"]]).reshape(info["OriginShape"])
    return state


def read_pickle(path: str | Path):
    """The content of a PaddlePaddle pickle file, arrays as `numpy.ndarray`.

    Raises:
        CheckpointError: the file is missing, damaged, or asks for anything but arrays and plain containers.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not data:
        raise CheckpointError(f"{path}: the file is empty; use another checkpoint")
    try:
        return _join_big_arrays(_plain(_RestrictedUnpickler(io.BytesIO(data)).load()))
    except Exception as error:  # a damaged pickle raises almost anything
        raise CheckpointError(
            f"{path}: not a checkpoint that can be read safely ({type(error).__name__}: {error}). The file is damaged "
            "or was not written by PaddlePaddle; use another one."
        ) from error
