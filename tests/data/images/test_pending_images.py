# SPDX-License-Identifier: Apache-2.0
"""Shards of the pictures of a command line, and what is left of them to do; through predict.py and infer.py."""

import gc
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

from paddle_dnl.cli import infer as infer_program
from paddle_dnl.data.images.image_files import find_images, iter_images
from paddle_dnl.data.images.pending_images import PendingImages, Shard
from paddle_dnl.errors import DataError, OutputError, UsageError
from paddle_dnl.files.outputs import JOURNAL

import cv2
import pytest
from tiny_export import blocks

ROOT = Path(__file__).resolve().parents[3]
LAUNCH = ("PADDLE_TRAINERS_NUM", "PADDLE_TRAINER_ID")
SLURM = tuple(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP", "COUNT"))


@pytest.fixture
def alone(monkeypatch):
    for name in (*LAUNCH, *SLURM):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture(scope="module")
def exported(exported):
    """Its deploy.yaml."""
    return exported / "deploy.yaml"


@pytest.fixture
def pictures(tmp_path):
    """Seven names in three folders."""
    names = ["0.png", "a/1.png", "a/2.png", "a.k/3.png", "b/4.jpg", "b/c/5.png", "z.png"]
    for seed, name in enumerate(names):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), blocks(2, 2, 8, seed)[0])
    return tmp_path / "in"


def _written(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != JOURNAL)


def _infer(exported, images, out, *more):
    return infer_program.main(["--config", str(exported), "--image_path", str(images), "--save_dir", str(out), *more])


def test_where_a_shard_comes_from(alone):
    assert Shard.of(None) == Shard(0, 1)
    assert Shard.of("2/5") == Shard(2, 5)
    for bad in ("5/5", "-1/5", "1", "a/b", "1/0"):
        with pytest.raises(UsageError, match=f"--shard {bad}"):
            Shard.of(bad)
    for name, value in zip(SLURM, ("7", "3", "9", "2", "4"), strict=True):  # sbatch --array=3-9:2
        alone.setenv(name, value)
    assert Shard.of(None) == Shard(2, 4)
    alone.setenv("SLURM_ARRAY_TASK_COUNT", "3")  # --array=3,7,9
    with pytest.raises(UsageError, match="with gaps between 3 and 9"):
        Shard.of(None)
    for name, value in zip(LAUNCH, ("4", "1"), strict=True):  # srun in an array: the rank counts
        alone.setenv(name, value)
    assert Shard.of(None) == Shard(1, 4)
    assert Shard.of("0/1") == Shard(0, 1)


