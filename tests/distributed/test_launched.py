# SPDX-License-Identifier: Apache-2.0
"""What the environment of a rank says wrongly is refused in one line, before the ranks look for each other."""

import subprocess
import sys
import time

from paddle_dnl.distributed import launched
from paddle_dnl.errors import DistributedError

import pytest
from started_programs import ROOT, environment

SOUND = {
    "PADDLE_TRAINERS_NUM": "2",
    "PADDLE_TRAINER_ID": "1",
    "PADDLE_TRAINER_ENDPOINTS": "10.0.0.1:4000,10.0.0.2:4000",
    "PADDLE_MASTER": "10.0.0.1:5000",
}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"PADDLE_MASTER": "node0:5000"},
        {"PADDLE_TRAINER_ENDPOINTS": ""},
        # One machine, where another program's variables lie about.
        {"PADDLE_TRAINER_ENDPOINTS": "10.0.0.1:4000,10.0.0.1:4001", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"},
        {"PADDLE_TRAINER_ENDPOINTS": "127.0.0.1:4000,localhost:4001", "PADDLE_MASTER": "127.0.0.1:5000"},
    ],
)
def test_sound_starts_pass(changed):
    launched.require_sound(SOUND | changed)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"PADDLE_TRAINERS_NUM": "two"}, "PADDLE_TRAINERS_NUM=two: expected a whole number"),
        ({"PADDLE_TRAINERS_NUM": ""}, "PADDLE_TRAINERS_NUM=: expected a whole number"),
        ({"PADDLE_TRAINER_ID": "-1"}, "PADDLE_TRAINER_ID=-1: expected a whole number"),
        ({"PADDLE_TRAINER_ID": "2"}, "PADDLE_TRAINER_ID=2: ranks are counted from 0, and there are 2"),
        ({"PADDLE_TRAINERS_NUM": "4"}, "PADDLE_TRAINER_ENDPOINTS names 2 processes .*, and PADDLE_TRAINERS_NUM is 4; start all"),
        ({"PADDLE_TRAINER_ENDPOINTS": "10.0.0.1:4000,10.0.0.1:4000"}, "names 10.0.0.1:4000 twice; give each process"),
        ({"PADDLE_MASTER": "127.0.1.1:5000"}, "PADDLE_MASTER: the ranks are to meet at 127.0.1.1, .* give the machine of rank 0"),
        ({"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}, "MASTER_ADDR: the ranks are to meet at localhost, .*; unset it"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(changed, message):
    with pytest.raises(DistributedError, match=message) as caught:
        launched.require_sound(SOUND | changed)
    assert "\n" not in str(caught.value)


def _train(variables: dict[str, str]) -> tuple[subprocess.CompletedProcess, list[str]]:
    """`paddle_dnl train` as a rank; its lines of errors."""
    run = subprocess.run(
        [sys.executable, "-m", "paddle_dnl", "train", "--config", "none.yml"],
        env=environment(PYTHONPATH=str(ROOT), PADDLE_DISTRI_BACKEND="gloo", **variables),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 1, run.stderr
    assert "Traceback" not in run.stderr
    return run, [line for line in run.stderr.splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("name", ["PADDLE_TRAINERS_NUM", "PADDLE_TRAINER_ID"])
def test_programs_check_it(name):
    _, errors = _train(SOUND | {name: "two"})
    assert len(errors) == 1 and f"{name}=two: expected a whole number" in errors[0]


def test_a_rank_0_that_never_comes_is_not_waited_for_without_limit():
    """Paddle's own store asks again and again."""
    addresses = {"PADDLE_TRAINER_ENDPOINTS": "127.0.0.1:47111,127.0.0.1:47112", "PADDLE_MASTER": "127.0.0.1:47110"}
    began = time.monotonic()
    _, errors = _train(
        SOUND | addresses | {"PADDLE_CURRENT_ENDPOINT": "127.0.0.1:47112", "PADDLE_DNL_WAIT_SECONDS": "3"}
    )
    assert time.monotonic() - began < 60
    assert len(errors) == 1 and "rank 0 at 127.0.0.1:47110: no answer in 3 s" in errors[0], errors
