# SPDX-License-Identifier: Apache-2.0
"""Compares the logits of a converted model with stored logits of the original (.npz)."""

import zipfile
import zlib
from pathlib import Path

from paddle_dnl.errors import CheckpointError, DataError
from paddle_dnl.files.reading import open_file, parse_json, require_file

import numpy as np
import paddle
from numpy.lib import format as npy

_MAX_NUMBERS = 1 << 28  # 1 GiB in float32; a golden case of Cityscapes has 40 million
_MAX_ENTRIES = 100
_MAX_SPEC = 1 << 20  # bytes


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of an .npz. Its shape is checked before anything is allocated.

    Raises:
        ValueError: not four dimensions of floating-point numbers, too large, or not as long as its shape says.
    """
    with archive.open(f"{name}.npy") as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"`{name}` is of an unknown version of the format")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_fortran, dtype = read(file)
        count = 1
        for size in shape:
            count *= size
        if dtype.kind != "f" or len(shape) != 4 or not 0 < count <= _MAX_NUMBERS:
            raise ValueError(
                f"`{name}` holds {dtype} {list(shape)}; expected four dimensions of floating-point numbers, at most "
                f"{_MAX_NUMBERS} of them"
            )
        content = file.read(count * dtype.itemsize)
    if len(content) != count * dtype.itemsize:
        raise ValueError(f"`{name}` ends after {len(content)} of {count * dtype.itemsize} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C").astype(np.float32)


def _regenerated_input(path: Path) -> np.ndarray:
    """The input of a golden case, whose spec.json gives name and shape; it is random with a seed made of the name."""
    with open_file(path) as file:
        meta = parse_json(file.read(_MAX_SPEC))["meta"]
    shape = meta["input_shape"]
    if len(shape) != 4 or not all(type(size) is int and 0 < size < 1 << 16 for size in shape):
        raise ValueError(f"{path.name}: meta.input_shape is no [B, C, H, W]")
    if np.prod(shape, dtype=object) > _MAX_NUMBERS:
        raise ValueError(f"{path.name}: meta.input_shape is too large")
    generator = np.random.RandomState(zlib.crc32(f"input:{meta['name']}".encode()))
    return generator.randn(*shape).astype(np.float32)


def read_logits(path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Input and logits of the original model.

    Args:
        path: .npz with `input` `[B, 3, H, W]` and `logits` `[B, K, H, W]`, or with `logits_sub4` beside a spec.json.

    Returns:
        Input, logits, and the pixel stride of the logits.

    Raises:
        DataError: missing, not an .npz, other arrays, numbers that are not finite, or too large.
    """
    require_file(path, lambda text: DataError(f"--verify {text}"))
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()[:_MAX_ENTRIES]]
            if "input" in names and "logits" in names:
                image, logits, step = _array(archive, "input"), _array(archive, "logits"), 1
            elif "logits_sub4" in names:
                logits, step = _array(archive, "logits_sub4"), 4
                image = _regenerated_input(path.parent / "spec.json")
            else:
                found = ", ".join(names[:4]) or "nothing"
                raise ValueError(f"it holds {found}; expected the arrays `input` and `logits`")
        if not (np.isfinite(image).all() and np.isfinite(logits).all() and np.abs(logits).max() > 0):
            raise ValueError("its numbers are not finite, or all logits are zero")
    except Exception as error:  # the readers of zip, zlib, npy and JSON raise many kinds of errors for untrusted bytes
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(f"--verify {path}: cannot be used ({text})") from error
    return image, logits, step


def compare_logits(model, path: Path, tolerance: float = 1e-4) -> dict:
    """Compares a model's logits with stored ones; the tolerance is relative to the largest logit.

    Raises:
        CheckpointError: they differ by more, or more than 0.1 % of the pixels have another class.
        DataError: see `read_logits`; or the model cannot take the stored input.
    """
    image, expected, step = read_logits(path)
    model.eval()
    try:
        with paddle.no_grad():
            logits = model(paddle.to_tensor(image))[0].numpy()[:, :, ::step, ::step]
    except (ValueError, RuntimeError, OSError, AssertionError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise DataError(
            f"--verify {path}: the model cannot take its input {list(image.shape)} ({lines[-1] if lines else error!r})"
        ) from error
    if logits.shape != expected.shape:
        shapes = f"{list(expected.shape)} there and {list(logits.shape)} here"
        raise CheckpointError(f"--verify {path}: logits are {shapes}")
    error = float(np.abs(logits - expected).max() / np.abs(expected).max())
    same = float((logits.argmax(1) == expected.argmax(1)).mean())
    if not error <= tolerance or same < 0.999:
        raise CheckpointError(
            f"--verify {path}: logits differ by {error:.2e} of the largest one (allowed {tolerance:.0e}), "
            f"{same:.4%} of the pixels have the same class; the configuration is not of the file's network"
        )
    return {"file": path.name, "largest_error_relative_to_largest_logit": error, "same_class": same}
