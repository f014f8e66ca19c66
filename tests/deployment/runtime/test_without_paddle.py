# SPDX-License-Identifier: Apache-2.0
"""An exported folder runs where Paddle and everything for training are not installed.

The program below runs twice at most: in this Python with those libraries made unimportable, and in the Python that
`RUNTIME_PYTHON` names, an environment with the extra `onnxruntime` only:
pip install -c constraints-core.txt -e ".[onnxruntime]"
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_onnx
from tiny_export import blocks, export_color_net

ROOT = Path(__file__).resolve().parents[3]
FOREIGN = (
    "paddle", "paddleseg", "scipy", "sklearn", "pandas", "flask", "visualdl", "matplotlib", "requests", "torch", "onnx",
)  # fmt: skip
ROOMS = ("training", "evaluation", "models", "nn", "losses", "optim", "distributed", "analysis", "deployment.export")

PROGRAM = f"""
import importlib.util, sys
folder, picture, out, has_libraries = sys.argv[1:]
if has_libraries == "yes":
    for name in {FOREIGN}:
        sys.modules[name] = None  # its import fails
else:
    for name in {FOREIGN}:
        assert importlib.util.find_spec(name) is None, name

def main():
    import numpy as np
    import paddle_dnl
    from paddle_dnl.deployment.runtime.backend_process import BackendProcess

    labels = paddle_dnl.Predictor(folder, backend="onnxruntime").predict([picture])[0]
    np.save(out + "/labels.npy", labels)
    for backend in ("auto", BackendProcess(folder, "onnxruntime")):
        predictor = paddle_dnl.Predictor(folder, backend=backend)
        assert predictor.backend in ("onnxruntime", "openvino")  # auto takes the faster one
        assert (predictor.predict([picture])[0] == labels).all()
        predictor.close()
    try:
        paddle_dnl.Predictor(folder, backend="paddle")
        raise SystemExit("the backend paddle ran")
    except paddle_dnl.errors.UsageError as error:
        assert "pip install paddlepaddle, or choose the backend onnxruntime" in str(error), error

    from paddle_dnl.cli import infer
    flags = ["--config", folder, "--image_path", picture, "--save_dir", out + "/inferred", "--backend", "onnxruntime"]
    assert infer.main(flags) == 0
    if importlib.util.find_spec("fastapi"):
        import paddle_dnl.serving.main, paddle_dnl.serving.app
    loaded = [n for n in sys.modules if n.startswith(tuple("paddle_dnl." + room for room in {ROOMS}))]
    assert not loaded, loaded
    print("fine")

if __name__ == "__main__":
    main()
"""


def _pythons():
    given = os.environ.get("RUNTIME_PYTHON")
    return [pytest.param((sys.executable, "yes"), id="libraries hidden")] + (
        [pytest.param((given, "no"), id="libraries not installed")] if given else []
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = export_color_net(tmp_path_factory.mktemp("exported"))
    tiny_onnx.color_net(folder)
    return folder


@pytest.mark.parametrize("python", _pythons())
def test_predictor_and_infer_without_paddle(folder, tmp_path, python):
    picture, label = blocks(4, 8, 8)
    cv2.imwrite(str(tmp_path / "picture.png"), picture)
    (tmp_path / "program.py").write_text(PROGRAM)
    executable, has_libraries = python
    command = [executable, tmp_path / "program.py", folder, tmp_path / "picture.png", tmp_path, has_libraries]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if has_libraries == "yes":
        environment["PYTHONPATH"] = str(ROOT)
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, env=environment)
    assert done.stdout.strip().endswith("fine"), done.stderr[-3000:]
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), label)
    written = [cv2.imread(str(path)) for path in (tmp_path / "inferred").rglob("*.png")]
    assert written and all(picture.shape[:2] == label.shape for picture in written)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_infer_imports_neither_paddle_nor_paddleseg_where_both_are_installed(folder, tmp_path, backend):
    """Their import takes three times as long as all else up to the first picture."""
    cv2.imwrite(str(tmp_path / "photo.png"), blocks(4, 8, 8)[0])
    words = ["--config", str(folder), "--image_path", str(tmp_path / "photo.png"), "--save_dir", str(tmp_path / "out")]
    program = (
        "import sys\nfrom paddle_dnl.cli import infer\ninfer.main(sys.argv[1:])\n"
        "print('imported:', *{name.split('.')[0] for name in sys.modules} & {'paddle', 'paddleseg', 'scipy', 'sklearn', 'torch'})"
    )
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    command = [sys.executable, "-c", program, *words, "--backend", backend]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1].strip() == "imported:"
    assert (tmp_path / "out/photo.png").is_file()


SIZES = """
import importlib.metadata, json
sizes = {}
for found in importlib.metadata.distributions():
    files = [found.locate_file(file) for file in found.files]
    sizes[found.metadata["Name"].lower()] = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
print(json.dumps(sizes))
"""

if "RUNTIME_PYTHON" in os.environ:

    def test_the_documented_sizes_are_those_of_the_environment():
        command = [os.environ["RUNTIME_PYTHON"], "-c", SIZES]
        installed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        # This package is installed in place, without its files.
        for name in ("pip", "setuptools", "wheel", "paddle-dnl"):
            installed.pop(name, None)
        page = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
        documented = dict(re.findall(r"^\| ([a-z-]+) \| ([0-9.]+) \|", page, re.M))
        assert {name: float(documented[name]) for name in installed} == pytest.approx(installed, rel=0.1, abs=0.5)
