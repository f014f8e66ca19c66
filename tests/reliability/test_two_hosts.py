# SPDX-License-Identifier: Apache-2.0
"""A run on two machines: signals, lost ranks and machines, missing data on one; all end, say why, and go on later."""

import re
import shutil
import signal
import sys
import time

from paddle_dnl.models.build import build_model
from paddle_dnl.training.checkpoints import checkpoint

import paddle
import pytest
from launching import HERE, PATHS, Started, training_words
from recording import make_config
from two_hosts import MASTER_PORT, two_hosts

LIMIT = 60


@pytest.fixture
def hosts(tmp_path):
    with two_hosts(tmp_path) as found:
        yield found


def _start(hosts, faults=(), hidden=(None, None), environment=None, program="faulty_training.py", **flags):
    make_config(hosts.folder)
    words = training_words(hosts.folder, faults, **{"iters": 1000, "save_interval": 1000, **flags})
    return [hosts.start(host, program, words, hidden=hidden[host], environment=environment) for host in (0, 1)]


def _end(nodes, seconds=LIMIT):
    """Exit statuses, when nothing of either node lives on."""
    until = time.monotonic() + seconds
    statuses = [node.wait(max(1, until - time.monotonic())) for node in nodes]
    for node in nodes:
        node.require_nothing_left()
    return statuses


def _errors(node):
    return sorted({line for line in node.text().splitlines() if line.startswith("Error (rank")})


SLOW = {"kind": "slow", "seconds": 0.3}


def test_a_signal_to_one_node_saves_and_all_go_on(hosts):
    """As `scancel` and Kubernetes send it to the launcher; rank 1, which was not asked, stops at the same step."""
    nodes = _start(hosts, [SLOW])
    nodes[0].wait_for("iter: 3/1000")
    nodes[1].process.send_signal(signal.SIGTERM)
    _end(nodes)
    at = re.search(r"stopped by signal at iter (\d+)", nodes[0].text())
    assert at, nodes[0].text()[-3000:]
    assert checkpoint.find_resume("auto", hosts.folder / "output").name == f"iter_{at.group(1)}"
    assert not _errors(nodes[0]) + _errors(nodes[1])
    again = _start(hosts, resume_model="auto", iters=int(at.group(1)) + 2)
    assert _end(again) == [0, 0], again[0].text()[-3000:]
    assert f"at iter {at.group(1)}" in again[0].text()


def test_a_machine_is_lost_and_comes_back(hosts):
    """All its processes at once, as without power; the other one ends and says so, and both go on from the last save."""
    nodes = _start(hosts, [SLOW], save_interval=2)
    nodes[0].wait_for("iter: 5/1000")
    nodes[1].kill_all()
    assert 0 not in _end(nodes)
    text = nodes[0].text()
    assert re.search(r"Error \(rank 0\): rank 1 on node1 \(process \d+\) .*--resume_model auto continues", text), text[
        -3000:
    ]
    at = int(checkpoint.find_resume("auto", hosts.folder / "output").name.removeprefix("iter_"))
    assert at in (2, 4, 6)
    again = _start(hosts, resume_model="auto", iters=at + 2)
    assert _end(again) == [0, 0], again[0].text()[-3000:]
    assert f"resumed from {hosts.folder}/output/iter_{at} at iter {at}" in again[0].text()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", ["kill", "raise"])
def test_a_lost_rank_is_named_on_the_other_machine(hosts, kind, rank):
    nodes = _start(hosts, [{"kind": kind, "rank": rank, "at": 7}], iters=12, save_interval=5)
    assert 0 not in _end(nodes)
    how = r"ended without a message, by SIGKILL" if kind == "kill" else r"failed: RuntimeError: a defect of the program"
    text = nodes[1 - rank].text()
    assert re.search(rf"Error \(rank {1 - rank}\): rank {rank} on node{rank} \(process \d+\) {how}", text), text[-3000:]
    assert len(_errors(nodes[1 - rank])) == 1, _errors(nodes[1 - rank])


