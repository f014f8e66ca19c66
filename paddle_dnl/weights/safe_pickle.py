# SPDX-License-Identifier: Apache-2.0
"""Reads .pdparams, .pdopt and .pdstates files without running code from them.

These files are Python pickles, and a pickle may name any function to be called while it is read. The reader below
admits exactly what PaddlePaddle writes: NumPy arrays and scalars of plain number types inside dicts, lists, tuples,
strings and numbers. Anything else is refused before it is called.
"""

import io
import math
import pickle
from pathlib import Path

from paddle_dnl.errors import CheckpointError
from paddle_dnl.files.reading import require_file
from paddle_dnl.weights.restricted_pickle import ORDERED_DICT, Admitted, Allowance, RestrictedUnpickler, shown, sizes

import numpy as np

# NumPy 1 and 2 spell the module differently; both occur in files in the wild.
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NDARRAY_TOKEN = "numpy.ndarray"
_MAX_VALUES = 1_000_000
_MAX_DEPTH = 16
_ENTRY = 128  # bytes of a dict for each of its entries, at most


class _Dtype:
    """Replaces `numpy.dtype`, whose own `__setstate__` accepts flags that turn numbers into addresses."""

    __slots__ = ("dtype",)

    def __init__(self, code, align=False, copy=True):
        dtype = np.dtype(code) if type(code) is str and len(code) <= 4 else None
        if dtype is None or dtype.kind not in "biufc":
            raise pickle.UnpicklingError(f"an array of {shown(code)}, which is not a number type")
        self.dtype = dtype

    def __setstate__(self, state):
        """Reads the byte order; the other fields are for records and objects."""
        order = state[1] if isinstance(state, tuple) and len(state) == 8 else None
        if order not in ("<", ">", "|", "=") or state[2:] != (None, None, None, -1, -1, 0):
            raise pickle.UnpicklingError("unusual array type")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Replaces `ndarray`; the array is made from its bytes in `__setstate__`."""

    __slots__ = ("array",)

    def __init__(self, subtype, shape, typecode):
        if subtype != _NDARRAY_TOKEN or sizes(shape) != (0,):
            raise pickle.UnpicklingError("unusual array header")
        self.array = None

    def __setstate__(self, state):
        _, shape, dtype, is_fortran, data = state
        shape = sizes(shape)
        if type(dtype) is not _Dtype or type(data) is not bytes:
            raise pickle.UnpicklingError("an array with an unusual description")
        if math.prod(shape) * dtype.dtype.itemsize != len(data):
            raise pickle.UnpicklingError("an array whose shape does not fit its data")
        self.array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if is_fortran else "C").copy("K")


def _scalar(dtype, data):
    """Replaces NumPy's `scalar`."""
    if type(dtype) is not _Dtype or type(data) is not bytes or len(data) != dtype.dtype.itemsize:
        raise pickle.UnpicklingError("a number with an unusual description")
    return np.frombuffer(data, dtype=dtype.dtype, count=1)[0]


def _encode(text, encoding="latin1"):
    """Replaces `_codecs.encode`, by which protocol 2 writes bytes."""
    if type(text) is not str:
        raise pickle.UnpicklingError("text to encode that is no text")
    return text.encode("latin1")


_ADMITTED = {
    ("numpy", "ndarray"): _NDARRAY_TOKEN,
    ("numpy", "dtype"): Admitted(_Dtype),
    ("_codecs", "encode"): Admitted(_encode),
    **ORDERED_DICT,
}
for _module in _MULTIARRAY:
    _ADMITTED[(_module, "_reconstruct")] = Admitted(_Array)
    _ADMITTED[(_module, "scalar")] = Admitted(_scalar)


class _Plainer:
    """Checks that the result has only arrays, numbers, strings and containers, and returns plain ones.

    Args:
        allowance: charged for each occurrence of an array, text or container, so that the result is not much larger
            than the file when it is written or copied.
    """

    def __init__(self, allowance: Allowance):
        self.values, self.allowance = 0, allowance

    def __call__(self, value, depth: int = 0):
        # Nested lists that refer to one list many times are short in the file but endless to traverse.
        self.values += 1
        if self.values > _MAX_VALUES:
            raise pickle.UnpicklingError(f"it holds more than {_MAX_VALUES} values")
        if depth > _MAX_DEPTH:
            raise pickle.UnpicklingError(f"its containers are nested more than {_MAX_DEPTH} deep")
        if isinstance(value, dict):
            self.allowance.charge_copy(value, _ENTRY)
            return {_key(k): self(v, depth + 1) for k, v in value.items()}
        self.allowance.charge_copy(value)
        if isinstance(value, (list, tuple)):
            return type(value)(self(v, depth + 1) for v in value)
        if type(value) is _Array and value.array is not None:
            self.allowance.charge(value.array.nbytes)
            return value.array
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
            return value
        raise pickle.UnpicklingError(f"it holds a {type(value).__name__.strip('_')}")


def _key(key):
    """Refuses keys that are neither text nor numbers."""
    if isinstance(key, (str, int)):
        return key
    raise pickle.UnpicklingError(f"a key is a {type(key).__name__}")


def read_pickle(path: str | Path):
    """The content of a PaddlePaddle pickle file, arrays as `numpy.ndarray`.

    Raises:
        CheckpointError: the file is missing, damaged, or asks for anything but arrays and plain containers.
    """
    path = Path(path)
    require_file(path, CheckpointError)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not data:
        raise CheckpointError(f"{path}: the file is empty; use another checkpoint")
    try:
        allowance = Allowance(len(data))
        content = RestrictedUnpickler(io.BytesIO(data), _ADMITTED, allowance).load()
        # Joins arrays that PaddlePaddle splits at 1 GiB under pickle protocol 2 and 3.
        state = _Plainer(allowance)(content)
        parts = state.pop("UnpackBigParamInfor@@", None) if isinstance(state, dict) else None
        for key, info in (parts or {}).items():
            if not all(type(part) is str for part in info["slices"]):
                raise pickle.UnpicklingError("the name of a part of an array is no text")
            arrays = [state.pop(part) for part in info["slices"]]
            # Lists would become arrays, and their numbers would get the type of the largest.
            if (
                not all(isinstance(array, np.ndarray) for array in arrays)
                or len({array.dtype for array in arrays}) != 1
            ):
                raise pickle.UnpicklingError("a part of an array is no array, or of another type than the others")
            state[key] = np.concatenate(arrays).reshape(sizes(info["OriginShape"]))
        return state
    except Exception as error:  # a damaged pickle raises almost anything
        reason = f"{type(error).__name__}: {str(error)[:300] or 'it ends too early'}"
        raise CheckpointError(
            f"{path}: not a checkpoint that can be read safely ({reason}). The file is damaged or was not written by "
            "PaddlePaddle; use another one."
        ) from error
