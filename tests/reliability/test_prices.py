# SPDX-License-Identifier: Apache-2.0
"""What a stranger's weights may cost a whole process, and what is no file at all: pipes, devices, folders."""

import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

from paddle_dnl.errors import CheckpointError
from paddle_dnl.weights import restricted_pickle, safe_pickle
from paddle_dnl.weights.convert import read_torch_weights
from paddle_dnl.weights.loading import match, read_params
from paddle_dnl.weights.safe_pickle import read_pickle

import hostile_pickles
import numpy as np
import paddle
import pytest
from time_limit import at_most

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    ".pdparams": (read_params, "hostile pickles"),
    ".pdstates": (read_pickle, "hostile pickles"),
    ".pth": (read_torch_weights, "hostile .pth files"),
    ".safetensors": (read_params, "hostile safetensors files"),
}
# The modules are loaded before the limit is set, so that it is for the reading alone.
READ = """
import resource, sys
from pathlib import Path
from paddle_dnl.weights.convert import read_torch_weights
from paddle_dnl.weights.loading import read_params
from paddle_dnl.errors import CheckpointError

path, spare = Path(sys.argv[1]), int(sys.argv[2])
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + spare,) * 2)
try:
    (read_torch_weights if path.suffix == ".pth" else read_params)(path)
except CheckpointError as error:
    print(str(error))
"""


@pytest.fixture
def at_most_ten_seconds():
    """A reader that waits for ever ends as a failed test, not as a run that hangs."""
    with at_most(10):
        yield


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("make", [_pipe, _endless, Path.mkdir], ids=["pipe", "device", "folder"])
def test_only_files_are_read(make, suffix, tmp_path, monkeypatch, at_most_ten_seconds):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"hostile{suffix}"
    make(path)
    read, kind = KINDS[suffix]
    with pytest.raises(CheckpointError, match=f"hostile{suffix}: is a folder"):
        read(path)


def test_a_link_to_a_file_is_read(tmp_path):
    (tmp_path / "real.pdparams").write_bytes(b"\x80\x04}.")
    (tmp_path / "link.pdparams").symlink_to(tmp_path / "real.pdparams")
    assert read_params(tmp_path / "link.pdparams") == {}


@pytest.mark.parametrize("suffix", [".pdparams", ".pth"])
def test_many_small_objects_do_not_fill_a_process(suffix, tmp_path):
    path = tmp_path / f"hostile{suffix}"
    content = hostile_pickles.ordered_again(660_000)
    # As a stream, which begins with any pickle; the whole of it is read before it is compared with what is expected.
    path.write_bytes(content)
    spare = (128 << 20) + 10 * len(content)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), str(spare)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "would take more memory" in done.stdout and "MemoryError" not in done.stdout


@pytest.mark.parametrize("protocol", [2, 4])
def test_honest_files_need_a_small_part_of_what_is_allowed(protocol, tmp_path, monkeypatch):
    """Twice as many tensors as a large model has slots, and a little state of a training script."""
    spent = []

    class Watched(restricted_pickle.Allowance):
        def charge(self, count):
            super().charge(count)
            spent.append(count)

    monkeypatch.setattr(safe_pickle, "Allowance", Watched)
    state = {f"layer{i}.weight": np.full(1_000, i, "float32") for i in range(4_000)}
    state["history"] = [np.float64(i) for i in range(1_000)]
    path = tmp_path / "model.pdopt"
    path.write_bytes(pickle.dumps(state, protocol=protocol))
    got = read_params(path)
    assert list(got) == list(state) and got["layer7.weight"][0] == 7 and got["history"][3] == 3
    of_the_file = 3 * sum(value.nbytes for value in state.values() if isinstance(value, np.ndarray))
    assert sum(spent) - of_the_file < restricted_pickle.Allowance(0).limit / 4


def test_a_list_in_place_of_a_tensor_is_not_made_an_array():
    layer, state = (
        paddle.nn.Linear(2, 2),
        {"weight": [np.zeros(1 << 20, "uint8")] * 200, "bias": np.zeros(2, "float32")},
    )
    tracemalloc.start()
    fitting, report = match(layer, state)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(fitting) == ["bias"] and report.mis_shaped == ["weight is a list"]
    assert peak < 1 << 20
