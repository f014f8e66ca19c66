# SPDX-License-Identifier: Apache-2.0
"""Finds tensors that hold NaN or infinity."""

from collections.abc import Iterable

import paddle


def bad_names(tensors: Iterable[tuple[str, paddle.Tensor]]) -> list[str]:
    """Names of the floating point tensors that hold NaN or infinity.

    Only one number is copied from the device if there are none.
    """
    tensors = [(name, tensor) for name, tensor in tensors if tensor.is_floating_point() and tensor.size]
    if not tensors:
        return []
    with paddle.no_grad():
        good = paddle.stack([paddle.isfinite(tensor).all().reshape([]) for _, tensor in tensors])
        if bool(good.all()):
            return []
    return [name for (name, _), is_good in zip(tensors, good.numpy(), strict=True) if not is_good]
