# SPDX-License-Identifier: Apache-2.0
"""Threads are settled by programs, and by `configure_process` for those who call it; an import changes nothing."""

import math
import os
import subprocess
import sys

from paddle_dnl.startup import threads

import pytest

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _after(statements: str, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != threads.VARIABLE}
    program = f"{statements}; import os; print(os.environ.get('OMP_NUM_THREADS'))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**clean, **environment}
    )
    return done.stdout.strip().splitlines()[-1]


def test_all_cores_unless_the_user_says_otherwise():
    configure = "from paddle_dnl import startup; startup.configure_process()"
    assert _after(configure) == str(CORES)
    assert _after(configure, OMP_NUM_THREADS="7") == "7"
    assert _after(configure, OMP_NUM_THREADS="") == str(CORES), "an empty value is none"


def test_programs_configure_their_process():
    program = "from paddle_dnl.cli import info; info.main = lambda argv: print(os.environ['OMP_NUM_THREADS'])"
    run = "import os, sys; from paddle_dnl.cli._run import run; "
    assert _after(f"{run}{program}; sys.exit = lambda status: None; run('paddle_dnl.cli.info')") == str(CORES)


def test_where_paddle_was_first_nothing_changes():
    """Its threads are made by then; its own choice is one."""
    assert _after("import zlib, paddle; from paddle_dnl import startup; startup.configure_process()") == "1"


@pytest.mark.parametrize(
    ("environment", "cores", "expected"),
    [
        ({}, 8, "8"),
        ({"PADDLE_TRAINERS_NUM": "4"}, 8, "2"),
        # Two machines with four processes each.
        ({"PADDLE_TRAINERS_NUM": "8", "PADDLE_LOCAL_SIZE": "4"}, 8, "2"),
        ({"PADDLE_TRAINERS_NUM": "16"}, 8, "1"),
        ({"PADDLE_TRAINERS_NUM": "none"}, 8, "8"),
    ],
)
def test_ranks_share_the_cores(environment, cores, expected, monkeypatch):
    for name in ("PADDLE_TRAINERS_NUM", "PADDLE_LOCAL_SIZE", threads.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delitem(sys.modules, "paddle", raising=False)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setattr(threads, "cpu_quota", lambda: math.inf)
    threads.choose()
    assert os.environ[threads.VARIABLE] == expected


@pytest.mark.parametrize("chosen", [None, "1", "2"])
def test_the_launcher_is_not_the_user(chosen, tmp_path):
    """`paddle.distributed.launch` sets one thread for all ranks, whether anybody asked for that or not."""
    program = tmp_path / "program.py"
    program.write_text(
        "from paddle_dnl import startup; startup.configure_process(); import os; print('threads', os.environ['OMP_NUM_THREADS'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != threads.VARIABLE}
    environment |= {threads.VARIABLE: chosen} if chosen else {}
    command = [
        sys.executable,
        "-m",
        "paddle.distributed.launch",
        "--nproc_per_node",
        "1",
        "--log_dir",
        str(tmp_path / "log"),
    ]
    subprocess.run([*command, str(program)], env=environment, check=True, capture_output=True, timeout=120)
    found = (tmp_path / "log" / "workerlog.0").read_text().split("threads ")[-1].strip()
    assert found == (chosen or str(CORES))


@pytest.mark.parametrize(
    ("files", "own", "cores"),
    [
        ({"cpu.max": "200000 100000"}, "0::/", 2),
        ({"cpu.max": "max 100000"}, "0::/", math.inf),
        ({"cpu.max": "400000 100000", "pods/one/cpu.max": "150000 100000"}, "0::/pods/one", 1.5),
        # The host's path, in a container that sees only its own group.
        ({"cpu.max": "300000 100000"}, "0::/kubepods/pod1/abc", 3),
        (
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
            "4:cpu,cpuacct:/a",
            2.5,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/", math.inf),
        ({}, "3:memory:/x", math.inf),
    ],
)
def test_quotas_of_containers(files, own, cores, tmp_path):
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "own").write_text(f"{own}\n")
    assert threads.cpu_quota(tmp_path / "cgroup", tmp_path / "own") == cores
