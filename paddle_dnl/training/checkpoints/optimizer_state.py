# SPDX-License-Identifier: Apache-2.0
"""Loads the optimizer state of a checkpoint after checking that it belongs to this model and optimizer."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from paddle_dnl.errors import CheckpointError
from paddle_dnl.training.checkpoints.stored_values import require_schedule, require_slot
from paddle_dnl.weights.loading import NAME_TABLE

import paddle
from paddle.optimizer.lr import LambdaDecay, LRScheduler


def rename_optimizer_state(state: Mapping, old_names: Mapping[str, str], new_names: Mapping[str, str]) -> dict:
    """Renames optimizer slots from the parameter names of the process that saved them to those of this one.

    Paddle keys them by generated names (`conv2d_7.w_0_velocity_0`) that depend on the number of layers built before.

    Args:
        state: as read from model.pdopt.
        old_names: model key -> generated name in the saving process.
        new_names: model key -> generated name in this process.
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


def require_same_optimizer(path: Path, before: str | None, optimizer) -> None:
    """Refuses the state of another optimizer class.

    Args:
        path: of the state, for the message.
        before: name of the class that wrote it; None if unknown.
        optimizer: receives the state.

    Raises:
        CheckpointError: they differ.
    """
    now = type(optimizer).__name__
    if before not in (None, now):
        raise CheckpointError(f"{path}: is of another optimizer, {before} instead of {now}. {_instead(path)}")


def _instead(path: Path) -> str:
    weights = path.with_name("model.pdparams")
    return f"To start a new training from its weights use --opts model.pretrained={weights}"


def _require_known_slots(path: Path, endings: Iterable[str], optimizer) -> None:
    """Checks the slots of a file that does not name its optimizer; Paddle would fail at the first step or lose the momentum."""
    now = type(optimizer).__name__
    kinds = {getattr(optimizer, name) for name in dir(optimizer) if re.fullmatch(r"_\w+_acc(_max)?_str", name)}
    fitting = re.compile(rf"(fp32_master_\d+_)?({'|'.join(map(re.escape, kinds)) or '(?!)'})_\d+")
    strange = sorted({ending for ending in endings if not fitting.fullmatch(ending)})
    if strange:
        found = f"has {', '.join(strange[:3])} for a parameter, which {now} has not"
        raise CheckpointError(f"{path}: is of another optimizer, it {found}. {_instead(path)}")
    if kinds and not endings:
        raise CheckpointError(f"{path}: is of another optimizer, it has nothing of {now} in it. {_instead(path)}")


_FRESH = "--fresh_optimizer goes on from its weights and iteration with new slots"


class _Slots(dict):
    """Loaded slots, which Paddle takes at the first step; a missing one raises an error that names it.

    It cannot be checked earlier: a parameter without gradients has no slots and needs none.
    """

    def __init__(self, slots: Mapping, path: Path, kind: str):
        super().__init__(slots)
        self.path, self.kind = path, kind

    def __contains__(self, name) -> bool:
        if not super().__contains__(name):
            raise CheckpointError(f"{self.path}: a slot of {self.kind} is missing ({name}); {_FRESH}")
        return True


def move_schedule(optimizer, iteration: int) -> None:
    """Advances the learning-rate schedule to `iteration` step by step, since some schedules are recursive."""
    if isinstance(optimizer._learning_rate, LRScheduler):
        for _ in range(iteration):
            optimizer._learning_rate.step()


def restore_optimizer(path: Path, state: Mapping, weights: Mapping, model, optimizer, *, is_named: bool) -> None:
    """Loads the content of a .pdopt file into an optimizer.

    Args:
        path: of the file, for messages.
        state: as read from it.
        weights: content of the .pdparams beside it, with its name table.
        model: the optimizer's.
        optimizer: receives the state.
        is_named: whether the checkpoint names its optimizer, so that `require_same_optimizer` has compared them.

    Raises:
        CheckpointError: damaged, or of another model or optimizer.
    """
    if not isinstance(state.get("master_weights", {}), Mapping):
        raise CheckpointError(f"{path}: master_weights is no mapping of names to weights; use another checkpoint")
    new_names = {key: tensor.name for key, tensor in model.state_dict().items()}
    state = rename_optimizer_state(state, weights.get(NAME_TABLE, {}), new_names)
    slots = [key for key in state if key not in ("LR_Scheduler", "master_weights")]
    by_length = sorted(new_names.values(), key=len, reverse=True)
    owners = {slot: next((name for name in by_length if slot.startswith(name + "_")), None) for slot in slots}
    masters = state.get("master_weights", {})
    owners |= {name: name if name in by_length else None for name in masters}
    strange = [slot for slot, owner in owners.items() if owner is None]
    if strange:
        raise CheckpointError(
            f"{path}: {len(strange)} of {len(owners)} slots belong to no parameter of this model "
            f"({', '.join(strange[:3])}); it was written for another model"
        )
    parameters = {tensor.name: tensor for tensor in model.state_dict().values()}
    for slot, value in [*((slot, state[slot]) for slot in slots), *masters.items()]:
        require_slot(path, slot, value, parameters[owners[slot]])
    if not is_named:
        _require_known_slots(path, [slot[len(owners[slot]) + 1 :] for slot in slots], optimizer)
    needed = isinstance(optimizer._learning_rate, LRScheduler) and not isinstance(optimizer._learning_rate, LambdaDecay)
    if needed and not isinstance(state.get("LR_Scheduler"), Mapping):
        raise CheckpointError(f"{path}: holds no state of the learning-rate schedule (LR_Scheduler); {_FRESH}")
    if "LR_Scheduler" in state:
        require_schedule(path, state["LR_Scheduler"])
    state["master_weights"] = {k: paddle.to_tensor(v) for k, v in masters.items()}
    if not state["master_weights"]:
        del state["master_weights"]
    optimizer.set_state_dict(state)
    optimizer._accumulators_holder = _Slots(optimizer._accumulators_holder, path, type(optimizer).__name__)
