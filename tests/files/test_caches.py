# SPDX-License-Identifier: Apache-2.0
"""Caches go elsewhere, with one warning, where the home cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

from paddle_dnl.errors import DownloadError
from paddle_dnl.files import caches
from paddle_dnl.weights.downloads import cached_path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_a_writable_folder_is_made_and_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert caches.writable_cache(Path("~/new/cache")) == tmp_path / "new" / "cache"
    assert (tmp_path / "new" / "cache").is_dir()


@pytest.mark.parametrize("home", ["file", "missing home", "/proc/nowhere"])
def test_one_warning_and_a_private_temporary_folder(tmp_path, home):
    (tmp_path / "file").write_text("")
    (tmp_path / "tmp").mkdir()
    home = str(tmp_path / "file") if home == "file" else home
    code = (
        "from pathlib import Path; from paddle_dnl.files.caches import writable_cache as w; "
        "a, b = w(Path('~/.cache/x')), w(Path('~/.cache/x')); assert a == b; (a / 'f').write_text('1'); print(a)"
    )
    environment = {**os.environ, "HOME": home, "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT)}
    if home == "missing home":  # `~` of a user that the system does not know
        environment["HOME"] = str(tmp_path / "file")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cannot be written") == 1
    (top,) = (tmp_path / "tmp").iterdir()
    assert top.stat().st_mode & 0o077 == 0 and done.stdout.splitlines()[-1] == str(top / "x")


def test_a_folder_that_others_made_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(caches.tempfile, "gettempdir", lambda: str(tmp_path))
    trap = tmp_path / f"paddle_dnl_cache_{os.getuid()}"
    trap.mkdir()
    trap.chmod(0o777)
    assert trap not in caches._temporary(Path("x/y"), "test").parents


@pytest.mark.parametrize(
    "url",
    [
        "http://h/../model.pdparams", "http://h/a/../model.pdparams", "https://h/./model.pdparams", "http://h/..",
        "http://h/.../x\x00.pdparams", "http://h/a\nb.pdparams", f"http://h/{'n' * 300}.pdparams", "http://h/a b/model.pdparams",
    ],
)  # fmt: skip
def test_no_address_leads_out_of_the_cache(tmp_path, url):
    try:
        path = cached_path(url, tmp_path / "cache")
    except DownloadError as error:
        assert "\n" not in str(error)
    else:
        assert (tmp_path / "cache") == path.parent.parent and ".." not in path.parts
