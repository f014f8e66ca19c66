# SPDX-License-Identifier: Apache-2.0
"""Half-precision convolutions in channels-last layout (NHWC) on GPUs with tensor cores, by Paddle's layout tuning.

`paddle.incubate.autotune.set_config({"layout": {"enable": True}})` makes the first float16 convolution, and all after it, compute
in NHWC; `Tensor.shape` still reports NCHW. It has limits, found in the source of Paddle (fluid/eager/eager_layout_auto_tune.h and
the generator of eager functions):

- Operators without an attribute named like an axis or a data format count as independent of the layout: also `reshape`,
  `matmul`, `expand` and `grid_sample`, which then read the values of a map of four dimensions in the wrong order. So only a part
  of a network without them may run in it: `run` is for the backbone, whose results it turns back into NCHW.
- A float32 convolution before the first one in half precision switches the tuning off again.
- Views are off (`FLAGS_use_stride_kernel`) while it is on, for the whole process, and Paddle does not switch them on again.
  Kernels then read a tensor that is a view as if it were contiguous, so `run` copies such an input.

None of this has been run on a GPU.
"""

from collections.abc import Callable

import paddle
from paddle.base import core

_VIEWS = "FLAGS_use_stride_kernel"


@paddle.jit.not_to_static
def run(function: Callable[[paddle.Tensor], list[paddle.Tensor]], x: paddle.Tensor) -> list[paddle.Tensor]:
    """`function(x)` with layout tuning switched on for this call; the state before it is restored, also after an exception.

    Args:
        function: only convolutions, normalisation, pooling, sums and activations on maps `[B, C, H, W]`.
        x: `[B, C, H, W]`.

    Returns:
        Maps in NCHW.
    """
    x = x.contiguous()
    views = paddle.get_flags(_VIEWS)
    paddle.set_flags({_VIEWS: False})  # before the tuning does it, with a warning each time
    paddle.incubate.autotune.set_config({"layout": {"enable": True}})
    try:
        maps = function(x)
        if core.use_layout_autotune():  # a transposition that looks like none, but is from the layout in memory
            maps = [paddle.transpose(y, [0, 1, 2, 3]) for y in maps]
        return maps
    finally:
        paddle.incubate.autotune.set_config({"layout": {"enable": False}})
        paddle.set_flags(views)
