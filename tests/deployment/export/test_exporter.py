# SPDX-License-Identifier: Apache-2.0
"""Export: what is written, that it computes the model, and that it is refused when it does not."""

import os
from pathlib import Path

from paddle_dnl.deployment.export import graphs
from paddle_dnl.deployment.export.check import check_output, compare
from paddle_dnl.deployment.export.exporter import export_model
from paddle_dnl.deployment.export.shapes import example_batch
from paddle_dnl.deployment.runtime.backends.paddle_backend import PaddleBackend
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.deployment.runtime.options import BackendOptions
from paddle_dnl.errors import ExportError, UsageError
from paddle_dnl.files.atomic import write_bytes
from paddle_dnl.files.outputs import JOURNAL
from paddle_dnl.nn.dgmn2_attention import DGMN2Attention

import numpy as np
import paddle
import pytest
import yaml
from tiny_export import CLASSES, NORMALIZE, ColorNet, TwoFaced, logits_of
from tiny_onnx import color_net_file


def _export(model, folder, shape=(1, 3, 12, 20), **more):
    more = {"transforms": [dict(NORMALIZE)], "class_info": CLASSES} | more
    return export_model(model, folder, input_shape=None if shape is None else list(shape), **more)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != JOURNAL}


def _noise(height: int, width: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _input(image: np.ndarray) -> np.ndarray:
    return (image[..., ::-1].astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]


@pytest.mark.parametrize("output_op", ["argmax", "softmax", "none"])
def test_the_graph_computes_what_numpy_computes(tmp_path, output_op):
    _export(ColorNet(), tmp_path / "out", output_op=output_op)
    files = read_deploy_config(tmp_path / "out")
    image = _noise(12, 20)
    found = PaddleBackend(files, BackendOptions()).run(_input(image))
    logits = logits_of(image)[None]
    if output_op == "argmax":
        assert found.dtype == np.int32 and files.output_dtype == "int32"
        np.testing.assert_array_equal(found, logits.argmax(1))
        return
    wanted = logits if output_op == "none" else np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found.dtype == np.float32 and files.output_dtype == "float32"
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)


def test_written_files_and_what_they_say(tmp_path):
    report = _export(ColorNet(half=True), tmp_path / "out")
    section = yaml.safe_load((tmp_path / "out" / "deploy.yaml").read_text())["Deploy"]
    graph = "model.json" if paddle.__version__.startswith("3") else "model.pdmodel"
    assert section["model"] == graph and (tmp_path / "out" / graph).is_file()
    assert section["params"] == "model.pdiparams" and (tmp_path / "out" / "model.pdiparams").is_file()
    assert section["transforms"] == [NORMALIZE]
    assert section["input_shape"] == [1, 3, 12, 20] and section["output_op"] == "argmax"
    assert section["class_names"] == list(CLASSES.names) and section["class_colors"][3] == [255, 255, 0]
    assert section["verified"]["paddle"]["ok"] is True
    assert 0 <= section["verified"]["paddle"]["max_relative_difference"] <= 1e-5
    assert report.comparison.ok and report.folder == tmp_path / "out"
    assert os.listdir(tmp_path) == ["out"], "temporary folders are gone"


def test_paddleseg_reads_the_folder(tmp_path):
    from paddleseg.deploy.infer import DeployConfig

    _export(ColorNet(), tmp_path)
    theirs = DeployConfig(str(tmp_path / "deploy.yaml"))
    assert Path(theirs.model).is_file() and Path(theirs.params).is_file()
    image = _noise(12, 20)
    np.testing.assert_allclose(theirs.transforms({"img": image.astype(np.float32)})["img"], _input(image)[0], atol=1e-6)


def test_auxiliary_weights_are_left_out(tmp_path):
    model = ColorNet()
    _export(model, tmp_path)
    size = (tmp_path / "model.pdiparams").stat().st_size
    model.aux = paddle.nn.Conv2D(3, 5000, 3)
    _export(model, tmp_path)
    assert (tmp_path / "model.pdiparams").stat().st_size == size


