# SPDX-License-Identifier: Apache-2.0
"""Free memory from copies of what Linux writes about machines and containers."""

from pathlib import Path

import paddle_dnl  # noqa: F401
from paddle_dnl.profile.free_memory import free_bytes

import pytest

GB = 10**9


@pytest.fixture
def write(tmp_path):
    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return write


MACHINE = {"proc/meminfo": "MemTotal: 99 kB\nMemFree: 1 kB\nMemAvailable:    8000000 kB\n"}


def _group(folder: str, limit: str, used: int, cache: int = 0) -> dict[str, str]:
    stat = f"anon 5\ninactive_file {cache}\nactive_file 7\n"
    return {f"{folder}/memory.max": limit, f"{folder}/memory.current": f"{used}\n", f"{folder}/memory.stat": stat}


V2 = MACHINE | {"proc/self/cgroup": "0::/slice/job\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (MACHINE, 8192 * 10**6),
        ({}, None),
        (V2 | _group("sys/fs/cgroup/slice/job", f"{3 * GB}\n", GB), 2 * GB),
        (V2 | _group("sys/fs/cgroup/slice/job", f"{3 * GB}\n", 2 * GB, cache=GB), 2 * GB),
        (V2 | _group("sys/fs/cgroup/slice/job", "max\n", GB), 8192 * 10**6),
        # The outer group is the tighter one.
        (V2 | _group("sys/fs/cgroup/slice/job", f"{3 * GB}", GB) | _group("sys/fs/cgroup/slice", f"{2 * GB}", GB), GB),
        # The path of the outside; the container's own group is mounted at the base.
        (V2 | _group("sys/fs/cgroup", f"{GB}", 2 * GB), 0),
        (MACHINE | {"proc/self/cgroup": "0::/\n"} | _group("sys/fs/cgroup", f"{4 * GB}", GB), 3 * GB),
        (
            MACHINE
            | {"proc/self/cgroup": "5:cpu,memory:/box\n4:cpuset:/box\n"}
            | {
                "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{2 * GB}\n",
                "sys/fs/cgroup/memory/box/memory.usage_in_bytes": f"{GB}\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
            },
            GB,
        ),
    ],
    ids=["machine", "nothing", "v2", "cache", "no limit", "outer", "container", "root", "v1"],
)
def test_least_of_all_limits(files, expected, write):
    assert free_bytes(write(files)) == expected


def test_here():
    assert 1e6 < free_bytes() < 1e14
