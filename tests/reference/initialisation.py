# SPDX-License-Identifier: Apache-2.0
"""Distributions of OpenMMLab's initial weights: stores them, or checks that the stored ones are those of the package.

    python tests/reference/initialisation.py --check     # what `make parity` runs
    python tests/reference/initialisation.py --write

Needs the extra `parity`. DNL and DMNet are built from mmsegmentation's own configuration files and initialised as its
runner does it (`init_weights`), without start weights. The Semantic FPN is only built: the training program of DGMN2,
of mmsegmentation 0.16, never calls `init_weights`.
"""

import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import initial_values  # noqa: E402
from check_or_write import make_parser  # noqa: E402
from originals import mmseg_configs  # noqa: E402

CASES = {
    "mmseg_dnl_r50": "dnlnet/dnl_r50-d8_4xb4-80k_ade20k-512x512.py",
    "mmseg_dmnet_r50": "dmnet/dmnet_r50-d8_4xb4-80k_ade20k-512x512.py",
}
FPN = {
    "neck": {"type": "FPN", "in_channels": [64, 128, 320, 512], "out_channels": 256, "num_outs": 4},
    "decode_head": {
        "type": "FPNHead", "in_channels": [256] * 4, "in_index": [0, 1, 2, 3], "feature_strides": [4, 8, 16, 32],
        "channels": 128, "num_classes": 19, "norm_cfg": {"type": "BN"},
    },
}  # fmt: skip


def _from_config(path: str):
    """A segmentor with the runner's initial weights."""
    from mmengine.config import Config
    from mmseg.registry import MODELS

    config = Config.fromfile(mmseg_configs() / path).model
    config.pretrained = config.data_preprocessor = None
    for part in (config.backbone, config.decode_head, config.auxiliary_head):
        part.norm_cfg = {"type": "BN", "requires_grad": True}
    model = MODELS.build(config)
    model.init_weights()
    return dict(model.named_parameters())


def _fpn() -> dict:
    from mmseg.registry import MODELS

    parts = {name: MODELS.build(config) for name, config in FPN.items()}
    return {f"{name}.{key}": p for name, part in parts.items() for key, p in part.named_parameters()}


def _measure(parameters: dict) -> dict:
    """Kind, scale and size of each parameter."""
    found = {}
    for key, parameter in parameters.items():
        kind, scale = initial_values.describe(parameter.detach().numpy())
        found[key] = [kind, round(scale, 7), parameter.numel()]
    return found


def main() -> int:
    """Exit status 1 when stored and live distributions differ."""
    import torch

    args = make_parser("Distributions of OpenMMLab's initial weights.").parse_args()
    logging.disable(logging.WARNING)  # a line for every parameter
    torch.manual_seed(0 if args.write else 1)
    live = {name: _from_config(path) for name, path in CASES.items()} | {"mmseg_fpn": _fpn()}
    if args.write:
        lines = ",\n".join(
            f' "{name}": {{\n' + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in rows.items()) + "\n }"
            for name, rows in ((name, _measure(parameters)) for name, parameters in live.items())
        )
        initial_values.STORED.write_text(f"{{\n{lines}\n}}\n")
        return 0
    wrong = 0
    for name, stored in json.loads(initial_values.STORED.read_text()).items():
        if list(stored) != list(live[name]):
            print(f"{name}: other parameters than stored")
            wrong += 1
            continue
        for key, (kind, scale, count) in stored.items():
            if reason := initial_values.difference(live[name][key].detach().numpy(), kind, scale, count):
                print(f"{name}: {key}: {reason}")
                wrong += 1
        print(f"{name}: {len(stored)} initial distributions compared")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
