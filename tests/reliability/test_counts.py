# SPDX-License-Identifier: Apache-2.0
"""The counts of docs/reliability.md: how many cases are tested, per room and per fault.

python tests/reliability/test_counts.py --write      puts the present ones into the page
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
_BLOCK = re.compile(r"<!-- counts -->\n.*?<!-- end of counts -->", re.DOTALL)
_FAULTS = "tests/reliability/test_program_faults.py"
_TABLE = f"{_FAULTS}::TestProgramsMeetFaults::test_"
# Promises -> the files that test them, folders with all their files.
ROOMS = {
    "all programs, each with each fault": (_FAULTS,),
    "all programs: signals, errors of the system, streams": ("tests/cli/test_run.py",),
    "outputs: atomic, nothing of others overwritten": ("tests/files", "tests/reliability/test_overwriting.py"),
    "configurations, also hostile ones": (
        "tests/config/test_custom_imports.py", "tests/reliability/test_bad_configs.py",
        "tests/reliability/test_hostile_configs.py", "tests/reliability/test_huge_sizes.py",
    ),
    "weights and archives of strangers": (
        "tests/reliability/test_hostile_archives.py", "tests/reliability/test_hostile_files.py",
        "tests/reliability/test_odd_checkpoints.py", "tests/reliability/test_prices.py",
    ),
    "damaged files: cuts and flipped bits": ("tests/reliability/test_damage.py", "tests/reliability/test_fuzz.py"),
    "datasets, pictures and annotations": (
        "tests/data/images/test_untrusted.py", "tests/data/prepare/test_hostile_annotations.py",
        "tests/reliability/test_bad_data.py", "tests/reliability/test_bad_labels.py",
        "tests/reliability/test_check_faults.py", "tests/reliability/test_damaged_pictures.py",
    ),
    "exported graphs of strangers": (
        "tests/deployment/runtime/test_bad_pictures.py", "tests/deployment/runtime/test_deploy_config.py",
        "tests/deployment/runtime/test_operators.py",
    ),
    "the HTTP service": ("tests/serving",),
    "resume, bit for bit": ("tests/reliability/test_resume.py", "tests/reliability/test_resume_faults.py"),
    "crashes and killed processes": ("tests/reliability/test_crash.py", "tests/reliability/test_killed_workers.py"),
    "non-finite numbers": ("tests/reliability/test_nonfinite.py",),
    "several processes and machines": (
        "tests/reliability/test_distributed.py", "tests/reliability/test_two_hosts.py",
        "tests/reliability/test_two_hosts_resume.py",
    ),
    "determinism and long runs": ("tests/reliability/test_determinism.py", "tests/reliability/test_soak.py"),
}  # fmt: skip


def collected() -> list[str]:
    """The names of all tests of these files, as pytest finds them."""
    files = [str(ROOT / name) for names in ROOMS.values() for name in names]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--collect-only",
        "-m",
        "slow or not slow",
    ]
    found = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-2000:]
    return [line for line in found.stdout.splitlines() if "::" in line]


def per_room(tests: list[str]) -> dict[str, int]:
    """Room -> number of cases."""
    return {
        room: sum(
            test.startswith(tuple(f"{name}{'' if name.endswith('.py') else '/'}" for name in names)) for test in tests
        )
        for room, names in ROOMS.items()
    }


def per_fault(tests: list[str]) -> Counter:
    """Fault, in words -> number of programs that meet it."""
    names = (test.removeprefix(_TABLE).partition("[")[0] for test in tests if test.startswith(_TABLE))
    return Counter(name.replace("_", " ") for name in names)


def written() -> dict[str, int]:
    """The numbers in the page."""
    rows = re.findall(r"^\| (.+?) \| (\d+) \|", _BLOCK.search(PAGE.read_text(encoding="utf-8"))[0], re.MULTILINE)
    return {name: int(number) for name, number in rows}


def page(tests: list[str]) -> str:
    """The page's block with the present numbers."""
    lines = ["<!-- counts -->", "| room | cases |", "|---|---|"]
    lines += [f"| {name} | {number} |" for name, number in per_room(tests).items()]
    lines += ["", "| fault | programs that meet it |", "|---|---|"]
    lines += [f"| {name} | {number} |" for name, number in per_fault(tests).items()]
    return "\n".join([*lines, "<!-- end of counts -->"])


def test_the_counts_of_the_page():
    """They change with every test and program, so they may be a tenth too high or a quarter too low."""
    tests = collected()
    now, found = {**per_room(tests), **per_fault(tests)}, written()
    advice = f"run python {Path(__file__).relative_to(ROOT)} --write"
    assert set(found) == set(now), advice
    assert not {
        name: (found[name], n) for name, n in now.items() if not 0.9 * found[name] <= n <= 1.25 * found[name]
    }, advice


if __name__ == "__main__" and "--write" in sys.argv:
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_BLOCK.sub(lambda _: page(collected()), text), encoding="utf-8")
