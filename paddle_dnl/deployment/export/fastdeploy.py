# SPDX-License-Identifier: Apache-2.0
"""The names that FastDeploy and PaddleX look for: what `export.py --for_fd` writes, as PaddleSeg's does."""

from paddle_dnl.deployment.runtime.deploy_config import DeployConfig

FILE_NAME = "inference.yml"
EXPORT_FILES = ("inference.json", "inference.pdmodel", "inference.pdiparams", "inference.pdiparams.info", FILE_NAME)


def rename(files: DeployConfig) -> None:
    """Calls graph and weights `inference` in place of `model`, and the description `inference.yml`.

    Args:
        files: of a folder that is not installed yet and has no description; changed in place.
    """
    for name in {files.model, files.params, f"{files.params}.info"}:
        if (files.folder / name).is_file():
            (files.folder / name).rename(files.folder / name.replace("model.", "inference.", 1))
    files.model, files.params = (name.replace("model.", "inference.", 1) for name in (files.model, files.params))
    files.name = FILE_NAME
