# SPDX-License-Identifier: Apache-2.0
"""What is compared: each case builds one step for our side and one for the peer, with the same weights and inputs.

The peer is paddleseg 2.8.0 as installed, on the same Paddle, threads and machine. Where it would crash on today's Paddle
the case says how it is helped.
"""

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paddle_dnl.losses import CrossEntropyLoss
from paddle_dnl.startup import allocator

import numpy as np
import paddle
import paddle.nn.functional as F
from compared_models import alike, dmnet_r50, dnlnet_r50


@dataclass
class Case:
    """A comparison.

    Attributes:
        title: shown in the table.
        make: builds the step of `ours` or `peer`.
        time_target, memory_target: ours over the peer's, at most; memory is above the process's base if `above_base`.
        peer_default: time the peer also as Paddle starts by itself.
    """

    title: str
    make: Callable[[str], Callable[[], object]]
    time_target: float | None = None
    memory_target: float | None = None
    above_base: bool = False
    peer_default: bool = True


def _seeded(shape) -> paddle.Tensor:
    return paddle.to_tensor(np.random.default_rng(0).normal(size=shape).astype("float32"))


# ------------------------------------------------------------------------------------ the DNL block


def _dnl_block(side: str):
    if side == "ours":
        from paddle_dnl.nn.disentangled_nonlocal import DIALECTS, DisentangledNonLocal2D

        return DisentangledNonLocal2D(512, **DIALECTS["paddleseg"])
    from paddleseg.models.dnlnet import DisentangledNonLocal2D

    return DisentangledNonLocal2D(
        temperature=0.05, in_channels=512, reduction=2, use_scale=True, mode="embedded_gaussian"
    )


def _block(side: str, height: int, width: int, backward: bool):
    block = alike(_dnl_block, side)
    block.train() if backward else block.eval()
    x = _seeded([1, 512, height, width])
    x.stop_gradient = not backward

    def forward():
        with paddle.no_grad():
            block(x)

    def both():
        block(x).sum().backward()
        block.clear_gradients()
        x.clear_gradient()

    return both if backward else forward


def _attention_memory(side: str):
    """Attention alone, forward and backward, N = 8192, d = 256; the peer's is the plain form with its map kept."""
    q, k, v = (_seeded([1, 8192, 256]) * 0.1 for _ in range(3))
    for tensor in (q, k, v):
        tensor.stop_gradient = False

    def ours():
        from paddle_dnl.nn.attention import attend

        attend(q, k, v, 0.3).sum().backward()

    def peer():
        scores = paddle.matmul(q, k, transpose_y=True) * 0.3
        paddle.matmul(F.softmax(scores, axis=-1), v).sum().backward()

    return ours if side == "ours" else peer


# ------------------------------------------------------------------------------------ whole models


def _eval(make_model, side: str, height: int, width: int):
    model = alike(make_model, side)
    model.eval()
    x = _seeded([1, 3, height, width])

    def step():
        with paddle.no_grad():
            return model(x)[0]

    return step


def _train(make_model, side: str, height: int, width: int):
    """Both sides use our loss: paddleseg's raises TypeError on Paddle 3. Each does as its trainer: paddleseg's holds the logits
    until the next step, ours until there is a loss; ours then gives free memory back; they clear gradients differently."""
    model = alike(make_model, side)
    model.train()
    cross_entropy = CrossEntropyLoss()
    x = _seeded([1, 3, height, width])
    y = paddle.to_tensor(np.random.default_rng(1).integers(0, 19, (1, height, width)))
    optimizer = paddle.optimizer.Momentum(0.001, parameters=model.parameters())

    def loss(logits):
        return cross_entropy(logits[0], y) + 0.4 * cross_entropy(logits[1], y)

    def ours():
        value = loss(model(x))
        allocator.give_back()
        value.backward()
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)

    def peer():
        logits = model(x)
        loss(logits).backward()
        optimizer.step()
        model.clear_gradients()

    return ours if side == "ours" else peer


def _dmnet_of_features(side: str):
    class Features(paddle.nn.Layer):
        feat_channels = [256, 512, 1024, 2048]

        def __init__(self):
            super().__init__()
            self.maps = [_seeded([1, c, 64, 128]) for c in self.feat_channels]

        def forward(self, x):
            return list(self.maps)

    if side == "ours":
        from paddle_dnl.models.dmnet import DMNet
    else:
        from paddleseg.models import DMNet
    return DMNet(num_classes=19, backbone=Features())


def _dmnet_head(side: str):
    """DMNet's head in evaluation on a 64x128 map: four dynamic filters, concatenation, convolution, classifier."""
    model = alike(_dmnet_of_features, side)
    model.eval()
    x = _seeded([1, 3, 512, 1024])

    def step():
        with paddle.no_grad():
            return model(x)[0]

    return step


def _dynamic_filter(side: str):
    """The dynamic filtering of DCM alone, forward and backward: 512 channels, 64x128, kernels 1, 3, 5, 7."""
    x = _seeded([1, 512, 64, 128])
    x.stop_gradient = False
    kernels = {k: _seeded([1, 512, k, k]) for k in (1, 3, 5, 7)}
    for kernel in kernels.values():
        kernel.stop_gradient = False

    def step(convolve):
        # As in DMNet: all four forward, then all backward.
        sum(convolve(x, kernel).sum() for kernel in kernels.values()).backward()
        x.clear_gradient()
        for kernel in kernels.values():
            kernel.clear_gradient()

    def ours():
        from paddle_dnl.nn.dynamic_filter import dynamic_depthwise_conv

        step(dynamic_depthwise_conv)

    def padded_copy(x, kernel):
        # paddleseg.models.dmnet.DCM: pads a copy, then convolves it in groups.
        k = kernel.shape[-1]
        pad = (k - 1) // 2
        padded = F.pad(x, [pad] * 4, mode="constant") if pad else x
        grouped = F.conv2d(padded.reshape([1, 512, *padded.shape[2:]]), kernel.reshape([512, 1, k, k]), groups=512)
        return grouped.reshape([1, 512, 64, 128])

    def peer():
        step(padded_copy)

    return ours if side == "ours" else peer


