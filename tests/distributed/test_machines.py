# SPDX-License-Identifier: Apache-2.0
"""Machines that do not fit, and a meeting point that is taken: one line before the first step."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from paddle_dnl.distributed import collectives
from paddle_dnl.errors import DistributedError

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _compare(monkeypatch, versions=None, clock=0.0):
    """Compares this machine with another one that differs from it."""
    monkeypatch.setattr(collectives, "barrier", lambda what: None)

    def everywhere(own, what):
        host, mine, now = own
        return [own, ("node1", mine | (versions or {}), now + clock)]

    monkeypatch.setattr(collectives, "all_gather_object", everywhere)
    collectives._compare_machines("node0")


@pytest.mark.parametrize("name", ["paddle_dnl", "paddle", "python"])
def test_other_versions_on_another_machine(monkeypatch, name):
    with pytest.raises(DistributedError, match=rf"node0 and node1 have different versions \({name} \S+ and 0\.0\)"):
        _compare(monkeypatch, {name: "0.0"})


@pytest.mark.parametrize("clock, warned", [(300, True), (-300, True), (5, False)])
def test_a_clock_that_differs(monkeypatch, caplog, clock, warned):
    _compare(monkeypatch, clock=clock)
    assert (
        "node0 and node1 differ by 300 s" in caplog.text or "node1 and node0 differ by 300 s" in caplog.text
    ) == warned


def test_a_second_training_does_not_take_the_address_of_the_first(monkeypatch):
    """Both go through the same store; a rank that comes first must wait for rank 0's new value."""
    content = {}
    store = SimpleNamespace(set=lambda key, text: content.update({key: text.encode()}), get=content.__getitem__)
    monkeypatch.setattr(collectives, "_store", lambda: store)
    for training in (1, 2):
        monkeypatch.setattr(collectives, "_meetings", 10 * training)
        monkeypatch.setattr(collectives, "is_main", lambda: False)
        with pytest.raises(KeyError):  # where a real store waits
            collectives._agree(None)
        monkeypatch.setattr(collectives, "is_main", lambda: True)
        assert collectives._agree([training, "token"]) == [training, "token"]


def test_the_port_of_the_store_is_taken():
    """Paddle itself aborts the process with a failed assertion."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        variables = {
            "PADDLE_TRAINERS_NUM": "2",
            "PADDLE_TRAINER_ID": "0",
            "PADDLE_MASTER": f"127.0.0.1:{port}",
            "PADDLE_TRAINER_ENDPOINTS": f"127.0.0.1:{port},127.0.0.1:{port + 1}",
            "PADDLE_CURRENT_ENDPOINT": f"127.0.0.1:{port}",
            "PADDLE_DISTRI_BACKEND": "gloo",
            "PYTHONPATH": str(ROOT),
        }
        run = subprocess.run(
            [sys.executable, "-m", "paddle_dnl", "train", "--config", "none.yml"],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert run.returncode == 1
    errors = [line for line in run.stderr.splitlines() if line.startswith("Error")]
    assert len(errors) == 1, run.stderr
    assert f"rank 0 cannot open port {port}, at which the ranks are to meet (Address already in use)" in errors[0]
