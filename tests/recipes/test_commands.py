# SPDX-License-Identifier: Apache-2.0
"""The command in the head of every published configuration, run for two iterations with start weights that the test makes.

Each runs through train.py's own `main` in one process on a CPU (the heads name GPUs), with small pictures and crops. Files that
a configuration downloads stand in the cache under the name that a download would have; the others are given by the head's
own `--pretrained`.
"""

import re
import shlex
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.cli import train
from paddle_dnl.config import Config
from paddle_dnl.config.zoo import read_rows
from paddle_dnl.errors import CheckpointError
from paddle_dnl.evaluation.curves import read_scalars
from paddle_dnl.weights.downloads import cached_path
from paddle_dnl.weights.loading import read_params

import cv2
import numpy as np
import paddle
import pytest
import torch_writer
from source_names import dgmn2_names, torch_names

ROOT = Path(__file__).resolve().parents[2]
# One row for each source and kind of backbone.
QUICK = {
    "dnl_r50-d8_512x1024_40k_cityscapes",
    "dnlnet_resnet50_os8_cityscapes_1024x512_80k",
    "dnl_nowd_ln_resnet101_pascal_context59_520x520_30k",
    "fpn_dgmn2_tiny_cityscapes_769x769_40k",
}
ROWS = [
    pytest.param(row, id=(name := Path(row["config"]).stem), marks=[] if name in QUICK else pytest.mark.slow)
    for row in read_rows(ROOT / "configs/zoo.yml")
]
SIDE = 72  # DGMN2's pyramid needs 65
# Sizes of transforms, windows and maps that are fixed to the crop.
_PAIRS, _SIDES = ("crop_size", "target_size", "stride"), ("short_size", "image_size", "max_size")


def small_sizes(value, place: str = "") -> list[str]:
    """`--opts` that bring every size of a resolved configuration to `SIDE` pixels."""
    if isinstance(value, list):
        return [opt for i, item in enumerate(value) for opt in small_sizes(item, f"{place}.{i}")]
    if not isinstance(value, dict):
        return []
    found = []
    for key, item in value.items():
        where = f"{place}.{key}".lstrip(".")
        if key == "frame":
            found.append(f"{where}=[{SIDE * 3 // 2},{SIDE}]")
        elif key == "target_size" and where.startswith("val_dataset"):  # whole pictures are padded
            found.append(f"{where}=[{SIDE * 3 // 2},{SIDE * 3 // 2}]")
        elif key in _PAIRS:
            found.append(f"{where}=[{SIDE},{SIDE}]")
        elif key in _SIDES:
            found.append(f"{where}={SIDE}")
        else:
            found += small_sizes(item, where)
    return found


