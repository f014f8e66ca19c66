# SPDX-License-Identifier: Apache-2.0
"""Every family goes the whole way: twenty steps with a falling loss, evaluation, export, the same picture in Paddle Inference.

Inputs are small and the published configuration gives the model; `make test` has one of each paper, `make test-slow` all.
"""

import re
from pathlib import Path
from types import SimpleNamespace

from paddle_dnl import Predictor, build_model, registry
from paddle_dnl.config import Config
from paddle_dnl.data.prepare.convert_cityscapes import convert_tree
from paddle_dnl.data.scenes.mini_cityscapes import generate
from paddle_dnl.deployment.export.exporter import export_model
from paddle_dnl.deployment.export.shapes import FreeSizeError
from paddle_dnl.evaluation.evaluator import evaluate
from paddle_dnl.training.trainer import TrainOptions, train_from_config

import numpy as np
import paddle
import pytest

ROOT = Path(__file__).resolve().parents[2]
DGMN2 = "dgmn2/{}_dgmn2_tiny_cityscapes_769x769_40k.yml"
FAMILIES = {
    "dnlnet": ("dnlnet/dnlnet_resnet50_os8_cityscapes_1024x512_80k.yml", ["model.backbone.type=ResNet18_vd"], True),
    "dnl-official": (
        "dnlnet/official/dnl_temp_in_resnet101_cityscapes_769x769_60k.yml",
        ["model.backbone.type=ResNet18", "loss.types.0.min_kept_per_image=1000"],
        False,
    ),
    "dnl-mmseg": ("dnlnet/mmseg/dnl_r50-d8_512x1024_40k_cityscapes.yml", ["model.backbone.type=ResNet18"], False),
    "dmnet": (
        "dmnet/dmnet_resnet101_os8_cityscapes_1024x512_80k.yml",
        ["model.backbone.type=ResNet18_vd", "model.mid_channels=64"],
        True,
    ),
    "dmnet-mmseg": (
        "dmnet/mmseg/dmnet_r50-d8_769x769_40k_cityscapes.yml",
        ["model.backbone.type=ResNet18", "model.mid_channels=64"],
        False,
    ),
    "fpn": (DGMN2.format("fpn"), [], True),
    "setr-naive": (DGMN2.format("setr_naive"), ["model.image_size=97"], False),
    "setr-pup": (DGMN2.format("setr_pup"), ["model.image_size=97"], False),
    "setr-mla": (DGMN2.format("setr_mla"), ["model.image_size=97"], False),
}
SIZE = 97


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families") / "data"
    generate(folder, train=4, val=2, size=(160, 100), seed=0)
    convert_tree(folder, num_workers=1)
    return folder


def _small(config: str, changes: list[str], scenes: Path) -> Config:
    """The published configuration with small crops, our scenes, and a rate at which twenty steps show something."""
    path = ROOT / "configs" / config
    options = ["iters=20", "batch_size=2", "model.backbone.pretrained=null", "lr_scheduler.learning_rate=0.001"]
    options += [f"{part}.dataset_root={scenes}" for part in ("train_dataset", "val_dataset")] + changes
    whole = Config(path, opts=options).dic
    for step in whole["train_dataset"]["transforms"]:
        for key in ("crop_size", "target_size"):
            if key in step:
                step[key] = [SIZE, SIZE]
        if "frame" in step:
            step["frame"] = [160, 100]
    for step in whole["val_dataset"]["transforms"]:
        if "frame" in step:
            step["frame"] = [160, 100]
    if whole.get("test_config", {}).get("is_slide"):
        whole["test_config"] |= {"crop_size": [SIZE, SIZE], "stride": [64, 64]}
    if whole["optimizer"]["type"] == "SGD":
        whole["lr_scheduler"]["learning_rate"] = 0.01
    return Config(whole)


@pytest.mark.parametrize(
    "family", [pytest.param(n, marks=() if default else pytest.mark.slow) for n, (_, _, default) in FAMILIES.items()]
)
def test_the_whole_way(family, scenes, tmp_path, capsys):
    path, changes, _ = FAMILIES[family]
    config = _small(path, changes, scenes)
    out = tmp_path / "out"
    options = TrainOptions(save_dir=str(out), log_iters=1, seed=0, save_interval=20)
    train_from_config(config, SimpleNamespace(**vars(options)))
    losses = [float(x) for x in re.findall(r"\[TRAIN\].*?loss: ([\d.]+)", capsys.readouterr().out)]
    assert len(losses) == 20 and np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:3]), losses

    model = build_model(config, pretrained=out / "iter_20" / "model.pdparams")
    dataset = registry.build(config.val_dataset_cfg, "dataset", "val_dataset")
    result = evaluate(model, dataset, print_detail=False, **config.test_config)
    assert result.num_images == 2 and 0 < result.metrics.miou < 1

    transforms = [t for t in config.val_dataset_cfg["transforms"] if t["type"].startswith(("Normalize", "Subtract"))]
    export_model(model, tmp_path / "export", input_shape=[1, 3, SIZE, SIZE], transforms=transforms)
    predictor = Predictor(tmp_path / "export")
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    tensor, _ = predictor.preprocess(picture)
    model.eval()
    with paddle.no_grad():
        dynamic = paddle.argmax(model(paddle.to_tensor(tensor[None]))[0], axis=1).numpy()[0]
    (static,) = predictor.predict([picture])
    assert (static == dynamic).mean() > 0.9999


_RESNET = {"type": "ResNet18", "output_stride": 8}
_FREE = {
    "DMNet": {"mid_channels": 16, "backbone": _RESNET},
    "DNLNet": {"backbone": _RESNET},
}


@pytest.mark.parametrize(
    "name, shape",
    [("DMNet", [-1, 3, -1, -1]), ("DMNet", [1, 3, -1, -1]), *((name, None) for name in _FREE)],
    ids=str,
)
def test_exports_with_free_batch_and_size(tmp_path, name, shape):
    """One graph for all inputs; the exporter compares it at two sizes, one of which no pooling grid divides."""
    model = build_model({"type": name, "num_classes": 5, **_FREE[name]})
    with paddle.no_grad():
        model(paddle.randn([2, 3, 97, 97]))  # batch statistics other than 0 and 1
    report = export_model(model, tmp_path / "out", input_shape=shape, transforms=[{"type": "Normalize"}])
    assert report.comparison.ok
    predictor = Predictor(tmp_path / "out")
    rng = np.random.default_rng(0)
    model.eval()
    for size in ((65, 70), (160, 96)):
        picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        tensor, _ = predictor.preprocess(picture)
        with paddle.no_grad():
            dynamic = paddle.argmax(model(paddle.to_tensor(tensor[None]))[0], axis=1).numpy()[0]
        assert (predictor.predict([picture])[0] == dynamic).mean() > 0.9999


def test_dgmn2_with_free_size(tmp_path):
    """Paddle 2.6 traces a graph for every size, which the export verifies; Paddle 3 does not."""
    model = build_model({"type": "DGMN2SETR", "num_classes": 5, "backbone": {"type": "DGMN2_Tiny"}})
    if paddle.__version__.startswith("2."):
        report = export_model(model, tmp_path / "out", input_shape=None, transforms=[{"type": "Normalize"}])
        assert report.comparison.ok
        return
    with pytest.raises(FreeSizeError, match="DGMN2SETR has no graph for every size"):
        export_model(model, tmp_path / "out", input_shape=None, transforms=[{"type": "Normalize"}])
