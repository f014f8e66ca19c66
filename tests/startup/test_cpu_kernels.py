# SPDX-License-Identifier: Apache-2.0
"""AMD processors get MKL's AVX2 kernels; others, and users who chose for themselves, are left alone."""

import os
import subprocess
import sys
from pathlib import Path

from paddle_dnl.startup.cpu_kernels import VARIABLE, needs_help, processor

import pytest

CPUINFO = """processor\t: 0
vendor_id\t: {vendor}
model name\t: some processor
flags\t\t: fpu sse2 {flags}
bugs\t\t:

processor\t: 1
vendor_id\t: {vendor}
flags\t\t: fpu sse2 {flags}
"""


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("AuthenticAMD", "fma avx avx2", True),
        ("HygonGenuine", "avx2 fma", True),
        ("AuthenticAMD", "avx", False),
        ("AuthenticAMD", "avx2x fma", False),
        ("GenuineIntel", "fma avx avx2 avx512f", False),
    ],
)
def test_processors(vendor, flags, expected, tmp_path):
    assert needs_help(_processor(CPUINFO.format(vendor=vendor, flags=flags), tmp_path)) is expected


def _processor(text: str, folder: Path) -> dict[str, str]:
    (folder / "cpuinfo").write_text(text)
    return processor(str(folder / "cpuinfo"))


@pytest.mark.parametrize("text", ["", "no fields", "vendor_id\t: AuthenticAMD", "Features\t: asimd"])
def test_what_says_nothing_changes_nothing(text, tmp_path):
    assert not needs_help(_processor(text, tmp_path))


def test_first_processor_alone(tmp_path):
    text = CPUINFO.format(vendor="GenuineIntel", flags="") + "model name\t: another\n"
    assert _processor(text, tmp_path)["model name"] == "some processor"
    assert processor(str(tmp_path / "nowhere")) == {}


def _after_configuring(**environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != VARIABLE}
    program = (
        f"import os; from paddle_dnl import startup; startup.configure_process(); print(os.environ.get({VARIABLE!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**clean, **environment}
    )
    return done.stdout.strip()


def test_configuring_sets_the_variable_where_it_helps():
    assert _after_configuring() == ("5" if needs_help(processor()) else "None")


@pytest.mark.parametrize("value", ["4", ""])
def test_a_users_value_wins(value):
    assert _after_configuring(**{VARIABLE: value}) == value
