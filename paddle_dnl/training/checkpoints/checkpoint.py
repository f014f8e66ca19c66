# SPDX-License-Identifier: Apache-2.0
"""Checkpoint folders: atomic writes, verification by checksums, complete state for an exact resume.

    iter_1000/
      model.pdparams   weights, readable by PaddleSeg
      model.pdopt      optimizer and schedule, readable by PaddleSeg
      model.pdstates   everything else: iteration, best score, early-stop count, loss scaler, seed, batch layout
      ema_model.pdparams   (with EMA)
      config.yml       the resolved configuration
      manifest.json    size and SHA-256 of each file, iteration, versions; written last

A folder is filled under a temporary name, flushed to disk and renamed, so a folder with a final name is always complete.
The random state is not stored, since it is a function of seed and iteration (see `paddle_dnl.training.sampling`).
"""

import contextlib
import math
import os
import pickle
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import paddle_dnl
from paddle_dnl.config.choices import CONFIG_NAME
from paddle_dnl.errors import CheckpointError
from paddle_dnl.files.atomic import discard, flush, make_temporary, put_in_place, remove_folder
from paddle_dnl.files.problems import reason
from paddle_dnl.files.reading import file_digest
from paddle_dnl.log import logger
from paddle_dnl.training.checkpoints.paddleseg_checkpoint import is_of_paddleseg
from paddle_dnl.training.checkpoints.snapshot import Snapshot
from paddle_dnl.weights.manifest import MANIFEST, is_as_written, read_manifest, write_manifest

import numpy as np
import paddle

PARAMS, OPTIMIZER, STATES, EMA = "model.pdparams", "model.pdopt", "model.pdstates", "ema_model.pdparams"
MEMBERS = (PARAMS, OPTIMIZER, STATES, EMA, CONFIG_NAME, MANIFEST)


# ---------------------------------------------------------------------------------------------- writing


def is_ours(folder: Path) -> bool:
    """Whether a folder is a checkpoint of this project, possibly a damaged one."""
    return (folder / MANIFEST).is_file() or ((folder / STATES).is_file() and not is_of_paddleseg(folder))


def require_ours(folder: Path) -> None:
    """Refuses a path at which something else exists.

    Raises:
        CheckpointError: a file, or a folder that is not a checkpoint of this project.
    """
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and is_ours(folder))):
        raise CheckpointError(
            f"{folder}: exists and was not written by this program; it is not replaced. Move it away or choose another "
            "--save_dir"
        )


def _write_manifest(
    folder: Path, save_dir: Path, iteration: int, optimizer: str | None, known: Mapping[str, dict]
) -> None:
    """Writes manifest.json; digests of files with an entry in `known` are not computed again."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    # Increases in the order of saving, even if the clock is set back.
    others = [_saved_at(other) for other in iteration_folders(save_dir)]
    manifest = {
        "iteration": iteration,
        **({"optimizer": optimizer} if optimizer else {}),
        "saved_at": max([time.time(), *(other + 1e-3 for other in others)]),
        "versions": {"paddle_dnl": paddle_dnl.__version__, "paddle": paddle.__version__, "numpy": np.__version__},
        "files": {
            path.name: known.get(path.name) or {"bytes": path.stat().st_size, "sha256": file_digest(path)}
            for path in files
        },
    }
    write_manifest(folder / MANIFEST, manifest)


def write_snapshot(folder: str | Path, snapshot: Snapshot) -> Path:
    """Writes a complete checkpoint; after a crash at any time `folder` is absent, the old one or the new one.

    Args:
        folder: final name, for instance `output/iter_1000`; its parent must exist.
        snapshot: what to write.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    folder = Path(folder)
    temporary = None
    try:
        require_ours(folder)
        temporary = make_temporary(folder, MEMBERS)
        paddle.save(snapshot.model, str(temporary / PARAMS))
        paddle.save(snapshot.optimizer, str(temporary / OPTIMIZER))
        if snapshot.ema is not None:
            paddle.save(snapshot.ema, str(temporary / EMA))
        (temporary / STATES).write_bytes(pickle.dumps(snapshot.states, protocol=4))
        (temporary / CONFIG_NAME).write_text(snapshot.config_text, encoding="utf-8")
        _write_manifest(temporary, folder.parent, snapshot.states["iteration"], snapshot.optimizer_name, {})
        for path in temporary.iterdir():
            flush(path)
        flush(temporary)
        put_in_place(temporary, folder)
    except (OSError, ValueError, RuntimeError) as error:  # of which paddle.save raises the latter two for a full disk
        raise CheckpointError(f"{folder}: the checkpoint could not be written ({reason(error, folder)})") from error
    finally:
        if temporary is not None:
            discard(temporary)
    return folder


def link_checkpoint(source: str | Path, target: str | Path, states: Mapping | None = None) -> None:
    """Gives a checkpoint a second name (`best_model`), by hard links where the file system has them.

    `states`, if given, replace its own; `target` may then be `source`.
    """
    source, target = Path(source), Path(target)
    require_ours(target)
    temporary = make_temporary(target, MEMBERS)
    try:
        for path in source.iterdir():
            if states is not None and path.name in (STATES, MANIFEST):
                continue
            try:
                os.link(path, temporary / path.name)
            except OSError:  # a file system without hard links
                shutil.copy2(path, temporary / path.name)
                flush(temporary / path.name)
        if states is not None:
            (temporary / STATES).write_bytes(pickle.dumps(dict(states), protocol=4))
            # A folder of PaddleSeg has no manifest, and manifests of older versions do not name the optimizer.
            before = read_manifest(source / MANIFEST) if (source / MANIFEST).exists() else {"files": {}}
            known = {name: entry for name, entry in before["files"].items() if name != STATES}
            _write_manifest(temporary, target.parent, states["iteration"], before.get("optimizer"), known)
            for name in (STATES, MANIFEST):
                flush(temporary / name)
        flush(temporary)
        put_in_place(temporary, target)
    except OSError as error:
        raise CheckpointError(f"{target}: could not be written ({reason(error, target)})") from error
    finally:
        discard(temporary)


