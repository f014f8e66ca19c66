# SPDX-License-Identifier: Apache-2.0
"""Writes that fail while an export is made: the folder that was asked for is named, and nothing is left."""

import errno

from paddle_dnl.deployment.export.install import temporary_folder

import pytest


@pytest.mark.parametrize(
    "error", [OSError("problem writing element 1024 to file"), OSError(errno.EFBIG, "File too large")]
)
@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_write_names_the_folder(tmp_path, error, exists):
    place = tmp_path / "export"
    if exists:
        place.mkdir()
    with pytest.raises(OSError) as caught:
        with temporary_folder(place) as work:
            (work / "half").write_text("x")
            raise error
    assert caught.value.filename == str(place) and caught.value.errno == error.errno
    assert not list(tmp_path.rglob(".tmp-*")) and not list(tmp_path.rglob("half"))


def test_an_error_that_names_its_file_stays(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, temporary_folder(tmp_path / "export"):
        open(tmp_path / "missing")
    assert caught.value.filename == str(tmp_path / "missing")
