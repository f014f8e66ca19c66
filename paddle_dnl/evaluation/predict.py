# SPDX-License-Identifier: Apache-2.0
"""Label pictures and overlays for images, with the dynamic graph: what predict.py does."""

from collections.abc import Iterable
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.data.classes import ClassInfo, classes_of_config
from paddle_dnl.data.image_files import find_images
from paddle_dnl.data.image_format import ImageFormat
from paddle_dnl.data.overlay import as_label, overlay, save_image, save_label_png
from paddle_dnl.data.probability_files import probability_file
from paddle_dnl.data.transforms import Compose
from paddle_dnl.errors import UsageError
from paddle_dnl.evaluation.inference import infer_scores
from paddle_dnl.evaluation.options import InferenceOptions
from paddle_dnl.files.atomic import write_bytes
from paddle_dnl.files.outputs import check_outputs
from paddle_dnl.log import logger, progress
from paddle_dnl.training import amp

import paddle
import paddle.nn.functional as F


def _colors(custom: list[int] | None, classes: ClassInfo):
    num_classes = len(classes.names)
    if custom is None:
        return classes.colors
    if len(custom) != 3 * num_classes or not all(0 <= value <= 255 for value in custom):
        raise UsageError(f"--custom_color: {num_classes} classes need {3 * num_classes} numbers from 0 to 255")
    return tuple(tuple(custom[i : i + 3]) for i in range(0, len(custom), 3))


# Label pictures, overlays, and with `save_prob` probabilities.
FOLDERS = ("pseudo_color_prediction", "added_prediction", "probabilities")


def _write(save_dir: Path, name: Path, picture, scores, colors, save_prob: str | None, is_probability: bool) -> None:
    """The files of one picture, from its scores `[K, h, w]`."""
    labels, overlays, probabilities = (save_dir / folder / name for folder in FOLDERS)
    label = as_label(paddle.argmax(scores, axis=0).numpy())
    save_label_png(labels.with_suffix(".png"), label, colors)
    save_image(overlays.with_suffix(".png"), overlay(picture, label, colors))
    if save_prob:
        found = (scores if is_probability else F.softmax(scores.astype("float32"), axis=0)).numpy()
        write_bytes(probabilities.with_suffix(".npz"), probability_file(found, save_prob))


def predict(
    model: paddle.nn.Layer,
    config,
    image_path: str,
    save_dir: str,
    *,
    custom_color: list[int] | None = None,
    precision: str = "fp32",
    amp_level: str = "O1",
    save_prob: str | None = None,
    value_range: list[float] | None = None,
    inputs: Iterable[str | Path | None] = (),
    **inference,
) -> int:
    """Predicts every image and writes `pseudo_color_prediction/NAME.png` and `added_prediction/NAME.png`.

    With `save_prob` also `probabilities/NAME.npz`, see `paddle_dnl.data.probability_files`. NAME is the image's
    path below what `image_path` names; images are read in the dataset's `img_channels`
    and `value_range`, in place of which one may be given. Returns the number of images. `inference`
    are fields of `paddle_dnl.evaluation.options.InferenceOptions`.

    Raises:
        DataError: no images, or one that cannot be read (named).
        UsageError: colours that do not fit the classes.
        OutputError: a result would replace an image, one of `inputs` (other files that the program reads), or a file that
            is not ours; nothing was written.
    """
    dataset_cfg = config.val_dataset_cfg
    colors = _colors(custom_color, classes_of_config(config))
    transforms = [registry.build(cfg, "transform") for cfg in dataset_cfg.get("transforms", [])]
    image_format = ImageFormat.of(dataset_cfg if value_range is None else {**dataset_cfg, "value_range": value_range})
    compose = Compose(transforms, img_channels=image_format.channels)
    images = find_images(image_path, image_format.endings)
    folders = [Path(save_dir) / name for name in FOLDERS]
    targets = [folder / name.with_suffix(".png") for _, name in images for folder in folders[:2]]
    targets += [folders[2] / name.with_suffix(".npz") for _, name in images] if save_prob else []
    check_outputs(targets, [*inputs, image_path, *(path for path, _ in images)], root=save_dir)
    options = InferenceOptions(**inference)
    precision = amp.effective_precision(precision)
    logger.info(f"Start to predict {len(images)} images...")
    model.eval()
    for path, name in progress(images, "predict"):
        picture = image_format.read(path)
        data = compose.picture(picture, path, "val_dataset.transforms")
        batch = paddle.to_tensor(data["img"][None])
        with amp.autocast(precision, amp_level):
            scores = infer_scores(model, batch, data["trans_info"], options)
        _write(Path(save_dir), name, picture, scores[0], colors, save_prob, options.gives_probabilities)
    logger.info(f"Predicted images are saved in {folders[1]} and {folders[0]}")
    return len(images)
