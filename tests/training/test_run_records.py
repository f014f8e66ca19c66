# SPDX-License-Identifier: Apache-2.0
"""Every run leaves its log and its curves in its folder, and a resumed run goes on in them."""

import shutil

from paddle_dnl.evaluation.curves import read_scalars
from paddle_dnl.training.records.run_records import RunRecords

import tiny_training


def test_log_and_scalars(tmp_path):
    tiny_training.write_config(tmp_path)
    tiny_training.train(tmp_path, ["iters=4"], do_eval=True, save_interval=4)
    tiny_training.train(tmp_path, ["iters=6"], do_eval=True, save_interval=2, resume_model="auto")
    said = (tmp_path / "output" / "log.txt").read_text()
    assert (
        said.count("[TRAIN] epoch") == 6
        and "[EVAL] #Images: 3" in said
        and "resumed from" not in said.split("iter: 5")[1]
    )
    found = read_scalars(tmp_path / "output")
    assert found["Train/loss"][0] == [1, 2, 3, 4, 5, 6] and found["Evaluate/mIoU"][0] == [4, 6]
    with open(tmp_path / "output" / "scalars.csv", "a") as file:
        file.write("7,Train/lo")
    assert read_scalars(tmp_path / "output") == found


def test_a_folder_that_is_gone_costs_lines_only(tmp_path):
    (tmp_path / "run").mkdir()
    records = RunRecords(tmp_path / "run")
    records.scalars({"Train/loss": 1.0}, 1)
    shutil.rmtree(tmp_path / "run")
    records.scalars({"Train/loss": 2.0}, 2)
    (tmp_path / "run").mkdir()
    records.scalars({"Train/loss": 3.0}, 3)
    records.close()
    assert read_scalars(tmp_path / "run") == {"Train/loss": ([3], [3.0])}
