"""How much memory evaluating an image will take, said before it is tried.

The estimate comes from shapes: a small image goes through the model, each layer's sizes are scaled by the area, and the
largest moment is taken, with the copies that Paddle's CPU convolution unfolds. It is for evaluation without gradients.
"""

from dataclasses import dataclass

from paddle_dnl.log import logger
from paddle_dnl.nn.row_strips import UNFOLDED_LIMIT, unfolded_bytes

import paddle
from paddle import nn

# Shapes are read at this size; both sides divide by every stride in use.
_PROBE = 128
_FLOAT = 4


@dataclass
class MemoryPlan:
    """Estimated bytes at the peak, and what is free (None where that is not known)."""

    peak: int
    free: int | None

    @property
    def fits(self) -> bool:
        """Whether the estimate is below what is free."""
        return self.free is None or self.peak <= self.free


def free_bytes() -> int | None:
    """Memory that this machine can still give, or the GPU's; None where it is not known."""
    if paddle.get_device().startswith("gpu"):
        properties = paddle.device.cuda.get_device_properties()
        return properties.total_memory - paddle.device.cuda.memory_reserved()
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _elements(tensors) -> int:
    if isinstance(tensors, paddle.Tensor):
        return tensors.size
    return sum(_elements(t) for t in tensors) if isinstance(tensors, list | tuple) else 0


def _probe(model: nn.Layer) -> tuple[list[tuple[int, int]], int]:
    """For a square probe: (elements read and written, elements unfolded) of every layer, and elements of the logits."""
    moments: list[tuple[int, int]] = []

    def note(layer, inputs, outputs):
        unfolded = 0
        if isinstance(layer, nn.Conv2D) and layer._groups == 1 and paddle.get_device() == "cpu":
            unfolded = unfolded_bytes(layer, inputs[0].shape[1], *outputs.shape[2:]) // _FLOAT
        moments.append((_elements(inputs) + _elements(outputs), unfolded))

    leaves = [layer for layer in model.sublayers() if not layer.sublayers()]
    handles = [layer.register_forward_post_hook(note) for layer in leaves]
    was_training = model.training
    model.eval()
    try:
        with paddle.no_grad():
            logits = model(paddle.zeros([1, 3, _PROBE, _PROBE]))[0]
    finally:
        for handle in handles:
            handle.remove()
        if was_training:
            model.train()
    return moments, logits.size


def plan_evaluation(model: nn.Layer, height: int, width: int) -> MemoryPlan:
    """The plan for one image of `height` x `width` pixels, whole (no sliding windows)."""
    moments, logits = _probe(model)
    area = height * width / _PROBE**2
    # A convolution that would unfold more than the limit goes in strips of rows.
    largest = max(area * maps + min(area * unfolded, UNFOLDED_LIMIT / _FLOAT) for maps, unfolded in moments)
    weights = sum(p.size for p in model.parameters())
    # Two copies of the logits at image size: before and after they are turned into classes.
    peak = _FLOAT * (weights + largest + area * 2 * logits)
    return MemoryPlan(int(peak), free_bytes())


def announce(model: nn.Layer, height: int, width: int, is_slide: bool) -> None:
    """Logs the plan; warns, with what to do, when it does not fit."""
    plan = plan_evaluation(model, height, width)
    free = "unknown" if plan.free is None else f"{plan.free / 1e9:.1f} GB"
    logger.info(f"Memory: about {plan.peak / 1e9:.1f} GB for {width}x{height} pixels at once; free: {free}")
    if not plan.fits:
        advice = "a smaller --crop_size" if is_slide else "--is_slide --crop_size 1024 512 --stride 768 384"
        logger.warning(f"that is more than what is free; use {advice}")
