# SPDX-License-Identifier: Apache-2.0
"""Label pictures and overlays for images, with the dynamic graph: what predict.py does."""

from collections.abc import Callable, Iterable
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.data.classes import classes_of_config
from paddle_dnl.data.image_files import iter_images
from paddle_dnl.data.image_format import ImageFormat
from paddle_dnl.data.overlay import Colors, as_label, overlay, save_image, save_label_png
from paddle_dnl.data.pending_images import PendingImages, Shard
from paddle_dnl.data.probability_files import probability_file
from paddle_dnl.data.transforms import Compose
from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.evaluation.inference import infer_scores
from paddle_dnl.evaluation.options import InferenceOptions
from paddle_dnl.files.atomic import write_bytes
from paddle_dnl.log import logger, progress
from paddle_dnl.training import amp

import paddle
import paddle.nn.functional as F


def colors_of(config, custom: list[int] | None = None) -> Colors:
    """Red, green, blue of each class of a configuration, or those of `custom`, one number after the other.

    Raises:
        UsageError: `custom` does not fit the classes.
    """
    classes = classes_of_config(config)
    num_classes = len(classes.names)
    if custom is None:
        return classes.colors
    if len(custom) != 3 * num_classes or not all(0 <= value <= 255 for value in custom):
        raise UsageError(f"--custom_color: {num_classes} classes need {3 * num_classes} numbers from 0 to 255")
    return tuple(tuple(custom[i : i + 3]) for i in range(0, len(custom), 3))


def preparation(config, value_range: list[float] | None = None) -> tuple[Compose, ImageFormat]:
    """How the `val_dataset` of a configuration prepares pictures, and how it reads them.

    Args:
        value_range: in place of the dataset's.
    """
    cfg = config.val_dataset_cfg if value_range is None else {**config.val_dataset_cfg, "value_range": value_range}
    image_format = ImageFormat.of(cfg)
    transforms = [registry.build(item, "transform") for item in cfg.get("transforms", [])]
    return Compose(transforms, img_channels=image_format.channels), image_format


# Label pictures, overlays, and with `save_prob` probabilities.
FOLDERS = ("pseudo_color_prediction", "added_prediction", "probabilities")


def _write(files: dict[str, Path], picture, scores, colors, save_prob: str | None, is_probability: bool) -> None:
    """The files of one picture, by folder, from its scores `[K, h, w]`; labels last, which say that all is there."""
    labels, overlays, probabilities = (files.get(folder) for folder in FOLDERS)
    label = as_label(paddle.argmax(scores, axis=0).numpy())
    if probabilities:
        found = (scores if is_probability else F.softmax(scores.astype("float32"), axis=0)).numpy()
        write_bytes(probabilities, probability_file(found, save_prob))
    if overlays:
        save_image(overlays, overlay(picture, label, colors))
    save_label_png(labels, label, colors)


def predict(
    model: paddle.nn.Layer,
    config,
    image_path: str,
    save_dir: str,
    *,
    custom_color: list[int] | None = None,
    value_range: list[float] | None = None,
    inputs: Iterable[str | Path | None] = (),
    **settings,
) -> int:
    """Predicts every image and writes `pseudo_color_prediction/NAME.png` and `added_prediction/NAME.png`.

    NAME is the image's path below what `image_path` names; images are read in the dataset's `img_channels` and
    `value_range`, in place of which one may be given.

    Args:
        model: maps `[B, C, H, W]` to a list of logits.
        config: a `Config`, whose `val_dataset` prepares the images.
        image_path: see `paddle_dnl.data.image_files.find_images`.
        save_dir: folder of the results.
        custom_color: red, green and blue of each class in turn.
        inputs: other files that the program reads.
        settings: keyword arguments of `predict_images`.

    Returns:
        The number of images that were predicted.

    Raises:
        DataError, OutputError: as `predict_images`.
        UsageError: colours that do not fit the classes.
    """
    colors = colors_of(config, custom_color)
    compose, image_format = preparation(config, value_range)
    inputs = [*inputs, image_path]

    def find():
        return iter_images(image_path, image_format.endings)

    return predict_images(model, compose, find, save_dir, colors, image_format, inputs=inputs, **settings)


def predict_images(
    model: paddle.nn.Layer,
    compose: Compose,
    find: Callable[[], Iterable[tuple[Path, Path]]],
    save_dir: str | Path,
    colors: Colors,
    image_format: ImageFormat,
    *,
    precision: str = "fp32",
    amp_level: str = "O1",
    save_prob: str | None = None,
    inputs: Iterable[str | Path | None] = (),
    shard: Shard | None = None,
    skip_existing: bool = False,
    skip_bad_samples: bool = False,
    no_overlay: bool = False,
    **inference,
) -> int:
    """Predicts images and writes `pseudo_color_prediction/NAME.png` and `added_prediction/NAME.png`.

    With `save_prob` also `probabilities/NAME.npz`, see `paddle_dnl.data.probability_files`. `inference` are
    fields of `paddle_dnl.evaluation.options.InferenceOptions`.

    Args:
        model: maps `[B, C, H, W]` to a list of logits.
        compose: the transforms of the pictures.
        find: gives (file, NAME) of each image, anew at each call.
        save_dir: folder of the results.
        colors: red, green, blue of each class.
        image_format: how the files are read.
        shard, skip_existing: see `paddle_dnl.data.pending_images.PendingImages`.
        skip_bad_samples: leave out images that cannot be read, with a line for each.
        no_overlay: leave `added_prediction` out.

    Returns:
        The number of images that were predicted.

    Raises:
        DataError: an image that cannot be read (named), or none that can.
        OutputError: a result would replace an image, one of `inputs` (other files that the program reads), or a file that
            is not ours; nothing was written.
    """

    def results(name: Path) -> dict[str, Path]:
        endings = dict(zip(FOLDERS, (".png", None if no_overlay else ".png", save_prob and ".npz"), strict=True))
        return {folder: Path(save_dir, folder, name.with_suffix(end)) for folder, end in endings.items() if end}

    def files(name: Path) -> list[Path]:
        return list(results(name).values())

    images = PendingImages(find, files, inputs, save_dir, shard, skip_existing)
    options = InferenceOptions(**inference)
    precision = amp.effective_precision(precision)
    logger.info(f"Start to predict {len(images)} images...")
    model.eval()
    count = 0
    for path, name in progress(images, "predict"):
        try:
            picture = image_format.read(path)
        except DataError as error:
            if not skip_bad_samples:
                raise
            images.skip(error)
            continue
        data = compose.picture(picture, path, "val_dataset.transforms")
        batch = paddle.to_tensor(data["img"][None])
        with amp.autocast(precision, amp_level):
            scores = infer_scores(model, batch, data["trans_info"], options)
        _write(results(name), picture, scores[0], colors, save_prob, options.gives_probabilities)
        count += 1
    images.require_some()
    kept = FOLDERS[:1] if no_overlay else FOLDERS[1::-1]
    logger.info(f"Predicted images are saved in {' and '.join(str(Path(save_dir, folder)) for folder in kept)}")
    return count
