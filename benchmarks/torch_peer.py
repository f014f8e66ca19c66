# SPDX-License-Identifier: Apache-2.0
"""mmsegmentation's DNLNet-R50 in PyTorch: the program that `backends.py` runs with an interpreter of `make parity`'s environment.

PYTHON benchmarks/torch_peer.py prepare dnl.pth check.npz    random weights as after training, and logits of a small picture
PYTHON benchmarks/torch_peer.py time dnl.pth HEIGHT WIDTH REPEATS THREADS    prints a JSON line
PYTHON benchmarks/torch_peer.py train dnl.pth HEIGHT WIDTH WARMUP REPEATS THREADS    the same of training steps
"""

import json
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "reference")]

from paddle_dnl.profile.measuring import peak_bytes, seconds_of_runs  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from originals import mmseg_configs  # noqa: E402
from training_input import training_input, without_dropout  # noqa: E402

CONFIG = "dnlnet/dnl_r50-d8_4xb2-40k_cityscapes-512x1024.py"


def configuration():
    """mmsegmentation's own configuration."""
    from mmengine.config import Config

    logging.disable(logging.WARNING)
    return Config.fromfile(mmseg_configs() / CONFIG)


def build():
    """The segmentor of that configuration, with batch norms of one process, in evaluation mode."""
    from mmseg.registry import MODELS

    config = configuration().model
    config.pretrained = config.data_preprocessor = None
    for part in (config.backbone, config.decode_head, config.auxiliary_head):
        part.norm_cfg = {"type": "BN", "requires_grad": True}
    return MODELS.build(config).eval()


@torch.no_grad()
def settle(model) -> None:
    """As after training: batch statistics in every norm, residual branches smaller than what they are added to (else rounding
    grows from block to block), and a softmax that leaves no denormal numbers, which would slow PyTorch down."""
    for block in model.backbone.modules():
        if hasattr(block, "norm3"):
            block.norm3.weight.mul_(0.2)
    norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    features = model.extract_feat(torch.randn(2, 3, 128, 256))
    for head in (model.decode_head, model.auxiliary_head):
        head.forward(features)
    for parameter in model.decode_head.dnl_block.theta.parameters():
        parameter.mul_(0.01)
    model.eval()


def logits_of(model, x):
    """`[1, 3, H, W]` to logits of that size."""
    return model.encode_decode(x, [{"img_shape": tuple(x.shape[2:])}])


@torch.no_grad()
def prepare(weights: str, check: str) -> None:
    """Writes weights as mmsegmentation stores them, and a picture with its logits."""
    torch.manual_seed(0)
    model = build()
    settle(model)
    x = torch.randn(1, 3, 128, 256)
    torch.save({"state_dict": model.state_dict(), "meta": {}}, weights)
    np.savez(check, input=x.numpy(), logits=logits_of(model, x).numpy())


@torch.no_grad()
def measure(weights: str, height: int, width: int, repeats: int, threads: int) -> dict:
    """Seconds of each of `repeats` passes, from the network's input to classes, after one that is not timed; bytes of memory."""
    torch.set_num_threads(threads)
    model = build()
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["state_dict"])
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, height, width)).astype(np.float32))
    seconds = seconds_of_runs(lambda: logits_of(model, x).argmax(1).numpy(), warmup=1, repeats=repeats)
    return {"seconds": seconds, "peak": peak_bytes(), "backend": f"PyTorch {torch.__version__}"}


def measure_training(weights: str, height: int, width: int, warmup: int, repeats: int, threads: int) -> dict:
    """Seconds of each of `repeats` training steps with the configuration's losses and optimizer, and bytes of memory.

    `losses` are those of the `warmup` steps before, which are not timed and have no dropout.
    """
    from mmengine.optim import build_optim_wrapper
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    torch.set_num_threads(threads)
    model = build()
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["state_dict"])
    model.train()
    optimizer = build_optim_wrapper(model, configuration().optim_wrapper)
    image, label = map(torch.from_numpy, training_input(height, width))
    sample = SegDataSample(gt_sem_seg=PixelData(data=label))
    sample.set_metainfo({"img_shape": (height, width)})
    data = {"inputs": image, "data_samples": [sample]}

    def step():
        return float(model.train_step(data, optimizer)["loss"])

    dropouts = [layer for layer in model.modules() if isinstance(layer, torch.nn.Dropout2d)]
    with without_dropout(dropouts):
        losses = [step() for _ in range(warmup)]
    seconds = seconds_of_runs(step, warmup=0, repeats=repeats)
    return {"seconds": seconds, "losses": losses, "peak": peak_bytes(), "backend": f"PyTorch {torch.__version__}"}


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(*sys.argv[2:])
    else:
        run = {"time": measure, "train": measure_training}[sys.argv[1]]
        print(json.dumps(run(sys.argv[2], *map(int, sys.argv[3:]))))