@pytest.mark.slow
def test_a_stopped_rank_is_blamed_not_those_that_gave_up(hosts):
    """Gloo gives up after half a minute and aborts the healthy rank."""
    nodes = _start(hosts, [{"kind": "stop", "rank": 1, "at": 7}], iters=12)
    assert 0 not in _end(nodes, 90)
    text = nodes[0].text()
    assert re.search(r"Error \(rank 0\): rank 1 on node1 \(process \d+\) is stopped \(SIGSTOP\)", text), text[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("evaluating", [False, True])
def test_a_lost_link_ends_both_sides(hosts, evaluating):
    """In a step and in an evaluation, where no communication fails by itself."""
    fault = {"kind": "slow_eval", "seconds": 500} if evaluating else SLOW
    flags = {"iters": 3, "save_interval": 3, "do_eval": True} if evaluating else {}
    nodes = _start(hosts, [fault], environment={"PADDLE_DNL_LOST_SECONDS": "8"}, **flags)
    nodes[0].wait_for("iter: 3/")
    time.sleep(2)
    hosts.cut()
    assert 0 not in _end(nodes, 90)
    for host in (0, 1):
        text = nodes[host].text()
        named = rf"Error \(rank {host}\): rank {1 - host} on \S+ (\(process \d+\) )?was not heard of for \d+ s"
        assert re.search(named, text), text[-3000:]


@pytest.mark.slow
def test_data_that_is_missing_on_one_machine(hosts):
    """Of which only rank 1 knows, before any step."""
    make_config(hosts.folder)
    nodes = _start(hosts, hidden=(None, hosts.folder / "data"))
    assert 0 not in _end(nodes)
    assert re.search(r"Error \(rank 1\): .*train\.txt", nodes[1].text()), nodes[1].text()[-3000:]
    assert re.search(r"Error \(rank 0\): rank 1 on node1 .* failed: .*train\.txt", nodes[0].text())


@pytest.mark.slow
def test_an_evaluation_whose_data_are_missing_on_one_machine(hosts):
    """`paddle-dnl launch ... val`: rank 0 would wait for the counts of rank 1."""
    config = make_config(hosts.folder)
    weights = hosts.folder / "weights.pdparams"
    paddle.save(build_model(config).state_dict(), str(weights))
    flags = ["--config", config.path, "--model_path", weights, "--custom_imports", HERE / "norm_net.py"]
    nodes = []
    for host in (0, 1):
        launch = ["--nnodes", "2", "--master", f"node0:{MASTER_PORT}", "--rank", str(host), "--nproc_per_node", "1"]
        logs = hosts.folder / f"log_{host}"
        nodes.append(
            Started(
                [sys.executable, "-m", "paddle_dnl", "launch", *launch, "--log_dir", logs, "val", *flags],
                [],
                hosts.folder,
                prefix=hosts.prefix(host, hosts.folder / "data" if host else None),
                logs=logs,
                environment=PATHS,
            )
        )
    assert 0 not in _end(nodes)
    assert re.search(r"Error \(rank 1\): .*val\.txt", nodes[1].text()), nodes[1].text()[-3000:]
    assert re.search(r"Error \(rank 0\): rank 1 on node1 .* failed: .*val\.txt", nodes[0].text())


def test_a_picture_that_differs_on_one_machine(hosts):
    make_config(hosts.folder)
    private = hosts.folder / "private_1"
    shutil.copytree(hosts.folder / "data", private, dirs_exist_ok=True)
    (private / "image_3.png").write_bytes(b"broken")
    nodes = _start(hosts, hidden=(None, hosts.folder / "data"))
    assert 0 not in _end(nodes)
    for node in nodes:
        found = re.search(
            r"Error \(rank \d\): train_dataset: the machines do not see the same files: (.*)", node.text()
        )
        assert found and re.search(r"image_3.png has \d+ bytes on node0 and 6 on node1", found[1]), node.text()


@pytest.mark.slow
def test_a_wait_has_a_limit_and_names_who_is_missing(hosts):
    fault = {"kind": "slow_eval", "rank": 1, "seconds": 500}
    flags = {"iters": 3, "save_interval": 3, "do_eval": True}
    nodes = _start(hosts, [fault], environment={"PADDLE_DNL_WAIT_SECONDS": "5"}, **flags)
    assert 0 not in _end(nodes, 90)
    text = nodes[0].text()
    named = r"Error \(rank 0\): rank 0 waited 5 s at the end of the evaluation, and these ranks have not arrived: 1 "
    assert re.search(named, text), text[-3000:]
