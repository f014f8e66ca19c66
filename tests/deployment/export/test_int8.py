# SPDX-License-Identifier: Apache-2.0
"""Quantisation: what stays in float, that classes stay, what is recorded, what is refused."""

from paddle_dnl.cli import infer
from paddle_dnl.cli.deploy.quantize import main, parse_args
from paddle_dnl.data.images.image_format import ImageFormat
from paddle_dnl.deployment.export import int8
from paddle_dnl.deployment.export.exporter import export_model
from paddle_dnl.deployment.export.image_check import ScoredImages
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import DataError, ExportError, UsageError

import cv2
import numpy as np
import onnx
import paddle
import pytest
import tiny_onnx
import tiny_training
import yaml
from onnx import TensorProto, numpy_helper
from PIL import Image
from tiny_export import CLASSES, NORMALIZE, ColorNet, blocks
from tiny_onnx import attention_net, color_net


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    model = ColorNet()
    export_model(model, folder, input_shape=None, transforms=[dict(NORMALIZE)], class_info=CLASSES)
    attention_net(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    copy = tmp_path / "export"
    copy.mkdir()
    for path in original.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


@pytest.fixture
def lists(tmp_path):
    """Lists for calibration and evaluation; the labels of the second are its pictures' own classes."""
    for split, seeds in (("train", range(6)), ("val", range(6, 10))):
        lines = []
        for seed in seeds:
            image, label = blocks(2, 4, 8, seed)
            noise = np.random.default_rng(seed).normal(0, 8, image.shape)
            cv2.imwrite(str(tmp_path / f"{seed}.png"), np.clip(image + noise, 0, 255).astype(np.uint8))
            cv2.imwrite(str(tmp_path / f"{seed}_label.png"), label)
            lines.append(f"{seed}.png,{seed}_label.png\n" if split == "val" else f"{seed}.png\n")
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    return tmp_path / "train.txt", tmp_path / "val.txt"


def _quantize(folder, lists, *more):
    return main(["--config", str(folder), "--image_list", str(lists[0]), "--eval_list", str(lists[1]), *more])


def test_what_stays_in_float(original):
    model = onnx.load(str(original / "model.onnx"))
    quantised = {node.name for node in model.graph.node} - int8.float_nodes(model)
    learned = {node.name for node in model.graph.node if node.op_type in ("Conv", "MatMul")}
    assert quantised & learned == {"stem", "body", "value"}
    assert not quantised & {"similarity", "heat", "softmax", "gather", "classifier", "argmax", "query", "key"}


def test_the_file_holds_eight_bits_where_it_should_and_float_elsewhere(folder, lists):
    _quantize(folder, lists)
    graph = onnx.load(str(folder / "model_int8.onnx")).graph
    producers = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}

    def kind(name):
        node = next(node for node in graph.node if node.name == name)
        source = producers.get(node.input[1])
        if source is not None and source.op_type == "DequantizeLinear":
            return weights[source.input[0]].data_type
        return weights[node.input[1]].data_type if node.input[1] in weights else None

    assert {name: kind(name) for name in ("stem", "body", "value", "query", "key", "classifier")} == {
        **dict.fromkeys(("stem", "body", "value"), TensorProto.INT8),
        **dict.fromkeys(("query", "key", "classifier"), TensorProto.FLOAT),
    }
    for node in graph.node:
        if node.op_type in ("MatMul", "Softmax"):
            kinds = {producers[name].op_type for name in node.input if name in producers}
            consumers = {other.op_type for other in graph.node if set(node.output) & set(other.input)}
            assert "QuantizeLinear" not in consumers or node.name == "gather", node.name
            assert "DequantizeLinear" not in kinds or node.name == "gather", node.name
    scales = next(n for n in graph.node if n.op_type == "DequantizeLinear" and weights.get(n.input[0]) is not None
                  and weights[n.input[0]].data_type == TensorProto.INT8).input[1]  # fmt: skip
    assert numpy_helper.to_array(weights[scales]).size == 8, "one scale per output channel"


