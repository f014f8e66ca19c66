# SPDX-License-Identifier: Apache-2.0
"""Preview picture for the loggers: image, label and prediction side by side."""

from dataclasses import replace

from paddle_dnl.data.classes import BACKGROUND_COLOR, classes_of
from paddle_dnl.data.images.image_format import ImageFormat
from paddle_dnl.data.masks import summed_numbers
from paddle_dnl.data.overlay import as_label, colorize, displayed
from paddle_dnl.evaluation.inference import evaluating, infer_scores, predicted_masks
from paddle_dnl.evaluation.options import InferenceOptions

import numpy as np
import paddle


def preview(model: paddle.nn.Layer, dataset, settings: dict) -> np.ndarray:
    """The first image of a validation set as one RGB picture `[H, 3 * W, 3]`, uint8.

    Args:
        model: the training or evaluation mode of its layers is restored.
        dataset: a `SegmentationDataset` in mode `val`.
        settings: `test_config`, of which only sliding windows and `align_corners` are used.
    """
    sample = dataset[0]
    options = replace(InferenceOptions.of(settings), aug_eval=False)
    with evaluating(model):
        scores = infer_scores(model, paddle.to_tensor(sample["img"][None]), sample.get("trans_info", []), options)
    colors = classes_of(dataset).colors
    if settings.get("use_multilabel"):
        masks = np.stack([sample["label"] == 1, predicted_masks(scores).numpy()[0]])
        truth, label = (as_label(summed_numbers(part)) for part in masks)
        colors = (BACKGROUND_COLOR, *colors)
    else:
        label = as_label(paddle.argmax(scores, axis=1).numpy()[0])
        truth = as_label(np.squeeze(sample["label"]))
    image = displayed(ImageFormat.of(dataset).read(dataset.file_list[0][0]))[..., ::-1]
    return np.concatenate([image, colorize(truth, colors), colorize(label, colors)], axis=1)
