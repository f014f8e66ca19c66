# SPDX-License-Identifier: Apache-2.0
"""Annotations of strangers through `data import`: sizes, nesting, entities, names and values that once ended it with a traceback.

Each case is one file of a format with one hostile value. `data import` ends with an error that names it, in bounded time and
memory, and writes nothing outside of its folder.
"""

import base64
import io
import json
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

from paddle_dnl.cli.data import import_data
from paddle_dnl.data.prepare.formats import masks
from paddle_dnl.errors import DataError

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
POLYGON = [[1, 1, 4, 1, 4, 3]]
_ENTITIES = "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 10))
LAUGHS = f"<!DOCTYPE a [<!ENTITY a0 'lol'>{_ENTITIES}]>"


def test_masks_are_of_formats_that_keep_their_colours(tmp_path, read):
    """PostScript would start a program, WebP changes colours."""
    image = io.BytesIO()
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(image, "WEBP")
    for content in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n", image.getvalue()):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(DataError, match="a.png: is not a readable label picture"):
            read(tmp_path / "a.png")


def test_the_program_says_it_in_one_line(tmp_path):
    source = _write(tmp_path / "source", "cvat", CASES["cvat, billion laughs"][1])
    command = [sys.executable, "-m", "paddle_dnl", "data", "import", str(source), "--to", str(tmp_path / "to")]
    done = subprocess.run([*command, "--format", "cvat"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "DOCTYPE" in done.stderr
