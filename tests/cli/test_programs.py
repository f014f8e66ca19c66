# SPDX-License-Identifier: Apache-2.0
"""The programs as they are typed: train, evaluate, predict, export, infer; flags, exit statuses, log lines, folders."""

import re
import subprocess
import sys
from pathlib import Path

from paddle_dnl.cli import export, predict, train, val
from paddle_dnl.data.prepare.convert_cityscapes import convert_tree
from paddle_dnl.data.scenes.mini_cityscapes import generate
from paddle_dnl.errors import ConfigError, UsageError

import numpy as np
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
MODEL = """
batch_size: 2
iters: 4
model:
  type: DNLNet
  num_classes: 19
  backbone: {{type: ResNet18, output_stride: 16}}
train_dataset:
  type: Cityscapes
  dataset_root: {data}
  mode: train
  transforms:
    - {{type: RandomPaddingCrop, crop_size: [64, 64]}}
    - {{type: Normalize}}
val_dataset:
  type: Cityscapes
  dataset_root: {data}
  mode: val
  transforms: [{{type: Normalize}}]
optimizer: {{type: SGD, momentum: 0.9, weight_decay: 4.0e-5}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.01, end_lr: 0, power: 0.9}}
loss: {{types: [{{type: CrossEntropyLoss}}], coef: [1, 0.4]}}
"""


