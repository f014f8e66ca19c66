# SPDX-License-Identifier: Apache-2.0
"""Estimate of the memory that the evaluation of an image takes, logged before it starts.

The estimate comes from shapes: a small image goes through the model, each layer's sizes are scaled by the area, and the
largest moment is taken, with the copies that Paddle's CPU convolution unfolds and the attention map, or the tile of it, of
DNL blocks. It is for evaluation without gradients. On top comes what no shape tells: decoded pictures, their copies, and
freed memory that the C library keeps.
"""

from dataclasses import dataclass, field

from paddle_dnl.evaluation.inference import evaluating
from paddle_dnl.evaluation.options import InferenceOptions
from paddle_dnl.log import logger
from paddle_dnl.nn.attention import evaluation_map_bytes
from paddle_dnl.nn.cpu.concat_conv import ConcatConvBNReLU
from paddle_dnl.nn.cpu.row_strips import Conv2D, largest_copy, unfolded_bytes
from paddle_dnl.nn.disentangled_nonlocal import SOFTMAX_MODES, DisentangledNonLocal2D
from paddle_dnl.profile.free_memory import free_bytes

import paddle
from paddle import nn

# Shapes are read at this size; both sides divide by every stride in use.
_PROBE = 128
_FLOAT = 4
# Measured around val.py, DNLNet-R50 at 2048 x 1024 on a CPU, whole and in windows: 0.6 and 0.3 GB.
_AROUND = 512 << 20


@dataclass
class MemoryPlan:
    """Estimated bytes at the peak, and what is free (None where that is not known)."""

    peak: int
    free: int | None

    @property
    def fits(self) -> bool:
        """Whether the estimate is below what is free."""
        return self.free is None or self.peak <= self.free


@dataclass
class _Moment:
    """One layer at work on the probe: elements read and written, and unfolded; positions of a DNL block.

    limit: the layer bounds its unfolded copy to so many bytes by working in parts; 0 for none.
    """

    maps: int
    unfolded: int = 0
    limit: int = 0
    positions: int = 0
    attention: str = ""

    def bytes_at(self, scale: float, batch_size: int, strips: bool) -> float:
        """Of an image of `scale` times the probe's area."""
        unfolded = _FLOAT * scale * self.unfolded
        if strips and self.limit:
            unfolded = min(unfolded, self.limit)
        positions = int(scale * self.positions)
        attention = evaluation_map_bytes(positions, positions, self.attention) if self.attention else 0
        return batch_size * (_FLOAT * scale * self.maps + attention) + unfolded


def _elements(tensors) -> int:
    if isinstance(tensors, paddle.Tensor):
        return tensors.size
    return (
        sum(_elements(t) for t in tensors) if isinstance(tensors, list | tuple) else 0
    )  # an iterator's maps come one by one


@dataclass
class _Probe:
    """Memory that a small image needed."""

    moments: list[_Moment] = field(default_factory=list)
    logits: int = 0

    @classmethod
    def of(cls, model: nn.Layer, channels: int) -> "_Probe":
        """Runs a small image through a model."""
        found = cls()
        # A hook inside `ConcatConvBNReLU` would make it concatenate, which it does not do otherwise.
        inner = {
            id(part) for layer in model.sublayers() if isinstance(layer, ConcatConvBNReLU) for part in layer.sublayers()
        }
        whole = (DisentangledNonLocal2D, ConcatConvBNReLU)
        watched = [
            layer
            for layer in model.sublayers()
            if id(layer) not in inner and (not layer.sublayers() or isinstance(layer, whole))
        ]
        handles = [layer.register_forward_post_hook(found.note) for layer in watched]
        try:
            with evaluating(model), paddle.no_grad():
                found.logits = model(paddle.zeros([1, channels, _PROBE, _PROBE]))[0].size
        finally:
            for handle in handles:
                handle.remove()
        return found

    def note(self, layer, inputs, outputs) -> None:
        moment = _Moment(_elements(inputs) + _elements(outputs))
        conv = layer._conv if isinstance(layer, ConcatConvBNReLU) else layer
        if isinstance(conv, nn.Conv2D) and conv._groups == 1 and paddle.get_device() == "cpu":
            moment.unfolded = unfolded_bytes(conv, conv._in_channels, *outputs.shape[2:]) // _FLOAT
            moment.limit = largest_copy(conv, conv._in_channels) if isinstance(conv, Conv2D) else 0
        if isinstance(layer, DisentangledNonLocal2D) and layer.pairwise and layer.mode in SOFTMAX_MODES:
            moment.positions, moment.attention = inputs[0].shape[2] * inputs[0].shape[3], layer.attention
        self.moments.append(moment)


