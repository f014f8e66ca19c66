# SPDX-License-Identifier: Apache-2.0
"""`InferenceOptions`: sliding windows and test-time augmentation, as set in `test_config` and by flags of val.py."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from paddle_dnl.config.choices import AVERAGES
from paddle_dnl.errors import UsageError


@dataclass(frozen=True)
class InferenceOptions:
    """Sliding windows and test-time augmentation (scales, flips, and how they are averaged).

    Attributes:
        is_slide: average the logits of windows instead of one pass over the whole image.
        crop_size: (width, height) of a window, clipped to the image.
        stride: (x, y) distance between windows.
        aug_eval: use scales and flips; for callers that choose between `infer` and `infer_augmented`.
        scales: one or several factors on H and W.
        flip_horizontal, flip_vertical: add flipped passes, in all combinations.
        average: `logits`: mean of logits at the size of the network's input, then restored; sizes of passes are rounded:
            PaddleSeg's rule. `softmax`: each pass is restored first, and its softmax is averaged; sizes of passes are cut: the
            rule of mmsegmentation and DGMN2. They resize the original picture, see `infer_pyramid`. `official`: each pass is
            restored first, by cubic interpolation, and its logits are averaged; sizes of passes are cut, images are resized
            with aligned corners, and whole ones padded with 0 at the right and bottom to a multiple of 8: the DNL authors'
            rule (`ms_test` in runner/seg/fcn_segmentor_test.py of yinmh17/DNL-Semantic-Segmentation, which sums where this
            averages: the same classes).
        align_corners: of restoring for the first two; True where the published model resizes so.

    Raises:
        UsageError: `is_slide` without sizes, sizes that are not positive, scales that are no numbers, or an unknown rule.
    """

    is_slide: bool = False
    crop_size: Sequence[int] | None = None
    stride: Sequence[int] | None = None
    aug_eval: bool = False
    scales: Sequence[float] | float = (1.0,)
    flip_horizontal: bool = False
    flip_vertical: bool = False
    average: str = "logits"
    align_corners: bool = False

    def __post_init__(self):
        given = self.scales if isinstance(self.scales, list | tuple) else (self.scales,)
        try:
            object.__setattr__(self, "scales", tuple(map(float, given)))
        except (TypeError, ValueError):
            raise UsageError(f"scales: expected a number or a list of them, got {self.scales!r}") from None
        if self.average not in AVERAGES:
            raise UsageError(f"average must be one of {', '.join(AVERAGES)}, got {self.average!r}")
        if self.is_slide:
            if not self.crop_size or not self.stride:
                raise UsageError("is_slide needs crop_size and stride, both as width and height in pixels")
            if min(*self.crop_size, *self.stride) <= 0:
                raise UsageError(
                    f"crop_size {list(self.crop_size)} and stride {list(self.stride)} of windows must be positive"
                )

    @classmethod
    def of(cls, settings: dict) -> "InferenceOptions":
        """From a `test_config`, which has other keys too."""
        return cls(**{field.name: settings[field.name] for field in fields(cls) if field.name in settings})

    @property
    def gives_probabilities(self) -> bool:
        """Whether scores are probabilities, not logits."""
        return self.aug_eval and self.average == "softmax"

    @property
    def with_less_memory(self) -> str:
        """Advice for less memory: flags that are not set already."""
        if self.is_slide:
            return "a smaller --crop_size"
        return "--is_slide --crop_size 1024 512 --stride 768 384"