def run(script, *arguments, cwd=ROOT, status=0):
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == status, (
        f"{script} ended with {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    )
    return done


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Data, configuration, and a trained run."""
    folder = tmp_path_factory.mktemp("programs")
    generate(folder / "data", train=4, val=3, size=(128, 64), seed=0)
    convert_tree(folder / "data", num_workers=1)
    config = folder / "small.yml"
    config.write_text(MODEL.format(data=folder / "data"))
    done = run(
        "train.py", "--config", config, "--do_eval", "--use_vdl", "--use_ema", "--save_interval", 2, "--log_iters", 1,
        "--save_dir", folder / "out", "--seed", 1, "--precision", "fp16", "--amp_level", "O1", "--keep_checkpoint_max", 1,
    )  # fmt: skip
    (folder / "train.log").write_text(done.stdout)
    return folder


def test_train_writes_paddlesegs_lines_and_folders(work):
    log = (work / "train.log").read_text()
    line = (
        r"\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\] INFO: \[TRAIN\] epoch: \d+, iter: 4/4, loss: \d+\.\d{4}, lr: 0\.\d{6}, "
        r"batch_cost: [\d.]+, reader_cost: [\d.]+, ips: [\d.]+ samples/sec \| ETA \d\d:\d\d:\d\d"
    )
    assert re.search(line, log)
    assert re.search(r"\[EVAL\] #Images: 3 mIoU: 0\.\d{4} Acc: 0\.\d{4} Kappa: -?0\.\d{4} Dice: 0\.\d{4}", log)
    assert re.search(r"\[EVAL\] The model with the best validation mIoU \(0\.\d{4}\) was saved at iter \d\.", log)
    assert "float32" in log  # fp16 on a CPU: said once
    out = work / "out"
    for name in ("best_model", "ema_best_model", "iter_4"):
        assert (out / name / "model.pdparams").is_file(), name
    assert not (out / "iter_2" / "model.pdparams").is_file() or (out / "best_model").resolve().name == "iter_2"
    assert (out / "config.yml").is_file() and list(out.glob("vdlrecords*"))


def test_visualdl_tags(work):
    from visualdl import LogReader

    reader = LogReader(file_path=str(next((work / "out").glob("vdlrecords*"))))
    tags = set(reader.get_tags()["scalar"])
    assert reader.get_tags()["image"] == ["Evaluate/prediction"]
    assert {"Train/loss", "Train/lr", "Train/batch_cost", "Train/reader_cost", "Evaluate/mIoU", "Evaluate/Acc"} <= tags


def test_paddle_itself_reads_the_checkpoint(work):
    import paddle

    state = paddle.load(str(work / "out/iter_4/model.pdparams"))
    assert "head.dnl_block.theta.weight" in state


@pytest.mark.parametrize("flags", [
    (), ("--aug_eval", "--scales", "0.5", "1.0", "--flip_horizontal"),
    ("--is_slide", "--crop_size", "64", "64", "--stride", "32", "32"), ("--num_workers", "2", "--auc_roc"),
], ids=["whole", "augmented", "slide", "workers"])  # fmt: skip
def test_val(work, flags):
    done = run("val.py", "--config", work / "small.yml", "--model_path", work / "out/best_model/model.pdparams", *flags)
    assert re.search(r"\[EVAL\] #Images: 3 mIoU: 0\.\d{4}", done.stdout)


def test_predict_export_infer_agree(work, tmp_path):
    weights = ("--config", work / "small.yml", "--model_path", work / "out/best_model/model.pdparams")
    images = work / "data/leftImg8bit/val"
    run("predict.py", *weights, "--image_path", images, "--save_dir", tmp_path / "result")
    run("export.py", *weights, "--input_shape", 1, 3, 64, 128, "--save_dir", tmp_path / "inference_model")
    run(
        "deploy/python/infer.py", "--config", tmp_path / "inference_model/deploy.yaml", "--image_path", images,
        "--save_dir", tmp_path / "infer",
    )  # fmt: skip
    labels = sorted(p.relative_to(images) for p in images.rglob("*.png"))
    assert len(labels) == 3
    for name in labels:
        dynamic = np.asarray(Image.open(tmp_path / "result/pseudo_color_prediction" / name))
        static = np.asarray(Image.open(tmp_path / "infer" / name.name))  # flat, as PaddleSeg's
        assert dynamic.shape == (64, 128) and (dynamic == static).mean() > 0.9999
        assert (tmp_path / "result/added_prediction" / name).is_file()
    assert not [path for path in (tmp_path / "infer").rglob("*/*") if path.parent.name != "added_prediction"]


def test_predict_with_own_colours(work, tmp_path):
    image = next((work / "data/leftImg8bit/val").rglob("*.png"))
    colours = [str(i % 256) for i in range(57)]
    weights = ("--config", work / "small.yml", "--model_path", work / "out/best_model/model.pdparams")
    run("predict.py", *weights, "--image_path", image, "--save_dir", tmp_path, "--custom_color", *colours)
    palette = Image.open(tmp_path / "pseudo_color_prediction" / image.name).getpalette()
    assert palette[:57] == list(map(int, colours))
    done = run(
        "predict.py", *weights, "--image_path", image, "--save_dir", tmp_path, "--custom_color", 1, 2, 3, status=2
    )
    assert "19 classes need 57 numbers" in done.stderr


def test_programs_run_from_anywhere_and_from_tools(work, tmp_path):
    for script in ("train.py", "val.py", "predict.py", "export.py"):
        assert "usage" in run(f"tools/{script}", "--help", cwd=tmp_path).stdout


def test_bad_use_ends_with_2_and_one_line(work, tmp_path):
    config = work / "small.yml"
    for script, arguments, message in (
        ("val.py", ("--config", config), "--model_path is required"),
        ("export.py", ("--config", config, "--input_shape", 1, 3, 64, 64), "--model_path is required"),
        ("predict.py", ("--config", config, "--image_path", "x"), "--model_path is required"),
        ("train.py", ("--config", config, "--precision", "fp8"), "invalid choice: 'fp8'"),
        ("train.py", ("--config", config, "--save_interval", 0), "--save_interval must be at least 1"),
        ("train.py", ("--config", config, "--device", "gpu"), "--device gpu"),
        ("train.py", ("--config", config, "--unknown_flag"), "unknown_flag"),
    ):
        done = run(script, *arguments, status=2, cwd=tmp_path)
        assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "output").exists()


def test_bad_input_ends_with_1_and_one_line(work, tmp_path):
    config, good = work / "small.yml", work / "out/best_model/model.pdparams"
    (tmp_path / "file").write_text("")
    truncated = tmp_path / "truncated.pdparams"
    truncated.write_bytes(good.read_bytes()[:1000])
    weights = ("--config", config, "--model_path")
    for script, arguments, message in (
        ("train.py", ("--config", tmp_path / "none.yml"), "none.yml: no such configuration"),
        ("train.py", ("--config", config, "--opts", "model.temprature=1"), "Did you mean 'temperature'"),
        ("train.py", ("--config", config, "--opts", "train_dataset.dataset_root=nowhere"), "nowhere is not a folder"),
        ("train.py", ("--config", config, "--save_dir", tmp_path / "file"), "is a file"),
        ("train.py", ("--config", config, "--resume_model", tmp_path / "nothing"), "nothing"),
        ("val.py", (*weights, tmp_path / "none.pdparams"), "none.pdparams: no such file"),
        ("val.py", (*weights, truncated), "truncated.pdparams"),
        ("val.py", (*weights, good, "--opts", "model.backbone.type=ResNet50"), "does not belong to this model"),
        ("export.py", (*weights, good, "--save_dir", tmp_path / "x", "--input_shape", 1, 4, 64, 64), "has 4 channels"),
    ):
        done = run(script, *arguments, status=1, cwd=tmp_path)
        assert message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "x").exists()


def test_two_processes_from_the_readme(work, tmp_path):
    """Losses are the mean of both ranks; evaluation counts each image once."""
    command = [
        sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--backend", "gloo",
        "--log_dir", str(tmp_path / "log"), "train.py", "--config", str(work / "small.yml"), "--iters", "2", "--do_eval",
        "--save_dir", str(tmp_path / "out"), "--batch_size", "1",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    log = "".join(p.read_text() for p in sorted((tmp_path / "log").glob("workerlog.*")))
    assert done.returncode == 0, log[-3000:] + done.stderr[-1000:]
    assert log.count("iter: 2/2") + log.count("iter: 1/2") <= 2, "only rank 0 writes lines"
    assert "[EVAL] #Images: 3 " in log
    assert (tmp_path / "out/best_model/model.pdparams").is_file()


PADDLESEG_TRAIN = (
    "--config c.yml --do_eval --use_vdl --use_ema --save_interval 500 --save_dir o --log_iters 10 --num_workers 2 "
    "--resume_model o/iter_5 --iters 80000 --batch_size 2 --learning_rate 0.01 --keep_checkpoint_max 5 "
    "--early_stop_intervals 3 --seed 1 --precision fp16 --amp_level O1 --device cpu --data_format NCHW --repeats 1 "
    "--profiler_options batch_range=[10,20] --to_static_training --opts a=1 b.c=2"
)
PADDLESEG_VAL = (
    "--config c.yml --model_path m --num_workers 2 --is_slide --crop_size 512 512 --stride 256 256 --aug_eval "
    "--scales 0.75 1.0 --flip_horizontal --flip_vertical --data_format NCHW --auc_roc --device cpu --precision fp16 "
    "--amp_level O2 --opts a=1"
)
PADDLESEG_PREDICT = (
    "--config c.yml --model_path m --image_path i --save_dir o --aug_pred --scales 0.75 1.0 --flip_horizontal "
    "--flip_vertical --is_slide --crop_size 512 512 --stride 256 256 --custom_color 0 0 0 --device cpu --device_id 0"
)
PADDLESEG_EXPORT = "--config c.yml --model_path m --save_dir o --input_shape 1 3 512 1024 --output_op softmax"


@pytest.mark.parametrize("module, flags", [
    (train, PADDLESEG_TRAIN), (val, PADDLESEG_VAL), (predict, PADDLESEG_PREDICT), (export, PADDLESEG_EXPORT),
], ids=["train", "val", "predict", "export"])  # fmt: skip
def test_all_of_paddlesegs_flags(module, flags):
    getattr(module, "parse_args", module.make_parser().parse_args)(flags.split())


def test_early_stop_needs_evaluation():
    with pytest.raises(UsageError, match="--do_eval"):
        train.parse_args(["--config", "c", "--early_stop_intervals", "3"])


def test_a_file_without_a_training_serves_all_but_train(work, tmp_path, capsys):
    """As PaddleSeg's pp_humanseg_lite_export_398x224.yml: a model and a val_dataset."""
    whole = yaml.safe_load((work / "small.yml").read_text())
    config = tmp_path / "small.yml"
    config.write_text(yaml.safe_dump({key: whole[key] for key in ("model", "val_dataset")}))
    flags = ["--config", str(config), "--model_path", str(work / "out/iter_4/model.pdparams")]
    picture = next((work / "data").rglob("*_leftImg8bit.png"))
    val.main([*flags, "--device", "cpu"])
    val.main(["--config", str(work / "small.yml"), *flags[2:], "--device", "cpu"])
    first, second = re.findall(r"\[EVAL\] #Images: .*", capsys.readouterr().out)
    assert first == second
    predict.main([*flags, "--device", "cpu", "--image_path", str(picture), "--save_dir", str(tmp_path / "p")])
    assert list((tmp_path / "p").rglob("*.png"))
    export.main([*flags, "--input_shape", "1", "3", "64", "128", "--save_dir", str(tmp_path / "e")])
    assert (tmp_path / "e/deploy.yaml").is_file()
    with pytest.raises(ConfigError, match="small.yml: batch_size: missing"):
        train.main(["--config", str(config)])
    config.write_text(yaml.safe_dump({key: whole[key] for key in ("model", "val_dataset")} | {"los": 1}))
    with pytest.raises(ConfigError, match="los: unknown key. Did you mean 'loss'"):
        val.main([*flags, "--device", "cpu"])
