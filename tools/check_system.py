# SPDX-License-Identifier: Apache-2.0
"""Called by `make venv`: are the system libraries there that cv2 and paddle load? Mends what pip can mend.

OpenCV's usual wheel needs libGL and glib, which a bare Debian or Ubuntu lacks; its headless build of the same version does
not, and goes over it. Paddle needs libgomp, which only the system can give. Paddle 2 crashes in scipy, sklearn and whatever
else compresses, unless zlib was loaded before it (see paddle_dnl/startup/import_guard.py): in this environment Python loads it at
its start, so that a program that imports this package last, or never, is safe too.
"""

import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def _fails(statement: str) -> str:
    """The last line of the error that `statement` ends with in a process of its own; empty when it works."""
    done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {done.returncode}"


def _paddle_version() -> str:
    for name in ("paddlepaddle", "paddlepaddle-gpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""


def load_zlib_at_start() -> bool:
    """In a virtual environment with Paddle 2: a file that makes each start of its Python import zlib. True when written."""
    if not _paddle_version().startswith("2.") or sys.prefix == sys.base_prefix:
        return False
    (Path(sysconfig.get_paths()["purelib"]) / "zlib_before_paddle.pth").write_text("import zlib\n")
    return True


def check_opencv() -> bool:
    """Whether cv2 loads, if need be after its headless build was put over it."""
    problem = _fails("import cv2")
    if not problem:
        return True
    wheel = f"opencv-python-headless=={version('opencv-python')}"
    print(f"cv2 does not load ({problem}); putting {wheel} over it, which needs no screen libraries")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", wheel]
    if subprocess.run(command).returncode or _fails("import cv2"):
        print("cv2 still does not load; install the system packages: apt-get install libgl1 libglib2.0-0")
        return False
    return True


def check_paddle() -> bool:
    """Whether paddle loads."""
    problem = _fails("import zlib, paddle")
    if problem:
        hint = "apt-get install libgomp1" if "libgomp" in problem else "is this Paddle built for this machine?"
        print(f"paddle does not load ({problem}); {hint}")
    return not problem


def main() -> int:
    """Returns the exit status."""
    load_zlib_at_start()
    return 0 if check_opencv() and check_paddle() else 1


if __name__ == "__main__":
    sys.exit(main())
