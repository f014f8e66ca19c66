# SPDX-License-Identifier: Apache-2.0
"""predict_dataset.json in the output folder: model and settings of a run, so that a resumed run uses the same ones."""

import json
from pathlib import Path

from paddle_dnl.deployment.runtime.deploy_config import DeployConfig
from paddle_dnl.errors import UsageError
from paddle_dnl.files.atomic import write_text
from paddle_dnl.files.reading import file_digest, parse_json

NAME = "predict_dataset.json"


def model_digests(files: DeployConfig) -> dict[str, str]:
    """Returns file name -> SHA-256 of the files that determine the results, as recorded by the export if available."""
    return {name: files.sha256.get(name) or file_digest(files.folder / name) for name in files.file_names}


def agree(folder: Path, settings: dict) -> None:
    """Writes the settings into the folder, or compares them with those of the run that is resumed.

    Args:
        folder: output folder.
        settings: name -> JSON value.

    Raises:
        UsageError: the folder has results of other settings, or a file of this name that cannot be read.
    """
    # A JSON round trip converts tuples to lists, for the comparison.
    path, settings = folder / NAME, parse_json(json.dumps(settings))
    try:
        earlier = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(earlier, dict):
            raise ValueError("not a JSON object")
    except FileNotFoundError:
        write_text(path, json.dumps(settings, indent=1) + "\n", own=True)
        return
    except ValueError as error:
        raise UsageError(f"{path}: cannot be read ({error}); give another --save_dir") from error
    for name in sorted({*earlier, *settings}):
        if earlier.get(name) != settings.get(name):
            raise UsageError(f"{path}: the folder has results of another {name}; give another --save_dir")
