# SPDX-License-Identifier: Apache-2.0
"""What an exported folder's record of comparisons allows."""

from paddle_dnl.deployment.runtime.deploy_config import DeployConfig

import paddle


def mkldnn_obstacle(files: DeployConfig) -> str | None:
    """Why oneDNN is not to be used with this folder and this Paddle; None where the export verified it."""
    found = files.verified.get("mkldnn", {})
    if found.get("ok") is True and found.get("paddle_version") == paddle.__version__:
        return None
    if not found:
        return "the export did not check it"
    if found.get("ok") is True:
        return f"the export checked it with Paddle {found.get('paddle_version')}, this is {paddle.__version__}"
    return found.get("error") or f"logits differ by {found.get('max_relative_difference')} of the largest"