@dataclass
class Sizes:
    """What one step of an evaluation holds.

    Attributes:
        image: height and width of the network's input.
        window: height and width of sliding windows; None without them.
        original: height and width to which logits are restored; None: those of `image`.
        batch_size, channels: of the network's input.
        copies: arrays of logits at image size that exist together.
        strips: `paddle_dnl.nn.cpu.row_strips.Conv2D` works in strips of rows: in the dynamic graph on a CPU, not in an
            exported one.
        models: how many copies of the weights there are.
    """

    image: tuple[int, int]
    window: tuple[int, int] | None = None
    original: tuple[int, int] | None = None
    batch_size: int = 1
    channels: int = 3
    copies: int = 2
    strips: bool = True
    models: int = 1


def plan_evaluation(model: nn.Layer, sizes: Sizes) -> MemoryPlan:
    """The plan for pictures of these sizes."""
    probe = _Probe.of(model, sizes.channels)
    scale = _area(sizes.window or sizes.image) / _PROBE**2
    largest = max(moment.bytes_at(scale, sizes.batch_size, sizes.strips) for moment in probe.moments)
    weights = _FLOAT * sizes.models * sum(p.size for p in model.parameters())
    # The network's size and the original one; pictures of a batch are restored one after another.
    area = max(sizes.batch_size * _area(sizes.image), _area(sizes.original or sizes.image))
    results = _FLOAT * sizes.copies * probe.logits * area / _PROBE**2
    return MemoryPlan(int(_AROUND + weights + largest + results), free_bytes())


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def announce(model: nn.Layer, sizes: Sizes, advice: str) -> None:
    """Logs the plan; warns, with what to do, when it does not fit."""
    try:
        plan = plan_evaluation(model, sizes)
    except Exception as error:  # a model of the user's may take pictures of one size alone
        logger.warning(f"Memory: no estimate, {type(model).__name__} refuses {_PROBE}x{_PROBE} pixels ({error})")
        return
    free = "unknown" if plan.free is None else f"{plan.free / 1e9:.1f} GB"
    height, width = sizes.window or sizes.image
    logger.info(f"Memory: about {plan.peak / 1e9:.1f} GB for {width}x{height} pixels at once; free: {free}")
    if not plan.fits:
        logger.warning(f"that is more than what is free; use {advice}")


def announce_evaluation(model: nn.Layer, dataset, settings: dict) -> None:
    """Announces what `evaluate(model, dataset, **settings)` will take, by the dataset's first picture."""
    sample = dataset[0]
    channels, height, width = sample["img"].shape
    back = sample.get("trans_info") or [("none", (height, width))]
    sizes = Sizes((height, width), original=tuple(back[0][1]), channels=channels)
    sizes.batch_size = settings.get("batch_size", 1)
    options = InferenceOptions.of(settings)
    if options.aug_eval:
        largest = max(1.0, *options.scales)
        sizes.image = (int(height * largest + 0.5), int(width * largest + 0.5))
        sizes.copies += 1  # the sum over passes
    if settings.get("auc_roc"):
        sizes.copies += 2  # probabilities, and those of one class after another
    sizes.window = _window(sizes.image, options)
    announce(model, sizes, options.with_less_memory)


def _window(image: tuple[int, int], options: InferenceOptions) -> tuple[int, int] | None:
    """Height and width of the windows in an image; None without windows."""
    if not options.is_slide:
        return None
    columns, rows = options.crop_size
    return min(image[0], rows), min(image[1], columns)


def announce_picture(
    model: nn.Layer, image: tuple[int, int], original: tuple[int, int], channels: int, options: InferenceOptions
) -> None:
    """Announces what one large picture takes whose classes are found in strips, see `paddle_dnl.evaluation.strips`.

    Args:
        image: height and width of the network's input.
        original: those of the picture.
        channels: of the network's input.
        options: without `aug_eval`.
    """
    sizes = Sizes(image, window=_window(image, options), channels=channels)
    if sizes.window:
        # Scores of one row of windows, and the strip of it that is divided and compared.
        sizes.original = sizes.image = (sizes.window[0], max(image[1], original[1]))
        sizes.copies = 1
    else:
        sizes.original = image  # scores are restored by strips
    announce(model, sizes, options.with_less_memory)


def announce_export(model: nn.Layer, input_shape: list[int]) -> None:
    """Announces what checking an exported graph against the model takes: the graph has no strips, the weights exist thrice."""
    batch_size, channels, *image = input_shape
    sizes = Sizes(tuple(image), batch_size=batch_size, channels=channels, copies=3, strips=False, models=3)
    announce(model, sizes, "a smaller --input_shape")
