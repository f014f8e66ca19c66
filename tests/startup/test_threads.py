"""Threads are settled by programs, and by `configure_process` for those who call it; an import changes nothing."""

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
    threads.choose()
    assert os.environ[threads.VARIABLE] == expected
