# SPDX-License-Identifier: Apache-2.0
"""The model repository for Triton: read by the parser of Triton's own client, and compared with the ONNX file.

Triton itself is not run anywhere here.
"""

from paddle_dnl.cli import export
from paddle_dnl.deployment.export import graphs, triton
from paddle_dnl.deployment.export.exporter import export_model
from paddle_dnl.deployment.export.triton import Repository
from paddle_dnl.errors import ExportError, OutputError, UsageError

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from tiny_export import CLASSES, NORMALIZE, ColorNet
from tiny_onnx import color_net_file
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import triton_to_np_dtype

SETTINGS = {"transforms": [dict(NORMALIZE)], "class_info": CLASSES, "with_onnx": True}


@pytest.fixture(autouse=True)
def converter(monkeypatch):
    """Stands for paddle2onnx."""
    monkeypatch.setattr(graphs, "require_converter", lambda: None)
    monkeypatch.setattr(graphs, "convert", lambda files: color_net_file(files, 1))


def _parsed(folder):
    """config.pbtxt as Triton's client understands it; a field that Triton does not have is an error."""
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def _onnx_tensors(path):
    """Name -> (dims with -1 where free, NumPy's type), as the onnx package reads them."""
    graph = onnx.load(str(path)).graph
    found = {}
    for tensor in [*graph.input, *graph.output]:
        kind = tensor.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim]
        found[tensor.name] = (dims, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return found


@pytest.mark.parametrize(
    "shape, output_op", [([1, 3, 32, 64], "argmax"), ([-1, 3, 32, 64], "argmax"), ([-1, 3, -1, -1], "none")], ids=str
)
def test_the_configuration_says_what_the_onnx_file_says(tmp_path, shape, output_op):
    export_model(
        ColorNet(), tmp_path, input_shape=shape, output_op=output_op, repository=Repository("street"), **SETTINGS
    )
    folder = tmp_path / "triton" / "street"
    file = folder / "1/model.onnx"
    assert file.read_bytes() == (tmp_path / "model.onnx").read_bytes()
    assert (folder / "labels.txt").read_text().splitlines() == list(CLASSES.names)
    written = (folder / "config.pbtxt").read_text()
    wanted = _onnx_tensors(file)
    for backend in ("onnxruntime", "openvino"):
        text = triton.config_text("street", backend, file, has_labels=True)
        assert (text == written) == (backend == "onnxruntime")
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert (config.name, config.backend, config.default_model_filename) == ("street", backend, "model.onnx")
        batched = shape[0] == -1 and backend == "onnxruntime"
        assert (config.max_batch_size > 0) == config.HasField("dynamic_batching") == batched
        (given,), (taken,) = config.input, config.output
        assert {given.name, taken.name} == set(wanted) and taken.label_filename == "labels.txt"
        for tensor in (given, taken):
            dims, kind = wanted[tensor.name]
            # ONNX Runtime, which Triton asks, may know a size that the file leaves open.
            found = [-1] * batched + list(tensor.dims)
            assert len(found) == len(dims) and all(b in (-1, a) for a, b in zip(found, dims, strict=True))
            assert found[0] == dims[0]
            name = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
            assert np.dtype(triton_to_np_dtype(name)) == kind
        # What the configuration promises holds for the file.
        size = [1, *(v if v > 0 else 16 for v in shape[1:])]
        (output,) = onnxruntime.InferenceSession(str(file)).run([taken.name], {given.name: np.zeros(size, np.float32)})
        declared = [-1] * batched + list(taken.dims)
        assert len(declared) == output.ndim
        assert all(v in (-1, found) for v, found in zip(declared, output.shape, strict=True))


def test_float16_is_a_model_of_its_own(tmp_path):
    export_model(
        ColorNet(), tmp_path, input_shape=[1, 3, 32, 64], repository=Repository("a"), with_fp16=True, **SETTINGS
    )
    for name, file in (("a", "model.onnx"), ("a_fp16", "model_fp16.onnx")):
        assert (tmp_path / "triton" / name / "1/model.onnx").read_bytes() == (tmp_path / file).read_bytes()
        assert _parsed(tmp_path / "triton" / name).name == name


def test_an_earlier_repository_goes_with_its_model(tmp_path):
    shape = {"input_shape": [1, 3, 32, 64]}
    export_model(ColorNet(), tmp_path, repository=Repository("old"), **shape, **SETTINGS)
    export_model(ColorNet(), tmp_path, repository=Repository("new", "openvino"), **shape, **SETTINGS)
    assert [path.name for path in (tmp_path / "triton").iterdir()] == ["new"]
    assert _parsed(tmp_path / "triton/new").backend == "openvino"
    (tmp_path / "triton/new/config.pbtxt").write_text("mine")
    with pytest.raises(OutputError, match="config.pbtxt: exists and was not written by this program"):
        export_model(ColorNet(), tmp_path, **shape, **SETTINGS)
    assert (tmp_path / "triton/new/config.pbtxt").read_text() == "mine"
    (tmp_path / "triton/new/config.pbtxt").unlink()
    export_model(ColorNet(), tmp_path, **shape, **SETTINGS)
    assert not (tmp_path / "triton").exists() and (tmp_path / "model.onnx").is_file()


def test_a_graph_that_is_not_the_model_makes_no_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "convert", lambda files: color_net_file(files, 1.1))
    with pytest.raises(ExportError, match="the ONNX graph of .* does not compute"):
        export_model(ColorNet(), tmp_path / "out", input_shape=[1, 3, 32, 64], repository=Repository("a"), **SETTINGS)
    assert not (tmp_path / "out").exists()


def test_wrong_flags_are_told(tmp_path):
    for name in ("../up", "", ".hidden", "a b"):
        with pytest.raises(UsageError, match="--triton_name"):
            Repository(name)
    for flag in (["--triton_name", "a"], ["--triton_backend", "openvino"]):
        with pytest.raises(UsageError, match=f"{flag[0]}: is for --format triton"):
            export.parse_args(["--config", "a.yml", "--format", "onnx", *flag])
    with pytest.raises(UsageError, match="made of the ONNX file"):
        settings = SETTINGS | {"with_onnx": False}
        export_model(ColorNet(), tmp_path, input_shape=[1, 3, 8, 8], repository=Repository("a"), **settings)