def test_one_command(folder, lists, capsys):
    assert _quantize(folder, lists, "--num_calibration", "4") == 0
    text = capsys.readouterr().out
    assert "calibrating on 4 images" in text and "comparing on 4 images" in text and "used for calibration" not in text
    section = yaml.safe_load((folder / "deploy.yaml").read_text())["Deploy"]
    assert section["onnx_int8"] == "model_int8.onnx" and "model_int8.onnx" in section["sha256"]
    found = section["verified"]["int8"]
    assert found["images"] == 4 and found["calibration_images"] == 4 and found["agreement"] > 0.99
    assert found["miou_float"] > 0.95 and abs(found["miou_float"] - found["miou_int8"]) < 0.03
    for backend in ("onnxruntime", "openvino"):
        record = section["verified"]["precisions"][f"{backend} int8"]
        assert record["images"] == 4 and record["agreement"] > 0.99 and abs(record["miou"] - found["miou_float"]) < 0.03
    assert section["verified"]["precisions"]["onnxruntime int8"]["agreement"] == found["agreement"]
    assert found["seconds_float"] > 0 and found["seconds_int8"] > 0
    for line in ("float32", "same class", "mIoU", "seconds", "times as fast" if "times" in text else "slower"):
        assert line in text
    assert sorted(p.suffix for p in folder.iterdir() if "int8" in p.name) == [".onnx"], "no temporary file is left"
    image, label = blocks(4, 8, 8, 77)
    for backend in ("onnxruntime", "openvino"):
        predictor = Predictor(folder, backend=backend, precision="int8")
        assert (predictor.predict([image])[0] == label).mean() > 0.99
    scores = [Predictor(folder, backend="onnxruntime", precision=p)._backend._session for p in ("fp32", "int8")]
    assert scores[0]._model_path != scores[1]._model_path


def test_pictures_of_five_bands_and_twelve_bits(tmp_path):
    """Labels are the model's own classes of the bands scaled by NumPy, so that mIoU 1 says that they were read on that scale."""
    paddle.seed(0)
    folder, model = tmp_path / "export", tiny_training.TinyNet(4, in_channels=5, dropout=0)
    steps = [{"type": "Normalize", "mean": [0.5] * 5, "std": [0.5] * 5}]
    image_format = ImageFormat(5, (0.0, 4095.0))
    export_model(model, folder, input_shape=None, transforms=steps, class_info=CLASSES, image_format=image_format)
    tiny_onnx.tiny_net_file(read_deploy_config(folder), model)
    tiny_onnx.record(folder)
    model.eval()
    rng, lines, images = np.random.default_rng(0), [], []
    for i in range(6):
        coarse = rng.integers(0, 4096, (4, 6, 5)).astype(np.uint16)
        bands = np.kron(coarse, np.ones((8, 8, 1), np.uint16))
        network = (bands.transpose(2, 0, 1).astype(np.float32) / 4095 - 0.5) / 0.5
        label = model(paddle.to_tensor(network[None]))[0].numpy()[0].argmax(0).astype(np.uint8)
        np.save(tmp_path / f"{i}.npy", bands)
        cv2.imwrite(str(tmp_path / f"{i}.png"), label)
        lines.append(f"{i}.npy {i}.png\n")
        images.append((tmp_path / f"{i}.npy", label))
    (tmp_path / "list.txt").write_text("".join(lines))
    main(["--config", str(folder), "--image_list", str(tmp_path / "list.txt")])
    found = read_deploy_config(folder).verified["int8"]
    assert found["images"] == 6 and found["miou_float"] == pytest.approx(1) and found["agreement"] > 0.97
    predictor = Predictor(folder, backend="onnxruntime", precision="int8")
    for path, label in images:
        assert (predictor.predict([path])[0] == label).mean() > 0.95


def test_infer_runs_it(folder, lists, tmp_path, capsys):
    _quantize(folder, lists)
    image, label = blocks(2, 4, 16, 3)
    cv2.imwrite(str(tmp_path / "photo.png"), image)
    flags = ["--config", str(folder), "--image_path", str(tmp_path / "photo.png"), "--save_dir", str(tmp_path / "out")]
    assert infer.main([*flags, "--backend", "onnxruntime", "--precision", "int8"]) == 0
    assert "backend onnxruntime on cpu int8" in capsys.readouterr().out
    assert (np.array(Image.open(tmp_path / "out" / "photo.png")) == label).mean() > 0.99


