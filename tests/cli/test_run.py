# SPDX-License-Identifier: Apache-2.0
"""What surrounds every program: signals, closed streams, errors of the system and odd names, each as one line and a status."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from paddle_dnl.log import printable

import pytest
from default_signals import default_signals

ROOT = Path(__file__).resolve().parents[2]


def _start(folder, body, **options):
    """A process that runs `body` as the `main` of a program."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    (folder / "program.py").write_text(f"import os, sys, time, signal\n\n\ndef main(argv=None):\n{lines}")
    code = "from paddle_dnl.cli._run import run; run('program')"
    environment = dict(os.environ, PYTHONPATH=f"{ROOT}{os.pathsep}{folder}", **options.pop("environment", {}))
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": default_signals} | options
    return subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=folder, **options)


def _run(folder, body, **options):
    process = _start(folder, body, **options)
    out, err = process.communicate(timeout=60)
    return process.returncode, (out or b"").decode(), (err or b"").decode()


SLOW = """
from paddle_dnl.files.atomic import new_file
with new_file("result.png") as temporary:
    temporary.write_bytes(b"half")
    print("ready", flush=True)
    {}
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("where", ["time.sleep(60)", "import paddle; print('loaded', flush=True); time.sleep(60)"])
def test_signals_end_with_one_line_and_nothing_half_written(tmp_path, number, where):
    process = _start(tmp_path, SLOW.format(where))
    process.stdout.readline()
    if "paddle" in where:
        process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    lines = [line for line in err.decode().splitlines() if "ccache" not in line and "warnings.warn" not in line]
    assert len(lines) == 1 and lines[0].startswith("Error: ") and not list(tmp_path.glob(".tmp-*"))


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_signal_during_the_import_of_paddle(tmp_path, delay):
    process = _start(tmp_path, "print('ready', flush=True)\nimport paddle\ntime.sleep(60)")
    process.stdout.readline()
    time.sleep(delay)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in err.decode() and "Error: terminated" in err.decode()


def test_an_ignored_signal_stays_ignored(tmp_path):
    body = "os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.1)\nprint('alive')"
    status, out, _ = _run(tmp_path, body, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert (status, out) == (0, "alive\n")


def test_a_library_that_turns_the_signal_into_its_own_error(tmp_path):
    body = "try:\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(9)\nexcept BaseException:\n    raise RuntimeError"
    status, _, err = _run(tmp_path, body)
    assert (status, err) == (143, "Error: terminated (SIGTERM)\n")


@pytest.mark.parametrize(
    "body, text",
    [
        ("open('n' * 300)", "nnn: File name too long"),
        ("open('missing/file')", "missing/file: No such file or directory"),
        ("os.symlink('loop', 'loop')\nopen('loop')", "loop: Too many levels of symbolic links"),
        ("os.symlink('nowhere', 'dangling')\nopen('dangling')", "dangling: No such file or directory"),
        (
            "os.symlink('loop', 'loop')\n__import__('pathlib').Path('loop').resolve()",
            "loop: Too many levels of symbolic links",
        ),
        ("os.mkdir('folder')\nopen('folder', 'w')", "folder: Is a directory"),
        ("open('/dev/full', 'w').write('x' * 99999)", "No space left on device"),
        (
            "raise OSError(28, 'No space left on device', 'a.png')",
            "a.png: No space left on device: the disk mounted at /",
        ),
        ("raise OSError(13, 'Permission denied', b'\\xff.png')", "\\xff.png: Permission denied"),
    ],
)
def test_every_system_error_that_names_a_path_is_one_line(tmp_path, body, text):
    status, _, err = _run(tmp_path, body)
    assert status == 1 and err.startswith("Error: ") and len(err.splitlines()) == 1 and text in err, err


@pytest.mark.parametrize("encoding", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}])
def test_names_in_logs_and_errors_are_printable(tmp_path, encoding):
    body = """
from paddle_dnl.errors import DataError
from paddle_dnl.log import logger
name = "straße \\x1b[2J\\r\\x9b \\u202e \\udcff\\n[2026/01/01 00:00:00] INFO: [EVAL] mIoU 1\\nError: forged"
logger.info(name)
raise DataError(name)
"""
    status, out, err = _run(tmp_path, body, environment=encoding)
    assert status == 1
    for text in (out, err):
        assert not set(text) & set("\x1b\r\x9b\u202e") and "\\x1b[2J\\x0d\\x9b \\u202e \\xff" in text, text
        assert sum(line.startswith(("[", "Error")) for line in text.splitlines()) == 1


def test_line_breaks_and_tabs_of_ours_stay():
    assert printable("a\n  b\tc ü 街") == "a\n  b\tc ü 街"


@pytest.mark.parametrize("closed", ["1", "2", "0 1 2"])
def test_closed_streams(tmp_path, closed):
    """A file that is opened later must not get the number of a closed stream, into which libraries write."""

    def close():
        for number in closed.split():
            os.close(int(number))

    body = """
from paddle_dnl.log import logger
file = open("result", "w")
assert file.fileno() > 2
print("printed"); logger.info("logged"); sys.stderr.write("said")
file.write("whole"); file.close()
return 7
"""
    assert _run(tmp_path, body, preexec_fn=close, stdout=None, stderr=None)[0] == 7
    assert (tmp_path / "result").read_text() == "whole"


@pytest.mark.parametrize("words", ["--version", "--help", "data --help", "train --help", "configs --dataset ade20k"])
def test_a_reader_of_the_output_that_has_gone_is_no_error(words):
    """As in `paddle-dnl --help | head -1`."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "paddle_dnl", *words.split()]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=ROOT, timeout=120, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


PARENT = """
from paddle_dnl.startup.child_processes import running_program
code = "from paddle_dnl.cli._run import run; run('child')"
with running_program([sys.executable, "-c", code]) as process:
    process.wait()
"""
CHILD = "import os, signal, time\n\n\ndef main(argv=None):\n    print(os.getpid(), flush=True)\n    {}\n"


def _parent_and_child(folder, ending="time.sleep(60)"):
    """A program that has started another one, both in a group of their own, and the other one's number."""
    (folder / "child.py").write_text(CHILD.format(ending))
    process = _start(folder, PARENT, start_new_session=True)
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("to_group", [False, True])
def test_of_a_program_and_the_one_that_it_started_one_reports_the_signal(tmp_path, number, to_group):
    process, child = _parent_and_child(tmp_path)
    os.killpg(process.pid, number) if to_group else process.send_signal(number)
    err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 128 + number and err.count("Error: ") == len(err.splitlines()) == 1, err
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_second_ctrl_c_in_a_program_that_another_one_started(tmp_path):
    """A training notes the first one and goes on to save; at the second it ends by Python's own exception."""
    process, _ = _parent_and_child(tmp_path, "signal.signal(signal.SIGINT, signal.default_int_handler); time.sleep(60)")
    os.killpg(process.pid, signal.SIGINT)
    err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130 and err == "Error: interrupted\n"


def test_a_program_ends_with_the_one_that_started_it(tmp_path):
    """After SIGKILL of the parent the child ends as after SIGTERM, and nobody else reports it."""
    process, child = _parent_and_child(tmp_path)
    process.kill()
    err = process.communicate(timeout=60)[1].decode()  # returns when the child has closed its streams too
    assert err == "Error: terminated (SIGTERM)\n"
