# SPDX-License-Identifier: Apache-2.0
"""Kills real training processes while they save: `python crashing.py FOLDER times N SEED` or `events FIRST LAST STEP`.

Paddle is loaded once; each training is a forked process with a checkpoint after every step, an average, two
names for the best and rotation. It resumes what the one before it left, and says on a pipe which checkpoints are complete.
With `times` it is killed at a random moment, with `events` by itself before its n-th operation on a file in one save,
which Python's audit events count; a process that gets past its save shows that all were tried.

After each kill the folder is compared with an unbroken run: every folder of a checkpoint's name is whole and of one
iteration, the newest is the last that was reported or the one after it, and so is what `best_model` names.
"""

import collections
import json
import os
import random
import select
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import tiny_training  # noqa: E402,I001  imports paddle_dnl before paddle
import numpy as np  # noqa: E402

from paddle_dnl.config import Config  # noqa: E402
from paddle_dnl.training.checkpoints import checkpoint  # noqa: E402
from paddle_dnl.weights.safe_pickle import read_pickle  # noqa: E402
from paddle_dnl.training.trainer import Trainer, TrainOptions  # noqa: E402
from paddle_dnl.files.atomic import MARKER, recover  # noqa: E402

LENGTH = 40  # iterations after which a folder is begun anew
_EVENTS = ("open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "tempfile.mkdtemp")
_RELATIVE = ("os.remove", "os.rmdir")  # inside of a removed tree


def kill_at_event(number: int, inside: Path) -> None:
    """This process kills itself before its `number`-th operation on a file of a folder, counted from now."""
    left, prefix = [number], str(inside)

    def hook(event, args):
        if event in _EVENTS and (event in _RELATIVE or str(args[0]).startswith(prefix)):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


class _ReportingTrainer(Trainer):
    """Says which checkpoints are complete; stops after `saves`, or dies in the second."""

    def __init__(self, config, options, report, event=None):
        self.report, self.event, self.saves = report, event, 0
        super().__init__(config, options)

    def save(self, scores):
        if self.saves == 1 and self.event is not None:
            kill_at_event(self.event, self.save_dir)
        # Each is the best so far, so that every save replaces `best_model` too.
        super().save({name: self.state.iteration / 10_000 for name in ("mIoU", "Ema_mIoU")})
        self.writer.wait()
        self.saves += 1
        self.report(self.state.iteration)
        if self.saves == 2 and self.event is not None:
            os._exit(0)


def _train(folder: Path, save_dir: Path, report, event=None, keep=2):
    config = Config(str(folder / "config.yml"), opts=[f"iters={LENGTH + 1000}"])
    options = TrainOptions(
        save_dir=str(save_dir), seed=7, save_interval=1, keep_checkpoint_max=keep, use_ema=True, resume_model="auto",
    )  # fmt: skip
    _ReportingTrainer(config, options, report, event).run()


def in_child(work, wait: float | None = None) -> tuple[list[int], int]:
    """Forks a process that calls `work(report)`; returns what it reported and its exit status.

    With `wait` it is killed that many seconds after its first report.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            work(lambda iteration: os.write(write, f"{iteration}\n".encode()))
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    text, deadline = b"", None
    while True:
        seconds = 60 if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([read], [], [], seconds)[0]:
            os.kill(pid, signal.SIGKILL)
            if deadline is None:
                raise AssertionError("a training stood still for a minute")
            deadline = None
            continue
        data = os.read(read, 4096)
        if not data:
            break
        if wait is not None and not text:
            deadline = time.monotonic() + wait
        text += data
    os.close(read)
    return [int(line) for line in text.split()], os.waitpid(pid, 0)[1]


def _reference(folder: Path) -> dict[int, dict[str, np.ndarray]]:
    """Weights, slots and averages of an unbroken run after each iteration."""

    def work(report):
        def stop(iteration):
            if iteration == LENGTH + 20:
                report(iteration)
                os._exit(0)

        _train(folder, folder / "unbroken", stop, keep=0)

    assert in_child(work)[0] == [LENGTH + 20]
    return {i: tiny_training.weights(folder / "unbroken" / f"iter_{i}") for i in range(1, LENGTH + 21)}


def _require_whole(path: Path, reference: dict) -> int:
    """The iteration of a folder that equals the unbroken run in all its parts."""
    manifest = checkpoint.verify(path)
    assert manifest is not None, f"{path} has no manifest"
    iteration = manifest["iteration"]
    assert read_pickle(path / "model.pdstates")["iteration"] == iteration
    values = tiny_training.weights(path)
    assert values.keys() == reference[iteration].keys() and len(values) > 12
    for key, value in values.items():
        np.testing.assert_array_equal(value, reference[iteration][key], err_msg=f"{path}: {key}")
    return iteration


def check(save_dir: Path, reported: int, reference: dict) -> str:
    """What state the kill left; fails when it is one that must not be."""
    left = sorted(path.name for path in save_dir.iterdir())
    hidden = {path.name for path in save_dir.glob(".tmp-*/*") if path.name in ("new", "old", "removed")}
    aside = {json.loads((path.parent / MARKER).read_text())[0] for path in save_dir.glob(".tmp-*/old")}
    had = [name for name in ("best_model", "ema_best_model") if name in aside or name in left]
    found = [_require_whole(path, reference) for path in save_dir.glob("iter_*")]
    assert found and max(found) in (reported, reported + 1), (reported, left)
    recover(save_dir)
    newest = checkpoint.find_resume("auto", save_dir)
    assert _require_whole(newest, reference) == max(found)
    for name in had:
        assert _require_whole(save_dir / name, reference) <= max(found)
    assert not list(save_dir.glob(".tmp-*"))
    return "+".join(sorted(hidden)) or "tidy"


def main() -> None:
    """Prints how many were killed and which states they left, as JSON."""
    folder, mode, *numbers = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
    if not (folder / "config.yml").exists():
        tiny_training.write_config(folder)
    reference, save_dir = _reference(folder), folder / "output"
    draw, seen, killed, reported = random.Random(numbers[-1]), collections.Counter(), 0, 0
    tries = range(numbers[0]) if mode == "times" else range(*numbers)
    for number in tries:
        if reported >= LENGTH:
            shutil.rmtree(save_dir)
        if mode == "times":
            wait = draw.uniform(0, 0.25)
            done, status = in_child(lambda report: _train(folder, save_dir, report), wait)
        else:
            done, status = in_child(lambda report, n=number: _train(folder, save_dir, report, event=n))
        assert status in (0, signal.SIGKILL) and done, f"a training ended with {status} after {done}"
        if status == 0:
            break
        killed, reported = killed + 1, done[-1]
        seen[check(save_dir, reported, reference)] += 1
    print(json.dumps({"killed": killed, "left": seen, "all": mode == "events" and status == 0}))


if __name__ == "__main__":
    main()
