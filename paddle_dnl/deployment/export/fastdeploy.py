# SPDX-License-Identifier: Apache-2.0
"""File names of FastDeploy and PaddleX, written by `export.py --for_fd` as by PaddleSeg's."""

from paddle_dnl.deployment.runtime.deploy_config import DeployConfig

FILE_NAME = "inference.yml"
EXPORT_FILES = ("inference.json", "inference.pdmodel", "inference.pdiparams", "inference.pdiparams.info", FILE_NAME)


def rename(files: DeployConfig) -> None:
    """Renames graph and weights from `model.*` to `inference.*`, and the description to `inference.yml`.

    Args:
        files: of a folder without description that is not installed yet; changed in place.
    """
    for name in {files.model, files.params, f"{files.params}.info"}:
        if (files.folder / name).is_file():
            (files.folder / name).rename(files.folder / name.replace("model.", "inference.", 1))
    files.model, files.params = (name.replace("model.", "inference.", 1) for name in (files.model, files.params))
    files.name = FILE_NAME
