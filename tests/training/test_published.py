# SPDX-License-Identifier: Apache-2.0
"""A run that has a published recipe's name or base says in which facts it differs; one that is the recipe says nothing."""

import shutil
from pathlib import Path

from paddle_dnl.cli import train
from paddle_dnl.config import Config, lookup, zoo
from paddle_dnl.config.zoo import read_rows
from paddle_dnl.distributed import collectives
from paddle_dnl.errors import DataError, DownloadError
from paddle_dnl.training.records import published
from paddle_dnl.weights import downloads

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [row for row in read_rows(ROOT / "configs/zoo.yml") if row["recipe"] is not None]
DNL = "dnl_r50-d8_512x1024_40k_cityscapes"


def begin(config, tmp_path, *flags) -> None:
    """train.py up to the dataset, which is not there."""
    missing = [f"{section}.dataset_root={tmp_path}/none" for section in ("train_dataset", "val_dataset")]
    given = ["--config", str(config), "--device", "cpu", "--save_dir", str(tmp_path / "out"), *flags]
    given += missing if "--opts" in flags else ["--opts", *missing]
    with pytest.raises(DataError, match="none is not a folder"):
        train.main(given)


def lines(said) -> list[str]:
    return [line for line in said().splitlines() if "not the published recipe" in line]


@pytest.mark.parametrize("flags, expected", [
    (["--batch_size", "2"], ["batch 2 for 8"]),
    (["--batch_size", "8"], []),
    (["--opts", "grad_accum_iters=4"], ["statistics of batch normalisation over 2 images for 8"]),
    (["--batch_size", "8", "--iters", "100", "--learning_rate", "0.1"],
     ["iters 100 for 40000", "lr_scheduler.learning_rate 0.1 for 0.01"]),
    (["--batch_size", "8", "--precision", "bf16"], ["precision bf16 for fp32"]),
    (["--batch_size", "8", "--opts", "train_dataset.transforms.2.crop_size=[64,64]", "loss.coef=[1,4.0]",
      "val_dataset.transforms.1.frame=[100,50]", "model.backbone.type=ResNet18"],
     ["train_dataset.transforms.RandomCrop.crop_size [64, 64] for [1024, 512]",
      "val_dataset.transforms.ResizeToFit.frame [100, 50] for [2048, 1024]", "loss.coef [1, 4.0] for [1, 0.4]",
      "model.backbone ResNet18 for ResNet50"]),
])  # fmt: skip
def test_flags_that_change_a_published_recipe_are_named(flags, expected, tmp_path, said, monkeypatch):
    monkeypatch.setattr(downloads, "fetch", lambda url, *_, **__: Path(url))
    begin(DNL, tmp_path, *flags)
    found = [f"not the published recipe: {', '.join(expected)} ({DNL}, mmsegmentation)"] if expected else []
    assert lines(said) == found


def test_start_weights_that_are_left_out_are_a_difference(tmp_path, said):
    config = "fpn_dgmn2_tiny_cityscapes_769x769_40k"
    begin(config, tmp_path, "--from_scratch", "--batch_size", "8")
    assert lines(said) == [
        f"not the published recipe: start weights none for dgmn2_tiny_model.pth ({config}, DGMN2 authors)"
    ]