@pytest.mark.parametrize("output_op", ["argmax", "none"])
def test_a_graph_that_computes_something_else_is_refused(tmp_path, output_op):
    _export(ColorNet(), tmp_path / "out")
    before = _files(tmp_path)
    with pytest.raises(ExportError, match="does not compute what the model computes.*nothing was written"):
        _export(TwoFaced(0.5), tmp_path / "out", output_op=output_op)
    with pytest.raises(ExportError, match="nothing was written"):
        _export(TwoFaced(0.5), tmp_path / "new", output_op=output_op)
    assert _files(tmp_path) == before, "the earlier export is as it was, and nothing lies beside it"


class _WrongStep(graphs.ExportWrapper):
    """Good logits, and a last step that is another one than asked for."""

    def forward(self, x):
        logits = self.model(x)[0]
        return logits if self.output_op == "none" else paddle.argmin(logits, axis=1, dtype="int32")


def test_a_wrong_last_step_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "ExportWrapper", _WrongStep)
    with pytest.raises(ExportError, match="argmax in the graph gives other classes"):
        _export(ColorNet(), tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_the_limit_is_the_tolerance(tmp_path):
    # Logits reach about 10: 0.0002 is 2e-5 of them, 0.005 is 5e-4.
    assert 1e-6 < _export(TwoFaced(0.0002), tmp_path).comparison.max_relative_difference < 1e-4
    with pytest.raises(ExportError, match="logits differ by"):
        _export(TwoFaced(0.005), tmp_path)
    _export(TwoFaced(0.005), tmp_path, tolerance=1e-2)


def test_weights_that_are_nan_are_refused(tmp_path):
    model = ColorNet()
    model.conv.bias.set_value(np.full(4, np.nan, np.float32))
    with pytest.raises(ExportError, match="model itself gives NaN"):
        _export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_without_static_form_is_named(tmp_path):
    class Broken(ColorNet):
        def forward(self, x):
            return [paddle.to_tensor(x.numpy())]

    with pytest.raises(ExportError, match="^(the static graph of )?Broken"):
        _export(Broken(), tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_model_without_weights(tmp_path):
    class Bare(ColorNet):
        def forward(self, x):
            return [x]

    with pytest.raises(ExportError, match="Bare has no weights"):
        _export(Bare(), tmp_path / "out")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "shape, text",
    [
        ((1, 3, 0, 20), "expected batch, channels, height and width"),
        ((1, 3, 12), "expected batch, channels, height and width"),
        ((1, -1, 12, 20), "expected batch, channels, height and width"),
        ((1, 3, -2, 20), "expected batch, channels, height and width"),
    ],
)
def test_shapes_that_cannot_be_exported(tmp_path, shape, text):
    with pytest.raises(ExportError, match=text):
        _export(ColorNet(), tmp_path / "out", shape)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("shape", [None, (-1, 3, -1, -1), (1, 3, None, None)])
def test_free_sizes(tmp_path, shape):
    _export(ColorNet(half=True), tmp_path, shape, output_op="none")
    files = read_deploy_config(tmp_path)
    assert files.fixed_size is None and files.fixed_batch == (1 if shape and shape[0] == 1 else None)
    backend = PaddleBackend(files, BackendOptions())
    model = ColorNet(half=True)
    model.eval()
    for height, width in ((8, 16), (17, 31)):
        batch = _input(_noise(height, width))
        with paddle.no_grad():
            np.testing.assert_allclose(backend.run(batch), model(paddle.to_tensor(batch))[0].numpy(), atol=1e-5)


def test_each_layer_keeps_its_mode(tmp_path):
    model = ColorNet()
    model.train()
    model.norm.eval()
    _export(model, tmp_path)
    assert model.training and model.conv.training and not model.norm.training
    with pytest.raises(ExportError):
        export_model(TwoFaced(0.5), tmp_path, input_shape=[1, 3, 8, 8], transforms=[])
    assert len(model(paddle.zeros([1, 3, 8, 8]))) == 2


def test_other_files_in_the_folder_stay(tmp_path):
    # TIPC exports into the folder of the training.
    (tmp_path / "best_model").mkdir()
    (tmp_path / "best_model" / "model.pdparams").write_bytes(b"weights")
    (tmp_path / "train.log").write_bytes(b"log")
    _export(ColorNet(), tmp_path)
    first = _files(tmp_path)
    write_bytes(tmp_path / "model.onnx", b"of the first export")
    model = ColorNet()
    model.conv.bias.set_value(np.ones(4, np.float32))
    _export(model, tmp_path)
    second = _files(tmp_path)
    assert second["best_model/model.pdparams"] == b"weights" and second["train.log"] == b"log"
    assert second["model.pdiparams"] != first["model.pdiparams"]
    assert second.keys() == first.keys(), "an ONNX file of other weights does not stay beside the new ones"


def test_a_failing_move_brings_the_earlier_export_back(tmp_path, monkeypatch):
    _export(ColorNet(), tmp_path / "out")
    before = _files(tmp_path)
    real = os.replace

    def full_disk(source, target):
        if Path(target) == tmp_path / "out" / "deploy.yaml" and "export" in Path(source).parts:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full_disk)
    model = ColorNet()
    model.conv.bias.set_value(np.ones(4, np.float32))
    with pytest.raises(OSError, match="No space left"):
        _export(model, tmp_path / "out")
    assert _files(tmp_path) == before


