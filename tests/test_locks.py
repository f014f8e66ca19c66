# SPDX-License-Identifier: Apache-2.0
"""The lock files: every pin has hashes, is allowed by pyproject.toml and the constraints, and no requirement is missing."""

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
# Lock file -> (constraints, extras, Pythons).
CURRENT = ("3.10", "3.11", "3.12", "3.13")
LOCKS = {
    "test": ("constraints.txt", ("cpu", "test"), CURRENT[:3]),
    "test-core": ("constraints-core.txt", ("cpu", "test-core"), CURRENT),
    "serving": ("constraints-core.txt", ("cpu", "serving"), CURRENT),
    "serving-cpu": ("constraints-core.txt", ("onnxruntime", "openvino", "serving"), CURRENT),
    "onnxruntime": ("constraints-core.txt", ("onnxruntime",), CURRENT),
    "tools": (None, (), CURRENT),
    "build": (None, (), CURRENT),
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def _environment(python: str) -> dict:
    return {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux",
            "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64",
            "implementation_name": "cpython", "platform_python_implementation": "CPython", "extra": ""}  # fmt: skip


def _pins(name: str) -> list[Requirement]:
    """The lines of a lock; fails on a line of another form or without a hash."""
    text = (ROOT / "locks" / f"{name}.txt").read_text().replace("\\\n", " ")
    pins = []
    for line in filter(None, map(str.strip, text.splitlines())):
        words = line.split(" --hash", 1)
        assert len(words) == 2 and all(HASH.fullmatch(word) for word in line[len(words[0]) :].split()), line
        pin = Requirement(words[0])
        assert re.fullmatch(r"==[\w.!+]+", str(pin.specifier)) and pin.url is None, line
        pins.append(pin)
    return pins


def _installed(name: str, python: str) -> dict[str, str]:
    """Package -> version that a Python gets."""
    environment = _environment(python)
    found = {}
    for pin in _pins(name):
        if pin.marker is None or pin.marker.evaluate(environment):
            key = _key(pin.name)
            assert key not in found, f"{pin.name} twice for Python {python}"
            found[key] = str(pin.specifier).removeprefix("==")
    return found


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _required(extras) -> list[Requirement]:
    """What the project asks for, with the extras that extras name."""
    waiting, seen, found = list(extras), set(), [Requirement(line) for line in PROJECT["dependencies"]]
    while waiting:
        extra = waiting.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for line in PROJECT["optional-dependencies"][extra]:
            requirement = Requirement(line)
            if _key(requirement.name) == PROJECT["name"]:
                waiting += requirement.extras
            else:
                found.append(requirement)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_pins_are_what_the_project_allows(name):
    constraints, extras, pythons = LOCKS[name]
    lines = (ROOT / constraints).read_text().splitlines() if constraints else ()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for python in pythons:
        environment, installed = _environment(python), _installed(name, python)
        needed = _required(extras) if extras else [Requirement("wheel" if name == "build" else "cyclonedx-bom")]
        for requirement in needed:
            if requirement.marker is None or requirement.marker.evaluate(environment):
                assert _key(requirement.name) in installed, f"locks/{name}.txt lacks {requirement}; run make lock"
        for requirement in [*needed, *pinned]:
            version = installed.get(_key(requirement.name))
            if version is None or (requirement.marker and not requirement.marker.evaluate(environment)):
                continue
            assert requirement.specifier.contains(version, prereleases=True), (
                f"locks/{name}.txt: {requirement.name} {version} for Python {python} is not {requirement.specifier}; "
                "run make lock"
            )


def test_every_lock_is_tested_and_names_no_host():
    assert {path.stem for path in (ROOT / "locks").glob("*.txt")} == set(LOCKS)
    for path in (ROOT / "locks").iterdir():
        assert not re.search(r"://|index-url|find-links|trusted-host", path.read_text()), path


def test_the_documented_installation_without_paddle_is_that_of_the_lock():
    page = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    section = page.split("### Size of an installation without Paddle")[1].split("\n## ")[0]
    sizes = {name: float(size) for name, size in re.findall(r"^\| ([a-z-]+) \| ([0-9.]+) \|", section, re.M)}
    assert sizes.keys() == {"paddle-dnl", *_installed("onnxruntime", "3.11")}
    assert f"{round(sum(sizes.values()))} MB" in section
