# SPDX-License-Identifier: Apache-2.0
"""An ONNX form of the tests' models, built by hand: the backends can be tested where no converter is installed."""

from pathlib import Path

from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config, write_deploy_config
from paddle_dnl.files import outputs
from paddle_dnl.files.reading import file_digest

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_export import BIAS, WEIGHT


def _save(nodes: list, weights: dict[str, np.ndarray], shape: list, path: Path, output: int) -> None:
    free = [None if v == -1 else v for v in shape]
    wanted = [free[0], *free[2:]] if output == TensorProto.INT32 else [free[0], None, *free[2:]]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, free)],
        [helper.make_tensor_value_info("y", output, wanted)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _argmax(logits: str) -> list:
    return [
        helper.make_node("ArgMax", [logits], ["best"], "argmax", axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["y"], "cast", to=TensorProto.INT32),
    ]


def color_net(folder: Path, shape=(1, 3, 32, 64), output_op: str = "argmax") -> None:
    """`tiny_export.ColorNet` as model.onnx, recorded in deploy.yaml as `export.py --format onnx` does.

    `output_op` is `argmax`, or `none` for scores.
    """
    _write_color_net(folder, shape, output_op, 1)
    record(folder)


def color_net_file(files, factor: float) -> None:
    """What `graphs.convert` writes for `ColorNet`, with its scores times `factor`."""
    files.onnx = "model.onnx"
    _write_color_net(files.folder, files.input_shape, files.output_op, factor)


def _write_color_net(folder: Path, shape, output_op: str, factor: float) -> None:
    factor = np.float32(factor / np.sqrt(1 + 1e-5))
    weights = {"w": WEIGHT.astype(np.float32)[:, :, None, None] * factor, "b": BIAS.astype(np.float32) * factor}
    wants_classes = output_op == "argmax"
    conv = helper.make_node("Conv", ["x", "w", "b"], ["logits" if wants_classes else "y"], "classifier")
    kind = TensorProto.INT32 if wants_classes else TensorProto.FLOAT
    _save([conv, *(_argmax("logits") if wants_classes else [])], weights, list(shape), folder / "model.onnx", kind)


def tiny_net_file(files, model) -> None:
    """What `graphs.convert` writes for `tiny_training.TinyNet`."""
    files.onnx = "model.onnx"
    weights = {
        f"{name}_{kind}": getattr(getattr(model, name), kind).numpy()
        for name in ("conv", "cls")
        for kind in ("weight", "bias")
    }
    logits = "logits" if files.output_op == "argmax" else "y"
    nodes = [
        helper.make_node("Conv", ["x", "conv_weight", "conv_bias"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "cls_weight", "cls_bias"], [logits], "cls"),
        *(_argmax("logits") if files.output_op == "argmax" else []),
    ]
    kind = TensorProto.INT32 if files.output_op == "argmax" else TensorProto.FLOAT
    _save(nodes, weights, list(files.input_shape), files.folder / "model.onnx", kind)


def attention_net(folder: Path) -> None:
    """A net with all that quantisation must tell apart, for pictures of any size; classes are those of `ColorNet`.

    features -> queries, keys -> softmax(q k^T / 0.05) -> weighted values + features -> classifier -> argmax
    """
    rng = np.random.default_rng(0)
    wide = np.zeros((8, 3, 1, 1), np.float32)
    # Both signs of each colour, so that ReLU loses nothing; the last two channels are noise.
    for channel in range(3):
        wide[2 * channel, channel], wide[2 * channel + 1, channel] = 1, -1
    wide[6:] = rng.normal(0, 0.3, (2, 3, 1, 1))
    back = np.zeros((4, 8, 1, 1), np.float32)
    for channel in range(3):
        back[:, 2 * channel, 0, 0], back[:, 2 * channel + 1, 0, 0] = WEIGHT[:, channel], -WEIGHT[:, channel]
    weights = {
        "w0": wide, "w1": np.eye(8, dtype=np.float32)[:, :, None, None],
        "wq": rng.normal(0, 0.1, (4, 8, 1, 1)).astype(np.float32),
        "wk": rng.normal(0, 0.1, (4, 8, 1, 1)).astype(np.float32),
        "wv": rng.normal(0, 0.02, (8, 8, 1, 1)).astype(np.float32),
        "w2": back, "b2": BIAS.astype(np.float32), "twenty": np.float32(20), "small": np.float32(0.01),
        "flat4": np.array([0, 4, -1]), "flat8": np.array([0, 8, -1]),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w0"], ["c0"], "stem"), node("Relu", ["c0"], ["f0"], "stem_relu"),
        node("Conv", ["f0", "w1"], ["c1"], "body"), node("Relu", ["c1"], ["f"], "body_relu"),
        node("Conv", ["f", "wq"], ["q4"], "query"), node("Reshape", ["q4", "flat4"], ["q"], "query_flat"),
        node("Conv", ["f", "wk"], ["k4"], "key"), node("Reshape", ["k4", "flat4"], ["k"], "key_flat"),
        node("Conv", ["f", "wv"], ["v8"], "value"), node("Reshape", ["v8", "flat8"], ["v"], "value_flat"),
        node("Transpose", ["q"], ["qt"], "query_turned", perm=[0, 2, 1]),
        node("MatMul", ["qt", "k"], ["similar"], "similarity"), node("Mul", ["similar", "twenty"], ["hot"], "heat"),
        node("Softmax", ["hot"], ["weights"], "softmax", axis=-1),
        node("Transpose", ["weights"], ["weights_t"], "map_turned", perm=[0, 2, 1]),
        node("MatMul", ["v", "weights_t"], ["gathered"], "gather"),
        node("Shape", ["f"], ["size"], "size"), node("Reshape", ["gathered", "size"], ["map"], "unflat"),
        node("Mul", ["map", "small"], ["little"], "gate"), node("Add", ["f", "little"], ["sum"], "residual"),
        node("Conv", ["sum", "w2", "b2"], ["logits"], "classifier"), *_argmax("logits"),
    ]  # fmt: skip
    _save(nodes, weights, [-1, 3, -1, -1], folder / "model.onnx", TensorProto.INT32)
    record(folder)


def record(folder: Path) -> None:
    """Enters model.onnx into deploy.yaml as found good, and both as written by us."""
    files = read_deploy_config(folder)
    files.onnx = "model.onnx"
    files.verified |= {"onnxruntime": {"ok": True}, "openvino": {"ok": True}}
    files.hash_files()
    write_deploy_config(files)
    for name in ("model.onnx", "deploy.yaml"):
        outputs.record(folder / name, file_digest(folder / name))


def wide_net(folder: Path, shape=(1, 3, 64, 72)) -> dict[str, np.ndarray]:
    """A net with two 3x3 convolutions of 256 channels, the second dilated and normalised, as model.onnx that gives scores.

    Returns:
        Its weights: `w0`, `w1`, `b1`, `w2`, `scale`, `shift`, `mean`, `variance`, `w3`; epsilon is 1e-5.
    """
    rng = np.random.default_rng(0)
    shapes = {"w0": (256, 3, 1, 1), "w1": (256, 256, 3, 3), "w2": (256, 256, 3, 3), "w3": (4, 256, 1, 1)}
    weights = {name: rng.normal(0, np.prod(dims[1:]) ** -0.5, dims) for name, dims in shapes.items()}
    weights |= {name: rng.normal(0, 0.3, 256) for name in ("b1", "shift", "mean")}
    weights |= {name: rng.uniform(0.5, 2, 256) for name in ("scale", "variance")}
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w0"], ["c0"], "stem"), node("Relu", ["c0"], ["f0"], "stem_relu"),
        node("Conv", ["f0", "w1", "b1"], ["c1"], "body", pads=[1, 1, 1, 1]), node("Relu", ["c1"], ["f1"], "body_relu"),
        node("Conv", ["f1", "w2"], ["c2"], "dilated", pads=[2, 2, 2, 2], dilations=[2, 2]),
        node("BatchNormalization", ["c2", "scale", "shift", "mean", "variance"], ["n2"], "norm", epsilon=1e-5),
        node("Relu", ["n2"], ["f2"], "norm_relu"), node("Conv", ["f2", "w3"], ["y"], "classifier"),
    ]  # fmt: skip
    _save(nodes, weights, list(shape), folder / "model.onnx", TensorProto.FLOAT)
    record(folder)
    return weights
