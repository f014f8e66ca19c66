# SPDX-License-Identifier: Apache-2.0
"""The images that one process has to handle: its shard, without images whose results exist."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.files.outputs import check_outputs
from paddle_dnl.log import logger


@dataclass(frozen=True)
class Shard:
    """Every `count`-th image from `index` on: `index`, `index + count`, `index + 2 * count`, ..."""

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, text: str | None) -> "Shard":
        """From `--shard I/N`; by default from the rank under `paddle.distributed.launch`, or the task of a SLURM array.

        Raises:
            UsageError: not two integers, or I is not from 0 to N-1.
        """
        if text is not None:
            try:
                index, count = map(int, text.split("/"))
            except ValueError:
                raise UsageError(f"--shard {text}: expected I/N, for instance 0/4") from None
            if not 0 <= index < count:
                raise UsageError(f"--shard {text}: I must be from 0 to N-1")
            return cls(index, count)
        if (ranks := _number("PADDLE_TRAINERS_NUM")) and ranks > 1:
            return cls(_number("PADDLE_TRAINER_ID") or 0, ranks)
        task, first, last = (_number(f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "MIN", "MAX"))
        if task is None or first is None or last is None:
            return cls()
        step = _number("SLURM_ARRAY_TASK_STEP") or 1
        found = cls((task - first) // step, (last - first) // step + 1)
        if _number("SLURM_ARRAY_TASK_COUNT") not in (None, found.count):
            raise UsageError(
                f"SLURM array of {os.environ['SLURM_ARRAY_TASK_COUNT']} tasks with gaps between {first} and {last}: "
                "give each its --shard I/N"
            )
        return found


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else None


class PendingImages:
    """Iterable of (file, relative name) of the images to handle. Each pass searches again: memory does not grow with the number.

    Args:
        find: returns an iterator of (file, relative name) of all images, always in the same order; see
            `image_files.iter_images`.
        results: function relative name -> the result files.
        inputs: other files that the program reads.
        root: the output folder.
        shard: the shard of this process.
        skip_existing: skip images whose results all exist. (Results are written atomically.)

    Raises:
        OutputError: a result would overwrite an input, or a file that this package did not write; nothing was written.
    """

    def __init__(
        self,
        find: Callable[[], Iterable[tuple[Path, Path]]],
        results: Callable[[Path], list[Path]],
        inputs: Iterable[str | Path | None],
        root: str | Path,
        shard: Shard | None = None,
        skip_existing: bool = False,
    ):
        self._find, self._results = find, results
        self.shard, self._skip_existing = shard or Shard(), skip_existing
        self._bad = self._count = self._done = 0
        # An output may replace none of the pictures, those of other shards included, nor the files that name them.
        pictures = (image for image, _ in find())
        check_outputs(self._count_results(), itertools.chain(inputs, pictures), root=root)
        if self.shard.count > 1:
            logger.info(f"shard {self.shard.index}/{self.shard.count}: {self._count + self._done} images")
        if skip_existing:
            logger.info(f"{self._done} images have their results already (--skip_existing); {self._count} to do")

    def _is_done(self, name: Path) -> bool:
        return self._skip_existing and all(result.exists() for result in self._results(name))

    def _shard(self) -> Iterator[tuple[Path, Path]]:
        for number, found in enumerate(self._find()):
            if number % self.shard.count == self.shard.index:
                yield found

    def _count_results(self) -> Iterator[Path]:
        for _, name in self._shard():
            if self._is_done(name):
                self._done += 1
            else:
                self._count += 1
                yield from self._results(name)

    def __len__(self) -> int:
        """Number of images to handle, as counted at the start."""
        return self._count

    def __iter__(self) -> Iterator[tuple[Path, Path]]:
        return (found for found in self._shard() if not self._is_done(found[1]))

    def skip(self, error: DataError) -> None:
        """Counts and logs an unusable image (`--skip_bad_samples`)."""
        self._bad += 1
        logger.warning(f"skipped: {error}")

    def require_some(self) -> None:
        """To be called at the end: logs how many images were skipped.

        Raises:
            DataError: all images were skipped.
        """
        if self._bad:
            logger.warning(f"skipped {self._bad} of {self._count} images that cannot be used (--skip_bad_samples)")
            if self._bad >= self._count:
                raise DataError(f"none of the {self._count} images can be used")
