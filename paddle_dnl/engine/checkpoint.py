"""Checkpoint folders: written whole or not at all, verified when read, complete enough for an exact resume.

    iter_1000/
      model.pdparams   weights, readable by PaddleSeg
      model.pdopt      optimizer and schedule, readable by PaddleSeg
      model.pdstates   everything else: iteration, best score, early-stop count, loss scaler, seed, batch layout
      ema_model.pdparams   (with EMA)
      config.yml       the resolved configuration
      manifest.json    size and SHA-256 of each file, iteration, versions; written last

A folder is filled under a temporary name, flushed to disk and renamed, so a folder with a final name is always whole.
The random state is not stored, since it is a function of seed and iteration (see `paddle_dnl.engine.sampling`).
"""

import contextlib
import json
import os
import pickle
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import paddle_dnl
from paddle_dnl.engine.bad_values import bad_names
from paddle_dnl.engine.manifest import MANIFEST, file_digest, read_manifest, write_manifest
from paddle_dnl.engine.safe_pickle import read_pickle
from paddle_dnl.engine.weights import NAME_TABLE, load_weights, read_params
from paddle_dnl.errors import CheckpointError, NonFiniteError
from paddle_dnl.log import logger

import numpy as np
import paddle

PARAMS, OPTIMIZER, STATES, EMA = "model.pdparams", "model.pdopt", "model.pdstates", "ema_model.pdparams"
_TEMPORARY, _OLD = ".tmp-", ".old-"


# ---------------------------------------------------------------------------------------------- writing


