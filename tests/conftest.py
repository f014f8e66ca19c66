# SPDX-License-Identifier: Apache-2.0
"""Set-up shared by all tests: import order, threads and folders that no test may leave behind."""

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

from paddle_dnl.startup import configure_process  # noqa: E402  first: it loads zlib before paddle

configure_process()

import paddle  # noqa: E402
import pytest  # noqa: E402


def pytest_addoption(parser):
    """The options of this suite."""
    parser.addoption("--paddleseg", metavar="PATH", type=Path, help="checkout of PaddleSeg to compare with")


def pytest_configure(config):
    """Puts the checkout before the installed package, also for programs that tests start."""
    checkout = config.getoption("--paddleseg")
    if checkout is None:
        return
    if not (checkout / "paddleseg" / "__init__.py").is_file():
        raise pytest.UsageError(f"--paddleseg {checkout}: no checkout of PaddleSeg (it has no paddleseg/__init__.py)")
    sys.path.insert(0, str(checkout.resolve()))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(checkout.resolve()), before)))


# Where PaddleSeg is not installed (`make test-core`), files that import it are not collected; single tests that do have the
# mark `paddleseg`.
IMPORTS_PADDLESEG = re.compile(r"^(?:from|import) paddleseg\b", re.MULTILINE)
collect_ignore = [
    str(path)
    for path in Path(__file__).parent.rglob("test_*.py")
    if not find_spec("paddleseg") and IMPORTS_PADDLESEG.search(path.read_text(encoding="utf-8"))
]


@pytest.fixture
def float64():
    """Layers and tensors made in the test are float64."""
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype("float32")


@pytest.fixture(autouse=True)
def _fixed_seed():
    """Every test starts from the same random state."""
    paddle.seed(0)


@pytest.fixture(autouse=True)
def _denormal_numbers_survive():
    """No code under test may leave the processor in the mode that takes denormal numbers as zero."""
    yield
    assert sys.float_info.min / 2 > 0


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The exported folder of `tiny_export.ColorNet`, once for each file of tests."""
    from tiny_export import export_color_net

    return export_color_net(tmp_path_factory.mktemp("export"))
