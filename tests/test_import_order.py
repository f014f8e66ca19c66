"""Importing this package beside others, in any order, never crashes the interpreter: processes of their own tell."""

import itertools
import subprocess
import sys

import paddle
import pytest

USE = "import zlib, gzip; zlib.decompress(zlib.compress(b'x' * 9999)); gzip.decompress(gzip.compress(b'y' * 9999))"
ORDERS = list(itertools.permutations(["paddle_dnl", "paddle", "cv2", "scipy.ndimage", "sklearn.cluster"]))


def _run(statements: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", statements], capture_output=True, text=True, timeout=300)


# Every place that paddle and paddle_dnl can take between the others, not all 120 orders.
@pytest.mark.parametrize("order", ORDERS[::17], ids="-".join)
def test_any_order_works_or_says_why(order):
    done = _run("; ".join(f"import {name}" for name in order) + "; " + USE)
    if done.returncode:
        assert done.returncode == 1, f"crashed with {done.returncode}: {done.stderr[-500:]}"
        assert "put `import paddle_dnl` (or `import zlib`) before `import paddle`" in done.stderr


def test_first_import_of_paddle_is_refused_only_where_it_is_harmful():
    done = _run("import sys; sys.modules.pop('zlib', None); import paddle; import paddle_dnl")
    if paddle.__version__.startswith("2."):
        assert done.returncode == 1 and "before `import paddle`" in done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_package_first_then_everything():
    done = _run(f"import paddle_dnl, paddle, paddleseg, sklearn.linear_model, scipy.signal; {USE}; print('fine')")
    assert done.stdout.strip().endswith("fine"), done.stderr


def test_public_names_are_there_and_importing_costs_no_paddle():
    done = _run("import sys, paddle_dnl; assert 'paddle' not in sys.modules; print(paddle_dnl.build_model.__name__)")
    assert done.stdout.strip().endswith("build_model"), done.stderr


def test_a_missing_system_library_is_explained():
    from paddle_dnl.import_guard import explain

    assert "libgl1 libglib2.0-0 libgomp1" in explain(ImportError("libGL.so.1: cannot open shared object file"))
    assert explain(ImportError("No module named 'nothing'")) is None
