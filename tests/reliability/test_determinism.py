# SPDX-License-Identifier: Apache-2.0
"""The same seed twice gives the same bits: weights, slots, averages, losses and what was fed."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import tiny_training
from launching import Started
from recording import Case, make_config, record


def _same(left, right):
    values = [tiny_training.weights(path) for path in (left, right)]
    assert values[0].keys() == values[1].keys() and len(values[0]) > 12
    for key, value in values[0].items():
        np.testing.assert_array_equal(value, values[1][key], err_msg=key)


def test_one_process(tmp_path):
    """Also with worker processes, and after other random numbers were drawn; another seed gives something else."""
    config = make_config(tmp_path)
    runs = {}
    for name, options in (
        ("a", {}),
        ("b", {}),
        ("c", {"num_workers": 2}),
        ("d", {"num_workers": 1}),
        ("e", {"seed": 8}),
    ):
        np.random.rand(5)
        runs[name] = record(config, tmp_path / name, use_ema=True, **options)
    for name in "bcd":
        assert runs[name] == runs["a"]
        _same(tmp_path / "a" / "iter_10", tmp_path / name / "iter_10")
    assert all(one["fed"] != other["fed"] for one, other in zip(runs["a"], runs["e"], strict=True))


def test_without_a_seed_two_runs_differ(tmp_path):
    config = make_config(tmp_path)
    left, right = (record(config, tmp_path / name, seed=None, do_eval=False) for name in "ab")
    assert left != right


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_two_ranks(tmp_path, workers):
    case = Case("Adam", amp=False, ema=True, workers=workers)
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        make_config(folder)
        started = Started("recording.py", ["first", folder, json.dumps([asdict(case)])], folder, ranks=2)
        assert started.wait() == 0, started.text()[-3000:]
        started.require_nothing_left()
    left, right = (tmp_path / name / str(case) for name in "ab")
    _same(left / "whole" / "iter_10", right / "whole" / "iter_10")
    notes = []
    for rank in (0, 1):
        ours, theirs = (json.loads((path / f"whole_first_{rank}.json").read_text()) for path in (left, right))
        assert ours == theirs and len(ours) == 10
        notes.append([step["fed"] for step in ours])
    assert all(one != other for one, other in zip(*notes, strict=True))  # each rank has pictures of its own