def test_walk_is_in_order_of_paths_and_finds_equal_names_in_a_folder(pictures):
    found = find_images(pictures)
    assert [name for _, name in found] == sorted(name for _, name in found) and len(found) == 7
    (pictures / "a.jpg").write_bytes(b"")  # stored as a.png like the one below; the folders a and a.k lie between them
    (pictures / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.jpg and .*a\.png would both be stored as a\.png"):
        find_images(pictures)


def test_shards_are_disjoint_and_whole(tmp_path, exported, pictures, alone):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert _infer(exported, pictures, whole) == 0
    seen = []
    for index in range(3):
        before = set(_written(parts)) if parts.exists() else set()
        assert _infer(exported, pictures, parts, "--shard", f"{index}/3") == 0
        seen.append(set(_written(parts)) - before)
    assert [len(found) for found in seen] == [6, 4, 4]
    assert _written(parts) == _written(whole)
    for name in _written(whole):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_results_that_are_there_are_left_alone(tmp_path, exported, pictures, alone):
    out = tmp_path / "out"
    assert _infer(exported, pictures, out) == 0
    (out / "4.png").unlink()
    (out / "added_prediction/z.png").unlink()
    times = {name: (out / name).stat().st_mtime_ns for name in _written(out)}
    assert _infer(exported, pictures, out, "--skip_existing") == 0
    changed = {name for name in _written(out) if (out / name).stat().st_mtime_ns != times.get(name)}
    assert changed == {"4.png", "added_prediction/4.png", "z.png", "added_prediction/z.png"}
    assert _infer(exported, pictures, out, "--skip_existing") == 0  # nothing is left


def test_a_foreign_file_is_neither_replaced_nor_taken_for_a_result_unasked(tmp_path, exported, pictures, alone):
    out = tmp_path / "out"
    out.mkdir()
    (out / "z.png").write_text("mine")
    with pytest.raises(OutputError, match=r"z\.png: exists and was not written by this program"):
        _infer(exported, pictures, out, "--no_overlay")
    assert _written(out) == ["z.png"]
    assert _infer(exported, pictures, out, "--no_overlay", "--skip_existing") == 0
    assert (out / "z.png").read_text() == "mine" and len(_written(out)) == 7


def test_a_result_never_replaces_a_picture_of_another_shard(pictures, alone):
    """`in/0.png` belongs to shard 0; the result of shard 1 that is a link to it is refused."""
    out = pictures.parent / "out"
    (out / "a").mkdir(parents=True)
    os.link(pictures / "0.png", out / "a/1.png")
    with pytest.raises(OutputError, match=r"a.1\.png: would be overwritten, and is an input \(.*in.0\.png\)"):
        PendingImages(
            lambda: iter_images(pictures), lambda name: [out / name.with_suffix(".png")], [], out, shard=Shard(1, 3)
        )


def test_bad_pictures(tmp_path, exported, pictures, alone, caplog):
    (pictures / "a/1.png").write_bytes((pictures / "a/1.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"a.1\.png"):
        _infer(exported, pictures, tmp_path / "stop")
    assert _infer(exported, pictures, tmp_path / "out", "--skip_bad_samples", "--batch_size", "2", "--no_overlay") == 0
    assert _written(tmp_path / "out") == ["0.png", "2.png", "3.png", "4.png", "5.png", "z.png"]
    with pytest.raises(DataError, match="none of the 1 images can be used"):
        _infer(exported, pictures / "a/1.png", tmp_path / "none", "--skip_bad_samples")


def test_predict_under_the_launcher_splits_the_pictures(tmp_path, pictures):
    """Both ranks of a real launch; together every picture once, as one process does it."""
    config = tmp_path / "net.yml"
    config.write_text(
        "batch_size: 1\niters: 1\noptimizer: {type: SGD}\n"
        "lr_scheduler: {type: PolynomialDecay, learning_rate: 0.01}\n"
        "loss: {types: [{type: CrossEntropyLoss}], coef: [1]}\n"
        "train_dataset: {type: Cityscapes, dataset_root: ., transforms: [{type: Normalize}]}\n"
        "val_dataset: {type: Cityscapes, dataset_root: ., transforms: [{type: Normalize}]}\n"
        "model: {type: DNLNet, num_classes: 19, backbone: {type: ResNet18, output_stride: 16}}\n"
    )
    from paddle_dnl.config import Config
    from paddle_dnl.models.build import build_model

    import paddle

    paddle.seed(0)
    paddle.save(build_model(Config(str(config))).state_dict(), str(tmp_path / "net.pdparams"))
    (pictures / "b/c/5.png").write_bytes(b"no picture")
    words = ["predict.py", "--config", str(config), "--model_path", str(tmp_path / "net.pdparams"), "--device", "cpu"]
    words += ["--image_path", str(pictures), "--skip_bad_samples"]
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path / "log")]
    for out, before in (("alone", []), ("ranks", launch)):
        done = subprocess.run(
            [sys.executable, *before, *words, "--save_dir", str(tmp_path / out)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        logs = "".join(p.read_text() for p in (tmp_path / "log").glob("workerlog.*")) if before else ""
        assert done.returncode == 0, done.stderr + logs
    assert "shard 0/2: 4 images" in logs and "shard 1/2: 3 images" in logs
    assert "5.png" in logs and "skipped 1 of 3 images that cannot be used" in logs  # on rank 1
    names = _written(tmp_path / "alone")
    assert len(names) == 12 and _written(tmp_path / "ranks") == names
    for name in names:
        assert (tmp_path / "ranks" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    """40,000 names in 400 folders: passing over them holds one folder's names."""
    for folder in range(400):
        (tmp_path / f"{folder:03d}").mkdir()
        for number in range(100):
            (tmp_path / f"{folder:03d}" / f"a_rather_long_name_of_a_picture_{number}.png").touch()
    peaks = []
    for count in (lambda: sum(1 for _ in iter_images(tmp_path)), lambda: len(find_images(tmp_path))):
        runs = []
        for _ in range(2):  # what else the process does in the meantime counts too
            gc.collect()
            tracemalloc.start()
            assert count() == 40_000
            runs.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        peaks.append(min(runs))
    assert peaks[0] < peaks[1] / 4
