# SPDX-License-Identifier: Apache-2.0
"""`paddle-dnl launch`: one line for what Paddle's launcher answers with an endless wait or a riddle."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from paddle_dnl.cli import launch
from paddle_dnl.distributed import launching
from paddle_dnl.distributed.ports import WAIT_VARIABLE
from paddle_dnl.errors import PaddleDnlError

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in launch._VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--nnodes 2 train", "--nnodes 2: needs --master HOST:PORT"),
        ("--nnodes 2 --backend gloo --master 10.0.0.1:29500 train", "--backend: selects Paddle's former launcher"),
        ("--backend=gloo --nproc_per_node 2 train", "--backend: selects Paddle's former launcher"),
        ("--nnodes two --master 10.0.0.1:29500 train", "--nnodes two: expected a number"),
        ("--nnodes 2:1 --master etcd://10.0.0.1:2379 train", "--nnodes 2:1: expected a number"),
        ("--nnodes 1:2 --master 10.0.0.1:29500 train", "--nnodes 1:2: an elastic job needs an etcd server"),
        ("--nnodes 2 --rank 2 --master 10.0.0.1:29500 train", "--rank 2: machines are counted from 0, and there are 2"),
        ("--nnodes 2 --master 10.0.0.1 train", "--master 10.0.0.1: expected HOST:PORT"),
        ("--nnodes 2 --master http://10.0.0.1:80 train", "expected HOST:PORT"),
        ("--nnodes 2 --master 10.0.0.1:99999 train", "the port must be from 1 to 65535"),
        ("--nnodes 2 --master no.such.host.invalid:29500 --rank 0 train", "no.such.host.invalid has no address here"),
        ("--nnodes 2 --master 192.0.2.1:29500 --rank 0 train", "192.0.2.1 is no address of this machine"),
        ("trian --config x.yml", "trian is neither a program of paddle-dnl nor a file. Did you mean 'train'?"),
    ],
)
def test_what_does_not_fit_is_one_line(monkeypatch, flags, message):
    monkeypatch.setenv(WAIT_VARIABLE, "0.2")
    with pytest.raises(PaddleDnlError) as caught:
        launch.command(flags.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_known_a_little_later(monkeypatch, free_port):
    """The pods of a job start one after the other."""
    answers = [OSError(-2, "Name or service not known"), [(2, 1, 6, "", ("127.0.0.1", 0))]]

    def answer(*_):
        found = answers.pop(0)
        if isinstance(found, OSError):
            raise found
        return found

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    words = launch.command(f"--nnodes 2 --rank 0 --master localhost:{free_port} train".split())
    assert f"127.0.0.1:{free_port}" in words


def test_a_name_that_means_this_machine_only(monkeypatch):
    """Debian's /etc/hosts gives a machine's own name the address 127.0.1.1."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(2, 1, 6, "", ("127.0.1.1", 0))])
    with pytest.raises(PaddleDnlError, match=r"node0 is 127\.0\.1\.1 here, which other machines cannot reach"):
        launch.command("--nnodes 2 --rank 0 --master node0:29500 train".split())


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PaddleDnlError, match=f"port {port} of this machine cannot be opened"):
            launch.command(f"--nnodes 2 --rank 0 --master 127.0.0.1:{port} train".split())


def test_a_rank_0_that_never_comes(monkeypatch, free_port):
    monkeypatch.setenv(WAIT_VARIABLE, "0.5")
    with pytest.raises(PaddleDnlError, match=rf"rank 0 at 127.0.0.1:{free_port}: no answer in 0 s.*{WAIT_VARIABLE}"):
        launch.command(f"--nnodes 2 --rank 1 --master 127.0.0.1:{free_port} train".split())


def test_a_rank_0_that_comes_late(free_port):
    def come():
        time.sleep(0.5)
        with socket.create_server(("127.0.0.1", free_port)) as server:
            server.accept()

    thread = threading.Thread(target=come)
    thread.start()
    words = launch.command(f"--nnodes 2 --rank 1 --master localhost:{free_port} train --iters 3".split())
    thread.join()
    # Paddle compares addresses as text, so that a name would make all machines wait for each other.
    assert words[words.index("--master") + 1] == f"127.0.0.1:{free_port}"
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[-6:] == ["-u", "-m", "paddle_dnl", "train", "--iters", "3"]


def test_flags_behind_the_program_are_the_programs():
    """`--backend` before it would be the launcher's."""
    words = launch.command("--nproc_per_node 2 val --exported out --backend openvino --rank 7".split())
    assert words[-7:] == ["val", "--exported", "out", "--backend", "openvino", "--rank", "7"]
    assert words[words.index("--nproc_per_node") + 1] == "2" and words[words.index("--rank") + 1] != "7"


def test_variables_of_the_launcher_count(monkeypatch):
    """It lets them win over its flags; they are not handed on beside the checked flags."""
    monkeypatch.setenv("PADDLE_NNODES", "2")
    with pytest.raises(PaddleDnlError, match="--nnodes 2: needs --master"):
        launch.command(["train"])
    monkeypatch.setenv("PADDLE_TRAINER_ID", "one")
    with pytest.raises(PaddleDnlError, match="PADDLE_TRAINER_ID=one"):
        launch.command(["train"])


def test_a_library_for_etcd_that_does_not_work(monkeypatch, tmp_path):
    (tmp_path / "etcd3.py").write_text("raise TypeError('Descriptors cannot be created directly.')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "etcd3", raising=False)
    with pytest.raises(PaddleDnlError, match="etcd3 cannot be used .Descriptors"):
        launching.settle(launching.parse_nodes("1:2", "etcd://127.0.0.1:2379", -1, None))


def test_an_elastic_job(monkeypatch):
    """Its ranks run below a program that keeps their failures back, and its launcher starts them again."""
    monkeypatch.setattr(launching, "settle", lambda nodes: nodes)
    for given, level, restarts in (("", "1", "1000"), ("--elastic_level 0 --max_restart 5 ", "0", "5")):
        words = launch.command(f"--nnodes 1:2 --master etcd://10.0.0.1:2379 {given}train --iters 3".split())
        assert (
            words[words.index("--elastic_level") + 1] == level and words[words.index("--max_restart") + 1] == restarts
        )
        at = words.index("paddle_dnl.distributed.elastic_rank")
        assert words[at - 1 :][2:] == [sys.executable, "-u", "-m", "paddle_dnl", "train", "--iters", "3"]
    words = launch.command(["--nnodes", "1:2", "--master", "etcd://10.0.0.1:2379", __file__])
    assert words[-3:] == [sys.executable, "-u", __file__]
    assert "--elastic_level" not in launch.command(["train"])


def test_it_becomes_the_launcher_with_the_environment_it_was_given(tmp_path):
    """Threads that this process chose for itself would look like the user's wish to the ranks."""
    program = tmp_path / "show.py"
    program.write_text("import os; print('RANK', os.environ['PADDLE_TRAINER_ID'], os.environ.get('MALLOC_TOP_PAD_'))")
    words = ["launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path / "log"), str(program)]
    run = subprocess.run(
        [sys.executable, "-m", "paddle_dnl", *words], cwd=tmp_path, env=_environment(), capture_output=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    texts = [(tmp_path / "log" / f"workerlog.{rank}").read_text() for rank in (0, 1)]
    assert [f"RANK {rank}" in text for rank, text in enumerate(texts)] == [True, True]


def _environment():
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PADDLE_", "OMP_"))}
    return kept | {"PYTHONPATH": str(ROOT)}
