# SPDX-License-Identifier: Apache-2.0
"""Programs x faults: each program of the table meets each fault as a real process. A new program is one row in `PROGRAMS`.

Whatever the fault: no traceback, at most one line of error, the status that is promised, no temporary file or folder left.
Disks that are read-only or full are mounted in a mount namespace of the process, which needs Linux and user namespaces.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from paddle_dnl.config import Config
from paddle_dnl.data.prepare.convert_cityscapes import convert_tree
from paddle_dnl.data.scenes.mini_cityscapes import generate
from paddle_dnl.files.outputs import JOURNAL
from paddle_dnl.models.build import build_model

import paddle
import pytest
import tiny_export

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

# Program -> arguments; {out} is where it writes, {work} the folder with all that it reads. Lists go into the dataset itself.
_MODEL = "--config {work}/small.yml --model_path {work}/weights.pdparams"
PROGRAMS = {
    "train": "--config {work}/small.yml --save_dir {out} --seed 1",
    "predict": f"{_MODEL} --image_path {{work}}/photos --save_dir {{out}}",
    "export": f"{_MODEL} --input_shape 1 3 64 64 --save_dir {{out}}",
    "infer": "--config {work}/export --image_path {work}/photos --save_dir {out}",
    "convert": "--source paddleseg --config {work}/small.yml --input {work}/weights.pdparams --output {out}/w.safetensors",
    "attention maps": f"{_MODEL} --image_path {{work}}/photos --save_dir {{out}}",
    "configs copy": "dnlnet_resnet50_os8_cityscapes_1024x512_80k {out}",
    "data mini-cityscapes": "--out {out} --train 2 --val 1 --size 64x64",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    work = tmp_path_factory.mktemp("faults")
    generate(work / "data", train=2, val=1, size=(128, 64), seed=0)
    convert_tree(work / "data", num_workers=1)
    (work / "small.yml").write_text(MODEL.format(data=work / "data"))
    paddle.save(build_model(Config(str(work / "small.yml"))).state_dict(), str(work / "weights.pdparams"))
    tiny_export.export_color_net(work / "export")
    (work / "photos").mkdir()
    for name in ("a.png", "straße 街 \x1b[31m.png"):
        picture = next((work / "data/leftImg8bit/train").rglob("*.png"))
        shutil.copy(picture, work / "photos" / name)
    return work


def _command(program: str, work: Path, out) -> list[str]:
    words = [part.format(work=work, out=out) for part in PROGRAMS[program].split()]
    return [sys.executable, "-m", "paddle_dnl", *program.split(), *words]


def _environment(**more) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def _run(command, cwd, status, **options):
    environment = _environment(**options.pop("environment", {}))
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    done = subprocess.run(command, cwd=cwd, env=environment, timeout=300, **streams)
    err = (done.stderr or b"").decode()
    assert done.returncode == status, (done.returncode, err[-1500:])
    assert "Traceback" not in err and sum(line.startswith("Error") for line in err.splitlines()) == (status != 0), err
    assert "\x1b[31m" not in err + (done.stdout or b"").decode()
    assert not list(Path(cwd).rglob(".tmp-*"))
    return err


def _on_disk(options: str, out: Path, command: list[str]) -> list[str]:
    """The command with a small tmpfs at `out`, filled or read-only."""
    out.mkdir()
    quoted = " ".join(f"'{word}'" for word in command)
    return ["unshare", "-Urm", "sh", "-c", f"mount -t tmpfs {options} none '{out}' && {quoted}"]


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
class TestProgramsMeetFaults:
    def test_read_only_output(self, made, tmp_path, program):
        out = tmp_path / "out"
        err = _run(_on_disk("-o ro,size=1m", out, _command(program, made, out)), tmp_path, 1)
        assert "Read-only file system" in err or "cannot be written" in err

    def test_full_disk(self, made, tmp_path, program):
        out = tmp_path / "out"
        command = _on_disk("-o size=4k", out, _command(program, made, out))
        err = _run(command, tmp_path, 1)
        assert "No space left on device" in err and (str(out) in err)

    def test_home_that_cannot_be_written(self, made, tmp_path, program):
        environment = {"HOME": "/proc/nowhere", "TMPDIR": str(tmp_path)}
        environment |= {"SEG_HOME": str(tmp_path / "seg")}
        err = _run(_command(program, made, tmp_path / "out"), tmp_path, 0, environment=environment)
        assert err.count("cannot be written") == 1

    def test_name_of_300_letters(self, made, tmp_path, program):
        err = _run(_command(program, made, tmp_path / ("n" * 300)), tmp_path, 1)
        assert "File name too long" in err

    def test_file_in_the_place_of_the_folder(self, made, tmp_path, program):
        (tmp_path / "out").write_text("theirs")
        command = _command(program, made, tmp_path / "out")
        environment = _environment()
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode in (1, 2) and "Traceback" not in done.stderr and done.stderr.count("Error") == 1
        assert (tmp_path / "out").read_text() == "theirs"

    def test_closed_streams_and_the_c_locale_and_twice(self, made, tmp_path, program):
        """Into the same folder twice, once with closed streams and once in the C locale; `configs copy` refuses the second."""
        command = _command(program, made, tmp_path / "out")

        def close():
            for number in (0, 1, 2):
                os.close(number)

        _run(command, tmp_path, 0, stdin=None, stdout=None, stderr=None, preexec_fn=close)
        assert [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != JOURNAL]
        again = 2 if program == "configs copy" else 0
        _run(command, tmp_path, again, environment={"LC_ALL": "C"})

    def test_sigterm(self, made, tmp_path, program):
        process = subprocess.Popen(
            _command(program, made, tmp_path / "out"),
            cwd=tmp_path,
            env=_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        time.sleep(0.2 if program in ("configs copy", "data mini-cityscapes") else 2.0)
        process.terminate()
        _, err = process.communicate(timeout=120)
        assert process.returncode in (0, 143, -15) and "Traceback" not in err.decode(), err
        assert not list(tmp_path.rglob(".tmp-*"))
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)


def test_the_journal_is_json_lines(made):
    """What other programs may rely on: a digest, a blank, and the name as JSON."""
    for line in (made / "export" / JOURNAL).read_text().splitlines():
        digest, _, name = line.partition(" ")
        assert len(digest) == 64 and (made / "export" / json.loads(name)).is_file()
