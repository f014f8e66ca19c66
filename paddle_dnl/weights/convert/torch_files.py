# SPDX-License-Identifier: Apache-2.0
"""Reads PyTorch's .pth files with NumPy only, without running code from them.

A .pth file is a pickle, and a pickle may name any function to be called while it is read. Here only the
names that tensors need are admitted; the few that training scripts add (arguments, configuration objects,
NumPy scalars) become empty placeholders; any other name is refused before it is called. Both
formats are read: the zip archive (PyTorch 1.6 and later) and the older stream of pickles.

    zip      NAME/data.pkl, NAME/data/KEY (raw storages), optionally NAME/byteorder
    stream   pickles of: magic number, protocol, system, object, list of storage keys; then per storage
             its number of elements (int64) and raw data
"""

import io
import math
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path

from paddle_dnl.errors import CheckpointError
from paddle_dnl.files.reading import require_file
from paddle_dnl.weights.restricted_pickle import ORDERED_DICT, Admitted, Allowance, RestrictedUnpickler, shown, sizes

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}
# Objects of training scripts, whose content is not needed.
_IGNORED_NAMES = {
    ("argparse", "Namespace"),  # DeiT-style training scripts
    ("pyhocon.config_tree", "ConfigTree"),  # torchcv, hence the DNL authors
    ("mmengine.logging.history_buffer", "HistoryBuffer"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("_codecs", "encode"),
    *((f"numpy.{core}.multiarray", x) for core in ("core", "_core") for x in ("scalar", "_reconstruct")),
}
_MAX_VALUES = 1_000_000
_MAX_NAME = 1_000  # letters
_ENTRY = 128  # bytes of a dict for each of its entries, at most
_WRAPPERS = ("state_dict", "model", "model_state_dict")


class _Ignored:
    """Placeholder of an object that is not needed."""

    def __init__(self, *_):
        pass

    def __setstate__(self, _):
        pass

    def __setitem__(self, _, __):
        pass

    def append(self, _):
        pass

    def extend(self, _):
        pass


@dataclass
class _Storage:
    dtype: str
    size: int
    data: bytes | memoryview | None = None

    @property
    def itemsize(self) -> int:
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize

    def numbers(self) -> np.ndarray:
        """The numbers as stored, bfloat16 as uint16."""
        if self.data is None or len(self.data) < self.size * self.itemsize:
            raise pickle.UnpicklingError("the data of a tensor is missing or cut off")
        return np.frombuffer(self.data, "<u2" if self.dtype == "bfloat16" else self.dtype, self.size)

    def converted(self, numbers: np.ndarray) -> np.ndarray:
        """Converts bfloat16 to float32; applied to single tensors, since many may share a storage."""
        if self.dtype == "bfloat16":  # the upper half of a float32
            return np.left_shift(numbers, 16, dtype="<u4").view("<f4")
        return numbers


@dataclass
class _Tensor:
    """A tensor whose storage may come later in the file."""

    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple

    def array(self) -> np.ndarray:
        numbers = self.storage.numbers()
        if 0 in self.shape:
            return self.storage.converted(np.zeros(self.shape, numbers.dtype))
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        # A view with stride 0 could describe an array of any size.
        if math.prod(self.shape) > self.storage.size or last >= self.storage.size:
            raise pickle.UnpicklingError("a tensor reaches beyond its data")
        steps = [s * numbers.itemsize for s in self.strides]
        view = np.ndarray(self.shape, numbers.dtype, numbers, self.offset * numbers.itemsize, steps)
        return self.storage.converted(view.copy())


def _rebuild_tensor(storage, offset, size, stride, *_) -> _Tensor:
    """Replaces `torch._utils._rebuild_tensor_v2`."""
    shape, strides, (offset,) = sizes(size), sizes(stride), sizes((offset,))
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise pickle.UnpicklingError("a tensor with an unusual description")
    return _Tensor(storage, offset, shape, strides)


_ALLOWED = {
    **ORDERED_DICT,
    ("torch._utils", "_rebuild_tensor_v2"): Admitted(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): Admitted(lambda tensor, *_: tensor),
    ("torch", "Size"): Admitted(sizes),
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
    **dict.fromkeys(_IGNORED_NAMES, Admitted(_Ignored)),
}


class _Unpickler(RestrictedUnpickler):
    """Admits the names in `_ALLOWED` and references to storages, which it collects in `storages`."""

    def __init__(self, file, storages: dict[str, _Storage], allowance: Allowance):
        super().__init__(file, _ALLOWED, allowance, encoding="utf-8")
        self._storages = storages

    def persistent_load(self, pid):
        kind, dtype, key, _, size, *view = pid
        plain = kind == "storage" and dtype in _DTYPES.values() and not any(view)
        if not plain or type(key) is not str or len(key) > _MAX_NAME:
            raise pickle.UnpicklingError("it refers to something other than plain tensor data")
        (size,) = sizes((size,))
        storage = self._storages.setdefault(key, _Storage(dtype, size))
        if (storage.dtype, storage.size) != (dtype, size):
            raise pickle.UnpicklingError("two descriptions of the same tensor data")
        return storage


def _read_zip(file, allowance: Allowance):
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise pickle.UnpicklingError("a zip archive without exactly one data.pkl")
        root = pickles[0][: -len("data.pkl")]
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise pickle.UnpicklingError("compressed members, which PyTorch never writes")
        if sum(info.file_size for info in archive.infolist()) > file.seek(0, io.SEEK_END):
            raise pickle.UnpicklingError("members that lie over each other")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder").strip() != b"little":
            raise pickle.UnpicklingError("big-endian numbers; save it again on an ordinary machine")
        storages: dict[str, _Storage] = {}
        content = _Unpickler(io.BytesIO(archive.read(f"{root}data.pkl")), storages, allowance).load()
        for key, storage in storages.items():
            storage.data = archive.read(f"{root}data/{key}")
    return content


def _read_stream(file, allowance: Allowance):
    storages: dict[str, _Storage] = {}

    def following():
        return _Unpickler(file, storages, allowance).load()

    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    if following() != _MAGIC or following() != _PROTOCOL:
        raise pickle.UnpicklingError("it does not begin as a PyTorch file does")
    following()  # byte order and sizes of the writing machine
    content = following()
    for key in following():
        # Hashing a nested tuple can take arbitrarily long.
        storage = storages.get(key) if type(key) is str else None
        if storage is None:
            raise pickle.UnpicklingError(f"{shown(key)} in the list of tensor data, which no tensor uses")
        if int.from_bytes(file.read(8), "little") != storage.size:
            raise pickle.UnpicklingError("two sizes for the same tensor data, or a cut-off file")
        length = storage.size * storage.itemsize
        if length > end - file.tell():  # checked before memory is allocated
            raise pickle.UnpicklingError("the data of a tensor is cut off")
        storage.data = file.read(length)
    return content


class _Arrays:
    """Replaces tensors in containers by arrays, and unknown objects by None.

    Args:
        allowance: charged for each array, since several may share a storage, and each container and text.
    """

    def __init__(self, allowance: Allowance):
        self.values, self.allowance = 0, allowance

    def __call__(self, value, depth: int = 0):
        self.values += 1
        if depth > 32 or self.values > _MAX_VALUES:
            raise pickle.UnpicklingError(f"containers nested more than 32 deep, or more than {_MAX_VALUES} values")
        if isinstance(value, dict):
            self.allowance.charge_copy(value, _ENTRY)
            return {key: self(item, depth + 1) for key, item in value.items() if isinstance(key, (str, int))}
        self.allowance.charge_copy(value)
        if isinstance(value, (list, tuple)):
            return [self(item, depth + 1) for item in value]
        if isinstance(value, _Tensor):
            self.allowance.charge_copy(value.shape)
            itemsize = 4 if value.storage.dtype == "bfloat16" else value.storage.itemsize
            self.allowance.charge(math.prod(value.shape) * itemsize)
            return value.array()
        return value if isinstance(value, (str, int, float, bool)) else None


def read_torch(path: str | Path):
    """The content of a .pth file: dicts, lists, numbers and strings, with tensors as `numpy.ndarray`.

    bfloat16 becomes float32; other types keep their precision.

    Raises:
        CheckpointError: missing, damaged, or with objects that weights do not need.
    """
    path = Path(path)
    require_file(path, CheckpointError)
    try:
        with open(path, "rb") as file:
            allowance = Allowance(file.seek(0, io.SEEK_END))
            file.seek(0)
            read = _read_zip if file.read(4) == b"PK\x03\x04" else _read_stream
            file.seek(0)
            content = read(file, allowance)
        return _Arrays(allowance)(content)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged file raises almost anything
        raise CheckpointError(
            f"{path}: not a PyTorch file that can be read safely ({type(error).__name__}: {str(error)[:300]}). It "
            "is damaged, of another kind, or holds more than tensors; save its state dict alone and use that."
        ) from error


def unwrap(content, path: str | Path = "the file") -> dict[str, np.ndarray]:
    """The weights inside what a training script saved (`state_dict`, `model`, ...); the rest is ignored.

    Raises:
        CheckpointError: there is no mapping of names to tensors.
    """
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = isinstance(content, dict) and {
        key: value
        for key, value in content.items()
        if isinstance(value, np.ndarray) and type(key) is str and len(key) <= _MAX_NAME
    }
    if not tensors or len(tensors) < len(content):
        found = ", ".join(map(shown, list(content)[:4])) if isinstance(content, dict) else shown(content)
        raise CheckpointError(f"{path}: no mapping of names to tensors in it; it holds: {found or 'nothing'}")
    return tensors


def read_torch_weights(path: str | Path) -> dict[str, np.ndarray]:
    """The state dict in a .pth file, see `read_torch` and `unwrap`."""
    return unwrap(read_torch(path), path)
