# SPDX-License-Identifier: Apache-2.0
"""The float16 form of an ONNX graph: what stays in float32, that classes stay, where it is compared and recorded."""

from paddle_dnl.deployment.export import fp16, graphs
from paddle_dnl.deployment.export.exporter import export_model
from paddle_dnl.deployment.runtime.backends.onnx_backend import OnnxBackend
from paddle_dnl.deployment.runtime.deploy_config import DeployConfig
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config, write_deploy_config
from paddle_dnl.deployment.runtime.options import BackendOptions
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import ExportError, UsageError

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_export import CLASSES, NORMALIZE, ColorNet, blocks
from tiny_onnx import attention_net, color_net_file

SETTINGS = {"input_shape": [1, 3, 32, 64], "transforms": [dict(NORMALIZE)], "class_info": CLASSES}


@pytest.fixture
def converter(monkeypatch):
    """Stands for paddle2onnx."""
    monkeypatch.setattr(graphs, "require_converter", lambda: None)
    monkeypatch.setattr(graphs, "convert", lambda files: color_net_file(files, 1))


def _kinds(graph) -> dict[str, int]:
    """Node -> type of its weights, or of the first tensor that it computes with."""
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {info.name: info.type.tensor_type.elem_type for info in [*graph.value_info, *graph.input, *graph.output]}
    types |= {node.output[0]: node.attribute[0].i for node in graph.node if node.op_type == "Cast"}
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    return {
        node.name: next((types[name] for name in reversed(node.input) if types.get(name) in floats), None)
        for node in graph.node
    }


def test_attention_logits_and_softmax_stay_in_float32(tmp_path, converter):
    folder = tmp_path / "out"
    export_model(ColorNet(), folder, **SETTINGS)
    attention_net(folder)
    files = read_deploy_config(folder)
    fp16.convert(files)
    graph = onnx.load(str(folder / "model_fp16.onnx")).graph
    kinds = _kinds(graph)
    wide, half = TensorProto.FLOAT, TensorProto.FLOAT16
    assert {kinds[name] for name in ("query", "key", "similarity", "heat", "softmax")} == {wide}
    assert {kinds[name] for name in ("stem", "body", "value", "gather", "residual", "classifier")} == {half}
    assert graph.input[0].type.tensor_type.elem_type == wide
    seen = {tensor.name for tensor in graph.initializer} | {"x"}
    for node in graph.node:
        assert set(filter(None, node.input)) <= seen, f"{node.name} stands before what it needs"
        seen |= set(node.output)
    image, label = blocks(4, 8, 8, 5)
    files.hash_files()
    write_deploy_config(files)
    for precision in ("fp32", "fp16"):
        found = Predictor(folder, backend="onnxruntime", precision=precision).predict([image])[0]
        assert np.mean(found == label) > 0.97


def test_positions_of_samples_stay_in_float32():
    """As DGMN2's: a grid that is computed from a layer with weights."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["o"], "offsets"),
        helper.make_node("Transpose", ["o"], ["grid"], "turned", perm=[0, 2, 3, 1]),
        helper.make_node("Conv", ["x", "v"], ["k"], "keys"),
        helper.make_node("GridSample", ["k", "grid"], ["y"], "sample", align_corners=1),
    ]
    weights = [helper.make_tensor(name, TensorProto.FLOAT, [2, 3, 1, 1], np.ones(6, np.float32)) for name in ("w", "v")]
    shapes = [value("x", TensorProto.FLOAT, [1, 3, 8, 8])], [value("y", TensorProto.FLOAT, [1, 2, 8, 8])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", *shapes, weights), opset_imports=[helper.make_opsetid("", 16)]
    )
    from paddle_dnl.deployment.export.int8 import float_nodes
    from paddle_dnl.deployment.export.onnx_nodes import sensitive_nodes

    assert sensitive_nodes(model) == {"offsets", "turned", "sample"}
    assert "offsets" in float_nodes(model)


def test_a_resize_to_a_size_as_at_the_end_of_networks(tmp_path):
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        # As paddle2onnx writes it: an empty tensor of scales beside the sizes.
        helper.make_node(
            "Constant", [], ["scales"], "scales", value=onnx.numpy_helper.from_array(np.zeros(0, np.float32))
        ),
        helper.make_node("Resize", ["c", "", "scales", "sizes"], ["r"], "resize", mode="linear"),
        helper.make_node("Conv", ["r", "v"], ["y"], "last"),
    ]
    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(size=(2, 3, 1, 1)), "v": rng.normal(size=(2, 2, 1, 1)), "sizes": np.array([1, 2, 16, 16])}
    weights = [
        onnx.numpy_helper.from_array(a if name == "sizes" else a.astype(np.float32), name) for name, a in arrays.items()
    ]
    nodes.insert(0, helper.make_node("Constant", [], ["w"], "", value=weights.pop(0)))
    shapes = [value("x", TensorProto.FLOAT, [1, 3, 8, 8])], [value("y", TensorProto.FLOAT, [1, 2, 16, 16])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", *shapes, weights), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    onnx.save(model, str(tmp_path / "model.onnx"))
    files = DeployConfig(tmp_path, "model.json", "model.pdiparams", onnx="model.onnx")
    fp16.convert(files)
    x = rng.normal(size=(1, 3, 8, 8)).astype(np.float32)
    wide, half = (OnnxBackend(files, BackendOptions(precision=precision)).run(x) for precision in ("fp32", "fp16"))
    assert 1e-6 < np.abs(wide - half).max() / np.abs(wide).max() < 2e-3
    stored = {
        tensor.name: tensor.data_type for tensor in onnx.load(str(tmp_path / "model_fp16.onnx")).graph.initializer
    }
    assert stored["w"] == stored["v"] == TensorProto.FLOAT16, "weights that are nodes become halves too"


def test_it_is_compared_and_recorded(tmp_path, converter):
    export_model(ColorNet(), tmp_path / "out", with_onnx=True, with_fp16=True, **SETTINGS)
    files = read_deploy_config(tmp_path / "out")
    assert files.onnx_fp16 == "model_fp16.onnx" and "model_fp16.onnx" in files.sha256
    found = files.verified["onnxruntime_fp16"]
    assert found["ok"] and 1e-6 < found["max_relative_difference"] < 5e-3, "half precision, and no more than that"
    export_model(ColorNet(), tmp_path / "out", with_onnx=True, **SETTINGS)
    assert not (tmp_path / "out/model_fp16.onnx").exists()


def test_a_wrong_one_is_refused(tmp_path, converter, monkeypatch):
    real = fp16.convert

    def convert(files):
        model = onnx.load(str(files.folder / files.onnx))
        for tensor in model.graph.initializer:
            tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), tensor.name))
        onnx.save(model, str(files.folder / files.onnx))
        real(files)
        color_net_file(files, 1)

    monkeypatch.setattr(fp16, "convert", convert)
    with pytest.raises(ExportError, match="the ONNX graph in float16 of ColorNet does not compute .*0.5 %"):
        export_model(ColorNet(), tmp_path / "out", with_onnx=True, with_fp16=True, **SETTINGS)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="--fp16 is made of the ONNX file; add --format onnx"):
        export_model(ColorNet(), tmp_path / "out", with_fp16=True, **SETTINGS)
