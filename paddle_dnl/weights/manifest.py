# SPDX-License-Identifier: Apache-2.0
"""Checksums that detect damaged files: a checkpoint's manifest.json, and the first line of deploy.yaml.

Both hold the SHA-256 of files and a checksum of themselves, so that a flipped bit in them is detected like one in the
weights. They detect damage, but do not prove who wrote the files.
"""

import copy
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from paddle_dnl.errors import CheckpointError, ConfigError
from paddle_dnl.files.reading import file_digest, parse_json, read_bytes

MANIFEST = "manifest.json"
FORMAT = 2  # 1 had no checksum of its own
_SEAL = "checksum: "
# Two changes within a tick of the file system's clock can have equal time stamps.
_TICK_SECONDS = 0.1

_known: dict[tuple, object] = {}  # cached results of reading a file


def _once(path: Path, read: Callable[[Path], object]):
    """`read(path)`, cached while device, inode, size and time stamps of the file are the same."""
    found = path.stat()
    key = (read, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if key not in _known:
        is_settled = time.time() - max(found.st_mtime, found.st_ctime) > _TICK_SECONDS
        value = read(path)
        if not is_settled:
            return value
        _known[key] = value
    return _known[key]


def is_as_written(path: Path, entry: dict) -> bool:
    """Whether a file matches its entry in a manifest; the digest of an unchanged file is computed once."""
    return path.stat().st_size == entry["bytes"] and _once(path, file_digest) == entry["sha256"]


def _checksum(manifest: dict) -> str:
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_manifest(path: Path, manifest: dict) -> None:
    """Writes a manifest, which must hold `files` and `iteration`, with its format and checksum."""
    manifest = {"format": FORMAT, **manifest}
    # No line break at the end, which could be cut off unnoticed.
    path.write_text(json.dumps({**manifest, "checksum": _checksum(manifest)}, indent=1), encoding="utf-8")


def read_manifest(path: Path) -> dict:
    """A manifest; `iteration` is an int and `files` maps names to `bytes` and `sha256`. Read once while it does not change.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        return copy.deepcopy(_once(path, _parse))
    except OSError as error:
        raise CheckpointError(f"{path}: damaged ({error}); use another checkpoint") from error


def _parse(path: Path) -> dict:
    try:
        manifest = parse_json(read_bytes(path))
        if manifest["format"] not in (1, FORMAT):
            raise ValueError(f"format {manifest['format']!r}")
        if manifest["format"] == FORMAT and manifest.get("checksum") != _checksum(manifest):
            raise ValueError("its checksum does not fit")
        manifest["iteration"] = int(manifest["iteration"])
        manifest["files"] = {
            Path(name).name: {"bytes": int(entry["bytes"]), "sha256": str(entry["sha256"])}
            for name, entry in manifest["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); use another checkpoint") from error
    return manifest


def require_as_written(path: Path) -> None:
    """Compares a file with the manifest beside it; accepts it if there is no manifest or no entry.

    Raises:
        CheckpointError: the file was changed, or the manifest is damaged.
    """
    beside = path.parent / MANIFEST
    if not beside.is_file():
        return
    entry = read_manifest(beside)["files"].get(path.name)
    if entry and not is_as_written(path, entry):
        raise CheckpointError(
            f"{path}: damaged, it differs from what was written ({beside.name} beside it has its SHA-256); use another "
            f"checkpoint, or remove {beside.name} if you replaced the file yourself"
        )


def seal(text: str) -> str:
    """`text` with its checksum as a first line of YAML."""
    return f"{_SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def require_unbroken_seal(path: Path) -> None:
    """Compares a file with the checksum in its first line; files without one are accepted.

    Raises:
        ConfigError: the rest was changed.
    """
    first, _, rest = read_bytes(path).partition(b"\n")
    if first.startswith(_SEAL.encode()) and first[len(_SEAL) :].decode("latin1") != hashlib.sha256(rest).hexdigest():
        raise ConfigError(
            f"{path}: damaged or changed since the export (its first line is the SHA-256 of the rest); export the model "
            "again, or remove that line if you changed the file yourself"
        )
