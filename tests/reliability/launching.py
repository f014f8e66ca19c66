# SPDX-License-Identifier: Apache-2.0
"""Starting real training processes, one or several, and finding what they leave behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import started_programs
from default_signals import default_signals

HERE = Path(__file__).resolve().parent
# For the programs themselves, with `--custom_imports` of norm_net.py.
PATHS = {"PYTHONPATH": os.pathsep.join(map(str, (HERE.parents[1], HERE.parent / "helpers", HERE)))}
_TAG = "PADDLE_DNL_TEST_TAG"


class Started:
    """A process and everything that it started, known by a mark in their environment.

    Args:
        program: a file of this folder; or the words of a whole command.
        words: its arguments.
        ranks: more than one for a launch.
        legacy: by the launcher that `--backend` selects, in place of the one that users get.
        folder: working folder, and of the launcher's logs.
        launch: more words for the launcher, which then starts one rank too.
        prefix: words before the command.
        command: of the launcher, Paddle's by default.
        logs: folder of the launcher's logs.
        environment: more variables.
        options: of `subprocess.Popen`.
    """

    def __init__(
        self,
        program: str | list,
        words,
        folder: Path,
        ranks: int = 1,
        legacy: bool = False,
        launch=(),
        prefix=(),
        command=(sys.executable, "-m", "paddle.distributed.launch"),
        logs: Path | None = None,
        environment=None,
        **options,
    ):
        self.tag, self.logs = uuid.uuid4().hex, logs or folder / "log"
        variables = {_TAG: self.tag, "SEG_HOME": str(folder / "home"), **(environment or {})}
        environment = started_programs.environment(**variables)
        if isinstance(program, list):
            command = [*prefix, *map(str, program)]
        elif ranks > 1 or launch:
            command = [*prefix, *command, "--nproc_per_node", str(ranks), *launch]
            command += ["--backend", "gloo"] if legacy else []
            command += ["--log_dir", str(self.logs), str(HERE / program)]
        else:
            command = [*prefix, sys.executable, str(HERE / program)]
        command += map(str, words)
        # A file, not a pipe: nothing waits for whoever still holds the other end.
        self._output = open(folder / f"output_{self.tag}.txt", "w+")
        options.setdefault("preexec_fn", default_signals)
        self.process = subprocess.Popen(
            command, stdout=self._output, stderr=subprocess.STDOUT, env=environment, cwd=folder, **options
        )

    def text(self) -> str:
        """What was written so far, of all ranks."""
        self._output.flush()
        texts = [Path(self._output.name).read_text(errors="replace")]
        texts += [path.read_text(errors="replace") for path in sorted(self.logs.glob("workerlog.*"))]
        return "\n".join(texts)

    def wait_for(self, part: str, seconds: float = 120) -> None:
        """Waits until the output holds `part`."""
        until = time.monotonic() + seconds
        while part not in self.text():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"{part!r} did not appear:\n{self.text()[-4000:]}")
            time.sleep(0.1)

    def wait(self, seconds: float = 300) -> int:
        """The exit status."""
        return self.process.wait(seconds)

    def alive(self) -> list[int]:
        """Process numbers of all that bear the mark."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if f"{_TAG}={self.tag}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def kill_all(self) -> None:
        """Kills all that bear the mark, as when a machine loses power."""
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def require_nothing_left(self, seconds: float = 15) -> None:
        """No process of this run lives on."""
        until = time.monotonic() + seconds
        while left := self.alive():
            if time.monotonic() > until:
                self.kill_all()
                raise AssertionError(f"{len(left)} processes live on: {left}\n{self.text()[-3000:]}")
            time.sleep(0.2)


def training_words(folder: Path, faults=(), **flags) -> list[str]:
    """Arguments for faulty_training.py; `folder` holds config.yml."""
    words = []
    for fault in faults:
        words += ["--fault", json.dumps(fault)]
    flags = {"config": folder / "config.yml", "save_dir": folder / "output", "seed": 7, "log_iters": 1, **flags}
    for name, value in flags.items():
        words += [f"--{name}"] if value is True else [f"--{name}", *(value if isinstance(value, list) else [value])]
    return [str(word) for word in words]
