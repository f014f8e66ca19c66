"""Optional libraries and what to install for them."""

from paddle_dnl.errors import UsageError

# The extras of the package's metadata, as far as messages name them.
LIBRARIES = {
    "onnx": ("paddle2onnx", "onnx", "onnxruntime", "ml-dtypes"),
    "serving": ("fastapi", "uvicorn", "pydantic-settings", "prometheus-client", "python-multipart", "psutil"),
    "cityscapes": ("cityscapesscripts",),
    "completion": ("argcomplete",),
    "scipy": ("scipy",),
}


def install_hint(extra: str) -> str:
    """`pip install A B`, with the names of a row of `LIBRARIES`."""
    return f"pip install {' '.join(LIBRARIES[extra])}"


def not_installed(what: str, error: ImportError, extra: str) -> UsageError:
    """The error that says which library is missing for `what`, and how to get it."""
    return UsageError(f"{what}: {error.name or error} is not installed; {install_hint(extra)}")
