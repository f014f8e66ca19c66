# SPDX-License-Identifier: Apache-2.0
"""Importing this package beside others, in any order, never crashes the interpreter: processes of their own tell."""

import functools
import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import paddle
import pytest

ROOT = Path(__file__).resolve().parents[2]
USE = "import zlib, gzip; zlib.decompress(zlib.compress(b'x' * 9999)); gzip.decompress(gzip.compress(b'y' * 9999))"
ORDERS = list(itertools.permutations(["paddle_dnl", "paddle", "cv2", "scipy.ndimage", "sklearn.cluster"]))


def _run(statements: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", statements], capture_output=True, text=True, timeout=300)


@functools.cache
def _zlib_at_start() -> bool:
    """Whether this Python loads zlib by itself, as in an environment of `make venv PADDLE=2.6.2`."""
    return _run("import sys; print('zlib' in sys.modules)").stdout.strip() == "True"


def _check(order: tuple[str, ...]) -> None:
    """No crash; the one refusal says what to do. What fails before this package is imported is beyond its reach."""
    program = "; ".join(
        ("print('ours', flush=True); " if name == "paddle_dnl" else "") + f"import {name}" for name in order
    )
    done = _run(f"{program}; {USE}; print('end')")
    if done.returncode == 0:
        assert done.stdout.split()[-1] == "end"
        return
    assert paddle.__version__.startswith("2.") and not _zlib_at_start(), done.stderr
    assert order.index("paddle") < order.index("paddle_dnl"), done.stderr
    if "ours" in done.stdout:
        assert done.returncode == 1, f"crashed with {done.returncode}: {done.stderr[-500:]}"
        last = done.stderr.strip().splitlines()[-1]
        assert (
            last.startswith("ImportError: ")
            and "put `import paddle_dnl` (or `import zlib`) before `import paddle`" in last
        )


@pytest.mark.parametrize("order", ORDERS[::17], ids="-".join)
def test_any_order_works_or_says_why(order):
    _check(order)


@pytest.mark.slow
@pytest.mark.parametrize("first", sorted({order[0] for order in ORDERS}))
def test_all_orders_work_or_say_why(first):
    for order in ORDERS:
        if order[0] == first:
            _check(order)


def test_first_import_of_paddle_is_refused_only_where_it_is_harmful():
    done = _run("import sys; sys.modules.pop('zlib', None); import paddle; import paddle_dnl")
    if paddle.__version__.startswith("2.") and not _zlib_at_start():
        assert done.returncode == 1 and "before `import paddle`" in done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_zlib_at_the_start_of_an_environment_with_paddle_2(tmp_path, monkeypatch):
    """`make venv` writes it for Paddle 2 and nowhere else; a Python that reads it has zlib at once."""
    spec = importlib.util.spec_from_file_location("check_system", ROOT / "tools" / "check_system.py")
    check_system = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check_system)
    monkeypatch.setattr(check_system.sysconfig, "get_paths", lambda: {"purelib": str(tmp_path)})
    monkeypatch.setattr(check_system, "_paddle_version", lambda: "3.3.1")
    assert not check_system.load_zlib_at_start() and not list(tmp_path.iterdir())
    monkeypatch.setattr(check_system, "_paddle_version", lambda: "2.6.2")
    assert check_system.load_zlib_at_start() == (sys.prefix != sys.base_prefix)
    if list(tmp_path.iterdir()):
        done = _run(
            f"import sys, site; sys.modules.pop('zlib', None); site.addsitedir({str(tmp_path)!r}); print('zlib' in sys.modules)"
        )
        assert done.stdout.strip() == "True", done.stderr


def test_package_first_then_everything():
    done = _run(f"import paddle_dnl, paddle, paddleseg, sklearn.linear_model, scipy.signal; {USE}; print('fine')")
    assert done.stdout.strip().endswith("fine"), done.stderr


def test_public_names_are_there_and_importing_costs_no_paddle():
    done = _run("import sys, paddle_dnl; assert 'paddle' not in sys.modules; print(paddle_dnl.build_model.__name__)")
    assert done.stdout.strip().endswith("build_model"), done.stderr


def test_a_missing_system_library_is_explained():
    from paddle_dnl.startup.import_guard import explain

    assert "libgl1 libglib2.0-0 libgomp1" in explain(ImportError("libGL.so.1: cannot open shared object file"))
    assert explain(ImportError("No module named 'nothing'")) is None
