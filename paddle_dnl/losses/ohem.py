# SPDX-License-Identifier: Apache-2.0
"""Online hard example mining: the loss of the pixels with a low probability of their class."""

from collections.abc import Sequence

from paddle_dnl.losses.cross_entropy import class_weights, pixel_losses
from paddle_dnl.registry import LOSSES

import paddle
import paddle.nn.functional as F
from paddle import nn

_EPS = 1e-5


@LOSSES.add_component
class OhemCrossEntropyLoss(nn.Layer):
    """Online hard example mining: mean cross entropy of the pixels whose probability of the true class is below a threshold.

    With `min_kept` the values are PaddleSeg's: the threshold rises to the `min_kept`-th smallest probability of the
    batch, and pixels strictly below it count, that is one fewer; `min_kept=0` lets all pixels count, and 1 leaves the
    threshold alone.

    With `min_kept_per_image` they are those of the DNL authors' training
    (https://github.com/yinmh17/DNL-Semantic-Segmentation, the OHEM of OpenSeg): that number times the batch size counts
    at least, chosen over the whole batch.

    A batch with no more labelled pixels than wanted counts whole with `min_kept`; with `min_kept_per_image` all but its
    easiest pixels count, unless these are hard too, as in the authors' code, whose threshold is then their probability.

    Args:
        thresh: a pixel is hard if the probability of its class is below this threshold.
        min_kept: smallest number of pixels in the batch that count; the threshold is raised if fewer pixels are hard.
        ignore_index: label of ignored pixels.
        weight: one factor per class on the losses; the sum is divided by the number of pixels, not by the weights.
        min_kept_per_image: the same per image, by the rule of the DNL authors' code; replaces `min_kept`.

    Raises:
        ConfigError: at the first call, not one weight per class.
    """

    def __init__(
        self,
        thresh: float = 0.7,
        min_kept: int = 10000,
        ignore_index: int = 255,
        weight: Sequence[float] | None = None,
        min_kept_per_image: int | None = None,
    ):
        super().__init__()
        self.thresh, self.min_kept, self.ignore_index = thresh, min_kept, ignore_index
        self.min_kept_per_image = min_kept_per_image
        self.weight = None if weight is None else paddle.to_tensor(weight, dtype="float32")

    def forward(self, logits, label):
        """`logits [B, K, H, W]`, `label [B, H, W]` or `[B, 1, H, W]` integer; returns a scalar."""
        label = label.reshape([logits.shape[0], *logits.shape[2:]]).astype("int64")
        valid = (label != self.ignore_index).astype("float32")
        kept = self._kept(logits, label, valid)
        losses = pixel_losses(logits, label, self.ignore_index) * kept
        if self.weight is not None:
            losses = losses * class_weights(self.weight, label, valid, logits.shape[1])
        if self.min_kept_per_image is not None:
            return losses.sum() / kept.sum().clip(min=1.0)
        return losses.mean() / (kept.mean() + _EPS)

    @paddle.no_grad()
    def _kept(self, logits, label, valid):
        """1 for pixels that count, `[B, H, W]`."""
        labelled = int(valid.astype("int64").sum())
        if labelled == 0:
            return valid
        if self.min_kept_per_image is not None:
            rank = min(self.min_kept_per_image * label.shape[0], labelled - 1)
        elif self.min_kept <= 0 or self.min_kept >= labelled:
            return valid
        else:  # PaddleSeg takes the last of the wanted pixels as threshold, one fewer is below it
            rank = self.min_kept - 1
        inside = label * valid.astype("int64")
        probability = paddle.take_along_axis(F.softmax(logits.astype("float32"), axis=1), inside.unsqueeze(1), axis=1)
        # Ignored pixels sort behind all others.
        probability = probability.squeeze(1) * valid + 2.0 * (1.0 - valid)
        threshold = max(self.thresh, float(probability.flatten().sort()[rank]))
        return valid * (probability < threshold).astype("float32")