def write_pictures(root: Path, cfg: dict, count: int) -> None:
    """Noise in the folder tree of a dataset, for one of its modes."""
    kind, mode = cfg["type"], cfg.get("mode", "train")
    names = [f"{mode}_{i}" for i in range(count)]
    if kind == "Cityscapes":
        places = [
            (f"leftImg8bit/{mode}/a/{name}_leftImg8bit.png", f"gtFine/{mode}/a/{name}_gtFine_labelTrainIds.png")
            for name in names
        ]
    elif kind == "ADE20K":
        part = {"train": "training", "val": "validation"}[mode]
        places = [(f"images/{part}/{name}.jpg", f"annotations/{part}/{name}.png") for name in names]
    else:  # of PASCAL: lists of names
        folder, labels, lists = {
            "PascalVOC": ("VOC2012/", "SegmentationClass", [mode] if mode == "val" else ["train", "aug"]),
            "PascalContext59": ("", "Context", [f"{mode}_context"]),
        }[kind]
        places = []
        for i, one in enumerate(lists):
            mine = names[i :: len(lists)]
            path = root / f"{folder}ImageSets/Segmentation/{one}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(mine) + "\n")
            where = f"{labels}Aug" if one == "aug" else labels
            places += [(f"{folder}JPEGImages/{name}.jpg", f"{folder}{where}/{name}.png") for name in mine]
    rng = np.random.default_rng(len(mode))
    for picture, label in places:
        for path, value in (
            (picture, rng.integers(0, 256, (SIDE, SIDE * 3 // 2, 3))),
            (label, rng.integers(1, 8, (SIDE // 4, SIDE * 3 // 8)).repeat(4, 0).repeat(4, 1)),
        ):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / path), value.astype("uint8"))


@pytest.fixture(scope="module")
def backbone_weights():
    """Random weights in our names, by the backbone's section without its start weights."""
    made = {}

    def of(section: dict) -> dict[str, np.ndarray]:
        cfg = {key: value for key, value in section.items() if key not in ("pretrained", "output")}
        key = repr(sorted(cfg.items()))
        if key not in made:
            made.clear()  # rows come in groups of the same backbone
            made[key] = {k: v.numpy() for k, v in registry.build(cfg, "backbone").state_dict().items()}
        return made[key]

    return of


def write_start_weights(config: Config, state: dict[str, np.ndarray], folder: Path) -> None:
    """The file of a recipe: in the cache where it is downloaded, else under its own name in the working folder."""
    backbone = config.model_cfg["backbone"]
    address = backbone.get("pretrained")
    path = cached_path(address) if address else folder / config.dic["start_weights"]["file"]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pdparams":
        paddle.save({key: paddle.to_tensor(value) for key, value in state.items()}, str(path))
    elif backbone["type"].startswith("DGMN2"):
        torch_writer.save(dgmn2_names(state), path, wrapper="model")
    else:
        torch_writer.save(torch_names(state, backbone["stem"]), path)


@pytest.mark.parametrize("row", ROWS)
def test_the_command_in_the_head_trains(row, backbone_weights, tmp_path, monkeypatch, capsys):
    path = ROOT / row["config"]
    (command,) = re.findall(
        r"^#   (python -m paddle.distributed.launch .* train.py .*)$", path.read_text("utf-8"), re.M
    )
    words = shlex.split(command)
    words = words[words.index("train.py") + 1 :]
    assert words[:2] == ["--config", row["config"]] and {"--do_eval", "--use_vdl", "--num_workers"} <= set(words)
    monkeypatch.setenv("SEG_HOME", str(tmp_path / "seg"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    config = Config(path)
    state = backbone_weights(config.model_cfg["backbone"])
    write_start_weights(config, state, tmp_path)
    opts = small_sizes(config.dic)
    for section, count in (("train_dataset", config.batch_size), ("val_dataset", 1)):
        write_pictures(tmp_path / "data", config.dic[section], count)
        opts.append(f"{section}.dataset_root={tmp_path}/data")
    few = ["--device", "cpu", "--iters", "2", "--log_iters", "1", "--seed", "1", "--save_dir", "out"]
    few += ["--num_workers", "0", "--opts", *opts]  # in the place of the command's four processes on each GPU
    assert train.main([*words, *few]) == 0
    said = capsys.readouterr().out
    assert f"{len(state)} tensors taken" in said or path.stem.startswith(("dnlnet_", "dmnet_")), said
    stored = read_params(tmp_path / "out/iter_2/model.pdparams")
    moved = [np.abs(stored[f"backbone.{key}"] - value).max() for key, value in state.items() if value.ndim == 4]
    spread = [value.std() for value in state.values() if value.ndim == 4]
    assert np.median(np.array(moved) / spread) < 1, "two steps from the start weights, not from other ones"
    assert max(moved) > 0
    scalars = read_scalars(tmp_path / "out")
    assert scalars["Train/loss"][0] == [1, 2] and np.isfinite(scalars["Train/loss"][1]).all()
    assert scalars["Evaluate/mIoU"][0] == [2] and list((tmp_path / "out").glob("vdlrecords*"))


def _resnet18(stem: str) -> dict[str, np.ndarray]:
    backbone = registry.build({"type": "ResNet18", "stem": stem}, "backbone")
    return torch_names({key: value.numpy() for key, value in backbone.state_dict().items()}, stem)


def _dgmn2(size: str) -> dict[str, np.ndarray]:
    backbone = registry.build({"type": f"DGMN2_{size}"}, "backbone")
    return dgmn2_names({key: value.numpy() for key, value in backbone.state_dict().items()})


_TINY, _DNL = "setr_naive_dgmn2_tiny_cityscapes_769x769_40k", "dnl_r50-d8_512x1024_40k_cityscapes"
_REFUSALS = {
    "depth": (_TINY, lambda: _dgmn2("Small"), r"158 tensors found a place.*DGMN2-Small.*DGMN2-Tiny.*"
              "It fits setr_naive_dgmn2_small_cityscapes_769x769_40k, or any"),
    "too few": (_TINY, lambda: dict(list(_dgmn2("Tiny").items())[:20]), r"20 tensors found a place; tensors of the model that "
                r"the file does not give: .*\(138 in all\)"),
    "family": (_TINY, lambda: _resnet18("v1c"), r"111 tensors of .*ResNet-18 \(mmseg\), none of which fits; this model has .*"
               "DGMN2-Tiny. It fits --opts model.backbone.type=ResNet18 model.backbone.stem=v1c"),
    "other family": (_DNL, lambda: _dgmn2("Tiny"), r"\d+ tensors of .*DGMN2-Tiny \(dgmn2\), none of which fits; this model has "
                     ".*ResNet-50. It fits fpn_dgmn2_tiny_cityscapes_769x769_40k"),
    "stem": (_DNL, lambda: _resnet18("v1"), "101 tensors of .*ResNet-18.* with stem v1; this model has .*ResNet-50 with stem "
             "v1c and would compute something else"),
}  # fmt: skip


@pytest.mark.parametrize("case", _REFUSALS)
def test_start_weights_of_another_backbone_end_a_published_command(case, tmp_path):
    name, make, message = _REFUSALS[case]
    torch_writer.save(make(), tmp_path / "weights.pth")
    config = Config(name)
    for section in ("train_dataset", "val_dataset"):
        write_pictures(tmp_path / "data", config.dic[section], 2)
    roots = [f"{section}.dataset_root={tmp_path}/data" for section in ("train_dataset", "val_dataset")]
    flags = ["--device", "cpu", "--save_dir", str(tmp_path / "out"), "--pretrained", str(tmp_path / "weights.pth")]
    with pytest.raises(CheckpointError, match=message) as caught:
        train.main(["--config", name, *flags, "--opts", *roots])
    assert "\n" not in str(caught.value) and not list((tmp_path / "out").glob("iter_*"))
