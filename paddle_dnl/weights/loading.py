# SPDX-License-Identifier: Apache-2.0
"""Reads weights from files safely and loads them into a model; every key is accounted for."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from paddle_dnl.errors import CheckpointError
from paddle_dnl.files.reading import parse_json, require_file
from paddle_dnl.log import logger
from paddle_dnl.weights.manifest import require_as_written
from paddle_dnl.weights.restricted_pickle import shown
from paddle_dnl.weights.safe_pickle import read_pickle

import numpy as np
import paddle

_MAX_NAME = 1_000  # characters; longer ones would fill error messages
_MAX_HEADER = 16 << 20  # bytes; DNLNet's is 60 thousand
_DIGEST_KEY = "sha256_of_tensors"

# PaddlePaddle stores the map from a model's keys to its generated parameter names under this key.
NAME_TABLE = "StructuredToParameterName@@"


@dataclass
class LoadReport:
    """Result for each key after loading weights into a model."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mis_shaped: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.mis_shaped)

    def __str__(self) -> str:
        parts = []
        for title in ("missing", "unexpected", "mis_shaped"):
            keys = getattr(self, title)
            if keys:
                shown = ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")
                parts.append(f"{len(keys)} {title.replace('_', '-')} ({shown})")
        return f"{len(self.loaded)} keys fit; " + ("; ".join(parts) if parts else "all present")


def _tensors_digest(state: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, types, shapes and values, independent of the order in a file."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = np.ascontiguousarray(state[key])
        digest.update(f"{key}\0{value.dtype.str}\0{value.shape}\n".encode())
        digest.update(value.view(np.uint8).data if value.size and value.ndim else value.tobytes())
    return digest.hexdigest()


def _from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """The float32 numbers whose upper halves are `bits`, an array of uint16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import safe_open

    try:
        with open(path, "rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > _MAX_HEADER:
            raise ValueError(f"its list of tensors would have {header} bytes")
        with safe_open(str(path), "numpy") as file:
            keys = list(file.keys())
            wide = [key for key in keys if file.get_slice(key).get_dtype() == "BF16"]
            state = {key: file.get_tensor(key) for key in keys if key not in wide}
            expected = (file.metadata() or {}).get(_DIGEST_KEY)
        if wide:  # bfloat16, which NumPy lacks, becomes float32; the library has checked the header
            with open(path, "rb") as file:
                file.seek(8)
                entries = parse_json(file.read(header))
                for key in wide:
                    start, end = entries[key]["data_offsets"]
                    file.seek(8 + header + start)
                    bits = np.frombuffer(file.read(end - start), "<u2").reshape(entries[key]["shape"])
                    state[key] = _from_bfloat16(bits)
    except Exception as error:
        raise CheckpointError(f"{path}: not a valid safetensors file ({error}); use another one") from error
    if expected is not None and expected != _tensors_digest(state):
        raise CheckpointError(f"{path}: damaged, its tensors are not those that were written; use another one")
    return state


def read_params(path: str | Path) -> dict:
    """Reads weights or optimizer state from a .pdparams, .pdopt or .safetensors file without running code from it.

    Returns:
        Keys to NumPy arrays; for .pdopt also the nested plain containers PaddlePaddle writes.

    Raises:
        CheckpointError: missing, damaged, hostile, or not a mapping.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; give the file in it, for instance {path / 'model.pdparams'}")
    if not path.exists():
        raise CheckpointError(f"{path}: no such file")
    require_file(path, CheckpointError)
    require_as_written(path)
    state = _read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, not a mapping of weights")
    strange = [key for key in state if type(key) is not str or len(key) > _MAX_NAME]
    if strange:
        raise CheckpointError(f"{path}: holds {shown(strange[0])} as the name of a weight; use another file")
    table = state.get(NAME_TABLE, {})
    if not isinstance(table, dict) or not all(type(name) is str for pair in table.items() for name in pair):
        raise CheckpointError(f"{path}: {NAME_TABLE} is no table of names; use another file")
    return state


def write_safetensors(state: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Writes a safetensors file, with a digest that detects damage. It cannot contain code, unlike .pdparams."""
    from safetensors.numpy import save_file

    tensors = {key: np.ascontiguousarray(value) for key, value in state.items()}
    save_file(tensors, str(path), metadata={"format": "np", _DIGEST_KEY: _tensors_digest(tensors)})


def match(model: paddle.nn.Layer, state: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], LoadReport]:
    """Splits `state` into tensors that fit the model, and a report on all keys."""
    target = model.state_dict()
    report = LoadReport(missing=[key for key in target if key not in state])
    fitting = {}
    for key, value in state.items():
        if key == NAME_TABLE:
            continue
        if key not in target:
            report.unexpected.append(key)
        elif not isinstance(value, np.ndarray | np.generic):
            # Nested lists that repeat one list could become huge arrays.
            report.mis_shaped.append(f"{key} is a {type(value).__name__}")
        elif value.dtype.kind not in "biuf":
            report.mis_shaped.append(f"{key} holds {value.dtype.name} numbers")
        elif tuple(np.shape(value)) != tuple(target[key].shape):
            report.mis_shaped.append(f"{key} {list(np.shape(value))} instead of {list(target[key].shape)}")
        else:
            fitting[key] = value
            report.loaded.append(key)
    return fitting, report


def load_weights(
    model: paddle.nn.Layer,
    source: str | Path | Mapping[str, np.ndarray],
    *,
    strict: bool = True,
    what: str = "weights",
) -> LoadReport:
    """Loads weights into a model.

    Args:
        model: receives the weights.
        source: a file for `read_params`, or the mapping itself.
        strict: refuse unless all keys of both fit; otherwise load what fits and warn.
        what: name of the source in messages, such as `--model_path`.

    Raises:
        CheckpointError: unreadable file; strict and any key missing, unexpected or mis-shaped; or nothing fits at all.
    """
    state = source if isinstance(source, Mapping) else read_params(source)
    name = what if isinstance(source, Mapping) else f"{what} {source}"
    fitting, report = match(model, state)
    if not report.loaded or (strict and not report.complete):
        raise CheckpointError(
            f"{name} does not belong to this model: {report}. Check that --config and the weights match."
        )
    # In the types of the model. bfloat16 has no NumPy type; PaddlePaddle keeps its bits in uint16, in files too.
    tensors = model.state_dict()
    for key, value in fitting.items():
        kind = str(tensors[key].dtype).rsplit(".", 1)[-1]
        if value.dtype == np.uint16 and kind.startswith("float"):
            value = _from_bfloat16(value)
        with np.errstate(over="ignore"):  # what is too large becomes infinite
            fitting[key] = value.astype("uint16" if kind == "bfloat16" else kind, copy=False)
    # Refuses NaN here, where the file is known.
    bad = [key for key, value in fitting.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
    if bad:
        raise CheckpointError(f"{name}: {len(bad)} tensors hold NaN or infinity ({', '.join(bad[:4])})")
    for key, value in fitting.items():
        tensors[key].set_value(value)
    if not report.complete:
        logger.warning(f"{name}: {report}")
    return report
