# SPDX-License-Identifier: Apache-2.0
"""Sizes of tensors that also work while a model is traced for export with free sizes."""

import paddle


@paddle.jit.not_to_static
def size_of(x: paddle.Tensor, axis: int):
    """Length of one axis: an `int` where it is known, else (export with a free size) an integer tensor."""
    length = x.shape[axis]
    if isinstance(length, int) and length >= 0:
        return length
    return paddle.shape(x)[axis]


def is_known(length) -> bool:
    """Whether a size from `size_of` is a plain number."""
    return isinstance(length, int)
