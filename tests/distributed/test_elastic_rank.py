# SPDX-License-Identifier: Apache-2.0
"""A rank of an elastic job keeps its failure from the launcher until that, or the time, ends it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from paddle_dnl.distributed import signals
from paddle_dnl.distributed.signals import OtherMachineStopped, StopSignal

import pytest

ROOT = Path(__file__).resolve().parents[2]
# As the program, with a shorter time.
RUN = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from paddle_dnl.distributed import elastic_rank; "
RUN += "import os; sys.exit(elastic_rank.run(sys.argv[2:], os.getppid(), float(sys.argv[1])))"
# As the launcher does, answers a SIGTERM by one to its rank.
LAUNCHER = """
import signal, subprocess, sys, time
def answer(number, frame):
    print("asked after", time.monotonic() - began, flush=True)
    process.terminate()
signal.signal(signal.SIGTERM, answer)
began = time.monotonic()
process = subprocess.Popen(sys.argv[1:])
print("status", process.wait(), flush=True)
"""


@pytest.mark.parametrize("code, status", [("pass", 0), ("exit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_a_failure_of_its_own_ends_the_launcher_after_a_while(code, status):
    command = [sys.executable, "-c", LAUNCHER, sys.executable, "-c", RUN, "2", sys.executable, "-c", code]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60).stdout.splitlines()
    assert lines[-1] == f"status {status}"
    asked = [float(line.split()[-1]) for line in lines if line.startswith("asked")]
    assert (not asked) if status == 0 else (len(asked) == 1 and asked[0] > 2), lines


def _start(code: str, seconds: float, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", RUN, str(seconds), sys.executable, "-u", "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def test_the_launchers_signal_ends_the_wait():
    process = _start("print('ended'); exit(3)", 600)
    assert process.stdout.readline() == "ended\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 3


def test_a_signal_is_handed_on_and_the_program_ends_in_its_own_time():
    code = (
        "import signal\nsignal.signal(15, lambda *_: exit(0))\nprint('there', flush=True)\nwhile True: signal.pause()"
    )
    process = _start(code, 600)
    assert process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_the_program_does_not_outlive_a_kill():
    process = _start("import os, time; print(os.getpid(), flush=True); time.sleep(60)", 600)
    pid = int(process.stdout.readline())
    process.kill()
    process.wait(10)
    until = time.monotonic() + 10
    while (Path("/proc") / str(pid) / "stat").exists() and "Z" not in (Path("/proc") / str(pid) / "stat").read_text():
        assert time.monotonic() < until, "it lives on"
        time.sleep(0.05)


@pytest.mark.parametrize("given", [None, "1"])
def test_the_launchers_one_thread_is_not_taken_for_the_users_wish(given):
    """The launcher, which imports Paddle, hands a 1 on; the rank asks its parent, which is not the launcher here."""
    code = "import os; print(os.environ.get('OMP_NUM_THREADS'), os.environ['PADDLE_DNL_ELASTIC'])"
    words = f"[sys.executable, '-c', {RUN!r}, '1', sys.executable, '-c', {code!r}]"
    launcher = f"import os, subprocess, sys; os.environ['OMP_NUM_THREADS'] = '1'; subprocess.run({words})"
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {"PADDLE_TRAINER_ID": "0"}
    environment |= {"OMP_NUM_THREADS": given} if given else {}
    run = subprocess.run([sys.executable, "-c", launcher], env=environment, capture_output=True, text=True, timeout=60)
    assert run.stdout == f"{given} 1\n", run.stderr


@pytest.mark.parametrize("elastic, asked", [(False, False), (True, False), (True, True)])
def test_another_machines_signal_is_no_success_of_an_elastic_rank(monkeypatch, elastic, asked):
    """Paddle's launcher would take it for the end of the job."""
    monkeypatch.delenv(signals.ELASTIC, raising=False)
    if elastic:
        monkeypatch.setenv(signals.ELASTIC, "1")
    stop = StopSignal()
    try:
        if asked:
            stop._first = 0.0
        if elastic and not asked:
            with pytest.raises(OtherMachineStopped, match="another machine was asked to stop at iter 5"):
                stop.announce(5)
        else:
            stop.announce(5)
    finally:
        stop.restore()