# ------------------------------------------------------------------------------------ data and evaluation


def _scenes(size: tuple[int, int], count: int) -> Path:
    """Generated scenes of a size, made once per machine and kept in the temporary folder."""
    from paddle_dnl.data.prepare.convert_cityscapes import convert_tree
    from paddle_dnl.data.scenes.mini_cityscapes import generate

    folder = Path(tempfile.gettempdir()) / f"paddle_dnl_benchmark_{size[0]}x{size[1]}_{count}"
    generate(folder, train=count, val=count, size=size)
    convert_tree(folder, num_workers=1)
    return folder


def _pipeline(side: str):
    """Ten training samples of a 2048x1024 Cityscapes tree through PaddleSeg's recipe."""
    from paddle_dnl.data.datasets import Cityscapes
    from paddle_dnl.data.transforms import RandomPaddingCrop

    import paddleseg.transforms as theirs
    from paddleseg.datasets import Cityscapes as TheirCityscapes

    crop = RandomPaddingCrop if side == "ours" else theirs.RandomPaddingCrop
    transforms = [
        theirs.ResizeStepScaling(0.5, 2.0, 0.25),
        crop(crop_size=[1024, 512]),
        theirs.RandomHorizontalFlip(),
        theirs.RandomDistort(0.4, contrast_range=0.4, saturation_range=0.4),
        theirs.Normalize(),
    ]
    dataset = (Cityscapes if side == "ours" else TheirCityscapes)(transforms, str(_scenes((2048, 1024), 10)), "train")

    def step():
        np.random.seed(0)
        random.seed(0)
        for i in range(10):
            dataset[i]

    return step


def _exported(side: str):
    import exported

    return exported.step(side)


class _Fixed(paddle.nn.Layer):
    """Logits for a whole image at no cost: what is left is the evaluation around the model."""

    def __init__(self):
        super().__init__()
        self.logits = _seeded([1, 19, 1024, 2048])

    def forward(self, x):
        return [self.logits]


def _evaluate(side: str):
    """evaluate() over ten 2048x1024 images, with a model that costs nothing. The peer's is helped: in its metrics 0-d
    tensors are stacked, where it would concatenate them and crash on Paddle 2.6 and 3."""
    from paddle_dnl.data.datasets import Cityscapes

    import paddleseg.transforms as theirs

    dataset = Cityscapes([theirs.Normalize()], str(_scenes((2048, 1024), 10)), "val")
    model = _Fixed()
    if side == "ours":
        from paddle_dnl.evaluation.evaluator import evaluate

        return lambda: evaluate(model, dataset, print_detail=False)
    from paddleseg.core.val import evaluate as their_evaluate
    from paddleseg.utils import metrics

    class _Stacking:
        def __getattr__(self, name):
            return paddle.stack if name == "concat" else getattr(paddle, name)

    metrics.paddle = _Stacking()
    return lambda: their_evaluate(model, dataset, print_detail=False)


CASES = {
    "block_64x128": Case("DNL block forward, 512 x 64 x 128", lambda s: _block(s, 64, 128, False), 0.9),
    "block_64x128_backward": Case(
        "DNL block forward + backward, 512 x 64 x 128", lambda s: _block(s, 64, 128, True), 0.92
    ),
    "block_97x97": Case("DNL block forward, 512 x 97 x 97", lambda s: _block(s, 97, 97, False), 0.9),
    "block_97x97_backward": Case(
        "DNL block forward + backward, 512 x 97 x 97", lambda s: _block(s, 97, 97, True), 0.92
    ),
    "attention_memory": Case(
        "attention forward + backward, N = 8192, memory above base", _attention_memory, None, 0.25, above_base=True
    ),
    "eval_512x1024": Case("DNLNet-R50 evaluation, 512 x 1024", lambda s: _eval(dnlnet_r50, s, 512, 1024), 0.85),
    "eval_1024x2048": Case(
        "DNLNet-R50 evaluation, 1024 x 2048",
        lambda s: _eval(dnlnet_r50, s, 1024, 2048),
        0.85,
        0.32,
        peer_default=False,  # many minutes on one thread
    ),
    "train_512x1024": Case(
        "DNLNet-R50 training step, 512 x 1024", lambda s: _train(dnlnet_r50, s, 512, 1024), 0.95, 0.75
    ),
    "dynamic_filter": Case("DCM filtering forward + backward, k = 1 3 5 7", _dynamic_filter, 1.0, 0.7, above_base=True),
    "dmnet_head": Case("DMNet head evaluation, 64 x 128 maps", _dmnet_head, 0.95, 0.7, above_base=True),
    "dmnet_eval_512x1024": Case(
        "DMNet-R50 evaluation, 512 x 1024", lambda s: _eval(dmnet_r50, s, 512, 1024), 0.95, 0.7
    ),
    "exported_512x1024": Case(
        "exported DNLNet-R50, 512 x 1024: our auto backend, their Paddle Inference", _exported, 0.4
    ),
    "pipeline": Case("ten training samples, 2048 x 1024", _pipeline, 0.6),
    "evaluate": Case("evaluate() without the model, ten 2048 x 1024 images", _evaluate, 0.7),
}
