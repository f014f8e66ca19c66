# SPDX-License-Identifier: Apache-2.0
"""deploy/onnx/predict_onnx.py gives Predictor's classes, and needs nothing of this package."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

from paddle_dnl.data.images.image_format import ImageFormat
from paddle_dnl.deployment.export.exporter import export_model
from paddle_dnl.deployment.runtime.predictor import Predictor

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_export import CLASSES, NORMALIZE, ColorNet, blocks
from tiny_onnx import color_net

PROGRAM = Path(__file__).resolve().parents[2] / "deploy" / "onnx" / "predict_onnx.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("predict_onnx", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _export(folder, output_op="argmax", transforms=(), shape=(1, 3, 32, 64)):
    export_model(
        ColorNet(), folder, input_shape=list(shape), output_op=output_op,
        transforms=[*transforms, {**NORMALIZE, "mean": [0.4, 0.5, 0.6]}], class_info=CLASSES,
    )  # fmt: skip
    color_net(folder, shape, output_op)
    return folder


def _photo(path, rows=5, columns=9, size=13):
    image = cv2.GaussianBlur(blocks(rows, columns, size)[0], (0, 0), 3)
    assert cv2.imwrite(str(path), image)
    return path


@pytest.mark.parametrize("output_op", ["argmax", "none"])
@pytest.mark.parametrize(
    "transforms, shape",
    [((), (1, 3, 32, 64)), (({"type": "Resize", "target_size": [96, 40]},), (-1, 3, -1, -1)), ((), (-1, 3, -1, -1))],
    ids=["fixed", "resized", "free"],
)
def test_same_classes_as_predictor(tmp_path, example, output_op, transforms, shape):
    folder = _export(tmp_path / "export", output_op, transforms, shape)
    for name in ("a.png", "b.jpg"):
        photo = _photo(tmp_path / name)
        wanted = Predictor(folder, backend="onnxruntime", wrong_size="resize").predict([photo])[0]
        found = example.predict(folder, photo)
        assert found.dtype == np.uint8 and len(np.unique(found)) == 4
        np.testing.assert_array_equal(found, wanted)
        # Another backend rounds in other places: a pixel on a boundary may differ.
        assert (found == Predictor(folder, wrong_size="resize").predict([photo])[0]).mean() > 0.999


def test_as_a_program(tmp_path):
    folder, photo = _export(tmp_path / "export"), _photo(tmp_path / "a.png")
    content = _photo(tmp_path / "b.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    for words, text in (
        ([folder, photo, tmp_path / "label.png"], ""),
        ([folder, tmp_path / "cut.jpg", tmp_path / "cut.png"], "cut.jpg: is not a readable image"),
        (["--help"], "usage: python predict_onnx.py FOLDER IMAGE LABEL.png"),
        ([folder, photo, tmp_path / "none" / "label.png"], "label.png: cannot be written"),
    ):
        done = subprocess.run([sys.executable, PROGRAM, *words], capture_output=True, text=True, timeout=100)
        assert (done.returncode == 0) == (text == "") and text in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "label.png").is_file()


@pytest.mark.parametrize("channels, ending", [(1, "png"), (3, "png"), (5, "npy")])
@pytest.mark.parametrize("value_range", [None, (0.0, 4095.0)])
def test_reads_as_the_package_does(tmp_path, example, channels, ending, value_range):
    dtype, top = (np.uint8, 256) if value_range is None else (np.uint16, 4096)
    image = np.random.default_rng(0).integers(0, top, (6, 8, channels)).astype(dtype)
    path = tmp_path / f"a.{ending}"
    if ending == "npy":
        np.save(path, image)
    else:
        cv2.imwrite(str(path), image)
    wanted = ImageFormat(channels, value_range).read(path).reshape(6, 8, channels)
    found = example.read(path, channels, value_range)
    np.testing.assert_allclose(found, wanted[..., ::-1] if channels == 3 else wanted, rtol=1e-6, atol=1e-4)


def test_refusals(tmp_path, example):
    folder = _export(tmp_path / "export")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit, match="bad.png: is not a readable image"):
        example.predict(folder, tmp_path / "bad.png")
    content = yaml.safe_load((folder / "deploy.yaml").read_text())
    for step in ({"type": "Padding"}, {"type": "Resize", "target_size": [8, 8], "keep_ratio": True}):
        content["Deploy"]["transforms"] = [step]
        (folder / "deploy.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(SystemExit, match=f"{step['type']}.*not in this example"):
            example.predict(folder, _photo(tmp_path / "a.png"))


def test_the_program(tmp_path):
    folder = _export(tmp_path / "export")
    photo = _photo(tmp_path / "a.png")
    done = subprocess.run([sys.executable, str(PROGRAM), str(folder), str(photo), str(tmp_path / "label.png")])
    assert done.returncode == 0
    with Image.open(tmp_path / "label.png") as picture:
        np.testing.assert_array_equal(
            np.array(picture), Predictor(folder, backend="onnxruntime", wrong_size="resize").predict([photo])[0]
        )


def test_it_stays_small_and_alone():
    text = PROGRAM.read_text(encoding="utf-8")
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    assert names <= {"cv2", "numpy", "onnxruntime", "yaml", *sys.stdlib_module_names}
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 66
