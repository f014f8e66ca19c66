# SPDX-License-Identifier: Apache-2.0
"""Resuming on two machines of which only that of rank 0 has the checkpoint: bit for bit what one machine resumes."""

import json
import re
import shutil

from paddle_dnl.distributed import collectives
from paddle_dnl.errors import CheckpointError
from paddle_dnl.training.checkpoints import restoring

import pytest
from launching import training_words
from recording import MATRIX, check_case, make_config, record
from two_hosts import two_hosts

LIMIT = 120


@pytest.fixture
def hosts(tmp_path):
    with two_hosts(tmp_path) as found:
        yield found


def _run(hosts, words, hidden):
    """Starts `recording.py` on both machines; their exit statuses."""
    nodes = [hosts.start(host, "recording.py", words, hidden=hidden if host else None) for host in (0, 1)]
    statuses = [node.wait(LIMIT) for node in nodes]
    for node in nodes:
        node.require_nothing_left()
    return statuses, nodes


def test_only_rank_0_needs_the_checkpoint(hosts):
    """Five and five steps are ten: losses and samples of each rank, weights, slots, averages, states.

    The second five run on machines of which the second has an empty folder in place of the case's.
    """
    case = next(case for case in MATRIX if str(case) == "AdamW-fp32-ema-0")
    words = [hosts.folder, json.dumps([vars(case)])]
    here = hosts.folder / str(case)
    here.mkdir()
    make_config(hosts.folder)  # before two ranks would write it at the same time
    for part, hidden in (("first", None), ("second", here)):
        statuses, nodes = _run(hosts, [part, *words], hidden)
        assert statuses == [0, 0], "\n".join(node.text()[-3000:] for node in nodes)
    private = hosts.folder / "private_1"
    assert {path.name for path in private.iterdir()} == {"parts_second_1.json"}, "rank 1 wrote or was given files"
    shutil.move(private / "parts_second_1.json", here)
    check_case(case, hosts.folder, ranks=2)


def test_a_checkpoint_that_only_the_other_machine_has(hosts):
    """Nothing is trained from the beginning by mistake; each machine says it once, and where the checkpoint is."""
    output = hosts.folder / "output"
    record(make_config(hosts.folder, ["iters=2"]), output, save_interval=2)
    words = training_words(hosts.folder, resume_model="auto", iters=4)
    nodes = [hosts.start(host, "faulty_training.py", words, hidden=None if host else output) for host in (0, 1)]
    assert 0 not in [node.wait(LIMIT) for node in nodes]
    cause = (
        f"--resume_model auto: node0, where rank 0 reads, has no checkpoint in {output}, and node1 has {output}/iter_2;"
    )
    lines = [list({line for line in node.text().splitlines() if line.startswith("Error (rank")}) for node in nodes]
    assert len(lines[0]) == len(lines[1]) == 1, lines
    assert lines[0][0].startswith(f"Error (rank 0): {cause}")
    assert re.match(rf"Error \(rank 1\): rank 0 on node0 \(process \d+\) failed: {re.escape(cause)}", lines[1][0])
    assert not list((hosts.folder / "private_0").glob("iter_*"))


@pytest.mark.parametrize("own, other, raises", [(-1, 4, True), (2, 4, False), (4, 2, False), (-1, -1, False)])
def test_comparing_hosts(tmp_path, monkeypatch, caplog, own, other, raises):
    everywhere = [("node0", own), ("node1", other)]
    monkeypatch.setattr(collectives, "all_gather_object", lambda *_: everywhere)
    chosen = tmp_path / f"iter_{own}" if own >= 0 else None
    if raises:
        with pytest.raises(CheckpointError, match="start with rank 0 there"):
            restoring.compare_hosts(chosen, tmp_path)
        return
    restoring.compare_hosts(chosen, tmp_path)
    assert ("rank 0's is resumed" in caplog.text) == (own == 2)
