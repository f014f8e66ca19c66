# SPDX-License-Identifier: Apache-2.0
"""Exports a model to a static graph and verifies it against the dynamic graph before it writes the folder."""

import errno
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_dnl.data.classes import ClassInfo
from paddle_dnl.data.images.image_format import ImageFormat
from paddle_dnl.deployment.export import fastdeploy, fp16, graphs, triton
from paddle_dnl.deployment.export.check import MAX_DISAGREEMENT, ONNX_TOLERANCE, Comparison
from paddle_dnl.deployment.export.install import EXPORT_FILES, install, prepare_folder, temporary_folder
from paddle_dnl.deployment.export.shapes import FreeSizeError, check_shape, reference_runs
from paddle_dnl.deployment.export.verify import RandomModelError, verify
from paddle_dnl.deployment.runtime.deploy_config import OUTPUT_OPS
from paddle_dnl.deployment.runtime.deploy_yaml import write_deploy_config
from paddle_dnl.deployment.runtime.own_components import modules_of
from paddle_dnl.errors import ExportError, UsageError
from paddle_dnl.evaluation.inference import evaluating
from paddle_dnl.files.problems import is_full
from paddle_dnl.log import logger
from paddle_dnl.profile.memory_plan import announce_export

import paddle

if TYPE_CHECKING:
    from paddle_dnl.deployment.export.image_check import ImageCheck


@dataclass
class ExportReport:
    """Folder of the export and result of its verification."""

    folder: Path
    comparison: Comparison
    mkldnn: Comparison
    onnx: Comparison | None = None


