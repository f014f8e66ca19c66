# SPDX-License-Identifier: Apache-2.0
"""infer.py: which pictures are read, where results go, what flags mean, and how failures end."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

from paddle_dnl.cli.infer import main, parse_args
from paddle_dnl.cli.programs import PROGRAMS
from paddle_dnl.data.overlay import overlay
from paddle_dnl.errors import ConfigError, DataError, UsageError
from paddle_dnl.files.outputs import JOURNAL

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_export import CLASSES, blocks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def exported(exported):
    """Its deploy.yaml."""
    return exported / "deploy.yaml"


@pytest.fixture
def pictures(tmp_path):
    """Two folders that hold pictures of the same name, and one picture beside them; name -> classes."""
    labels = {}
    for seed, name in enumerate(("a/1.png", "a/2.png", "b/1.png", "3.png")):
        image, label = blocks(4, 8, 8 * (seed + 1), seed)
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
        labels[name] = label
    (tmp_path / "in" / "a" / "notes.md").write_text("no picture")
    return labels


def _infer(exported, images, out, *more):
    return main(["--config", str(exported), "--image_path", str(images), "--save_dir", str(out), *more])


def _written(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != JOURNAL)


def _check(out, name, label):
    with Image.open(out / name) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.array(picture), label)
        color = np.array(picture.convert("RGB"))
    np.testing.assert_array_equal(color, np.asarray(CLASSES.colors, np.uint8)[label])


@pytest.mark.parametrize("batch", ["1", "3"])
def test_folder(tmp_path, exported, pictures, batch):
    assert _infer(exported, tmp_path / "in", tmp_path / "out", "--batch_size", batch) == 0
    assert _written(tmp_path / "out") == sorted([*pictures, *(f"added_prediction/{name}" for name in pictures)])
    for name, label in pictures.items():
        _check(tmp_path / "out", name, label)
        image = cv2.imread(str(tmp_path / "in" / name))
        mixed = cv2.imread(str(tmp_path / "out" / "added_prediction" / name))
        np.testing.assert_array_equal(mixed, overlay(image, label, CLASSES.colors))


def test_one_picture_and_pattern(tmp_path, exported, pictures):
    _infer(exported.parent, tmp_path / "in" / "a" / "2.png", tmp_path / "one")
    assert _written(tmp_path / "one") == ["2.png", "added_prediction/2.png"]
    _check(tmp_path / "one", "2.png", pictures["a/2.png"])
    _infer(exported, tmp_path / "in" / "*" / "1.png", tmp_path / "two")
    assert _written(tmp_path / "two") == ["a/1.png", "added_prediction/a/1.png", "added_prediction/b/1.png", "b/1.png"]
    _check(tmp_path / "two", "b/1.png", pictures["b/1.png"])


@pytest.mark.parametrize("separator", [",", " ", "\t"])
def test_list(tmp_path, exported, pictures, separator):
    names = ["b/1.png", "a/1.png"]
    (tmp_path / "in" / "list.txt").write_text("".join(f"{name}{separator}label/{name}\n" for name in names))
    _infer(exported, tmp_path / "in" / "list.txt", tmp_path / "out")
    assert _written(tmp_path / "out") == ["a/1.png", "added_prediction/a/1.png", "added_prediction/b/1.png", "b/1.png"]
    for name in names:
        _check(tmp_path / "out", name, pictures[name])


def test_results_are_flat_where_names_differ(tmp_path, exported, pictures):
    (tmp_path / "in" / "a" / "1.png").unlink()
    _infer(exported, tmp_path / "in", tmp_path / "out")
    names = sorted({Path(name).name for name in pictures})
    assert _written(tmp_path / "out") == sorted([*names, *(f"added_prediction/{name}" for name in names)])
    _check(tmp_path / "out", "1.png", pictures["b/1.png"])


# What PaddleX adds, as PaddleSeg develop's export writes it.
PADDLEX = "Global: {model_name: DNLNet}\nHpi: {backend_config: {openvino: {}}, selected_backends: {cpu: openvino}}\n"


@pytest.mark.parametrize("name, more", [("deploy.yaml", ""), ("inference.yml", ""), ("inference.yml", PADDLEX)])
def test_a_folder_of_paddleseg(tmp_path, exported, pictures, name, more):
    from paddleseg.utils.visualize import get_color_map_list

    folder = tmp_path / "theirs"
    folder.mkdir()
    for path in exported.parent.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    graph = "model.json" if (folder / "model.json").exists() else "model.pdmodel"
    # As PaddleSeg writes it; without a size its graph gets the picture as it is.
    (folder / "deploy.yaml").unlink()
    (folder / name).write_text(
        f"{more}Deploy:\n  model: {graph}\n  params: model.pdiparams\n  transforms:\n"
        "  - {type: Resize, target_size: [64, 32]}\n  - {type: Normalize}\n"
    )
    _infer(folder, tmp_path / "in", tmp_path / "out")
    with Image.open(tmp_path / "out" / "3.png") as picture:
        np.testing.assert_array_equal(np.array(picture), pictures["3.png"])
        assert picture.getpalette() == get_color_map_list(256)


def test_other_keys_beside_deploy_are_refused(tmp_path, exported):
    text = exported.read_text()
    (tmp_path / "deploy.yaml").write_text(text.replace("Deploy:", "Globals: {}\nDeploy:").split("\n", 1)[1])
    with pytest.raises(ConfigError, match="Globals: unknown key beside Deploy"):
        _infer(tmp_path, tmp_path, tmp_path / "out")


@pytest.mark.parametrize("count, is_long", [(31, False), (32, True)])
def test_many_pictures_are_worth_a_process(tmp_path, exported, monkeypatch, count, is_long):
    from paddle_dnl.cli import infer

    (tmp_path / "in").mkdir()
    for number in range(count):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), blocks(1, 1, 8)[0])
    asked, real = [], infer._make_predictor
    monkeypatch.setattr(infer, "_make_predictor", lambda args, wanted: (asked.append(wanted), real(args, False))[1])
    assert _infer(exported, tmp_path / "in", tmp_path / "out") == 0
    assert asked == [is_long] and len(_written(tmp_path / "out")) == 2 * count


def test_benchmark_and_details(tmp_path, exported, pictures, capsys):
    _infer(exported, tmp_path / "in", tmp_path / "out", "--benchmark", "True", "--model_name", "tiny")
    text = capsys.readouterr().out
    for name in pictures:
        assert f"{tmp_path / 'in' / name} -> {tmp_path / 'out' / name}" in text
    number = r"(\d+\.\d) ms"
    found = re.search(
        rf"benchmark tiny: backend paddle, cpu, batch 1, 5 warm-up and 20 timed runs: median {number}, mean {number}, "
        rf"p90 {number}, p99 {number}, (\d+\.\d+) images/s",
        text,
    )
    assert found, text
    assert float(found[1]) <= float(found[3]) <= float(found[4]) and float(found[5]) > 0
    line = re.search(r"pipeline \(read, run, write\): (\S+) images/s, (\S+) of the backend alone; 4 images in", text)
    assert line, text
    assert float(line[2]) == pytest.approx(float(line[1]) / float(found[5]), abs=0.006)
    _infer(exported, tmp_path / "in", tmp_path / "out", "--print_detail", "False")
    text = capsys.readouterr().out
    assert " -> " not in text and "benchmark tiny" not in text and "median" not in text and "4 images in" in text


def test_flags_as_tipc_and_people_write_them():
    tipc = (
        "--device=cpu --enable_mkldnn=False --cpu_threads=2 --batch_size=1 --precision=fp32 --config=a/deploy.yaml "
        "--image_path=x --benchmark=True --save_dir=y"
    )
    args = parse_args(tipc.split())
    assert (args.enable_mkldnn, args.cpu_threads, args.benchmark, args.print_detail) == (False, 2, True, True)
    more = parse_args("--config a --image_path b --device gpu --use_trt --enable_auto_tune true --with_argmax".split())
    assert (more.use_trt, more.enable_auto_tune, more.with_argmax, more.min_subgraph_size) == (True, True, True, 3)
    assert parse_args("--config a --image_path b --print_detail false".split()).print_detail is False


@pytest.mark.parametrize(
    "program, name, words",
    [
        ("infer", "backend", "--config a --image_path b"),
        ("val", "backend", "--config a"),
        ("benchmark", "backends", "--config a"),
    ],
)
def test_former_names_of_flags_are_read_and_not_shown(program, name, words):
    parser = importlib.import_module(PROGRAMS[program].module).make_parser()
    former, default = name.replace("backend", "engine"), getattr(parser.parse_args(words.split()), name)
    for flag in (name, former):
        found = vars(parser.parse_args([*words.split(), f"--{flag}", "openvino"]))
        assert found[name] == (["openvino"] if name == "backends" else "openvino") != default and former not in found
    assert f"--{name} " in parser.format_help() and "engine" not in parser.format_help()


@pytest.mark.parametrize(
    "flags, text",
    [
        ("--batch_size 0", "--batch_size must be at least 1"),
        ("--cpu_threads -1", "--cpu_threads must be at least 1"),
        ("--use_trt True", "need --device gpu"),
        ("--enable_auto_tune True", "need --device gpu"),
        ("--precision fp16", "--precision fp16 is for --use_trt True"),
        (
            "--precision int8",
            "--precision int8 on a CPU needs ONNX Runtime or OpenVINO; add --backend onnxruntime",
        ),
        ("--precision bf16", "--precision bf16 on a CPU needs OpenVINO; add --backend openvino"),
        ("--device gpu --precision int8", "--precision int8 is for --use_trt True"),
    ],
)
def test_flags_that_cannot_work(flags, text):
    with pytest.raises(UsageError, match=text):
        parse_args(["--config", "a", "--image_path", "b", *flags.split()])


@pytest.mark.parametrize(
    "flags", ["--benchmark maybe", "--device tpu", "--precision fp8", "--backend other", "--unknown 1"]
)
def test_flags_that_are_none(flags, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_args(["--config", "a", "--image_path", "b", *flags.split()])
    assert caught.value.code == 2 and flags.split()[0] in capsys.readouterr().err


def test_failures_name_what_failed(tmp_path, exported, pictures):
    out = tmp_path / "out"
    with pytest.raises(DataError, match="nowhere.png"):
        _infer(exported, tmp_path / "nowhere.png", out)
    with pytest.raises(ConfigError, match="nothing.yaml"):
        _infer(tmp_path / "nothing.yaml", tmp_path / "in", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no images"):
        _infer(exported, tmp_path / "empty", out)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--save_dir.*is a file"):
        _infer(exported, tmp_path / "in", tmp_path / "file")
    (tmp_path / "in" / "added_prediction").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "added_prediction" / "1.png"), blocks(1, 1, 8)[0])
    with pytest.raises(
        UsageError, match="added_prediction has the name of an output folder; rename it, or give a list"
    ):
        _infer(exported, tmp_path / "in", out)
    for place, text in (
        (".", "is the folder of pictures"),
        ("added_prediction", "lies in the folder of pictures .*1.png"),
    ):
        with pytest.raises(UsageError, match=f"--save_dir .*{text}"):
            _infer(exported, tmp_path / "in", tmp_path / "in" / place)
    cv2.imwrite(str(tmp_path / "in" / "a" / "1.jpg"), blocks(1, 1, 8)[0])
    with pytest.raises(DataError, match="would both be stored as"):
        _infer(exported, tmp_path / "in" / "a", out)
    assert not out.exists()


def _program(*args):
    command = [sys.executable, str(ROOT / "deploy" / "python" / "infer.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120)


def test_the_program_ends_as_it_should(tmp_path, exported, pictures):
    flags = ("--config", exported, "--save_dir", tmp_path / "out", "--image_path")
    good = _program(*flags, tmp_path / "in")
    assert good.returncode == 0, good.stderr
    assert "4 images in" in good.stdout
    _check(tmp_path / "out", "b/1.png", pictures["b/1.png"])
    (tmp_path / "in" / "z.png").write_bytes(b"no picture")
    bad = _program(*flags, tmp_path / "in")
    assert bad.returncode == 1
    last = bad.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ") and str(tmp_path / "in" / "z.png") in last and "Traceback" not in bad.stderr
