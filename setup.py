"""Installation: `pip install .[cpu]` with a tested CPU build of Paddle; without it bring your own paddlepaddle-gpu."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "paddle_dnl" / "__init__.py").read_text()).group(1)

# The tests start the service too.
SERVING = ["fastapi", "uvicorn", "pydantic-settings", "prometheus-client", "python-multipart", "psutil"]
EXTRAS = {
    "cpu": ["paddlepaddle==3.3.1"],
    "cityscapes": ["cityscapesscripts==2.3.0"],
    "onnx": ["paddle2onnx==2.1.0", "onnx>=1.16", "onnxruntime>=1.20", "ml-dtypes<0.6"],
    "convert": ["torch>=2.0"],
    "serving": SERVING,
    # The original implementations, to compare with; see tests/reference.
    "parity": ["torch==2.13.0", "mmsegmentation==1.2.2", "mmcv-lite==2.1.0", "mmengine==0.10.7", "ftfy", "regex"],
    "docs": ["mkdocs-material", "mkdocstrings[python]"],
    "test": [
        "pytest", "pytest-timeout", "pytest-xdist", "ruff", "scikit-learn", "scipy", "hypothesis", "pre-commit",
        "cityscapesscripts==2.3.0", *SERVING, "httpx", "schemathesis", "onnx>=1.16", "onnxruntime>=1.20", "ml-dtypes<0.6",
    ],
}  # fmt: skip

setup(
    name="paddle-dnl",
    version=VERSION,
    description="Attention-based semantic segmentation on PaddlePaddle: DNLNet, DMNet, DGMN2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["paddle_dnl", "paddle_dnl.*"]),
    include_package_data=True,
    python_requires=">=3.10,<3.13",
    install_requires=[
        "paddleseg==2.8.0",
        "numpy>=1.26,<2",
        "protobuf>=3.20.2,<7",
        "setuptools",
        "pyyaml>=6.0",
        "pillow",
        "tqdm",
        "safetensors>=0.4",
        "visualdl>=2.5",
    ],
    extras_require=EXTRAS,
)
