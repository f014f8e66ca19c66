# SPDX-License-Identifier: Apache-2.0
"""Writes a model repository for NVIDIA Triton into an export: `triton/NAME/config.pbtxt`, `labels.txt` and `1/model.onnx`.

Fields are those of Triton's `ModelConfig` (model_config.proto); names, types and shapes of tensors come from the ONNX file.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from paddle_dnl.deployment.model_names import is_name
from paddle_dnl.deployment.runtime.deploy_config import ONNX_NAME, DeployConfig
from paddle_dnl.errors import ExportError, UsageError
from paddle_dnl.files.atomic import write_text

FOLDER = "triton"
BACKENDS = ("onnxruntime", "openvino")
CONFIG_NAME, LABELS_NAME = "config.pbtxt", "labels.txt"
# Paths in triton/NAME, in the order of writing.
_FILES = (f"1/{ONNX_NAME}", LABELS_NAME, CONFIG_NAME)
# Dynamic batching for exports with a free batch: largest batch, and how long Triton waits to fill it.
_MAX_BATCH, _WAIT_MICROSECONDS = 8, 5000
_TYPES = {
    "float": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "double": "TYPE_FP64",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8",
}


@dataclass(frozen=True)
class Repository:
    """Options of the repository.

    Attributes:
        name: model name; the float16 model gets the suffix `_fp16`.
        backend: Triton backend, `onnxruntime` or `openvino`.

    Raises:
        UsageError: an invalid model name, or another backend.
    """

    name: str
    backend: str = "onnxruntime"

    def __post_init__(self):
        if not is_name(self.name):
            raise UsageError(
                f"--triton_name {self.name!r}: needs a letter or digit, and then up to 99 letters, digits, '_', '.', '-'"
            )
        if self.backend not in BACKENDS:
            raise UsageError(f"--triton_backend {self.backend!r} is not one of {', '.join(BACKENDS)}")

    def models(self, files: DeployConfig) -> dict[str, str]:
        """Name of each model -> its ONNX file in the exported folder."""
        return {self.name: files.onnx} | ({f"{self.name}_fp16": files.onnx_fp16} if files.onnx_fp16 else {})

    def file_names(self) -> list[str]:
        """All files that `write` may make, relative to the exported folder."""
        return [f"{FOLDER}/{name}/{file}" for name in (self.name, f"{self.name}_fp16") for file in _FILES]


def existing_files(folder: Path) -> list[str]:
    """Files of repositories in the folder from earlier exports, under any model name."""
    found = (folder / FOLDER).glob("*/")
    return [f"{FOLDER}/{model.name}/{file}" for model in sorted(found) for file in _FILES if (model / file).is_file()]


def write(files: DeployConfig, repository: Repository) -> None:
    """Writes the repository into the exported folder, with its verified ONNX files.

    Raises:
        ExportError: a tensor type that Triton does not support.
    """
    for name, file in repository.models(files).items():
        folder = files.folder / FOLDER / name
        (folder / "1").mkdir(parents=True)
        shutil.copyfile(files.folder / file, folder / "1" / ONNX_NAME)
        if files.classes:
            # One line per class, also for names with line breaks or lone surrogates.
            names = (" ".join(name.encode("utf-8", "replace").decode().split()) for name in files.classes.names)
            write_text(folder / LABELS_NAME, "".join(f"{name}\n" for name in names), own=True)
        text = config_text(name, repository.backend, folder / "1" / ONNX_NAME, files.classes is not None)
        write_text(folder / CONFIG_NAME, text, own=True)


def config_text(name: str, backend: str, onnx_file: Path, has_labels: bool) -> str:
    """The content of config.pbtxt for an ONNX file with one input and one output.

    If both have a free batch, Triton's ONNX Runtime backend batches requests. Its OpenVINO backend does not accept batches below
    the largest, so that there the batch is an ordinary dimension.

    Raises:
        ExportError: a tensor type that Triton does not support.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    (given,), (taken,) = session.get_inputs(), session.get_outputs()
    dims = {one.name: [v if isinstance(v, int) and v > 0 else -1 for v in one.shape] for one in (given, taken)}
    batched = backend == "onnxruntime" and all(shape[0] == -1 for shape in dims.values())
    lines = [
        f"name: {json.dumps(name)}",
        f"backend: {json.dumps(backend)}",
        f"default_model_filename: {json.dumps(ONNX_NAME)}",
        f"max_batch_size: {_MAX_BATCH if batched else 0}",
    ]
    for kind, tensor in (("input", given), ("output", taken)):
        number = re.fullmatch(r"tensor\((\w+)\)", tensor.type)
        if number is None or number[1] not in _TYPES:
            raise ExportError(f"{onnx_file}: the {kind} {tensor.name} is of {tensor.type}, which Triton does not have")
        shape = dims[tensor.name][1:] if batched else dims[tensor.name]
        lines += [f"{kind} [", "  {", f"    name: {json.dumps(tensor.name)}", f"    data_type: {_TYPES[number[1]]}"]
        lines += [f"    dims: [ {', '.join(map(str, shape))} ]"]
        if kind == "output" and has_labels:
            lines += [f"    label_filename: {json.dumps(LABELS_NAME)}"]
        lines += ["  }", "]"]
    if batched:
        lines += ["dynamic_batching {", f"  max_queue_delay_microseconds: {_WAIT_MICROSECONDS}", "}"]
    if backend == "openvino":
        lines += ["instance_group [", "  {", "    count: 1", "    kind: KIND_CPU", "  }", "]"]
    return "\n".join(lines) + "\n"