def test_a_file_with_a_published_base_and_a_copy_under_a_published_name_are_compared(tmp_path, said):
    base = ROOT / f"configs/dnlnet/mmseg/{DNL}.yml"
    head = "batch_size: 8\nmodel: {backbone: {pretrained: null}}\n"
    steps = """train_dataset: {transforms: [{type: ToUint8}, {type: ResizeToFit, frame: [2048, 1024], ratio_range: [0.5, 2.0]},
      {type: RandomHorizontalFlip, prob: 0.5}, {type: RandomCrop, crop_size: [1024, 512], category_max_ratio: 0.75},
      {type: RandomBlur}, {type: Normalize, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}]}"""
    (tmp_path / "mine.yml").write_text(f"_base_: {DNL}\n{head}{steps}\n")
    (tmp_path / f"{DNL}.yml").write_text(f"_base_: {base}\n{head}optimizer: {{weight_decay: 5.0e-5}}\n")
    begin(tmp_path / "mine.yml", tmp_path)
    begin(tmp_path / f"{DNL}.yml", tmp_path)
    steps_changed, decay_changed = lines(said)
    where = "train_dataset.transforms"
    for part in ("start weights none for resnet50_v1c-2cccc1ad.pth", f"{where} in the order", f"with {where}.RandomBlur",
                 f"without {where}.PhotoMetricDistortion", f"without {where}.Padding"):  # fmt: skip
        assert part in steps_changed
    assert "prob" not in steps_changed, "the default, spelled out, is no difference"
    assert "optimizer.weight_decay 5e-05 for 0.0005" in decay_changed


@pytest.mark.parametrize("row", ROWS, ids=lambda row: Path(row["config"]).stem)
def test_the_command_in_the_head_is_the_published_recipe(row, said, monkeypatch):
    """On as many processes as the head names; with half of them the batch differs."""
    config = Config(ROOT / row["config"])
    processes = row["batch"] // config.batch_size
    monkeypatch.setattr(collectives, "world_size", lambda: processes)
    published.announce(config, "fp32")
    assert not lines(said)
    monkeypatch.setattr(collectives, "world_size", lambda: processes // 2)
    published.announce(config, "fp32")
    (line,) = lines(said)
    assert f": batch {row['batch'] // 2} for {row['batch']} (" in line


@pytest.mark.parametrize("file, old, new", [
    (f"configs/dnlnet/mmseg/{DNL}.yml", "iters: 40000", "iters: 4000"),
    ("configs/_base_/mmseg_cityscapes_512x1024.yml", "crop_size: [1024, 512]", "crop_size: [512, 512]"),
    ("configs/_base_/mmseg_cityscapes_512x1024.yml", "dataset_root: ", "dataset_root: elsewhere/"),
])  # fmt: skip
def test_a_file_of_the_zoo_that_was_edited_in_place_is_noticed(file, old, new, tmp_path, said, monkeypatch):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    edited = tmp_path / file
    assert old in edited.read_text()
    edited.write_text(edited.read_text().replace(old, new))
    monkeypatch.setattr(lookup, "_PACKAGE", tmp_path / "paddle_dnl")
    monkeypatch.setattr(zoo, "zoo_folder", lookup.zoo_folder.__wrapped__)
    monkeypatch.setattr(published, "zoo_configs", lambda: {DNL: tmp_path / f"configs/dnlnet/mmseg/{DNL}.yml"})
    monkeypatch.setattr(collectives, "world_size", lambda: 4)
    published.announce(Config(tmp_path / f"configs/dnlnet/mmseg/{DNL}.yml"), "fp32")
    name = f"configs/dnlnet/mmseg/{DNL}.yml or one of its bases was edited"
    expected = [] if "dataset_root" in old else [f"not the published recipe: {name} ({DNL}, mmsegmentation)"]
    assert lines(said) == expected


def test_other_configurations_are_compared_with_nothing(said):
    published.announce(Config("dnlnet_resnet18_mini_cityscapes"), "fp32")
    published.announce(Config(Config(DNL).dic), "bf16")
    assert not lines(said)


def test_start_weights_that_cannot_be_fetched_are_said_before_data_are_read(tmp_path, said, monkeypatch):
    def refuse(url, *_, **__):
        raise DownloadError(f"{url} could not be fetched")

    monkeypatch.setattr(downloads, "fetch", refuse)
    missing = f"train_dataset.dataset_root={tmp_path}/none"
    with pytest.raises(DownloadError, match=r"^\S+resnet50_v1c-2cccc1ad.pth could not be fetched$"):
        train.main(["--config", DNL, "--device", "cpu", "--save_dir", str(tmp_path / "out"), "--opts", missing])
    assert not (tmp_path / "out").exists()
