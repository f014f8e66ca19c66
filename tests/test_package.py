# SPDX-License-Identifier: Apache-2.0
"""The package as users get it: sdist and wheel are built, the wheel is installed without the checkout, and its programs run.

The new environment sees the libraries of the one that runs the tests, so that nothing is downloaded.
"""

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

from paddle_dnl import __version__

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NOT_SOURCES = {".git", "output", "data", "site", "build", "dist", "log", ".ruff_cache", ".hypothesis", ".pytest_cache"}
CONFIG = "dnlnet_resnet18_mini_cityscapes"
SMALL = ("--opts", "train_dataset.transforms.0.crop_size=[64,64]", "batch_size=1")


def _build(kind: str, source: Path, out: Path) -> Path:
    out.mkdir(exist_ok=True)
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (made,) = out.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("package")

    def ignore(directory, names):
        at_root = Path(directory) == ROOT
        return [n for n in names if n == "__pycache__" or at_root and (n in NOT_SOURCES or n.startswith(".venv"))]

    shutil.copytree(ROOT, folder / "source", ignore=ignore)
    sdist = _build("sdist", folder / "source", folder / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    return source, _build("wheel", source, folder / "wheel")


def _outside() -> dict[str, str]:
    """The environment without what leads to the checkout."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


class Installed:
    """A Python with the wheel and an empty folder to work in."""

    def __init__(self, wheel: Path, folder: Path):
        venv.create(folder / "env", with_pip=False)
        self.bin, self.work = folder / "env" / "bin", folder / "work"
        self.work.mkdir()
        install = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "--quiet", "--no-index",
                   "--no-deps", str(wheel)]  # fmt: skip
        # Through PYTHONPATH pip would find the checkout's own metadata and install nothing.
        subprocess.run(install, check=True, cwd=self.work, env=_outside())
        (site,) = (folder / "env").glob("lib/python*/site-packages")
        # A path in a .pth file is added without the .pth files in it, so the checkout stays out.
        # cityscapesscripts brings an outdated typing.py, which must not come before Python's own in any child process.
        (site / "typing.py").write_text("raise ImportError('this replaces the standard library')")
        (site / "libraries.pth").write_text(f"import zlib\n{sysconfig.get_paths()['purelib']}\n")

    def python(self, code: str) -> str:
        """What `code` prints."""
        return self._run([self.bin / "python", "-c", code], 0).stdout.strip()

    def command(self, *words, status: int = 0) -> subprocess.CompletedProcess:
        """`paddle-dnl WORDS`, from the empty folder."""
        return self._run([self.bin / "paddle-dnl", *words], status)

    def _run(self, words, status: int) -> subprocess.CompletedProcess:
        done = subprocess.run(list(map(str, words)), cwd=self.work, env=_outside(), capture_output=True, text=True)
        assert done.returncode == status, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    return Installed(built[1], tmp_path_factory.mktemp("installed"))


def test_sdist_has_what_developers_need(built):
    source, _ = built
    needed = (
        "Makefile", "constraints.txt", "constraints-core.txt", "requirements.txt", "mkdocs.yml", "README_CN.md", "CHANGELOG.md",
        "LICENSE", "NOTICE",
        "train.py", ".ci/run", "tests/conftest.py", "tests/data", "docs/index.md", "tools/quickstart.py", "benchmarks/run.py",
        "deploy/serving/Dockerfile", "test_tipc",
    )  # fmt: skip
    for name in needed:
        assert (source / name).exists(), name
    assert not list(source.rglob("*.pyc"))


def test_wheel_has_the_package_and_its_data(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        info = next(name.split("/")[0] for name in names if ".dist-info/" in name)
        metadata = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
        commands = wheel.read(f"{info}/entry_points.txt").decode()
    configs = {f"paddle_dnl/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yml")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "paddle_dnl").rglob("*.py")}
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "paddle_dnl").rglob("*.html")}
    ours = {name for name in names if not name.startswith(info)}
    assert len(configs) > 40 and len(pages) >= 2
    assert ours == configs | modules | pages | {"paddle_dnl/py.typed"}
    assert {f"{info}/licenses/{name}" for name in ("LICENSE", "NOTICE")} <= names
    assert metadata["Version"] == __version__ and metadata["License-Expression"] == "Apache-2.0"
    assert "paddle-dnl = paddle_dnl.cli.main:main" in commands


def test_programs_of_the_installed_wheel(installed):
    """From generating data to predictions of the exported model, by configuration names, with no checkout in reach."""
    where = installed.python("import paddle_dnl; print(paddle_dnl.__file__)")
    assert Path(where).is_relative_to(installed.bin.parent)
    run = installed.command
    run("data", "mini-cityscapes", "--out", "data/mini_cityscapes", "--train", 2, "--val", 1, "--size", "128x64")
    run("data", "convert-cityscapes", "--cityscapes_path", "data/mini_cityscapes", "--num_workers", 0)
    log = run("train", "--config", CONFIG, "--iters", 2, "--log_iters", 1, "--do_eval", "--save_dir", "out", *SMALL)
    assert "iter: 2/2" in log.stdout and "[EVAL] #Images: 1 mIoU:" in log.stdout
    assert "OMP_NUM_THREADS" not in log.stderr
    weights = ("--config", CONFIG, "--model_path", "out/best_model/model.pdparams")
    assert "mIoU" in run("val", *weights).stdout
    pictures = "data/mini_cityscapes/leftImg8bit/val"
    run("predict", *weights, "--image_path", pictures, "--save_dir", "result")
    run("export", *weights, "--input_shape", 1, 3, 64, 128, "--save_dir", "exported")
    run("infer", "--config", "exported/deploy.yaml", "--image_path", pictures, "--save_dir", "inferred")
    (label,) = (p for p in (installed.work / "inferred").rglob("*_leftImg8bit.png") if "added" not in str(p))
    assert Image.open(label).size == (128, 64)
    run("convert", "--source", "paddleseg", "--config", CONFIG, "--input", "out/best_model/model.pdparams",
        "--output", "converted.safetensors")  # fmt: skip
    assert (installed.work / "converted.safetensors").stat().st_size > 10_000_000


def test_other_programs_of_the_installed_wheel(installed):
    run = installed.command
    assert run("--version").stdout == f"paddle-dnl {__version__}\n"
    assert "dmnet_r50-d8_512x512_80k_ade20k" in run("configs", "--dataset", "ade20k").stdout
    copied = run("configs", "copy", "dnlnet_resnet50_os8_cityscapes_1024x512_80k", "mine").stdout.strip()
    assert (
        "_base_" not in (installed.work / copied).read_text()
        and "PolynomialDecay" in (installed.work / copied).read_text()
    )
    assert run("serve", "--help").stdout.startswith("usage: paddle-dnl serve")
    assert str(installed.bin.parent) in run("info", "--no_device").stdout
    page = "from importlib import resources; print(len(resources.files('paddle_dnl.serving').joinpath('page.html').read_text()))"
    assert int(installed.python(page)) > 1000
