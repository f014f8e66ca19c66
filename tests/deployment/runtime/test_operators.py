# SPDX-License-Identifier: Apache-2.0
"""Exported graphs of strangers: operators that do more than compute are refused before a backend loads the graph."""

import json
import shutil

from paddle_dnl.deployment.runtime.operators import VARIABLE, require_known_operators
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import ExportError

import numpy as np
import paddle
import pytest

GRAPH = "model.json" if paddle.__version__.startswith("3") else "model.pdmodel"


def _field(number: int, content: bytes) -> bytes:
    size, length = len(content), b""
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def _program(*names: str) -> bytes:
    """A ProgramDesc; the last operator is in a block of its own, as the body of a loop is."""
    blocks = [names[:-1], names[-1:]]
    operators = [b"".join(_field(4, _field(3, name.encode())) for name in block) for block in blocks]
    return b"".join(_field(1, b"\x08\x00\x10\x00" + content) for content in operators)


BAD = [
    "save",
    "save_combine",
    "load",
    "load_combine",
    "print",
    "py_func",
    "read_file",
    "my_own_op",
    "send_v2",
    "run_program",
]


@pytest.mark.parametrize("name", BAD)
def test_a_pdmodel_with_side_effects(tmp_path, name, monkeypatch):
    path = tmp_path / "model.pdmodel"
    for names in (("feed", "conv2d", "batch_norm", name, "relu"), ("feed", "while", name)):
        path.write_bytes(_program(*names))
        with pytest.raises(ExportError, match=f"contains {name}, not among the operators"):
            require_known_operators(path)
    monkeypatch.setenv(VARIABLE, f"other,{name}")
    require_known_operators(path)
    path.write_bytes(_program("feed", "conv2d", "fetch"))
    require_known_operators(path)


@pytest.mark.parametrize(
    "name", [*(f"1.{name}" for name in BAD), "1.save_", "pd_op.print", "3.custom", "2.assert", "0.module"]
)
def test_a_graph_of_paddle_3_with_side_effects(exported, tmp_path, name):
    operators = [{"#": f"1.{known}", "I": [], "O": [], "A": []} for known in ("data", "conv2d", "relu", "fetch")]
    graph = {"program": {"regions": [{"#": "r", "blocks": [{"#": "b", "args": [], "ops": operators}]}]}}
    (tmp_path / "model.json").write_text(json.dumps(graph))
    require_known_operators(tmp_path / "model.json")
    require_known_operators(exported / GRAPH)
    for place in ("plain", "nested"):
        bad = {"#": name, "I": [], "O": [], "A": []}
        if place == "nested":
            bad = {
                "#": "1.if",
                "I": [],
                "O": [],
                "regions": [{"#": "r", "blocks": [{"#": "b", "args": [], "ops": [bad]}]}],
            }
        operators.insert(3, bad)
        (tmp_path / "model.json").write_text(json.dumps(graph))
        with pytest.raises(ExportError, match="not among the operators that only compute"):
            require_known_operators(tmp_path / "model.json")
        operators.pop(3)


def test_the_backend_does_not_load_it(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "export")
    path = tmp_path / "export" / GRAPH
    if path.suffix == ".json":
        graph = json.loads(path.read_text())
        graph["program"]["regions"][0]["blocks"][0]["ops"].append({"#": "1.save_combine", "I": [], "O": [], "A": []})
        path.write_text(json.dumps(graph))
    else:  # parts of a protocol buffer that follow each other are merged
        path.write_bytes(path.read_bytes() + _program("relu", "save_combine"))
    deploy = (exported / "deploy.yaml").read_text().splitlines(keepends=True)[1:]  # a stranger makes no seal
    text = "".join(deploy)
    (tmp_path / "export" / "deploy.yaml").write_text(text[: text.index("  sha256")])
    with pytest.raises(ExportError, match=f"{GRAPH}: contains save_combine"):
        Predictor(tmp_path / "export")


@pytest.mark.parametrize(
    "kind", ["domain", "nested", "external", "sparse", "sparse attribute", "reads a file", "function", "cut", "junk"]
)
def test_onnx(tmp_path, kind):
    from onnx import TensorProto, helper, numpy_helper

    value = helper.make_tensor_value_info
    x, y = value("x", TensorProto.FLOAT, [1]), value("y", TensorProto.FLOAT, [1])
    weights = numpy_helper.from_array(np.ones(1, np.float32), "w")
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    opsets, functions = [helper.make_opsetid("", 13), helper.make_opsetid("evil", 1)], []
    bad = helper.make_node("Evil", ["x"], ["y"], domain="evil")
    if kind == "domain":
        nodes.append(bad)
    elif kind == "nested":
        body = helper.make_graph([bad], "body", [], [y])
        nodes.append(helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body))
    elif kind == "external":
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="../../secret")
    elif kind == "reads a file":
        nodes.append(helper.make_node("EPContext", ["x"], ["z"], domain="com.microsoft", ep_cache_context="../secret"))
    elif kind == "sparse attribute":
        values = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
        values.external_data.add(key="location", value="../../secret")
        index = helper.make_tensor("i", TensorProto.INT64, [1], [0])
        nodes.append(
            helper.make_node("Constant", [], ["z"], sparse_value=helper.make_sparse_tensor(values, index, [4]))
        )
    elif kind == "function":
        functions = [helper.make_function("ai.onnx", "Own", ["x"], ["y"], [bad], opsets)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], [weights]), opset_imports=opsets, functions=functions
    )
    if kind == "sparse":
        values = model.graph.sparse_initializer.add().values
        values.external_data.add(key="location", value="../../secret")
    content = model.SerializeToString()
    content = {"cut": content[:-3], "junk": b"\xff" * 90}.get(kind, content)
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ExportError, match="evil::Evil|another file|EPContext|cannot be read as a graph"):
        require_known_operators(tmp_path / "model.onnx")


def test_a_key_twice_hides_no_operator(tmp_path):
    """Readers of JSON differ in which one counts."""
    (tmp_path / "model.json").write_text('{"ops": [{"#": "1.save_combine"}], "ops": [{"#": "1.relu"}]}')
    with pytest.raises(ExportError, match="duplicate keys"):
        require_known_operators(tmp_path / "model.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\x0a", b'{"ops": [1]}', b"[" * 5000])
@pytest.mark.parametrize("name", ["model.json", "model.pdmodel"])
def test_what_is_no_graph_is_one_line_or_holds_nothing(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    try:
        require_known_operators(tmp_path / name)
    except ExportError as error:
        assert "\n" not in str(error)
