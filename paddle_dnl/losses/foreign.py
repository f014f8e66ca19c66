# SPDX-License-Identifier: Apache-2.0
"""Losses of PaddleSeg and of users, which get a copy of the label because some modify it."""

from paddle_dnl.errors import ConfigError, describe

import paddle

# Errors of a loss that does not fit the model; running out of memory is not among them.
_FAILURES = (AssertionError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError)
_OWN = __name__.split(".")[0]


def call(loss, logits: paddle.Tensor, label: paddle.Tensor, where: str = "loss"):
    """`loss(logits, label)` for any loss on labels.

    Losses of this package get the label as it is. Others get a copy, as some write into it (paddleseg's DiceLoss sets ignored
    pixels to class 0, which the next loss of a sum would learn), and are not asked about a batch in which every pixel is
    ignored, where some fail or divide by zero (paddleseg's LovaszSoftmaxLoss): such a batch counts as 0.

    Args:
        loss: callable.
        logits: `[B, K, H, W]`.
        label: `[B, H, W]`, int64.
        where: dotted key for errors.

    Raises:
        ConfigError: a loss of others failed, such as paddleseg's FocalLoss with other than two classes.
    """
    if type(loss).__module__.split(".")[0] == _OWN:
        return loss(logits, label)
    ignored = getattr(loss, "ignore_index", None)
    if ignored is not None and not bool((label != ignored).any()):
        return logits.sum() * 0.0
    try:
        return loss(logits, label.clone())
    except _FAILURES as error:
        given = f"logits {list(logits.shape)}" if isinstance(logits, paddle.Tensor) else "the model's output"
        raise ConfigError(
            f"{where}: {type(loss).__name__} cannot be computed from {given} and labels {list(label.shape)}: "
            f"{' '.join(describe(error).split())[-400:]}"
        ) from error
