# SPDX-License-Identifier: Apache-2.0
"""Killed data loading processes and pools: one line, what was trained is saved, nothing waits for ever."""

import os
import signal
import time

from paddle_dnl.data.loading import WorkerError
from paddle_dnl.data.processes import map_in_processes
from paddle_dnl.errors import DataError
from paddle_dnl.training import trainer as module
from paddle_dnl.training.trainer import Trainer

import numpy as np
import pytest
import tiny_training
from recording import make_config, record


def _work(victim, item):
    if item == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    return item * 2


def test_a_killed_process_of_a_pool_is_named_and_not_waited_for():
    assert list(map_in_processes(_work, None, range(50), 2, what="that doubles")) == [2 * i for i in range(50)]
    began = time.monotonic()
    with pytest.raises(
        DataError, match="a process that doubles was killed.* of 50 are done, next .*fewer --num_workers"
    ):
        list(map_in_processes(_work, 30, range(50), 2, what="that doubles"))
    assert time.monotonic() - began < 20


class _KillsAWorker(Trainer):
    """Its loading processes are killed after some steps."""

    def step(self, batches):
        if self.state.iteration == 4:
            children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
            for child in children:
                if "python" in open(f"/proc/{child}/cmdline").read():
                    os.kill(int(child), signal.SIGKILL)
            time.sleep(0.5)
        return super().step(batches)


@pytest.mark.slow
def test_a_training_whose_loader_was_killed_is_saved_and_goes_on(tmp_path, monkeypatch):
    config = make_config(tmp_path)
    whole = record(make_config(tmp_path), tmp_path / "whole", num_workers=0, do_eval=False)
    monkeypatch.setattr(module, "Trainer", _KillsAWorker)
    options = {"save_interval": 100, "num_workers": 1, "do_eval": False, "save_dir": str(tmp_path / "out"), "seed": 7}
    with pytest.raises(
        WorkerError, match=r"data loading process was killed.*saved at iter \d+; --resume_model auto"
    ) as raised:
        _KillsAWorker(config, module.TrainOptions(**options)).run()
    (folder,) = (tmp_path / "out").glob("iter_*")
    assert f"saved at iter {folder.name[5:]};" in str(raised.value)
    again = record(make_config(tmp_path), tmp_path / "out", num_workers=0, do_eval=False, resume_model="auto")
    assert whole[-len(again) :][0]["iteration"] == again[0]["iteration"]
    for key, value in tiny_training.weights(tmp_path / "whole" / "iter_10").items():
        np.testing.assert_array_equal(value, tiny_training.weights(tmp_path / "out" / "iter_10")[key])
