# SPDX-License-Identifier: Apache-2.0
"""The TIPC runner: reading the 52 lines, the commands of each mode, failures, stored scores, and one real chain."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TIPC = ROOT / "test_tipc"
CONFIGS = sorted(TIPC.glob("configs/*/*.txt"))
MODELS = ("dmnet_resnet101", "dmnet_small", "dnlnet_resnet50", "dnlnet_small", "fpn_dgmn2_tiny", "setr_mla_dgmn2_tiny",
          "setr_naive_dgmn2_tiny", "setr_pup_dgmn2_tiny")  # fmt: skip
# What line n of a file must be called so that PaddleSeg's runner, which addresses lines by number, finds its way.
KEYS = {
    2: "model_name", 3: "python", 4: "gpu_list", 5: "--device", 6: "--precision", 7: "--iters", 8: "--save_dir",
    9: "--batch_size", 10: "--model_path", 11: "train_model_name", 12: "train_infer_img_dir", 14: "##", 15: "trainer",
    16: "norm_train", 17: "pact_train", 18: "fpgm_train", 19: "distill_train", 22: "##", 24: "eval", 26: "##",
    28: "--save_dir", 29: "--model_path", 30: "norm_export", 37: "infer_model", 38: "infer_export", 39: "infer_quant",
    40: "inference", 41: "--device", 42: "--enable_mkldnn", 43: "--cpu_threads", 44: "--batch_size", 45: "--use_trt",
    46: "--precision", 47: "--config", 48: "--image_path", 50: "--benchmark", 51: "--save_dir",
}  # fmt: skip
FAKE = '''"""Stands for every program: writes down how it was called, or fails when told to."""
import pathlib, sys
pathlib.Path("calls.txt").open("a").write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1].startswith(pathlib.Path("fail").read_text()):
    print("it broke")
    sys.exit(3)
flags = dict(part.split("=", 1) for part in sys.argv if "=" in part)
if sys.argv[1] == "train.py":
    file = pathlib.Path(flags["--save_dir"], "best_model", "model.pdparams")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    for step in range(4):
        print(f"[TRAIN] epoch: 1, iter: {step}/4, loss: 1.0, ips: {step + 1}.0000 samples/sec | ETA 00:00:00")
'''
OUT = "test_tipc/output/dnlnet_small"


def tipc(script, *arguments, cwd):
    """Runs a script of test_tipc; no GPU is shown to it."""
    command = [sys.executable, str(TIPC / script), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "PATH": str(cwd)})


@pytest.fixture
def sandbox(tmp_path):
    """A folder with a file like dnlnet_small's whose programs are stand-ins; `edit(line number, text)` changes it."""
    (tmp_path / "fake.py").write_text(FAKE)
    (tmp_path / "fail").write_text("nothing")
    # The runner splits at blanks nowhere else than in commands, so the interpreter is a link without arguments.
    launcher = tmp_path / "python"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path / "fake.py"} "$@"\n')
    launcher.chmod(0o755)
    lines = (TIPC / "configs/dnlnet_small/train_infer_python.txt").read_text().splitlines()
    config = tmp_path / "file.txt"

    def edit(changes):
        for number, text in {3: f"python:{launcher}", **changes}.items():
            lines[number - 1] = text
        config.write_text("\n".join(lines) + "\n")
        return config

    edit({})
    return tmp_path, edit


def calls(folder):
    return [line.split() for line in (folder / "calls.txt").read_text().splitlines()]


# ------------------------------------------------------------------------------------------------ the files


def test_every_model_has_a_file_and_the_two_extra_ones():
    assert tuple(sorted({path.parent.name for path in CONFIGS})) == MODELS
    assert all((TIPC / "configs" / model / "train_infer_python.txt").is_file() for model in MODELS)
    extra = {path.name for path in CONFIGS} - {"train_infer_python.txt"}
    assert extra == {
        "train_linux_gpu_normal_amp_infer_python_linux_gpu_cpu.txt",
        "train_linux_gpu_fleet_normal_infer_python_linux_gpu_cpu.txt",
    }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_lines_are_where_paddlesegs_runner_looks_for_them(path):
    lines = path.read_text().splitlines()
    assert len(lines) >= 52 and all(line.strip() for line in lines)
    assert {number: lines[number - 1].split(":")[0] for number in KEYS} == KEYS
    # Only two fields of a line are read, so a colon in a value would cut it.
    assert all(line.count(":") <= 1 for line in lines)
    assert [lines[n - 1].startswith("=====") for n in (1, 23, 27, 36, 53)] == [True] * 5 and ":" not in lines[35]
    assert lines[1] == f"model_name:{path.parent.name}"
    for number in (16, 24, 30, 38):
        command = lines[number - 1].split(":")[1].split()
        assert (ROOT / command[command.index("--config") + 1]).is_file()
        assert any((ROOT / part).is_file() for part in command if part.endswith(".py"))