def test_places_that_are_files(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        _export(ColorNet(), tmp_path / "file")
    with pytest.raises(UsageError, match="part of this path is a file"):
        _export(ColorNet(), tmp_path / "file" / "sub" / "out")
    with pytest.raises(UsageError, match="--output_op"):
        _export(ColorNet(), tmp_path / "out", output_op="max")


def test_compare_counts_classes_but_not_near_ties():
    reference = np.zeros((1, 2, 100, 100), np.float32)
    reference[:, 0] = 1.0
    reference[0, :, 0, :50] = [[0.50003], [0.5]]
    found = reference.copy()
    found[0, :, 0, :50] = [[0.5], [0.50003]]
    tied = compare(reference, found, 1e-4)
    assert tied.ok and tied.argmax_disagreement == 0 and tied.near_tie_disagreement == pytest.approx(0.005)
    # With a sharper tolerance the same pixels are no ties any more, and their logits differ too much.
    assert not compare(reference, found, 1e-5).ok
    # One pixel of 10 000 is 0.01 %, two are more, even when every single logit is within the tolerance.
    for pixels, ok in ((1, True), (2, False)):
        reference = np.zeros((1, 2, 100, 100), np.float32)
        reference[:, 0] = 1.0
        reference[0, :, 0, :pixels] = [[0.50015], [0.5]]
        found = reference.copy()
        found[0, :, 0, :pixels] = [[0.50006], [0.50009]]
        assert compare(reference, found, 1e-4).ok is ok
    assert "expected" in compare(reference, found[:, :, :50], 1e-4).error
    found[0, 0, 0, 0] = np.inf
    assert "infinity" in compare(reference, found, 1e-4).error


def test_check_output_sees_a_wrong_last_step():
    logits = np.random.default_rng(0).normal(size=(1, 4, 30, 30)).astype(np.float32)
    classes = logits.argmax(1)
    assert check_output(logits, logits, classes, "argmax", 1e-4) is None
    assert "other classes" in check_output(logits, logits, (classes + 1) % 4, "argmax", 1e-4)
    assert "expected" in check_output(logits, logits, classes[:, None], "argmax", 1e-4)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert check_output(logits, logits, probabilities, "softmax", 1e-4) is None
    assert "softmax" in check_output(logits, logits, np.sqrt(probabilities), "softmax", 1e-4)


def test_the_example_is_like_a_picture():
    batch = example_batch([2, 3, 97, 161], [dict(NORMALIZE)])
    assert batch.shape == (2, 3, 97, 161) and batch.dtype == np.float32
    assert -1 <= batch.min() < -0.5 and 0.5 < batch.max() <= 1
    assert np.abs(batch[0] - batch[1]).max() > 0.1, "two different pictures"
    assert np.abs(np.diff(batch, axis=3)).mean() < 0.5 * batch.std(), "smooth, not white noise"
    assert example_batch([1, 3, 8, 9], [{"type": "Resize", "target_size": [5, 4]}, NORMALIZE]).shape == (1, 3, 8, 9)


def test_onnx_is_compared_in_both_backends(tmp_path, monkeypatch):
    """With the converter's process replaced, since not every environment has it: a wrong answer is refused."""
    monkeypatch.setattr(graphs, "require_converter", lambda: None)
    settings = {"input_shape": [1, 3, 16, 16], "transforms": [dict(NORMALIZE)], "with_onnx": True}
    for factor in (1.0, 1.1):

        def convert(files):
            color_net_file(files, factor)  # noqa: B023

        monkeypatch.setattr(graphs, "convert", convert)
        if factor == 1:
            report = export_model(ColorNet(), tmp_path / "out", **settings)
            assert report.onnx.ok and (tmp_path / "out/model.onnx").is_file()
            verified = read_deploy_config(tmp_path / "out").verified
            assert all(verified[name]["max_relative_difference"] < 1e-5 for name in ("onnxruntime", "openvino"))
            assert verified["openvino"]["ok"]
        else:
            with pytest.raises(ExportError, match="the ONNX graph of .* does not compute"):
                export_model(ColorNet(), tmp_path / "bad", **settings)
            assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    "output, reason",
    [
        ("step 1\n\x1b[0;31m2026 [ERROR]\tFailed: (InvalidArgument) no index\n  [Hint: x]\n.\x1b[0m\n", "no index"),
        ("Traceback:\nValueError: no such op\n\n", "ValueError: no such op"),
        ("Aborted (core dumped)\n .\n", "Aborted (core dumped)"),
        ("", "gave no reason"),
    ],
)
def test_why_a_graph_has_no_onnx_form(output, reason):
    assert reason in graphs._reason(output) and "\x1b" not in graphs._reason(output)


