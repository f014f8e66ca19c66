# SPDX-License-Identifier: Apache-2.0
"""Autocast simulated where there is none: half-precision rounding around the operators that AMP computes in half precision.

A CPU computes in float32 whatever autocast says. Inside `rounded_like_autocast` the inputs and outputs of the operators in
Paddle's white list (convolutions and matrix products) are rounded to float16 or bfloat16, and so are their gradients, since the
gradient of a cast is a cast. What stays unlike a GPU: sums inside an operator are float32 here as in its tensor cores, but in
another order, and tensors between two such operators are float32 here and half precision there.
"""

import contextlib
from collections.abc import Callable, Iterator
from unittest import mock

import paddle
from paddle import _C_ops

# What `amp_lists.white_list()` holds and our networks call, and how many of the first arguments are tensors. Some are
# called `linear` in Paddle 3.x only.
_WHITE = {"conv2d": 2, "matmul": 2, "linear": 3, "linear_v2": 3}


class _Rounding:
    """Counts how far autocast is switched off, as `paddle.amp.auto_cast(enable=False)` does around attention's softmax."""

    def __init__(self, dtype: str):
        self.dtype, self.off = dtype, 0

    def operator(self, function: Callable, tensors: int) -> Callable:
        """The operator with its first `tensors` arguments and its result rounded."""

        def rounded(*args, **kwargs):
            if self.off:
                return function(*args, **kwargs)
            given = [self.round(arg) if i < tensors else arg for i, arg in enumerate(args)]
            return self.round(function(*given, **kwargs))

        return rounded

    def round(self, value):
        """A float32 tensor through half precision; anything else as it is."""
        if isinstance(value, paddle.Tensor) and value.dtype == paddle.float32:
            return value.cast(self.dtype).cast("float32")
        return value

    @contextlib.contextmanager
    def autocast(self, enable: bool = True, *args, **kwargs) -> Iterator[None]:
        """In place of `paddle.amp.auto_cast`."""
        self.off += not enable
        try:
            yield
        finally:
            self.off -= not enable


@contextlib.contextmanager
def rounded_like_autocast(dtype: str) -> Iterator[None]:
    """Context in which forward passes, and the backward passes of what they recorded, round as AMP at level O1 does.

    Args:
        dtype: `float16` or `bfloat16`.
    """
    rounding = _Rounding(dtype)
    with contextlib.ExitStack() as stack:
        for name, tensors in _WHITE.items():
            if hasattr(_C_ops, name):
                function = getattr(_C_ops, name)
                stack.enter_context(mock.patch.object(_C_ops, name, rounding.operator(function, tensors)))
        stack.enter_context(mock.patch.object(paddle.amp, "auto_cast", rounding.autocast))
        yield


class LargestMagnitudes:
    """The largest absolute output of each layer while it is watched, to compare with float16's 65504.

    Args:
        model: its sublayers without sublayers of their own are watched.
    """

    def __init__(self, model: paddle.nn.Layer):
        self.largest: dict[str, float] = {}
        leaves = [(name, layer) for name, layer in model.named_sublayers() if not layer._sub_layers]
        self._hooks = [layer.register_forward_post_hook(self._note(name)) for name, layer in leaves]

    def _note(self, name: str) -> Callable:
        def note(layer, inputs, output) -> None:
            if isinstance(output, paddle.Tensor):
                found = float(output.detach().abs().max())
                self.largest[name] = max(found, self.largest.get(name, 0.0))

        return note

    def stop(self) -> dict[str, float]:
        """The magnitudes by layer; watches no more."""
        for hook in self._hooks:
            hook.remove()
        return self.largest
