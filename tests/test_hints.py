# SPDX-License-Identifier: Apache-2.0
"""What messages tell users to install exists under that name, in a version that this project was tested with."""

import re
from pathlib import Path

from paddle_dnl.optional import LIBRARIES, install_hint, not_installed

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

try:
    import tomllib
except ImportError:  # Python 3.10; pytest brings it there
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


# Tried in an environment of its own (0.12.0), since it wants the protobuf of 2022; docs/many_machines.md says so.
UNPINNED = {"etcd3"}


def _requirements(lines) -> list[Requirement]:
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


PINS = _requirements((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
EXTRAS = {name: _requirements(lines) for name, lines in PROJECT["optional-dependencies"].items()}
DECLARED = _requirements(PROJECT["dependencies"]) + [r for extra in EXTRAS.values() for r in extra]


def _hints() -> list[Requirement]:
    """Of `pip install A 'B>=1'` in the sources."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "paddle_dnl").rglob("*.py")]
    written = re.findall(r"pip install ((?:'?[A-Za-z][\w.<>=!-]*'? ?)+)", "\n".join(texts))
    return [Requirement(word.strip("'")) for words in written for word in words.split()]


def _is_pinned_within(hint: Requirement) -> bool:
    name = canonicalize_name(hint.name)
    pins = [pin for pin in PINS if canonicalize_name(pin.name) == name]
    versions = [spec.version for pin in pins for spec in pin.specifier if spec.operator == "=="]
    exact = [
        spec.version
        for r in DECLARED
        if canonicalize_name(r.name) == name
        for spec in r.specifier
        if spec.operator == "=="
    ]
    return any(hint.specifier.contains(version) for version in versions + exact)


def test_hints_in_the_sources_name_pinned_packages():
    hints = _hints()
    assert {"paddleseg"} <= {hint.name for hint in hints}, "the search finds nothing"
    wrong = [str(hint) for hint in hints if hint.name not in UNPINNED and not _is_pinned_within(hint)]
    assert not wrong


@pytest.mark.parametrize("row", LIBRARIES)
def test_libraries_are_those_of_the_extra(row):
    names = {canonicalize_name(name) for name in LIBRARIES[row]}
    assert all(_is_pinned_within(Requirement(name)) for name in names), row
    if row in EXTRAS:
        assert names == {canonicalize_name(requirement.name) for requirement in EXTRAS[row]}


def test_wording():
    assert install_hint("onnxruntime") == "pip install onnxruntime"
    error = not_installed("serve", ImportError(name="uvicorn"), "serving")
    assert str(error).startswith("serve: uvicorn is not installed; pip install fastapi uvicorn ")


def test_no_hint_installs_this_project_from_an_index():
    """It is on none; somebody else's package of that name would be installed."""
    pages = [*(ROOT / "paddle_dnl").rglob("*.py"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]
    ours = re.compile(r"pip install[^\n`]*\bpaddle[-_]dnl\b(?![\w.-]*\.whl)")
    assert not [str(path) for path in pages if ours.search(path.read_text(encoding="utf-8"))]


def test_requirements_file_names_what_is_there():
    """The line of PaddleSeg's users, `pip install -r requirements.txt`, in the root of the repository."""
    lines = [
        line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    ]
    for line in filter(None, lines):
        if line.startswith("-c "):
            assert (ROOT / line[3:]).is_file()
        else:
            extras = re.fullmatch(r"-e \.\[([\w,]+)\]", line)[1].split(",")
            assert set(extras) <= set(EXTRAS)