class _Sampling(paddle.nn.Layer):
    """DGMN2's attention on features of a picture, with offsets of many pixels, as after training."""

    def __init__(self):
        super().__init__()
        paddle.seed(3)
        self.features = paddle.nn.Conv2D(3, 8, 3, padding=1)
        self.attention = DGMN2Attention(8, 2, (12, 20))
        self.classifier = paddle.nn.Conv2D(8, 4, 1)
        for linear in (self.attention.qkv, self.attention.proj):
            linear.weight.set_value(paddle.randn(linear.weight.shape))
        self.attention.conv_offset.weight.set_value(6 * paddle.randn([4, 18]))

    def forward(self, x):
        features = self.features(x)
        tokens = features.flatten(2).transpose([0, 2, 1])
        y = self.attention(tokens, 12, 20).reshape([-1, 8, 12, 20])
        return [self.classifier(features + y)]


def test_dgmn2_is_converted_from_a_graph_that_samples_by_a_grid(tmp_path, monkeypatch):
    """Its values are those of the deformable convolution, also at offsets beyond the map; Paddle's own graph keeps the latter."""
    model, sources = _Sampling(), []

    def convert(files):
        found = PaddleBackend(files, BackendOptions()).run(batch)
        sources.append((files.output_op, files.model_path.read_bytes(), found))
        (files.folder / "model.onnx").write_bytes(b"")
        if len(sources) == 2:
            raise ExportError("enough")

    batch = example_batch([1, 3, 12, 20], [dict(NORMALIZE)])
    model.eval()
    features = model.features(paddle.to_tensor(batch)).flatten(2).transpose([0, 2, 1])
    offsets = model.attention.attention_weights(features, 12, 20)[0].numpy()
    assert (np.abs(offsets) > 5).mean() > 0.2 and np.abs(offsets).max() > 20, "far samples, some outside of the map"
    wanted = model(paddle.to_tensor(batch))[0].numpy()
    monkeypatch.setattr(graphs, "require_converter", lambda: None)
    monkeypatch.setattr(graphs, "convert", convert)
    with pytest.raises(ExportError, match="enough"):
        _export(model, tmp_path / "out", with_onnx=True, output_op="argmax")
    for output_op, graph, found in sources:
        assert b"deformable_conv" not in graph and b"grid_sample" in graph
        if output_op == "none":
            np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
        else:
            np.testing.assert_array_equal(found, wanted.argmax(1))
    assert {op for op, _, _ in sources} == {"argmax", "none"}
    assert model.attention.unfold.implementation == "auto"
    _export(model, tmp_path / "out")
    assert b"deformable_conv" in (read_deploy_config(tmp_path / "out").model_path).read_bytes()


@pytest.mark.parametrize(
    "python, advice", [((3, 12), "pip install paddle2onnx"), ((3, 13), "export with Python 3.10 to 3.12")]
)
def test_a_missing_converter_is_named_with_what_helps(python, advice, monkeypatch):
    """On Python 3.13 pip finds a release of paddle2onnx from before Paddle 2.3 only."""
    monkeypatch.setattr(graphs.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(graphs.sys, "version_info", python)
    with pytest.raises(UsageError, match=advice):
        graphs.require_converter()
