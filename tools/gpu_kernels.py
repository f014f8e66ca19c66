# SPDX-License-Identifier: Apache-2.0
"""Compares the operators of a training step and an evaluation of each family with the GPU kernels of a Paddle release.

`--store` writes the kernels of the installed GPU build (which can be imported without a GPU) to
tests/data/gpu_kernels.json; without it, in an environment with a CPU build, docs/gpu_kernels.md is written.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from paddle_dnl.cli._run import run  # noqa: E402
from paddle_dnl.files.atomic import write_text  # noqa: E402

STORED = ROOT / "tests/data/gpu_kernels.json"
PAGE = ROOT / "docs/gpu_kernels.md"


def main(argv=None) -> int:
    """Writes one of the two files; returns the exit status: 1 where a kernel is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", action="store_true", help="write the kernels of the installed GPU build")
    if parser.parse_args(argv).store:
        from paddle_dnl.gpu.kernels import gpu_kernels

        import paddle

        lines = [f"{json.dumps(name)}: {json.dumps(dtypes)}" for name, dtypes in sorted(gpu_kernels().items())]
        text = f'{{"paddlepaddle-gpu": "{paddle.__version__}", "kernels": {{\n' + ",\n".join(lines) + "\n}}\n"
        write_text(STORED, text, own=True)
        return 0
    from paddle_dnl.gpu.coverage import coverage_page

    text, faulty = coverage_page(json.loads(STORED.read_text(encoding="utf-8")))
    write_text(PAGE, text, own=True)
    for kernel in faulty:
        print(f"{kernel.name}: {kernel.fault}")
    return 1 if faulty else 0


if __name__ == "__main__":
    run("gpu_kernels")
