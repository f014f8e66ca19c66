# SPDX-License-Identifier: Apache-2.0
"""Training and evaluation where Unix's own modules and functions are missing, as on Windows; run on Linux with them hidden."""

import os
import subprocess
import sys
from pathlib import Path

from paddle_dnl.data.prepare.convert_cityscapes import convert_tree
from paddle_dnl.data.scenes.mini_cityscapes import generate

ROOT = Path(__file__).resolve().parents[2]
# Paddle and Python's own library were written for both; they are imported before their functions go.
HIDDEN = """
import sys
import zlib, ctypes, logging, multiprocessing, paddle, subprocess, tempfile, shutil, socket
import os, signal

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "resource", "pwd", "grp", "termios"):
            raise ImportError(f"No module named {name!r}", name=name)

for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Hidden())
for module, names in (
    (os, "register_at_fork sched_getaffinity sysconf getuid geteuid getpgid setsid killpg fork chown"),
    (signal, "SIGKILL SIGHUP pthread_sigmask sigwaitinfo SIGCHLD"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
multiprocessing.get_all_start_methods = lambda: ["spawn"]

from paddle_dnl.cli.main import main
main(sys.argv[1:])
"""


def test_a_training_step_without_unix(tmp_path):
    convert_tree(generate(tmp_path / "data" / "mini_cityscapes", train=2, val=1, size=(128, 64)), num_workers=0)
    words = ["train", "--config", "dnlnet_resnet18_mini_cityscapes", "--iters", "1", "--do_eval", "--save_dir", "out",
             "--opts", "train_dataset.transforms.0.crop_size=[64,64]", "batch_size=1"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "[EVAL] #Images: 1 mIoU:" in done.stdout and (tmp_path / "out" / "best_model" / "model.pdparams").is_file()
    # Locks of files are the one thing that is missing.
    assert "cannot be locked here" in done.stdout


def test_no_module_imports_what_only_unix_has():
    """At its top; inside functions it is asked for where it is used."""
    wrong = []
    for path in (ROOT / "paddle_dnl").rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(("import ", "from ")) and {"fcntl", "resource", "pwd", "grp", "termios"} & set(
                line.split()[1:2]
            ):
                wrong.append(f"{path.name}: {line}")
    assert not wrong