def _flush(path: Path) -> None:
    """Forces a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _discard(folder: Path) -> None:
    """Removes a folder; one that is half removed when the process dies has no name under which it would be used."""
    if folder.exists():
        left = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}removed-", dir=folder.parent))
        os.rename(folder, left / folder.name)
        shutil.rmtree(left, ignore_errors=True)


def _put_in_place(temporary: Path, final: Path) -> None:
    """Renames a finished folder to its name; an older folder of that name is moved aside first and removed last."""
    aside = final.with_name(f"{_OLD}{final.name}")
    _discard(aside)
    if final.exists():
        os.rename(final, aside)
    os.rename(temporary, final)
    _flush(final.parent)
    _discard(aside)


def recover(save_dir: str | Path) -> None:
    """Tidies what a killed run left in `save_dir`: a folder moved aside gets its name back, half-written ones go."""
    for aside in Path(save_dir).glob(f"{_OLD}*"):
        final = aside.with_name(aside.name[len(_OLD) :])
        if final.exists():
            _discard(aside)
        else:
            os.rename(aside, final)
    for left in Path(save_dir).glob(f"{_TEMPORARY}*"):
        shutil.rmtree(left, ignore_errors=True)


def _refuse_non_finite(model: paddle.nn.Layer, optimizer, ema: paddle.nn.Layer | None, iteration: int) -> None:
    keys = {tensor.name: key for key, tensor in model.state_dict().items()}
    state = optimizer.state_dict()
    slots = {**state, **state.get("master_weights", {})}
    named = list(model.state_dict().items())
    for slot, tensor in slots.items():
        owner = max((name for name in keys if slot.startswith(name)), key=len, default="")
        named.append((f"optimizer slot {keys.get(owner, '')}{slot[len(owner) :]}", tensor))
    if ema is not None:
        named += [(f"average of {key}", tensor) for key, tensor in ema.state_dict().items()]
    bad = bad_names((name, tensor) for name, tensor in named if isinstance(tensor, paddle.Tensor))
    if bad:
        raise NonFiniteError(f"iter {iteration}: {bad[0]} holds NaN or infinity; this checkpoint was not written")


def _write_manifest(folder: Path, iteration: int, optimizer: str) -> None:
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    manifest = {
        "iteration": iteration,
        "optimizer": optimizer,
        "saved_at": time.time(),
        "versions": {"paddle_dnl": paddle_dnl.__version__, "paddle": paddle.__version__, "numpy": np.__version__},
        "files": {path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)} for path in files},
    }
    write_manifest(folder / MANIFEST, manifest)


def save_checkpoint(
    folder: str | Path,
    *,
    model: paddle.nn.Layer,
    optimizer,
    states: Mapping,
    ema: paddle.nn.Layer | None = None,
    config_text: str = "",
) -> Path:
    """Writes a complete checkpoint; after a crash at any moment `folder` is either absent, the old one or the new one.

    Args:
        folder: final name, for instance `output/iter_1000`; its parent must exist.
        model: its `state_dict` is written.
        optimizer: a Paddle optimizer.
        states: plain values; must hold `iteration`.
        ema: a model that holds the moving average.
        config_text: resolved YAML.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; nothing is left behind.
        NonFiniteError: a weight, optimizer slot or average is NaN or infinite; nothing is written.
    """
    folder = Path(folder)
    _refuse_non_finite(model, optimizer, ema, states["iteration"])
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{folder.name}-", dir=folder.parent))
        temporary.chmod(0o755)
        paddle.save(model.state_dict(), str(temporary / PARAMS))
        paddle.save(optimizer.state_dict(), str(temporary / OPTIMIZER))
        if ema is not None:
            paddle.save(ema.state_dict(), str(temporary / EMA))
        (temporary / STATES).write_bytes(pickle.dumps(dict(states), protocol=4))
        (temporary / "config.yml").write_text(config_text)
        _write_manifest(temporary, states["iteration"], type(optimizer).__name__)
        for path in temporary.iterdir():
            _flush(path)
        _flush(temporary)
        _put_in_place(temporary, folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: the checkpoint could not be written ({error.strerror or error})") from error
    except (ValueError, RuntimeError) as error:  # paddle.save reports a full disk this way
        raise CheckpointError(f"{folder}: the checkpoint could not be written ({error})") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def link_checkpoint(source: str | Path, target: str | Path, states: Mapping | None = None) -> Path:
    """Gives a complete checkpoint a second name (`best_model`) without a second copy of its data where links exist.

    With `states` these replace its own; `target` may then be `source`.
    """
    source, target = Path(source), Path(target)
    temporary = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{target.name}-", dir=target.parent))
    temporary.chmod(0o755)
    try:
        for path in source.iterdir():
            if states is not None and path.name in (STATES, MANIFEST):
                continue
            try:
                os.link(path, temporary / path.name)
            except OSError:  # a file system without hard links
                shutil.copy2(path, temporary / path.name)
        if states is not None:
            (temporary / STATES).write_bytes(pickle.dumps(dict(states), protocol=4))
            optimizer = json.loads((source / MANIFEST).read_text())["optimizer"]
            _write_manifest(temporary, states["iteration"], optimizer)
            for name in (STATES, MANIFEST):
                _flush(temporary / name)
        _flush(temporary)
        _put_in_place(temporary, target)
    except OSError as error:
        raise CheckpointError(f"{target}: could not be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def remove_old(save_dir: str | Path, keep: int, newest: Path | None = None) -> None:
    """Keeps the `keep` newest `iter_N` folders of `save_dir`, earlier runs' included; 0 or less keeps all.

    `newest`, just written, is kept even where the clock was set back and makes it look old.
    """
    if keep > 0:
        others = [folder for folder in iteration_folders(save_dir) if folder != newest]
        for folder in others[: max(0, len(others) + (newest is not None) - keep)]:
            with contextlib.suppress(OSError):
                _discard(folder)


# ---------------------------------------------------------------------------------------------- reading


def _saved_at(folder: Path) -> float:
    try:
        return float(json.loads((folder / MANIFEST).read_text())["saved_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return folder.stat().st_mtime


def iteration_folders(save_dir: str | Path) -> list[Path]:
    """The `iter_N` folders in `save_dir` in the order in which they were written.

    By time and not by number, since a new run in an old folder must neither resume from the old run nor count its
    higher numbers as newer.
    """
    found = [path for path in Path(save_dir).glob("iter_*") if path.is_dir() and re.fullmatch(r"iter_\d+", path.name)]
    return sorted(found, key=_saved_at)


def verify(folder: str | Path) -> dict | None:
    """Compares each file of a checkpoint with its manifest.

    Returns:
        The manifest, or None for a folder without one, as PaddleSeg writes it.

    Raises:
        CheckpointError: a file is missing or differs.
    """
    folder = Path(folder)
    if not (folder / PARAMS).is_file():
        raise CheckpointError(f"{folder}: not a checkpoint folder, there is no {PARAMS} in it")
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_manifest(folder / MANIFEST)
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path}: missing from this checkpoint; use another one")
        if path.stat().st_size != entry["bytes"] or file_digest(path) != entry["sha256"]:
            raise CheckpointError(f"{path}: damaged, it differs from what was written; use another checkpoint")
    return manifest


def find_resume(resume_model: str | None, save_dir: str | Path) -> Path | None:
    """The checkpoint folder that `--resume_model` names; `auto` takes the newest whole one in `save_dir`."""
    if resume_model is None:
        return None
    if resume_model != "auto":
        folder = Path(resume_model)
        if not folder.is_dir():
            raise CheckpointError(f"--resume_model {resume_model}: no such folder")
        return folder
    for folder in reversed(iteration_folders(save_dir)):
        try:
            verify(folder)
            return folder
        except CheckpointError as error:
            logger.warning(f"{error} (trying the one before it)")
    logger.info(f"--resume_model auto: no checkpoint in {save_dir}, training starts from the beginning")
    return None


def rename_optimizer_state(state: Mapping, old_names: Mapping[str, str], new_names: Mapping[str, str]) -> dict:
    """Moves optimizer slots from the parameter names of one process to those of another.

    Paddle keys them by generated names (`conv2d_7.w_0_velocity_0`) that depend on how many layers were built before.

    Args:
        state: as read from model.pdopt.
        old_names: model key -> generated name when it was saved.
        new_names: model key -> generated name now.
    """
    renamed = {old: new_names[key] for key, old in old_names.items() if key in new_names}
    by_length = sorted(renamed, key=len, reverse=True)

    def new_key(key: str) -> str:
        for old in by_length:
            if key == old or key.startswith(old + "_"):
                return renamed[old] + key[len(old) :]
        return key

    result = {}
    for key, value in state.items():
        if key == "master_weights":
            result[key] = {new_key(name): weight for name, weight in value.items()}
        elif key != NAME_TABLE:
            result[key if key == "LR_Scheduler" else new_key(key)] = value
    return result


def _restore_optimizer(folder: Path, weights: Mapping, model, optimizer) -> None:
    state = read_params(folder / OPTIMIZER)
    new_names = {key: tensor.name for key, tensor in model.state_dict().items()}
    state = rename_optimizer_state(state, weights.get(NAME_TABLE, {}), new_names)
    slots = [key for key in state if key not in ("LR_Scheduler", "master_weights")]
    known = tuple(name + "_" for name in new_names.values())
    strange = [key for key in slots if not key.startswith(known)]
    if strange:
        raise CheckpointError(
            f"{folder / OPTIMIZER}: {len(strange)} of {len(slots)} slots belong to no parameter of this model "
            f"({', '.join(strange[:3])}); it was written for another model"
        )
    state["master_weights"] = {k: paddle.to_tensor(v) for k, v in state.get("master_weights", {}).items()}
    if not state["master_weights"]:
        del state["master_weights"]
    optimizer.set_state_dict(state)


def _require_same_optimizer(folder: Path, manifest: Mapping, optimizer) -> None:
    """Paddle would else fail at the first step or go on without momentum; manifests of older versions do not say."""
    now = type(optimizer).__name__
    before = manifest.get("optimizer", now)
    if before != now:
        raise CheckpointError(
            f"{folder / OPTIMIZER}: is of another optimizer, {before} instead of {now}. To start a new training from its "
            f"weights use --opts model.pretrained={folder / PARAMS}"
        )


def _instead_of(folder: Path) -> str:
    """For the end of an error: the newest whole checkpoint beside a damaged one."""
    for other in reversed(iteration_folders(folder.parent)):
        with contextlib.suppress(CheckpointError):
            if other.resolve() != folder.resolve() and verify(other) is not None:
                return f". Whole is {other} (--resume_model {other})"
    return f". No other checkpoint in {folder.parent} is whole"


def load_checkpoint(folder: str | Path, *, model, optimizer, ema=None) -> dict:
    """Restores a training from a checkpoint folder of ours or of PaddleSeg.

    Returns:
        The plain states; for PaddleSeg's folders just `{"iteration": N}`, taken from the name `iter_N`.

    Raises:
        CheckpointError: damaged, incomplete, hostile, or of another model; nothing has been trained yet then.
    """
    folder = Path(folder)
    try:
        manifest = verify(folder)
    except CheckpointError as error:
        raise CheckpointError(f"{error}{_instead_of(folder)}") from error
    _require_same_optimizer(folder, manifest or {}, optimizer)
    if not (folder / OPTIMIZER).is_file():
        raise CheckpointError(
            f"{folder}: cannot be resumed, there is no {OPTIMIZER} in it. To start a new training from its weights use "
            f"--opts model.pretrained={folder / PARAMS}"
        )
    weights = read_params(folder / PARAMS)
    load_weights(model, weights, what=f"{folder / PARAMS}")
    _restore_optimizer(folder, weights, model, optimizer)
    if ema is not None:
        if (folder / EMA).is_file():
            load_weights(ema, folder / EMA, what="EMA weights")
        else:
            load_weights(ema, weights, what=f"{folder / PARAMS}")
            logger.warning(f"{folder}: holds no EMA weights; the average starts again from the model's weights")
    if manifest is not None:
        states = read_pickle(folder / STATES)
        if not isinstance(states, dict) or states.get("iteration") != manifest["iteration"]:
            raise CheckpointError(f"{folder / STATES}: does not belong to this checkpoint; use another one")
        return states
    number = re.search(r"_(\d+)$", folder.resolve().name)
    if number is None:
        raise CheckpointError(f"{folder}: has no {MANIFEST}, and its name does not end in _<iteration>")
    logger.warning(f"{folder}: no {MANIFEST}; resuming weights, optimizer and iteration, as PaddleSeg does")
    return {"iteration": int(number.group(1))}
