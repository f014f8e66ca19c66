# SPDX-License-Identifier: Apache-2.0
"""Nodes of an ONNX model that are sensitive to rounding and stay in float32 in lower precisions."""

from collections.abc import Iterable

# Operators whose second input, if constant, is a matrix of weights.
LEARNED_OPS = ("Conv", "MatMul", "Gemm")


def has_weights(node, constants: set[str]) -> bool:
    """Whether a node is a layer with weights: a convolution, or a product with a constant matrix."""
    return node.op_type in LEARNED_OPS and len(node.input) > 1 and node.input[1] in constants


def constants_of(model) -> set[str]:
    """Names of the model's constant tensors."""
    return {tensor.name for tensor in model.graph.initializer}


def back_to_weights(model, starts: Iterable[str]) -> set[str]:
    """Names of the nodes that compute the tensors `starts`, back to the nearest layers with weights (included)."""
    constants = constants_of(model)
    producers = {name: node for node in model.graph.node for name in node.output}
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        node = producers.get(waiting.pop())
        if node is None or node.name in found:
            continue
        found.add(node.name)
        if not has_weights(node, constants):
            waiting += node.input
    return found


def sensitive_nodes(model) -> set[str]:
    """Names of the nodes of attention logits and of sampling positions.

    * each softmax and all nodes from queries and keys up to it: DNL divides its logits by a temperature of 0.05, which
      amplifies errors twenty times;
    * sampling positions of DGMN2: in float16 a position on a map of 97 pixels is off by up to 0.05 pixels.
    """
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Softmax":
            found |= back_to_weights(model, node.input) | {node.name}
        if node.op_type == "GridSample":
            found |= back_to_weights(model, [node.input[1]]) | {node.name}
    return found


def normalise(model) -> None:
    """Names all nodes, and turns `Constant` nodes, as which paddle2onnx writes weights, into initializers."""
    kept = []
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{i}"
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = model.graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
