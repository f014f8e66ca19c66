# SPDX-License-Identifier: Apache-2.0
"""Our names of a backbone's tensors written as other projects write them, for files of start weights that tests make."""

import re

import numpy as np


def torch_names(state, stem: str) -> dict[str, np.ndarray]:
    """Our names written as the original projects write them: for `v1`, `v1c` and `3x3`."""

    def name(key: str) -> str:
        path, leaf = key.rsplit(".", 1)
        leaf = {"_mean": "running_mean", "_variance": "running_var"}.get(leaf, leaf)
        if match := re.fullmatch(r"conv1_(\d)\.(_conv|_batch_norm)", path):
            number, norm = int(match[1]), match[2] == "_batch_norm"
            if stem == "v1c":
                return f"stem.{3 * (number - 1) + norm}.{leaf}"
            return f"{'bn' if norm else 'conv'}{number}.{leaf}"
        stage, block, part, inner = re.fullmatch(r"bb_(\d)_(\d+)\.(\w+)\.(\w+)", path).groups()
        place, norm = f"layer{int(stage) + 1}.{block}", inner == "_batch_norm"
        if part == "short":
            return f"{place}.downsample.{int(norm)}.{leaf}"
        return f"{place}.{'bn' if norm else 'conv'}{int(part[-1]) + 1}.{leaf}"

    return {name(key): value for key, value in state.items()} | {"fc.weight": np.ones((5, 8), "float32")}


def paddleclas_names(state, blocks: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Our names written as PaddleClas writes them."""

    def name(key: str) -> str:
        key = key.replace("._conv.", ".conv.").replace("._batch_norm.", ".bn.")
        key = re.sub(r"^conv1_(\d)", lambda m: f"stem.{int(m[1]) - 1}", key)
        return re.sub(r"^bb_(\d)_(\d+)", lambda m: f"blocks.{sum(blocks[: int(m[1])]) + int(m[2])}", key)

    return {name(key): value for key, value in state.items()}


def dgmn2_names(state) -> dict[str, np.ndarray]:
    """Our names and layouts of a DGMN2 written as its ImageNet files have them: PyTorch's, linear layers transposed."""
    leaves = {"_mean": "running_mean", "_variance": "running_var"}
    found = {}
    for key, value in state.items():
        path, leaf = key.rsplit(".", 1)
        found[f"{path}.{leaves.get(leaf, leaf)}"] = value.T.copy() if leaf == "weight" and value.ndim == 2 else value
    return found | {"head.weight": np.ones((5, 8), "float32"), "head.bias": np.ones(5, "float32")}
