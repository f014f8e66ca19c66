# SPDX-License-Identifier: Apache-2.0
"""Optional libraries and what to install for them."""

from paddle_dnl.errors import UsageError

# By the extra of the package's metadata, or by the library.
LIBRARIES = {
    "onnx": ("paddle2onnx", "onnx", "onnxruntime", "ml-dtypes"),
    "serving": ("fastapi", "uvicorn", "pydantic-settings", "prometheus-client", "python-multipart"),
    "cityscapes": ("cityscapesscripts",),
    "completion": ("argcomplete",),
    "data": ("pycocotools",),
    "bands": ("tifffile", "imagecodecs"),
    "geo": ("rasterio",),
    "scipy": ("scipy",),
    "train": ("visualdl", "matplotlib"),
    "tensorboard": ("tensorboardX", "tensorboard"),
    "wandb": ("wandb",),
    "charts": ("matplotlib",),
    "paddle": ("paddlepaddle",),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "ray": ("ray", "pyarrow", "pandas", "fsspec"),
}

# Module -> row, for imports that whole modules need at their top.
_MODULES = {"paddle": "paddle", "visualdl": "train", "matplotlib": "charts", "scipy": "scipy", "fastapi": "serving"}


def install_hint(extra: str) -> str:
    """The command that installs a row of `LIBRARIES`."""
    return f"pip install {' '.join(LIBRARIES[extra])}"


def not_installed(what: str, error: ImportError, extra: str) -> UsageError:
    """The error that says which library is missing for `what`, and how to get it."""
    return UsageError(f"{what}: {error.name or error} is not installed; {install_hint(extra)}")


def explain(error: ImportError) -> str | None:
    """What to install for a missing library that this package can do without in part; None for another error."""
    name = (error.name or "").split(".")[0]
    if not isinstance(error, ModuleNotFoundError) or name not in _MODULES:
        return None
    return f"{name} is not installed; {install_hint(_MODULES[name])}"
