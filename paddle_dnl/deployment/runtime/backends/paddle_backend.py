# SPDX-License-Identifier: Apache-2.0
"""Backend with Paddle Inference: CPU, GPU with or without TensorRT, or an accelerator that Paddle is built for."""

import os
from typing import TYPE_CHECKING

from paddle_dnl.deployment.runtime.devices import enable_accelerator, gpu_of_process, require_device
from paddle_dnl.deployment.runtime.operators import require_known_operators
from paddle_dnl.deployment.runtime.options import BackendOptions, default_threads, first_line
from paddle_dnl.errors import ExportError, UsageError
from paddle_dnl.optional import install_hint

import numpy as np

if TYPE_CHECKING:
    from paddle_dnl.deployment.runtime.deploy_config import DeployConfig


def _paddle_config(files: "DeployConfig", options: BackendOptions):
    from paddle import inference

    config = inference.Config(str(files.model_path), str(files.params_path))
    config.disable_glog_info()
    require_device(options.device)
    if options.device == "gpu":
        config.enable_use_gpu(100, gpu_of_process())
        if options.collect_shapes_file:
            config.collect_shape_range_info(options.collect_shapes_file)
        elif options.use_trt:
            precisions = inference.PrecisionType
            modes = {"fp32": precisions.Float32, "fp16": precisions.Half, "int8": precisions.Int8}
            config.enable_tensorrt_engine(
                workspace_size=1 << 30,
                max_batch_size=1,
                min_subgraph_size=options.min_subgraph_size,
                precision_mode=modes[options.precision],
                use_static=False,
                use_calib_mode=False,
            )
            shapes = options.auto_tuned_shape_file
            if shapes and not os.path.exists(shapes):
                raise UsageError(f"--auto_tuned_shape_file {shapes}: no such file; make it first")
            if shapes:
                config.enable_tuned_tensorrt_dynamic_shape(shapes, True)
        return config
    if options.device != "cpu":
        enable_accelerator(config, options.device)
        return config
    config.disable_gpu()
    config.set_cpu_math_library_num_threads(options.cpu_threads or default_threads())
    if options.enable_mkldnn:
        config.enable_mkldnn()
        if files.model.endswith(".json"):
            # With this pass every bilinear resize fails (Paddle 3.3).
            config.delete_pass("onednn_placement_pass")
    else:
        # Enabled by default since Paddle 3.
        config.disable_mkldnn()
        if files.model.endswith(".pdmodel"):
            # Fusing convolution and normalization loses three digits of precision in this format and is not faster.
            config.switch_ir_optim(False)
    if files.model.endswith(".pdmodel"):
        # This pass does not exist for .json graphs.
        config.enable_memory_optim()
    return config


class PaddleBackend:
    """Paddle Inference.

    Args:
        files: the exported folder.
        options: see `BackendOptions`.

    Attributes:
        input_name, output_name: names of the graph's input and output.

    Raises:
        ExportError: the graph cannot be loaded.
        UsageError: Paddle is not installed or does not support the device.
    """

    name = "paddle"

    def __init__(self, files: "DeployConfig", options: BackendOptions):
        try:
            import paddle
            import paddle.inference
        except ModuleNotFoundError as error:
            raise UsageError(
                f"backend paddle: {error.name} is not installed; {install_hint('paddle')}, or choose the backend onnxruntime"
            ) from error

        if files.model.endswith(".json") and int(paddle.__version__.split(".")[0]) == 2:
            raise ExportError(
                f"{files.model_path}: was exported by Paddle 3; Paddle {paddle.__version__} cannot read it"
            )
        require_known_operators(files.model_path)
        try:
            config = _paddle_config(files, options)
            try:
                self._predictor = paddle.inference.create_predictor(config)
            except ValueError:
                # Constant folding (Paddle 3.3) fails on a batch normalization of a parameter, as in PaddleSeg's GINet.
                if not files.model.endswith(".json"):
                    raise
                config = _paddle_config(files, options)
                config.delete_pass("constant_folding_pass")
                self._predictor = paddle.inference.create_predictor(config)
            self.input_name = self._predictor.get_input_names()[0]
            self.output_name = self._predictor.get_output_names()[0]
            self._input = self._predictor.get_input_handle(self.input_name)
        except UsageError:
            raise
        except Exception as error:
            raise ExportError(
                f"{files.model_path} with {files.params}: cannot be loaded: {first_line(error)}"
            ) from error

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Returns the graph's output for a batch `[N, C, H, W]` float32.

        Raises:
            ExportError: the graph failed; the message has the reason.
        """
        try:
            self._input.reshape(batch.shape)
            self._input.copy_from_cpu(np.ascontiguousarray(batch, np.float32))
            self._predictor.run()
            return self._predictor.get_output_handle(self.output_name).copy_to_cpu()
        except Exception as error:
            raise ExportError(f"Paddle Inference failed: {first_line(error)}") from error