def remove_old(save_dir: str | Path, keep: int, newest: Path | None = None) -> None:
    """Keeps the `keep` newest `iter_N` folders of `save_dir`, including those of earlier runs; 0 or less keeps all.

    Folders of other programs, and files of others in ours, are neither counted nor removed. `newest`, just written, is
    always kept: an unreadable folder is sorted by its file time, which may be later.
    """
    if keep > 0:
        others = [folder for folder in iteration_folders(save_dir) if folder != newest and is_ours(folder)]
        for folder in others[: max(0, len(others) + (newest is not None) - keep)]:
            with contextlib.suppress(OSError):
                remove_folder(folder, MEMBERS)


# ---------------------------------------------------------------------------------------------- reading


def _saved_at(folder: Path) -> float:
    """When a folder was written; of one without a manifest, or with a damaged one, when it was last changed."""
    with contextlib.suppress(CheckpointError, KeyError, TypeError, ValueError):
        saved_at = float(read_manifest(folder / MANIFEST)["saved_at"])
        if math.isfinite(saved_at):
            return saved_at
    try:
        return folder.stat().st_mtime
    except OSError:  # somebody removes it at this moment
        return 0.0


def iteration_folders(save_dir: str | Path) -> list[Path]:
    """The `iter_N` folders in `save_dir` in the order in which they were written.

    By time and not by number: the folders of an earlier run in the same place may have higher numbers.
    """
    found = [path for path in Path(save_dir).glob("iter_*") if path.is_dir() and re.fullmatch(r"iter_\d+", path.name)]
    return sorted(found, key=_saved_at)


def verify(folder: str | Path) -> dict | None:
    """Compares each file of a checkpoint with its manifest.

    Returns:
        The manifest, or None for a folder without one, as PaddleSeg writes it.

    Raises:
        CheckpointError: a file is missing or differs, or the manifest is missing where others of our files are.
    """
    folder = Path(folder)
    if not (folder / PARAMS).is_file():
        raise CheckpointError(f"{folder}: not a checkpoint folder, there is no {PARAMS} in it")
    if not (folder / MANIFEST).is_file():
        ours = [name for name in (STATES, CONFIG_NAME) if (folder / name).exists()]
        if ours and not is_of_paddleseg(folder):
            raise CheckpointError(f"{folder}: damaged, {MANIFEST} is missing beside {ours[0]}; use another checkpoint")
        return None
    manifest = read_manifest(folder / MANIFEST)
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path}: missing from this checkpoint; use another one")
        if not is_as_written(path, entry):
            raise CheckpointError(f"{path}: damaged, it differs from what was written; use another checkpoint")
    return manifest


def find_resume(resume_model: str | None, save_dir: str | Path) -> Path | None:
    """The checkpoint folder that `--resume_model` names.

    `auto`: the newest undamaged one in `save_dir`, or None; the folder of a run: its newest undamaged one.

    Raises:
        CheckpointError: no such folder, or a run's folder without an undamaged checkpoint.
    """
    if resume_model is None:
        return None
    if resume_model == "auto":
        found = _newest(save_dir)
        if found is None:
            logger.info(f"--resume_model auto: no checkpoint in {save_dir}, training starts from the beginning")
        return found
    folder = Path(resume_model)
    if not folder.is_dir():
        raise CheckpointError(f"--resume_model {resume_model}: no such folder")
    if (folder / PARAMS).exists() or not iteration_folders(folder):
        return folder
    found = _newest(folder)
    if found is None:
        raise CheckpointError(f"--resume_model {resume_model}: no checkpoint in this folder is whole")
    return found


def _newest(save_dir: str | Path) -> Path | None:
    """The newest undamaged checkpoint of a run; one of PaddleSeg, which cannot be verified, only if there is no other."""
    without_manifest = []
    for folder in reversed(iteration_folders(save_dir)):
        try:
            manifest = verify(folder)
            require_optimizer_file(folder)
        except CheckpointError as error:
            logger.warning(f"{error} (trying the one before it)")
            continue
        if manifest is not None:
            return folder
        without_manifest.append(folder)
    return without_manifest[0] if without_manifest else None


def require_free_names(save_dir: Path, resumed_from: Path | None, names: Iterable[str]) -> None:
    """Refuses a run whose checkpoints would have the names of folders that other programs wrote.

    Args:
        save_dir: of the run.
        resumed_from: checkpoint folder; iterations up to it are not written again.
        names: folders to write beside `iter_N`, such as `best_model`.

    Raises:
        CheckpointError: see `require_ours`.
    """
    number = re.search(r"_(\d+)$", resumed_from.resolve().name) if resumed_from else None
    start = int(number.group(1)) if number else 0
    for folder in iteration_folders(save_dir):
        if int(folder.name.removeprefix("iter_")) > start:
            require_ours(folder)
    for name in names:
        require_ours(save_dir / name)


def require_optimizer_file(folder: Path) -> None:
    """Refuses a folder without the optimizer's state, such as PaddleSeg's `best_model`.

    Raises:
        CheckpointError: it cannot be resumed.
    """
    if not (folder / OPTIMIZER).is_file():
        raise CheckpointError(
            f"{folder}: cannot be resumed, there is no {OPTIMIZER} in it. --fresh_optimizer goes on from its weights and "
            f"iteration; to start a new training from its weights use --opts model.pretrained={folder / PARAMS}"
        )
