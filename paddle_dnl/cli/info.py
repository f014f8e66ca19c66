# SPDX-License-Identifier: Apache-2.0
"""Command line of `paddle-dnl info`: versions and devices for bug reports."""

import argparse
import importlib.metadata
import os
import platform

# Required packages first.
_LIBRARIES = (
    "paddlepaddle", "paddlepaddle-gpu", "numpy", "opencv-python", "opencv-python-headless", "pillow", "pyyaml", "safetensors",
    "protobuf", "paddleseg", "visualdl", "onnxruntime", "onnxruntime-gpu", "openvino", "paddle2onnx", "onnx", "scipy",
    "cityscapesscripts", "fastapi", "uvicorn",
)  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of `paddle-dnl info`."""
    parser = argparse.ArgumentParser(description="Shows versions, devices and libraries, for bug reports.")
    parser.add_argument("--no_device", action="store_true", help="do not query Paddle for devices, which takes seconds")
    return parser


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> str:
    try:
        import paddle
    except ImportError as error:
        return f"paddle cannot be imported: {error}"
    if not paddle.is_compiled_with_cuda():
        return "cpu (this Paddle is built for CPU only)"
    count = paddle.device.cuda.device_count()
    gpus = ", ".join(paddle.device.cuda.get_device_name(i) for i in range(count)) or "no GPU is visible"
    return f"{gpus}; CUDA {paddle.version.cuda()}, cuDNN {paddle.version.cudnn()}"


def main(argv=None) -> int:
    """Prints one line per fact; returns the exit status."""
    args = make_parser().parse_args(argv)
    import paddle_dnl
    from paddle_dnl.config.lookup import zoo_folder
    from paddle_dnl.startup import cpu_kernels, threads

    facts = {
        "paddle-dnl": paddle_dnl.__version__,
        "Python": platform.python_version(),
        "platform": platform.platform(),
        "processor": cpu_kernels.processor().get("model name", platform.machine()),
        "cores": os.cpu_count(),
        threads.VARIABLE: os.environ.get(threads.VARIABLE, "not set"),
        "configurations": zoo_folder(),
    }
    facts |= {name: _version(name) for name in _LIBRARIES if _version(name)}
    if not args.no_device:
        facts["devices"] = _devices()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {value}")
    missing = [name for name in ("paddlepaddle", "onnxruntime") if not _version(name) and not _version(f"{name}-gpu")]
    if missing:
        print(f"not installed: {', '.join(missing)}")
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.info")
