"""Called by `make venv`: are the system libraries there that cv2 and paddle load? Mends what pip can mend.

OpenCV's usual wheel needs libGL and glib, which a bare Debian or Ubuntu lacks; its headless build of the same version does
not, and goes over it. Paddle needs libgomp, which only the system can give.
"""

import subprocess
import sys
from importlib.metadata import version


def _fails(statement: str) -> str:
    """The last line of the error that `statement` ends with in a process of its own; empty when it works."""
    done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {done.returncode}"


def main() -> int:
    """Returns the exit status."""
    problem = _fails("import cv2")
    if problem:
        wheel = f"opencv-python-headless=={version('opencv-python')}"
        print(f"cv2 does not load ({problem}); putting {wheel} over it, which needs no screen libraries")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", wheel]
        if subprocess.run(command).returncode or _fails("import cv2"):
            print("cv2 still does not load; install the system packages: apt-get install libgl1 libglib2.0-0")
            return 1
    problem = _fails("import zlib, paddle")
    if problem:
        hint = "apt-get install libgomp1" if "libgomp" in problem else "is this Paddle built for this machine?"
        print(f"paddle does not load ({problem}); {hint}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
