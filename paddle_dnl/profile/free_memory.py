# SPDX-License-Identifier: Apache-2.0
"""Memory available to this process: of the machine, its container, or the GPU."""

from pathlib import Path

import paddle

# Version 1 writes this for "no limit".
_NO_LIMIT = 1 << 60


def free_bytes(root: Path = Path("/")) -> int | None:
    """The least that the machine and every control group around this process leave, or what the GPU does; None: not known.

    A container's limit is that of a control group: its processes are killed long before the machine is full.
    """
    if paddle.get_device().startswith("gpu"):
        properties = paddle.device.cuda.get_device_properties()
        return properties.total_memory - paddle.device.cuda.memory_reserved()
    available = _fields(root / "proc/meminfo").get("MemAvailable", 0) * 1024
    # What is left to each control group that has a limit, from the innermost outwards.
    mount, found = root / "sys/fs/cgroup", []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            names, base = ("memory.max", "memory.current", "inactive_file"), mount
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            base = mount / "memory"
        else:
            continue
        group = base / path.lstrip("/")
        # Inside a container the path may be the one outside; the group itself is then mounted at the base.
        for folder in [group, *group.parents[: len(group.relative_to(base).parts)]] if group != base else [base]:
            found.append(_left(folder, *names))
    return min([available] * bool(available) + [left for left in found if left is not None], default=None)


def _left(folder: Path, limit_name: str, used_name: str, cache_name: str) -> int | None:
    """What one control group has left; None without a limit."""
    limit, used = _text(folder / limit_name).strip(), _text(folder / used_name).strip()
    if not limit.isdigit() or not used.isdigit() or int(limit) >= _NO_LIMIT:
        return None
    # Pages of files that nobody uses are given back when they are needed.
    return max(0, int(limit) - int(used) + _fields(folder / "memory.stat").get(cache_name, 0))


def _fields(path: Path) -> dict[str, int]:
    """`name: 1 kB` or `name 1` on each line."""
    words = (line.replace(":", " ").split() for line in _text(path).splitlines())
    return {parts[0]: int(parts[1]) for parts in words if len(parts) > 1 and parts[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
