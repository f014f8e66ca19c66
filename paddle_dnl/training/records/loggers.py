# SPDX-License-Identifier: Apache-2.0
"""Loggers for curves and pictures: VisualDL, TensorBoard and Weights & Biases behind one interface.

A logger has `scalars(values, iteration)`, `image(tag, rgb, iteration)` and `close()`. The libraries are optional; log.txt and
scalars.csv (`paddle_dnl.training.records.run_records`) need none of them.
"""

import importlib.util
import os
import re
from pathlib import Path
from typing import Protocol

from paddle_dnl.errors import DataError
from paddle_dnl.files.atomic import write_text
from paddle_dnl.log import logger
from paddle_dnl.optional import not_installed

import numpy as np

# Name -> (required module, its row in `paddle_dnl.optional`).
_MODULES = {
    "visualdl": ("visualdl", "train"),
    "tensorboard": ("tensorboardX", "tensorboard"),
    "wandb": ("wandb", "wandb"),
}
NAMES = tuple(_MODULES)


class RunLogger(Protocol):
    """Interface of the loggers."""

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """Adds a point to the curve of each tag."""

    def image(self, tag: str, rgb: np.ndarray, iteration: int) -> None:
        """Adds a picture, uint8 `[H, W, 3]`."""

    def close(self) -> None:
        """Writes what is left."""


class VisualDL:
    """Files `vdlrecords.*.log` in the run's folder, as PaddleSeg's `--use_vdl` writes them."""

    def __init__(self, folder: Path, first_iteration: int, config: dict):
        from visualdl import LogWriter

        self._writer = LogWriter(str(folder))

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, float(value), iteration)

    def image(self, tag: str, rgb: np.ndarray, iteration: int) -> None:
        self._writer.add_image(tag, rgb, iteration, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class TensorBoard(VisualDL):
    """Event files in `tensorboard/` of the run's folder; steps that a resumed run repeats replace the earlier ones."""

    def __init__(self, folder: Path, first_iteration: int, config: dict):
        from tensorboardX import SummaryWriter

        purge = {"purge_step": first_iteration} if first_iteration > 1 else {}
        self._writer = SummaryWriter(str(Path(folder) / "tensorboard"), **purge)


class WeightsAndBiases:
    """A wandb run in the project `$WANDB_PROJECT` (default `paddle-dnl`); its id is stored in the folder for resumed runs.

    wandb's own variables choose the server, the account and `WANDB_MODE=offline`.
    """

    RUN_FILE = "wandb_run.txt"

    def __init__(self, folder: Path, first_iteration: int, config: dict):
        import wandb

        kept = Path(folder) / self.RUN_FILE
        number = kept.read_text(encoding="utf-8").strip() if first_iteration > 1 and kept.is_file() else None
        if number is not None and not re.fullmatch(
            r"[A-Za-z0-9_-]{1,64}", number
        ):  # wandb makes it part of a folder's name
            raise DataError(
                f"{kept}: {number[:80]!r} is not the number of a wandb run; remove the file to begin a new one"
            )
        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "paddle-dnl"),
            name=Path(folder).resolve().name,
            dir=str(folder),
            config=config,
            id=number,
            resume="allow",
        )
        write_text(kept, f"{self._run.id}\n", own=True)

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        self._run.log({tag: float(value) for tag, value in values.items()}, step=iteration)

    def image(self, tag: str, rgb: np.ndarray, iteration: int) -> None:
        self._run.log({tag: self._wandb.Image(rgb)}, step=iteration)

    def close(self) -> None:
        self._run.finish()


_CLASSES = {"visualdl": VisualDL, "tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def require_installed(names) -> None:
    """Refuses a logger whose library is missing, before data are read.

    Raises:
        UsageError: says what to install.
    """
    for name in names:
        module, extra = _MODULES[name]
        if importlib.util.find_spec(module) is None:
            flag = "--use_vdl" if name == "visualdl" else f"--logger {name}"
            raise not_installed(flag, ImportError(name=module), extra)


class LoggerGroup:
    """Several loggers as one. A logger that fails, for instance on a full disk, is disabled with a warning.

    Args:
        names: of `NAMES`.
        folder: of the run.
        first_iteration: first one to be logged.
        config: the resolved configuration.
    """

    def __init__(self, names, folder: Path, first_iteration: int = 1, config: dict | None = None):
        self._loggers: dict[str, RunLogger] = {}
        for name in dict.fromkeys(names):
            require_installed([name])
            self._loggers[name] = _CLASSES[name](folder, first_iteration, config or {})

    def __len__(self) -> int:
        return len(self._loggers)

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """See `RunLogger`."""
        self._each("scalars", values, iteration)

    def image(self, tag: str, rgb: np.ndarray, iteration: int) -> None:
        """See `RunLogger`."""
        self._each("image", tag, rgb, iteration)

    def close(self) -> None:
        """See `RunLogger`."""
        self._each("close")

    def _each(self, method: str, *values) -> None:
        for name, one in list(self._loggers.items()):
            try:
                getattr(one, method)(*values)
            except Exception as error:  # no error of a logging library may stop the training
                del self._loggers[name]
                logger.warning(f"--logger {name}: failed and is disabled: {type(error).__name__}: {error}")