def export_model(
    model: paddle.nn.Layer,
    save_dir: str | Path,
    *,
    input_shape: list[int] | None,
    output_op: str = "argmax",
    transforms: list[dict],
    class_info: ClassInfo | None = None,
    label_rule: tuple[int, list[int] | None] = (255, None),
    image_format: ImageFormat | None = None,
    tolerance: float = 1e-4,
    with_onnx: bool = False,
    with_fp16: bool = False,
    repository: triton.Repository | None = None,
    allow_random: bool = False,
    for_fd: bool = False,
    inputs: Iterable[str | Path | None] = (),
    image_check: "ImageCheck | None" = None,
) -> ExportReport:
    """Writes graph, weights and deploy.yaml into `save_dir` after verifying them in Paddle Inference.

    Args:
        model: maps `[B, C, H, W]` to a list of logits; its training or evaluation mode is restored.
        save_dir: output folder; unchanged on failure, and other files in it are kept.
        input_shape: [N, C, H, W]; -1 for a free dimension, None to leave all but the channels free. A free size is verified at
            two sizes.
        output_op: `argmax`, `softmax` or `none`.
        transforms: preprocessing to store, as in a `val_dataset`.
        class_info: class names and colours to store.
        label_rule: (`ignore_index`, `label_map`) to store, see `DeployConfig`.
        image_format: channels and `value_range` of the pictures; default: 8 bits and the channels of `input_shape`, else 3.
        tolerance: largest allowed difference, relative to the largest logit.
        inputs: input files of the program, which must not be overwritten.
        allow_random: also export a model that is random in evaluation; the graph may differ from it by twice the difference
            between two passes of the model.
        for_fd: file names of FastDeploy, see `paddle_dnl.deployment.export.fastdeploy`.
        with_onnx: write model.onnx, verified in ONNX Runtime (see `paddle_dnl.deployment.export.graphs`).
        with_fp16: write model_fp16.onnx for GPUs, verified in ONNX Runtime (see `paddle_dnl.deployment.export.fp16`).
        repository: write a model repository for NVIDIA Triton (see `paddle_dnl.deployment.export.triton`).
        image_check: compares every backend and precision with the model on pictures; the results are only recorded.

    Raises:
        UsageError: an unusable output operation or folder, or no ONNX converter.
        OutputError: an output file is an input, or exists and is not ours.
        FreeSizeError: no graph computes the model for free sizes.
        ExportError: a transform that other programs cannot import, an input shape that the model refuses, a model that has
            no static graph or is random in evaluation, or a graph that does not agree with the model.
    """
    if output_op not in OUTPUT_OPS:
        raise UsageError(f"--output_op must be one of {', '.join(OUTPUT_OPS)}; got {output_op!r}")
    if with_fp16 and not with_onnx:
        raise UsageError("--fp16 is made of the ONNX file; add --format onnx")
    if repository and not with_onnx:
        raise UsageError("a Triton repository is made of the ONNX file; export with with_onnx too")
    if with_onnx:
        graphs.require_converter()
    image_format = image_format or ImageFormat(input_shape[1] if input_shape else 3)
    shape = check_shape(input_shape, image_format.channels)
    components = modules_of(transforms)
    # Files of a Triton repository from an earlier export are removed.
    names = [*EXPORT_FILES, *triton.existing_files(Path(save_dir)), *(repository.file_names() if repository else ())]
    place = prepare_folder(save_dir, inputs, names)
    if -1 not in shape:
        announce_export(model, shape)
    with temporary_folder(place) as work:
        with evaluating(model):
            references = reference_runs(model, shape, transforms)
            try:
                files, plain = graphs.save_graphs(model, output_op, shape, work)
                found = verify(model, files, plain, references, work, tolerance, allow_random, with_onnx, with_fp16)
                if not found["paddle"].ok and is_full(work):  # on a full disk Paddle truncates its files silently
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(save_dir))
                for what, backend, allowed, share in (
                    ("the static graph", "paddle", tolerance, MAX_DISAGREEMENT),
                    ("the ONNX graph", "onnxruntime", ONNX_TOLERANCE, MAX_DISAGREEMENT),
                    ("the ONNX graph in float16", "onnxruntime_fp16", fp16.TOLERANCE, fp16.DISAGREEMENT),
                ):
                    if backend in found and not found[backend].ok:
                        raise ExportError(
                            f"{what} of {type(model).__name__} does not compute what the model computes: "
                            f"{found[backend].describe()} (allowed are {allowed:g} and {100 * share:g} %); nothing was written"
                        )
            except RandomModelError:
                raise
            except ExportError as error:
                if -1 in shape:  # a fixed size may still work
                    raise FreeSizeError(f"{type(model).__name__} has no graph for every size: {error}") from error
                raise
            files.transforms, files.components, files.classes = transforms, components, class_info
            files.ignore_index, files.label_map, files.value_range = *label_rule, image_format.value_range
            files.verified = {
                name: asdict(comparison) | {"paddle_version": paddle.__version__} for name, comparison in found.items()
            }
            if for_fd:
                fastdeploy.rename(files)
            files.hash_files()
            write_deploy_config(files)
            if image_check:
                classes = references[0].logits.shape[1]
                files.verified |= image_check.run(graphs.ExportWrapper(model, output_op), files, classes, found)
                write_deploy_config(files)
            if repository:
                triton.write(files, repository)
            install(work / "export", place, names)
    logger.info(
        f"The inference model is saved in {save_dir}; verified in Paddle Inference: {found['paddle'].describe()}"
    )
    if with_onnx:
        logger.info(f"model.onnx verified in ONNX Runtime: {found['onnxruntime'].describe()}")
    if repository:
        names = ", ".join(repository.models(files))
        logger.info(f"model repository for Triton: {Path(save_dir) / triton.FOLDER} (models {names})")
    if with_fp16:
        logger.info(f"model_fp16.onnx compared in ONNX Runtime: {found['onnxruntime_fp16'].describe()}")
    if "openvino" in found:
        logger.info(
            f"model.onnx {'verified' if found['openvino'].ok else 'NOT verified'} in OpenVINO: {found['openvino'].describe()}"
        )
    return ExportReport(Path(save_dir), found["paddle"], found["mkldnn"], found.get("onnxruntime"))
