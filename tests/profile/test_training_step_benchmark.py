# SPDX-License-Identifier: Apache-2.0
"""`benchmarks/training_step.py`: our side runs, sides that computed something else are refused, and the table has both ratios."""

import json
import sys
from pathlib import Path

from paddle_dnl.config import Config
from paddle_dnl.models.build import build_model
from paddle_dnl.weights.loading import write_safetensors

import paddle
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import training_step

    yield training_step
    for name in ("training_step", "training_input", "backends", "exported", "run"):
        sys.modules.pop(name, None)


@pytest.fixture
def weights(benchmark, tmp_path):
    paddle.seed(0)
    model = build_model(Config(str(benchmark.CONFIG), opts=["model.backbone.pretrained=null"]))
    write_safetensors({name: value.numpy() for name, value in model.state_dict().items()}, tmp_path / "dnl.safetensors")
    return tmp_path / "dnl.safetensors"


def _run(benchmark, weights, out, monkeypatch, theirs, ours=None):
    monkeypatch.setattr(benchmark, "mmseg_weights", lambda *_: (weights, weights))
    real, found = benchmark.run_side, {"mmseg": theirs, "ours": ours}
    monkeypatch.setattr(benchmark, "run_side", lambda side, *rest: found[side] or real(side, *rest))
    words = "--torch_python python --size 64x64 --rounds 1 --warmup 2 --repeats 1 --threads 1 --save_dir"
    monkeypatch.setattr(sys, "argv", ["training_step.py", *words.split(), str(out)])
    benchmark.main()


def test_table_of_both_sides(benchmark, weights, tmp_path, monkeypatch, capsys):
    theirs = {"seconds": [2.0], "losses": [4.0, 4.0], "peak": 10**9, "backend": "PyTorch 2", "load": 0.5}
    monkeypatch.setattr(benchmark, "LOSS_TOLERANCE", 1.0)
    _run(benchmark, weights, tmp_path / "out", monkeypatch, theirs)
    row = json.loads((tmp_path / "out/training_step.json").read_text())["rows"]["ours"]
    # Random weights and 19 classes: about log(19) for each of the heads, which count 1 and 0.4; the second step has learnt.
    assert 3.9 < row["losses"][0] < 5 and 1 < row["losses"][1] < row["losses"][0]
    assert 0 < row["seconds"] < 60 and 300e6 < row["peak"] < 4e9
    seconds = f"{row['seconds']:.3f}"
    line = f"| ours | Paddle {paddle.__version__} | {seconds} | {seconds} | {row['seconds'] / 2:.2f} | <= 0.95 |"
    assert line in (tmp_path / "out/training_step.md").read_text() and line in capsys.readouterr().out


def test_sides_that_computed_something_else_are_refused(benchmark, tmp_path, monkeypatch):
    theirs = {"seconds": [2.0], "losses": [4.0, 3.9], "peak": 10**9, "backend": "PyTorch 2", "load": 0.5}
    for ours, said in (
        ([4.001, 3.95], "step 2 is 3.95"),
        ([4.01, 3.9], "step 1 is 4.01"),
        ([float("nan"), 3.9], "step 1 is nan"),
    ):
        with pytest.raises(SystemExit, match=f"the loss of {said}"):
            _run(benchmark, "dnl.pth", tmp_path / "out", monkeypatch, theirs, theirs | {"losses": ours})
    assert not (tmp_path / "out").exists()