def test_parser(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TIPC))
    from tipc_config import TipcConfig, TipcError

    text = "\n\n".join(f"key{n}: value{n}:cut off" for n in range(1, 53))
    (tmp_path / "a.txt").write_text(text + "\nfp_items:fp32|fp16\n")
    config = TipcConfig(tmp_path / "a.txt")
    assert (config.line(52).key, config.line(52).value) == ("key52", "value52")  # empty lines do not count
    assert config.line(7).flag() == ["key7=value7"] and config.line(7).flag("null") == config.line(7).flag("") == []
    assert config.find("fp_items") == "fp32|fp16" and config.find("none", "x") == "x"
    (tmp_path / "b.txt").write_text(text.replace("value7", "lite_train_lite_infer=3|whole_infer=9"))
    line = TipcConfig(tmp_path / "b.txt").line(7)
    assert line.for_mode("whole_infer") == "9"
    with pytest.raises(TipcError, match="line 7 .* no value for mode benchmark_train"):
        line.for_mode("benchmark_train")
    (tmp_path / "c.txt").write_text("a:b\n" * 51)
    with pytest.raises(TipcError, match="51 lines"):
        TipcConfig(tmp_path / "c.txt")
    with pytest.raises(TipcError, match="cannot be read"):
        TipcConfig(tmp_path / "d.txt")


# ------------------------------------------------------------------------------------------------ commands