def test_miou_is_that_of_the_predictions(folder, lists, tmp_path):
    """A float model that is right and an int8 one that says class 0 everywhere."""
    plain = Predictor(folder, backend="onnxruntime")

    class Zero:
        def predict(self, images):
            return [np.zeros_like(plain.predict(images)[0])]

        def run(self, batch):
            pass

    image, label = blocks(4, 8, 8, 5)
    cv2.imwrite(str(tmp_path / "label.png"), label)

    def compare(small, path):
        return int8.compare(ScoredImages(plain, [(image, path)], plain.files, 4), plain, small, 1, 1)

    report = compare(Zero(), tmp_path / "label.png")
    assert report.miou_float == 1 and report.agreement == pytest.approx((label == 0).mean())
    assert report.miou_int8 == pytest.approx((label == 0).mean() / len(np.unique(label)))
    unlabelled = compare(plain, None)
    assert unlabelled.miou_float is None and unlabelled.agreement == 1 and "mIoU" not in unlabelled.table()
    report.seconds_float, report.seconds_int8 = 0.3, 0.1
    assert "int8 is 3.00 times as fast" in report.table()
    report.seconds_float, report.seconds_int8 = 0.1, 0.2
    assert "slower (0.50 of the float speed): keep float here" in report.table()


def test_a_copy(folder, lists, tmp_path):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    _quantize(folder, lists, "--save_dir", str(tmp_path / "copy"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert Predictor(tmp_path / "copy", backend="onnxruntime", precision="int8").backend == "onnxruntime"
    assert Predictor(tmp_path / "copy").backend == "paddle"
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        _quantize(folder, lists, "--save_dir", str(tmp_path / "file"))


def test_int8_without_it_and_damaged(folder, lists):
    with pytest.raises(ExportError, match="no int8 model; make one with tools/quantize.py"):
        Predictor(folder, backend="onnxruntime", precision="int8")
    with pytest.raises(UsageError, match="backend onnxruntime or openvino"):
        Predictor(folder, precision="int8")
    _quantize(folder, lists)
    (folder / "model_int8.onnx").write_bytes(b"else")
    with pytest.raises(ExportError, match="model_int8.onnx: damaged or replaced"):
        Predictor(folder, backend="onnxruntime", precision="int8")


def test_an_export_into_the_folder_drops_the_old_int8(folder, lists):
    _quantize(folder, lists)
    model = ColorNet()
    export_model(model, folder, input_shape=None, transforms=[dict(NORMALIZE)], class_info=CLASSES)
    assert not (folder / "model_int8.onnx").exists() and read_deploy_config(folder).onnx_int8 is None


def test_refusals(folder, lists, tmp_path):
    def fails(kind, text, list_text=None, flags=()):
        path = tmp_path / "list.txt"
        if list_text is not None:
            path.write_text(list_text)
        before = (folder / "deploy.yaml").read_bytes()
        with pytest.raises(kind, match=text):
            main(["--config", str(folder), "--image_list", str(path if list_text is not None else lists[0]), *flags])
        assert (folder / "deploy.yaml").read_bytes() == before
        assert not list(folder.glob("*int8*")) and not list(folder.glob(".tmp*"))

    fails(DataError, "lists no files", "\n")
    fails(DataError, "names no image below", "nowhere.png\n")
    fails(DataError, "no such label picture", "1.png,nowhere.png\n")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    fails(DataError, "bad.png", "bad.png\n")
    fails(DataError, "no such list", flags=["--eval_list", str(tmp_path / "no.txt")])
    with pytest.raises(UsageError, match="--num_calibration must be at least 1"):
        parse_args(["--config", "a", "--image_list", "b", "--num_calibration", "0"])
    color_net(folder, (2, 3, 32, 64))
    path = folder / "deploy.yaml"
    content = yaml.safe_load(path.read_text())
    content["Deploy"]["input_shape"] = [2, 3, 32, 64]
    path.write_text(yaml.safe_dump(content))
    fails(ExportError, "batch of 2")
    (folder / "model.onnx").unlink()
    del content["Deploy"]["onnx"]
    path.write_text(yaml.safe_dump(content))
    fails(ExportError, "model.onnx: missing")
