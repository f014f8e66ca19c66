"""How much memory evaluating an image will take, said before it is tried.

The estimate comes from shapes: a small image goes through the model, each layer's sizes are scaled by the area, and the
largest moment is taken, with the copies that Paddle's CPU convolution unfolds. It is for evaluation without gradients. On top
comes what no shape tells: decoded pictures, their copies, and freed memory that the C library keeps.
"""

from dataclasses import dataclass

from paddle_dnl.log import logger
from paddle_dnl.nn.row_strips import UNFOLDED_LIMIT, unfolded_bytes

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


def plan_evaluation(
    model: nn.Layer, height: int, width: int, *, window: tuple[int, int] | None = None, batch_size: int = 1
) -> MemoryPlan:
    """The plan for `batch_size` images of `height` x `width` pixels, whole or through windows of (height, width)."""
    moments, logits = _probe(model)
    at_once = (window[0] * window[1] if window else height * width) / _PROBE**2
    # A convolution that would unfold more than the limit goes in strips of rows.
    largest = max(
        batch_size * at_once * maps + min(at_once * unfolded, UNFOLDED_LIMIT / _FLOAT) for maps, unfolded in moments
    )
    weights = sum(p.size for p in model.parameters())
    # Logits at image size twice: before and after they are turned into classes, or the windows' sum and their number.
    results = batch_size * 2 * logits * height * width / _PROBE**2
    return MemoryPlan(int(_AROUND + _FLOAT * (weights + largest + results)), free_bytes())


def announce(model: nn.Layer, height: int, width: int, advice: str, **sizes) -> None:
    """Logs the plan, see `plan_evaluation`; warns, with what to do, when it does not fit."""
    try:
        plan = plan_evaluation(model, height, width, **sizes)
    except Exception as error:  # a model of the user's may take pictures of one size alone
        logger.warning(f"Memory: no estimate, {type(model).__name__} refuses {_PROBE}x{_PROBE} pixels ({error})")
        return
    free = "unknown" if plan.free is None else f"{plan.free / 1e9:.1f} GB"
    height, width = sizes.get("window") or (height, width)
    logger.info(f"Memory: about {plan.peak / 1e9:.1f} GB for {width}x{height} pixels at once; free: {free}")
    if not plan.fits:
        logger.warning(f"that is more than what is free; use {advice}")


def announce_evaluation(model: nn.Layer, dataset, settings: dict) -> None:
    """Announces what `evaluate(model, dataset, **settings)` will take, by the dataset's first picture."""
    height, width = dataset[0]["img"].shape[1:]
    if settings.get("aug_eval"):
        scales = settings.get("scales", 1.0)
        largest = max(1.0, *map(float, scales if isinstance(scales, list | tuple) else (scales,)))
        height, width = int(height * largest + 0.5), int(width * largest + 0.5)
    window, advice = None, "--is_slide --crop_size 1024 512 --stride 768 384"
    if settings.get("is_slide"):
        columns, rows = settings["crop_size"]
        window, advice = (min(height, rows), min(width, columns)), "a smaller --crop_size"
    announce(model, height, width, advice, window=window, batch_size=settings.get("batch_size", 1))
