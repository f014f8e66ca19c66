# SPDX-License-Identifier: Apache-2.0
"""The scripts of this folder as processes: they start programs of the project and end with them on a signal."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from paddle_dnl.startup import termination  # noqa: E402
from paddle_dnl.startup.child_processes import running_program  # noqa: E402


def run_step(command: list[str], **options) -> int:
    """The exit status of a program; a signal to this process also ends the program.

    Args:
        command: the words.
        options: of `subprocess.Popen`.
    """
    with running_program(command, **options) as process:
        return process.wait()


def run_script(main: Callable[[list[str]], int]) -> None:
    """Ends this process with the status of `main`; a signal that ends it is one line and 128 plus its number."""
    termination.install()
    try:
        status = main(sys.argv[1:])
    except KeyboardInterrupt as error:
        text, status = termination.describe(getattr(error, "number", signal.SIGINT))
        print(f"Error: {text}", file=sys.stderr)
    sys.exit(status)