@pytest.mark.parametrize(
    "mode, iters, batch",
    [("lite_train_lite_infer", 4, 2), ("lite_train_whole_infer", 4, 2), ("whole_train_whole_infer", 200, 4)],
)
def test_commands_of_the_training_modes(sandbox, mode, iters, batch):
    folder, _ = sandbox
    done = tipc("run_tipc.py", "file.txt", mode, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    out, yml = f"{OUT}/{mode}", "test_tipc/configs/dnlnet_small/dnlnet_small_mini_cityscapes.yml"
    run = f"{out}/norm_gpus_-1_autocast_fp32"
    setting = "python_infer_cpu_gpu_-1_usemkldnn_False_threads_2_precision_fp32_batchsize_1"
    assert calls(folder) == [
        f"train.py --config {yml} --do_eval --save_interval 100 --seed 100 --log_iters 1 --device=cpu --save_dir={run}"
        f" --iters={iters} --batch_size={batch} --precision=fp32".split(),
        f"val.py --config {yml} --model_path={run}/best_model/model.pdparams --device=cpu".split(),
        f"export.py --config {yml} --input_shape 1 3 128 256 --model_path={run}/best_model/model.pdparams"
        f" --save_dir={run}".split(),
        f"deploy/python/infer.py --device=cpu --enable_mkldnn=False --cpu_threads=2 --batch_size=1 --precision=fp32"
        f" --config={run}/deploy.yaml --image_path=./test_tipc/data/mini_cityscapes/leftImg8bit/val --benchmark=True"
        f" --save_dir={out}/{setting}_results".split(),
    ]
    logs = {f"{run.split('/')[-1]}_nodes_1{end}.log" for end in ("", "_eval", "_export")} | {f"{setting}.log"}
    assert logs <= {path.name for path in (folder / out).iterdir()}
    status = (folder / out / "results_python.log").read_text().splitlines()
    assert status[0].strip("-").strip() == mode and len(status) == 5
    for line in status[1:]:
        assert line.startswith("\033[33m Run successfully with command - dnlnet_small - ") and line.endswith(" \033[0m")


def test_whole_infer_exports_given_weights(sandbox):
    folder, edit = sandbox
    edit({37: "infer_model:a.pdparams|b.pdparams", 38: "infer_export:export.py --x|null",
          39: "infer_quant:False|False"})  # fmt: skip
    done = tipc("run_tipc.py", "file.txt", "whole_infer", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    out = f"{OUT}/whole_infer"
    export, first, second = calls(folder)
    assert export == f"export.py --x --model_path=a.pdparams --save_dir={out}/whole_infer_0".split()
    assert f"--config={out}/whole_infer_0/deploy.yaml" in first and "--config=./deploy.yaml" in second
    edit({39: "infer_quant:False"})
    done = tipc("run_tipc.py", "file.txt", "whole_infer", cwd=folder)
    assert done.returncode == 2 and "differ in length" in done.stderr


def test_inference_settings_multiply_and_impossible_ones_are_left_out(sandbox):
    folder, edit = sandbox
    edit({41: "--device:cpu|gpu", 42: "--enable_mkldnn:True|False", 43: "--cpu_threads:1|2", 44: "--batch_size:1|3",
          46: "--precision:fp32|fp16|int8"})  # fmt: skip
    done = tipc("run_tipc.py", "file.txt", "lite_train_lite_infer", cwd=folder)
    assert done.returncode == 0 and "this machine shows no GPU" in done.stdout
    flags = {tuple(call[1:6]) for call in calls(folder) if "infer.py" in call[0]}
    expected = {
        ("--device=cpu", f"--enable_mkldnn={m}", f"--cpu_threads={t}", f"--batch_size={b}", f"--precision={p}")
        for m, p in (("True", "fp32"), ("True", "fp16"), ("False", "fp32")) for t in (1, 2) for b in (1, 3)
    }  # fmt: skip
    assert flags == expected


@pytest.mark.parametrize("gpus", ["-1", "", "0", "0,1", "0|0,1"])
def test_gpu_list_without_a_gpu_means_the_cpu(sandbox, gpus):
    folder, edit = sandbox
    edit({4: f"gpu_list:{gpus}", 5: "--device:gpu"})
    assert tipc("run_tipc.py", "file.txt", "lite_train_lite_infer", cwd=folder).returncode == 0
    trainings = [call for call in calls(folder) if "train.py" in call]
    assert len(trainings) == 1 and "--device=cpu" in trainings[0] and "-m" not in trainings[0]


def test_several_cards_launch_one_process_each(monkeypatch):
    monkeypatch.syspath_prepend(str(TIPC))
    from run_tipc import Runner

    assert Runner.launch("-1") == Runner.launch("0") == []
    assert Runner.launch("0,1") == ["-m", "paddle.distributed.launch", "--devices=0,1"]
    assert Runner.launch("10.0.0.1,10.0.0.2;0,1")[-2:] == ["--devices=0,1", "--ips=10.0.0.1,10.0.0.2"]


# ------------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize(
    "program, ran", [("train.py", 1), ("val.py", 4), ("export.py", 3), ("deploy/python/infer.py", 4)]
)
def test_a_failure_is_said_and_ends_the_runner_with_1(sandbox, program, ran):
    folder, _ = sandbox
    (folder / "fail").write_text(program)
    done = tipc("run_tipc.py", "file.txt", "lite_train_lite_infer", cwd=folder)
    assert done.returncode == 1
    assert "it broke" in done.stdout and f"{ran - 1} steps passed, 1 failed" in done.stdout
    status = (folder / OUT / "lite_train_lite_infer/results_python.log").read_text()
    failed = [line for line in status.splitlines() if " failed " in line]
    assert len(failed) == 1 and failed[0].startswith("\033[33m Run failed with command - dnlnet_small - ")
    assert f" {program} " in failed[0] and failed[0].endswith(".log \033[0m") and len(calls(folder)) == ran


@pytest.mark.parametrize(
    "arguments, message",
    [((), "usage"), (("file.txt", "no_mode"), "usage"), (("absent.txt", "whole_infer"), "absent.txt: cannot be read")],
)
def test_wrong_calls(sandbox, arguments, message):
    done = tipc("run_tipc.py", *arguments, cwd=sandbox[0])
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_unknown_trainer(sandbox):
    folder, edit = sandbox
    edit({15: "trainer:nonsense"})
    done = tipc("run_tipc.py", "file.txt", "lite_train_lite_infer", cwd=folder)
    assert done.returncode == 2 and "there is no trainer nonsense" in done.stderr


# ------------------------------------------------------------------------------------------------ scores and speed


@pytest.fixture(params=["town/", ""], ids=["sub-folders", "flat"])
def pictures(tmp_path, request):
    """Two label pictures, one of them found wrong at 2 of its 8 pixels, with one pixel that does not count.

    infer.py writes them flat; into sub-folders where names collide.
    """
    data, mode = tmp_path / "test_tipc/data/mini_cityscapes", tmp_path / OUT / "lite_train_lite_infer"
    truth = [np.array([[0, 0, 1, 1], [2, 2, 255, 1]], np.uint8), np.zeros((2, 4), np.uint8)]
    found = [np.array([[0, 1, 1, 1], [2, 0, 7, 1]], np.uint8), np.zeros((2, 4), np.uint8)]
    results = mode / "python_infer_cpu_gpu_-1_x_results"
    lines = []
    for number in range(2):
        image, label = f"leftImg8bit/val/town/{number}.png", f"gtFine/val/town/{number}.png"
        for path, array in ((data / label, truth[number]), (results / f"{request.param}{number}.png", found[number])):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
        lines.append(f"{image},{label}\n")
    (data / "val.txt").write_text("".join(lines))
    (tmp_path / "file.txt").write_text((TIPC / "configs/dnlnet_small/train_infer_python.txt").read_text())
    return tmp_path, results, results / f"{request.param}1.png"


def test_compare_results(pictures):
    folder, results, picture = pictures
    call = ("compare_results.py", "file.txt", "lite_train_lite_infer")
    done = tipc(*call, cwd=folder)
    assert done.returncode == 2 and "no stored scores" in done.stderr
    assert tipc(*call, "--update", cwd=folder).returncode == 0
    file = folder / "test_tipc/results/dnlnet_small/file.lite_train_lite_infer.txt"
    stored = {key: float(value) for key, value in (line.split(":") for line in file.read_text().splitlines())}
    # By hand: 13 of 15 pixels; IoU 9/11, 3/4, 1/2; chance (10*10 + 3*4 + 2*1) / 15^2.
    chance = 114 / 225
    assert stored["images"] == 2
    np.testing.assert_allclose(stored["Acc"], 13 / 15, rtol=1e-5)
    np.testing.assert_allclose(stored["mIoU"], (9 / 11 + 3 / 4 + 1 / 2) / 3, rtol=1e-5)
    np.testing.assert_allclose(stored["Kappa"], (13 / 15 - chance) / (1 - chance), rtol=1e-5)
    assert tipc(*call, cwd=folder).returncode == 0
    text = file.read_text()
    file.write_text(text + "Dice:0.5\n")
    assert tipc(*call, cwd=folder).returncode == 1
    file.write_text(text.replace(f"Acc:{stored['Acc']:.6g}", f"Acc:{stored['Acc'] + 0.003:.6g}"))
    done = tipc(*call, results, cwd=folder)
    assert done.returncode == 1 and "Acc: 0.866667, stored 0.869667" in done.stdout
    file.write_text("# threads change sums\natol:0.01\n" + file.read_text())
    assert tipc(*call, cwd=folder).returncode == 0
    tipc(*call, "--update", cwd=folder)
    assert file.read_text().startswith("# threads change sums\natol:0.01\nimages:2\n")
    picture.unlink()
    done = tipc(*call, cwd=folder)
    assert done.returncode == 2 and "has not written this label picture" in done.stderr


def test_benchmark_train(sandbox):
    folder, _ = sandbox
    data = folder / "test_tipc/data/mini_cityscapes"
    data.mkdir(parents=True)
    (data / "train.txt").write_text("a,b\n" * 32)
    done = tipc("benchmark_train.py", "file.txt", "benchmark_train", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    # The stand-in logs 1, 2, 3, 4; without the first quarter the median is 3.
    assert "dnlnet_small_bs2_fp32_gpus_-1: ips 3.000 samples/sec" in done.stdout
    assert [call[-3:] for call in calls(folder)] == [
        ["--iters=16", "--batch_size=2", f"--precision={precision}"] for precision in ("fp32", "fp16")
    ]
    assert all("--do_eval" not in call for call in calls(folder))
    found = json.loads((folder / OUT / "benchmark_train/benchmark.json").read_text())
    assert [entry["ips"] for entry in found] == [3.0, 3.0]
    (folder / "fail").write_text("train.py")
    assert tipc("benchmark_train.py", "file.txt", "benchmark_train", cwd=folder).returncode == 1


@pytest.mark.slow
def test_the_real_chain_of_the_small_model():
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    config = "./test_tipc/configs/dnlnet_small/train_infer_python.txt"
    for script in ("prepare.sh", "test_train_inference_python.sh"):
        command = ["bash", f"test_tipc/{script}", config, "lite_train_lite_infer"]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "5 steps passed, 0 failed" in done.stdout
