# SPDX-License-Identifier: Apache-2.0
"""Programs x faults: each program of the table meets each fault as a real process. A new program is one row in `PROGRAMS`.

Whatever the fault: no traceback, at most one line of error, the status that is promised, no temporary file or folder left.
Disks that are read-only or full are mounted in a mount namespace of the process, which needs Linux and user namespaces.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from paddle_dnl.cli import programs
from paddle_dnl.config import Config
from paddle_dnl.data.classes import PASCAL_CONTEXT_59
from paddle_dnl.data.prepare.convert_cityscapes import convert_tree
from paddle_dnl.data.scenes.mini_cityscapes import generate
from paddle_dnl.files.outputs import JOURNAL
from paddle_dnl.models.build import build_model

import numpy as np
import paddle
import pytest
import tiny_export
import tiny_onnx
from default_signals import default_signals, wait_for_handlers
from PIL import Image
from scipy.io import savemat

ROOT = Path(__file__).resolve().parents[2]
MODEL = """
batch_size: 2
iters: 1
model: {{type: DNLNet, num_classes: 19, backbone: {{type: ResNet18, output_stride: 16}}}}
train_dataset: &set
  type: Cityscapes
  dataset_root: {data}
  mode: train
  transforms: [{{type: RandomPaddingCrop, crop_size: [64, 64]}}, {{type: Normalize}}]
