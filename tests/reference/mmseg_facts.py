# SPDX-License-Identifier: Apache-2.0
"""Facts of OpenMMLab's recipes, read from the configurations of the installed mmsegmentation.

python tests/reference/mmseg_facts.py --write     stores tests/recipes/mmsegmentation.json
python tests/reference/mmseg_facts.py --check     compares with it (part of `make parity`)
"""

import json
import sys
from pathlib import Path

from check_or_write import make_parser
from originals import mmseg_configs

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "tests" / "recipes" / "mmsegmentation.json"


def facts(path: Path) -> dict:
    """The facts of one file, under the names of tests/helpers/recipe_facts.py."""
    from mmengine.config import Config

    config = Config.fromfile(path)
    steps = {step["type"]: step for step in config.train_pipeline}
    test = {step["type"]: step for step in config.test_pipeline}
    prepare, optimizer = config.model.data_preprocessor, config.optim_wrapper.optimizer
    (schedule,) = config.param_scheduler
    heads = [config.model.decode_head, config.model.auxiliary_head]
    colour = {
        "mean": list(prepare.mean), "std": list(prepare.std), "order": "RGB" if prepare.bgr_to_rgb else "BGR",
    }  # fmt: skip
    evaluation = {"align_corners": heads[0].align_corners}
    if config.model.test_cfg.mode == "slide":
        evaluation |= {"window": list(config.model.test_cfg.crop_size), "stride": list(config.model.test_cfg.stride)}
    multipliers = (config.optim_wrapper.get("paramwise_cfg") or {}).get("custom_keys") or {}
    return {
        "batch_per_gpu": config.train_dataloader.batch_size,
        "iters": config.train_cfg.max_iters,
        "validation_interval": config.train_cfg.val_interval,
        "classes": heads[0].num_classes,
        "optimizer": optimizer.type,
        "momentum": optimizer.momentum,
        "weight_decay": optimizer.weight_decay,
        # mmengine reads `decay_mult`; the `wd_mult` of two files does nothing.
        "no_decay": [key for key, rule in multipliers.items() if rule.get("decay_mult") == 0],
        "schedule": {"PolyLR": "PolynomialDecay"}[schedule.type],
        "learning_rate": optimizer.lr,
        "power": schedule.power,
        "end": schedule.eta_min,
        "warm_up": schedule.begin,
        "losses": [
            {
                "type": head.loss_decode.type,
                "coef": head.loss_decode.loss_weight,
                "mean_of_all": not head.loss_decode.get("avg_non_ignore", False),
            }
            for head in heads
        ],
        "train": {
            "resized_as": _kind(steps),
            "size": list(steps["RandomResize"].scale),
            "scale": list(steps["RandomResize"].ratio_range),
            "crop": list(steps["RandomCrop"].crop_size)[::-1],
            "category_max_ratio": steps["RandomCrop"].cat_max_ratio,
            "flip": steps["RandomFlip"].prob,
            "distortion": {"type": "PhotoMetricDistortion"},
            **colour,
            "padded_to": list(prepare["size"])[::-1],
            "padding": {
                "value": prepare.pad_val,
                "normalised": True,  # by mmengine's data preprocessor, which pads what it has normalised
                "label": prepare.seg_pad_val,
                "place": "right and bottom",
            },
        },
        "test": {"resized_as": _kind(test), "size": list(test["Resize"].scale), **colour},
        "evaluation": evaluation,
        "while_training": evaluation,
        "start_weights": _address(config.model.pretrained).rsplit("/", 1)[-1],
        "data": [_data(config.train_dataloader.dataset), _data(config.val_dataloader.dataset)],
        "network": _network(config.model, heads),
    }


_DATASETS = {"CityscapesDataset": "Cityscapes", "ADE20KDataset": "ADE20K"}


def _data(dataset) -> str:
    part = dataset.data_prefix.img_path.rsplit("/", 1)[-1]
    return f"{_DATASETS[dataset.type]} {part.removesuffix('ing').replace('validation', 'val')}"


def _network(model, heads: list) -> dict:
    """Of the networks that the configuration builds: with their own defaults, not those of its text."""
    from mmseg.registry import MODELS

    backbone = MODELS.build({**model.backbone, "norm_cfg": {"type": "BN"}})
    stages = [getattr(backbone, name) for name in backbone.res_layers]
    return {
        "dropout": [head.dropout_ratio for head in heads],
        "blocks": [len(stage) for stage in stages],
        "stem": [layer.out_channels for layer in backbone.stem if hasattr(layer, "out_channels")],
        "dilations": [stage[-1].conv2.dilation[0] for stage in stages],
        "dilations_of_first_blocks": [stage[0].conv2.dilation[0] for stage in stages],
        "logits_align_corners": heads[0].align_corners,
    }


def _kind(steps: dict) -> str:
    return "float32" if steps["LoadImageFromFile"].get("to_float32", False) else "uint8"


def _address(name: str) -> str:
    import mmengine.hub

    table = json.loads((Path(mmengine.hub.__file__).parent / "openmmlab.json").read_text())
    return table[name.removeprefix("open-mmlab://")]


def main() -> int:
    """Exit status 1 when the stored table is not what the package says."""
    args = make_parser("Facts of OpenMMLab's recipes.").parse_args()
    folder = mmseg_configs()
    paths = sorted([*(folder / "dnlnet").glob("dnl_*.py"), *(folder / "dmnet").glob("dmnet_*.py")])
    rows = {str(path.relative_to(folder.parent)): facts(path) for path in paths}
    table = {"source": "mmsegmentation", "commit": "v1.2.2", "rows": rows}
    if args.write:
        TABLE.write_text(json.dumps(table, indent=1) + "\n")
    stored = json.loads(TABLE.read_text())
    wrong = [name for name in {**stored["rows"], **rows} if stored["rows"].get(name) != rows.get(name)]
    print(f"{len(rows)} recipes of OpenMMLab read; {'other facts: ' + ', '.join(wrong) if wrong else 'all as stored'}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
