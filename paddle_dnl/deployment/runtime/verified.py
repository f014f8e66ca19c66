# SPDX-License-Identifier: Apache-2.0
"""Reads the verification record of an exported folder: whether oneDNN may be used with the installed Paddle."""

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paddle_dnl.deployment.runtime.deploy_config import DeployConfig


def paddle_version() -> str | None:
    """Imports Paddle and returns its version; None if it is not installed."""
    if importlib.util.find_spec("paddle") is None:
        return None
    import paddle

    return paddle.__version__


def mkldnn_obstacle(files: "DeployConfig") -> str | None:
    """Returns why oneDNN must not be used with this folder and the installed Paddle; None if the export verified it."""
    found, version = files.verified.get("mkldnn", {}), paddle_version()
    if version is None:
        return "Paddle is not installed"
    if found.get("ok") is True and found.get("paddle_version") == version:
        return None
    if not found:
        return "the export did not check it"
    if found.get("ok") is True:
        return f"the export checked it with Paddle {found.get('paddle_version')}, this is {version}"
    return found.get("error") or f"logits differ by {found.get('max_relative_difference')} of the largest"