val_dataset: {{type: Cityscapes, dataset_root: {data}, mode: val, transforms: [{{type: Normalize}}]}}
optimizer: {{type: SGD, momentum: 0.9}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.01, end_lr: 0, power: 0.9}}
loss: {{types: [{{type: CrossEntropyLoss}}], coef: [1, 0.4]}}
"""

# Each row: a program of `paddle-dnl`, or a script of tools/, and its arguments. {out} is where it writes, {work} the folder with
# all that it reads.
_MODEL = "--config {work}/small.yml --model_path {work}/weights.pdparams"


class Row(NamedTuple):
    """How a program is started, and what it does.

    Attributes:
        arguments: with {out} and {work}.
        content: folder of {work} that is copied to {out} first, for programs that write into the data they read.
        writes: whether it writes files.
        again: exit status of a second run into the same folder.
        lasts: takes minutes or never ends by itself; it meets only the faults that end it at its start, and SIGTERM.
        seconds: before SIGTERM is sent, so that it comes in the middle of the work.
    """

    arguments: str
    content: str = ""
    writes: bool = True
    again: int = 0
    lasts: bool = False
    seconds: float = 2.0


PROGRAMS = {
    "train": Row("--config {work}/small.yml --save_dir {out} --seed 1"),
    "val": Row(f"{_MODEL} --save_dir {{out}} --save_pred"),
    "predict": Row(f"{_MODEL} --image_path {{work}}/photos --save_dir {{out}}"),
    "export": Row(f"{_MODEL} --input_shape 1 3 64 64 --save_dir {{out}}"),
    "infer": Row("--config {work}/export --image_path {work}/photos --save_dir {out}"),
    "predict-dataset": Row(
        "--config {work}/export --image_path {work}/photos --save_dir {out} --actors 1", lasts=True, seconds=10
    ),
    "serve": Row("--model {work}/export --port 0 --device cpu", writes=False, lasts=True, seconds=4),
    "quantize": Row(
        "--config {work}/onnx --image_list {work}/list.txt --save_dir {out} --num_calibration 2 --num_eval 1"
    ),
    "benchmark": Row("--config {work}/export --backends paddle --threads 1 --warmup 0 --repeats 1 --save_dir {out}"),
    "convert": Row(
        "--source paddleseg --config {work}/small.yml --input {work}/weights.pdparams --output {out}/w.safetensors"
    ),
    "report": Row(
        "--config {work}/small.yml --run_dir {work}/run --model_path {work}/weights.pdparams --save_dir {out}"
    ),
    "macs": Row("--config {work}/small.yml --input_shape 1 3 64 64", writes=False),
    "configs": Row("", writes=False, seconds=0.1),
    "configs copy": Row("dnlnet_resnet50_os8_cityscapes_1024x512_80k {out}", again=2, seconds=0.2),
    "configs new": Row("--data {work}/own --out {out}/mine.yml", again=0, seconds=0.2),
    "check-gpu": Row("--device cpu --steps 4 --crop 64 --only export --save_dir {out}", again=2, lasts=True, seconds=3),
    "info": Row("--no_device", writes=False, seconds=0.2),
    "completion": Row("bash", writes=False, seconds=0.1),
    "data import": Row("{work}/masks --to {out} --format masks --num_workers 2", seconds=0.3),
    "data split": Row("{out}", content="masks", seconds=0.3),
    "data describe": Row("{work}/own --save_dir {out} --num_workers 1", seconds=0.5),
    "data preview": Row("{work}/small.yml --out {out}/page.html --samples 1 --times 1", seconds=0.5),
    "data mini-cityscapes": Row("--out {out} --train 2 --val 1 --size 64x64", seconds=0.2),
    "data convert-cityscapes": Row("--cityscapes_path {out} --num_workers 2", content="polygons", seconds=0.3),
    "data convert-pascal-context": Row("--voc_path {out}", content="VOC2010", seconds=0.2),
    "data voc-augment": Row("--voc_path {out} --sbd_path {work}/benchmark_RELEASE", content="VOCdevkit", seconds=0.2),
    "data create-list": Row(
        "{out} --folder images labels --second_folder . --format png png", content="masks", seconds=0.2
    ),
    "attention maps": Row(f"{_MODEL} --image_path {{work}}/photos --save_dir {{out}}"),
    "attention statistics": Row(f"{_MODEL} --queries 4 --save_dir {{out}}"),
    "tools/quickstart.py": Row("--save_dir {out}", lasts=True, seconds=0.5),
    "tools/ablation.py": Row("--save_dir {work}/runs --stages report --report {out}/page.md", content="page"),
    "tools/compat_report.py": Row("--configs {work}/configs --json {out}/all.json", seconds=4),
    "tools/code_metrics.py": Row("", writes=False, seconds=0.3),
    "tools/components_page.py": Row("--check", writes=False),
}
WRITING = [name for name, row in PROGRAMS.items() if row.writes]
ENDING = [name for name, row in PROGRAMS.items() if not row.lasts]
# What is no program, or one whose output is a part of this repository or environment.
NO_ROW = {
    "tools/check_system.py": "a step of `make venv`: writes into the environment that is being made",
    "tools/gpu_kernels.py": "writes a page of this repository; tests/gpu compares it",
    "tools/half_precision.py": "writes a page of this repository, which takes half an hour",
    "tools/model_zoo.py": "writes pages of this repository; tests/config/test_zoo.py compares them",
    "tools/compat_stages.py": "a module of compat_report.py",
    "tools/docs_hooks.py": "a module of mkdocs",
    "tools/find_python.sh": "prints a name",
}


def test_every_program_and_script_has_a_row():
    """Scripts of one line start a program of `paddle-dnl`, which has a row."""
    groups = {"configs copy", "configs new"}
    named = set(programs.PROGRAMS) - {"launch"}  # becomes Paddle's launcher, whose faults are its own
    assert {name for name in PROGRAMS if not name.startswith("tools/")} - groups == named
    modules = {program.module for program in programs.PROGRAMS.values()}
    own = set()
    for path in sorted((ROOT / "tools").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            started = re.search(r'run\("(paddle_dnl[\w.]*)"\)', path.read_text(encoding="utf-8"))
            if started is None:
                own.add(path.relative_to(ROOT).as_posix())
            else:
                assert started[1] in modules, path
    assert own == {name for name in PROGRAMS if name.startswith("tools/")} | set(NO_ROW)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    work = tmp_path_factory.mktemp("faults")
    generate(work / "polygons", train=2, val=1, size=(128, 64), seed=0)
    shutil.copytree(work / "polygons", work / "data")
    convert_tree(work / "data", num_workers=1)
    (work / "small.yml").write_text(MODEL.format(data=work / "data"))
    (work / "configs").mkdir()
    shutil.copy(work / "small.yml", work / "configs")
    paddle.save(build_model(Config(str(work / "small.yml"))).state_dict(), str(work / "weights.pdparams"))
    tiny_export.export_color_net(work / "export")
    tiny_export.export_color_net(work / "onnx")
    tiny_onnx.color_net(work / "onnx")
    (work / "photos").mkdir()
    for name in ("a.png", "straße 街 \x1b[31m.png"):
        picture = next((work / "data/leftImg8bit/train").rglob("*.png"))
        shutil.copy(picture, work / "photos" / name)
    _own_data(work)
    _pascal(work)
    trained = subprocess.run(_command("train", work, work / "run"), cwd=work, env=_environment(), capture_output=True)
    assert trained.returncode == 0, trained.stderr
    (work / "page").mkdir()
    marks = "".join(f"<!-- {name} -->\nold\n<!-- end of {name} -->\n" for name in ("scores", "statistics"))
    (work / "page/page.md").write_text(marks)
    return work


def _picture(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def _own_data(work: Path) -> None:
    """Pictures with masks, as `data import` reads and writes them, and lists."""
    names = [f"{i:02d}" for i in range(8)]
    for i, name in enumerate(names):
        label = np.arange(64).reshape(8, 8) // 16 % 2 + i % 2
        for folder in ("own/images", "masks/images"):
            _picture(work / folder / f"{name}.png", np.repeat(label[..., None] * 90, 3, axis=2))
        for folder in ("own/labels", "masks/labels"):
            _picture(work / folder / f"{name}.png", label)
    lines = [f"images/{name}.png\tlabels/{name}.png\n" for name in names]
    for split, chosen in (("train", lines[:6]), ("val", lines[6:])):
        (work / f"own/{split}.txt").write_text("".join(chosen))
    (work / "own/classes.txt").write_text("road\ncar\ntree\n")
    (work / "list.txt").write_text("".join(f"{work}/own/images/{name}.png\n" for name in names[:2]))


def _pascal(work: Path) -> None:
    """Two pictures of each kind of annotation: SBD beside VOC2012, and PASCAL Context."""
    label = np.arange(30).reshape(5, 6) % 21
    sets = work / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    sets.mkdir(parents=True)
    (work / "benchmark_RELEASE/dataset/cls").mkdir(parents=True)
    for split, names in (("train", "ac"), ("val", "bd")):
        (sets / f"{split}.txt").write_text(f"{names[0]}\n")
        (work / f"benchmark_RELEASE/dataset/{split}.txt").write_text(f"{names[1]}\n")
        for name in names:
            _picture(work / f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg", np.zeros((5, 6, 3)))
            matrix = {"GTcls": {"Segmentation": label.astype(np.uint8), "Boundaries": [1]}}
            savemat(work / f"benchmark_RELEASE/dataset/cls/{name}.mat", matrix)
    content = {
        "images": [
            {"id": 1, "file_name": "x.jpg", "height": 5, "width": 6, "phase": "train"},
            {"id": 2, "file_name": "y.jpg", "height": 5, "width": 6, "phase": "val"},
        ],
        "categories": [{"id": 100 + i, "name": name} for i, name in enumerate(PASCAL_CONTEXT_59)],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 100, "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]}],
    }
    for name in "xy":
        _picture(work / f"VOC2010/JPEGImages/{name}.jpg", np.zeros((5, 6, 3)))
    (work / "VOC2010/trainval_merged.json").write_text(json.dumps(content))


def _command(program: str, work: Path, out) -> list[str]:
    words = [part.format(work=work, out=out) for part in PROGRAMS[program].arguments.split()]
    start = [str(ROOT / program)] if program.startswith("tools/") else ["-m", "paddle_dnl", *program.split()]
    return [sys.executable, *start, *words]


def _prepare(program: str, work: Path, out: Path) -> None:
    """Puts what the program reads and writes into `out`."""
    if PROGRAMS[program].content:
        shutil.copytree(work / PROGRAMS[program].content, out, dirs_exist_ok=True)


def _environment(**more) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def _run(command, cwd, status, **options):
    environment = _environment(**options.pop("environment", {}))
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    done = subprocess.run(command, cwd=cwd, env=environment, timeout=300, **streams)
    err = (done.stderr or b"").decode()
    allowed = status if isinstance(status, tuple) else (status,)
    assert done.returncode in allowed, (done.returncode, err[-1500:])
    errors = sum(line.startswith("Error") for line in err.splitlines())
    assert "Traceback" not in err and "Exception ignored" not in err and errors == (done.returncode != 0), err
    assert "\x1b[31m" not in err + (done.stdout or b"").decode()
    assert not list(Path(cwd).rglob(".tmp-*"))
    return err


def _on_disk(program: str, work: Path, out: Path, is_full: bool) -> list[str]:
    """The command with a small tmpfs at `out`, which holds what the program reads there and is then filled or read-only."""
    out.mkdir()
    content = PROGRAMS[program].content
    steps = [f"mount -t tmpfs -o size={'64k' if is_full and not content else '4m'} none '{out}'"]
    if content:
        steps.append(f"cp -a '{work / content}/.' '{out}'")
    # What fills it is an open file without a name, so that the folder looks empty.
    fill = f"exec 9>'{out}/.fill'; rm '{out}/.fill'; dd if=/dev/zero status=none >&9 2>&1 || true"
    steps.append(fill if is_full else f"mount -o remount,ro '{out}'")
    quoted = " ".join(f"'{word}'" for word in _command(program, work, out))
    return ["unshare", "-Urm", "sh", "-c", " && ".join(steps[:-1]) + f" && {{ {steps[-1]}; }} && {quoted}"]


@pytest.mark.slow
class TestProgramsMeetFaults:
    @pytest.mark.parametrize("program", WRITING)
    def test_read_only_output(self, made, tmp_path, program):
        out = tmp_path / "out"
        err = _run(_on_disk(program, made, out, False), tmp_path, 1)
        assert "Read-only file system" in err or "cannot be written" in err

    @pytest.mark.parametrize("program", WRITING)
    def test_full_disk(self, made, tmp_path, program):
        out = tmp_path / "out"
        err = _run(_on_disk(program, made, out, True), tmp_path, 1)
        # `data import` counts what is needed before its first write.
        assert ("No space left on device" in err or "are free" in err and " 0.0" not in err) and str(out) in err

    @pytest.mark.parametrize("program", ENDING)
    def test_home_that_cannot_be_written(self, made, tmp_path, program):
        _prepare(program, made, tmp_path / "out")
        environment = {"HOME": "/proc/nowhere", "TMPDIR": str(tmp_path)}
        environment |= {"SEG_HOME": str(tmp_path / "seg")}
        err = _run(_command(program, made, tmp_path / "out"), tmp_path, 0, environment=environment)
        assert err.count("cannot be written") <= 1

    @pytest.mark.parametrize("program", WRITING)
    def test_name_of_300_letters(self, made, tmp_path, program):
        err = _run(_command(program, made, tmp_path / ("n" * 300)), tmp_path, (1, 2))
        assert "File name too long" in err or PROGRAMS[program].content

    @pytest.mark.parametrize("program", WRITING)
    def test_file_in_the_place_of_the_folder(self, made, tmp_path, program):
        (tmp_path / "out").write_text("theirs")
        _run(_command(program, made, tmp_path / "out"), tmp_path, (1, 2))
        assert (tmp_path / "out").read_text() == "theirs"

    @pytest.mark.parametrize("program", ENDING)
    def test_closed_streams_and_the_c_locale_and_twice(self, made, tmp_path, program):
        """Into the same folder twice, once with closed streams and once in the C locale; `configs copy` refuses the second."""
        _prepare(program, made, tmp_path / "out")
        command = _command(program, made, tmp_path / "out")

        def close():
            for number in (0, 1, 2):
                os.close(number)

        before = set(tmp_path.rglob("*"))
        _run(command, tmp_path, 0, stdin=None, stdout=None, stderr=None, preexec_fn=close)
        # A program that writes has written; one that does not leaves nothing.
        written = {path for path in set(tmp_path.rglob("*")) - before if path.is_file() and path.name != JOURNAL}
        assert bool(written) == PROGRAMS[program].writes or PROGRAMS[program].content == "page"
        _run(command, tmp_path, PROGRAMS[program].again, environment={"LC_ALL": "C"})

    @pytest.mark.parametrize("program", ENDING)
    def test_output_to_a_full_disk_or_a_reader_that_has_gone(self, made, tmp_path, program):
        """What the program prints goes to a full disk: one line, never a traceback. `| head -0` is no fault."""
        _prepare(program, made, tmp_path / "out")
        command = _command(program, made, tmp_path / "out")
        with open("/dev/full", "w") as full:
            _run(command, tmp_path, (0, 1), stdout=full)
        reader, writer = os.pipe()
        os.close(reader)
        _run(command, tmp_path, (0, PROGRAMS[program].again), stdout=writer)
        os.close(writer)

    @pytest.mark.parametrize("program", PROGRAMS)
    def test_sigterm(self, made, tmp_path, program):
        """Of a service manager, to the program alone."""
        _end(made, tmp_path, program, signal.SIGTERM, os.kill)

    @pytest.mark.parametrize("program", PROGRAMS)
    def test_ctrl_c(self, made, tmp_path, program):
        """A terminal sends it to all processes of the program."""
        _end(made, tmp_path, program, signal.SIGINT, os.killpg)


def _end(made, tmp_path, program, number, send):
    """Sends a signal in the middle of the work: at most one line says so, and no process is left."""
    _prepare(program, made, tmp_path / "out")
    process = subprocess.Popen(
        _command(program, made, tmp_path / "out"),
        cwd=tmp_path,
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=default_signals,
    )
    wait_for_handlers(process)
    time.sleep(PROGRAMS[program].seconds)
    send(process.pid, number)
    err = process.communicate(timeout=120)[1].decode()
    assert process.returncode in (0, 128 + number, -number), err
    assert "Traceback" not in err and err.count("Error") == (process.returncode > 0), err
    assert not list(tmp_path.rglob(".tmp-*"))
    # The last child, a backend, hears of it when its parent has ended; agents of Ray live on for up to a minute.
    deadline = time.monotonic() + (90 if program == "predict-dataset" else 5)
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["64k", "2m"])
def test_train_with_little_shared_memory(made, tmp_path, size):
    """Loading processes hand batches over in /dev/shm: training works without it, or ends with a line that names it."""
    command = _command("train", made, tmp_path / "out") + ["--num_workers", "2", "--batch_size", "2"]
    quoted = " ".join(f"'{word}'" for word in command)
    small = ["unshare", "-Urm", "sh", "-c", f"mount -t tmpfs -o size={size} none /dev/shm && {quoted}"]
    err = _run(small, tmp_path, (0, 1))
    assert not err or "/dev/shm" in err or "Error" not in err, err


def test_the_journal_is_json_lines(made):
    """What other programs may rely on: a digest, a blank, and the name as JSON."""
    for line in (made / "export" / JOURNAL).read_text().splitlines():
        digest, _, name = line.partition(" ")
        assert len(digest) == 64 and (made / "export" / json.loads(name)).is_file()
