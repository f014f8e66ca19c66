# SPDX-License-Identifier: Apache-2.0
"""tools/benchmark.py: real processes, numbers that fit together, what cannot be measured."""

import json

from paddle_dnl.cli.deploy.benchmark import main, parse_args
from paddle_dnl.deployment.benchmark import timings, worker
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.errors import ExportError, UsageError

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_export import export_color_net
from tiny_onnx import color_net


@pytest.fixture
def folder(tmp_path):
    folder = export_color_net(tmp_path / "export")
    color_net(folder)
    return folder


def test_table_json_and_picture(tmp_path, folder, capsys):
    out = tmp_path / "out"
    flags = [
        "--config",
        str(folder),
        "--backends",
        "paddle",
        "onnxruntime",
        "openvino",
        "--threads",
        "1",
        "--repeats",
        "5",
    ]
    assert main([*flags, "--save_dir", str(out)]) == 0
    content = json.loads((out / "results.json").read_text())
    assert [row["backend"] for row in content["rows"]] == ["paddle", "onnxruntime", "openvino"]
    assert all(name in content["machine"] for name in ("Paddle", "ONNX Runtime", "OpenVINO"))
    for row in content["rows"]:
        assert (row["batch"], row["height"], row["width"], row["threads"]) == (1, 32, 64, 1)
        assert 0 < row["median"] <= row["p90"] < 5 and row["throughput"] == pytest.approx(1 / row["median"])
        assert row["load"] >= 0
        # One process imports Paddle, the other ONNX Runtime alone; the model adds to that.
        assert 30e6 < row["peak"] < 4e9 and 0 < row["above_base"] < row["peak"]
    text = capsys.readouterr().out
    assert (
        "| paddle | fp32 | 1 | 1 | 64x32 |" in text
        and "| load |" in text
        and (out / "results.md").read_text().strip() in text
    )
    with Image.open(out / "results.png") as picture:
        assert picture.width > 1000 and len(np.unique(np.array(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 10


def test_the_worker_measures_what_it_is_told(folder, monkeypatch):
    ran, made = [], []

    class Backend:
        def run(self, batch):
            ran.append(batch.shape)

    monkeypatch.setattr(worker, "make_backend", lambda *a: (made.append(a), Backend())[1])
    setting = {
        "folder": str(folder),
        "backend": "onnxruntime",
        "precision": "int8",
        "enable_mkldnn": False,
        "threads": 3,
    }
    found = worker.measure(setting | {"shape": [2, 3, 8, 16], "warmup": 2, "repeats": 4})
    assert ran == [(2, 3, 8, 16)] * 6 and len(found["seconds"]) == 4
    name, files, options = made[0]
    assert (name, files.folder, options.precision, options.cpu_threads) == ("onnxruntime", folder, "int8", 3)


def test_what_is_left_out_and_what_is_refused(tmp_path, folder, monkeypatch, capsys):
    path = folder / "deploy.yaml"
    content = yaml.safe_load(path.read_text())
    content["Deploy"]["verified"]["mkldnn"] = {"ok": False, "error": "Unimplemented here"}
    path.write_text(yaml.safe_dump(content))
    measured = []

    def measure(files, name, threads, shape, warmup, repeats):
        measured.append((name, threads, shape))
        return timings.Row(name, "fp32", threads, shape[0], *shape[2:], 0.1, 0.2, 10.0, 10**9, 10**8)

    monkeypatch.setattr(timings, "measure", measure)
    monkeypatch.setattr(timings, "has_bf16", lambda: False)
    flags = ["--config", str(folder), "--save_dir", str(tmp_path / "out"), "--threads", "1", "2"]
    assert main(flags) == 0
    shape = [1, 3, 32, 64]
    assert measured == [(name, n, shape) for n in (1, 2) for name in ("paddle", "onnxruntime", "openvino")]
    text = capsys.readouterr().out
    assert "skipping onednn: Unimplemented here" in text and "skipping int8: no int8 file" in text
    with pytest.raises(UsageError, match="--backends int8: .*tools/quantize.py"):
        main([*flags, "--backends", "int8"])
    with pytest.raises(UsageError, match="batch of 1"):
        main([*flags, "--batch_sizes", "4"])
    with pytest.raises(UsageError, match="exported for 64x32"):
        main([*flags, "--sizes", "32x64"])
    content["Deploy"]["input_shape"] = [-1, 3, -1, -1]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match="takes every size"):
        main(flags)
    measured.clear()
    main([*flags[:-1], "--backends", "paddle", "--batch_sizes", "1", "4", "--sizes", "64x32", "128x96"])
    shapes = [[1, 3, 32, 64], [4, 3, 32, 64], [1, 3, 96, 128], [4, 3, 96, 128]]
    assert measured == [("paddle", 1, shape) for shape in shapes]


def test_a_failing_backend_says_why(folder):
    (folder / "model.onnx").write_bytes(b"else")
    with pytest.raises(ExportError, match="onnxruntime, 1 threads.*model.onnx: damaged or replaced"):
        timings.measure(read_deploy_config(folder), "onnxruntime", 1, [1, 3, 32, 64], 0, 1)


@pytest.mark.parametrize("flags", ["--threads 0", "--batch_sizes 1 0", "--repeats 0", "--warmup -1"])
def test_numbers_that_cannot_be(flags):
    with pytest.raises(UsageError, match="must be at least"):
        parse_args(["--config", "a", *flags.split()])


@pytest.mark.parametrize("size", ["64", "0x4", "64x", "ax4"])
def test_sizes_that_are_none(size):
    with pytest.raises(SystemExit):
        parse_args(["--config", "a", "--sizes", size])
