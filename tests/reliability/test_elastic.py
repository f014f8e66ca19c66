# SPDX-License-Identifier: Apache-2.0
"""The elastic job of docs/many_machines.md: of two machines that meet at an etcd server one is lost, and comes back.

Needs the program `etcd` (Debian: etcd-server) and the Python package etcd3, which the test environment does not have.
"""

import importlib.util
import shutil
import signal
import subprocess
import sys
import time
import unittest

import pytest
from cluster_page import commands, with_values
from launching import Started, training_words
from recording import make_config
from two_hosts import two_hosts

ITERS = 240  # of half a second


@pytest.fixture
def hosts(tmp_path):
    if shutil.which("etcd") is None or importlib.util.find_spec("etcd3") is None:
        raise unittest.SkipTest("needs the program etcd and the Python package etcd3")
    with two_hosts(tmp_path) as found:
        url = f"http://{found.addresses[0]}:2379"
        words = [
            "etcd",
            "--listen-client-urls",
            url,
            "--advertise-client-urls",
            url,
            "--data-dir",
            str(tmp_path / "etcd"),
        ]
        with open(tmp_path / "etcd.log", "w") as log:
            server = subprocess.Popen([*found.prefix(0), *words], stdout=log, stderr=subprocess.STDOUT)
        yield found
        server.kill()
        server.wait()


def _node(hosts, host, fault=None):
    slow = {"kind": "slow", "seconds": 0.5}
    words = training_words(
        hosts.folder, [slow, *([fault] if fault else [])], iters=ITERS, save_interval=3, resume_model="auto"
    )
    (command,) = commands("Elastic: one to two machines")
    launch = with_values(command[2 : command.index("train")], {"--nproc_per_node": 1, "--elastic_timeout": 10})
    return Started(
        "faulty_training.py",
        words,
        hosts.folder,
        command=[sys.executable, "-m", "paddle_dnl", "launch"],
        launch=launch,
        prefix=hosts.prefix(host),
        logs=hosts.folder / f"log_{host}",
    )


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize("leaves", ["asked", "killed"])
def test_a_machine_leaves_and_comes_back(hosts, leaves):
    """By the signal of a preemption, which the ranks answer with a save, or at once, as without power."""
    make_config(hosts.folder)
    nodes = [_node(hosts, host) for host in (0, 1)]
    _wait_for(nodes, "iter: 4/")
    if leaves == "asked":
        nodes[1].process.send_signal(signal.SIGTERM)
        nodes[1].wait(60)
        _wait_for(nodes, "stopped by signal at iter")
    nodes[1].kill_all()
    _wait_for(nodes, "world_size 2 -> 1")
    nodes[1].require_nothing_left()
    nodes.append(_node(hosts, 1))
    _wait_for(nodes, "world_size 1 -> 2")
    until = time.monotonic() + 200
    for node in (nodes[0], nodes[2]):
        assert node.wait(max(1, until - time.monotonic())) == 0, node.text()[-3000:]
    assert (hosts.folder / "output" / f"iter_{ITERS}" / "manifest.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(350)
def test_a_defect_ends_the_job(hosts):
    """Nobody starts again and again what fails each time."""
    make_config(hosts.folder)
    nodes = [_node(hosts, host, {"kind": "raise", "at": 5}) for host in (0, 1)]
    statuses = [node.wait(280) for node in nodes]
    assert 0 not in statuses, statuses
    for node in nodes:
        node.require_nothing_left()
    text = "\n".join(node.text() for node in nodes)
    assert text.count("world_size 2 -> 1") <= 1 and "RuntimeError: a defect of the program" in text


def _wait_for(nodes, part, seconds=120):
    """Waits for a line in the log of any machine: the launcher gives ranks by arrival, and rank 0 writes it."""
    until = time.monotonic() + seconds
    while not any(part in node.text() for node in nodes):
        assert time.monotonic() < until, f"{part!r} did not appear:\n" + "\n".join(
            node.text()[-3000:] for node in nodes
        )
        time.sleep(0.3)
