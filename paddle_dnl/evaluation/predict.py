# SPDX-License-Identifier: Apache-2.0
"""Prediction for predict.py with the dynamic graph: writes label pictures and overlays."""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.data.classes import BACKGROUND_COLOR, Colors, classes_of_config
from paddle_dnl.data.images.block_rows import open_rows
from paddle_dnl.data.images.geo_files import save_geotiff
from paddle_dnl.data.images.image_files import iter_images, require_outside
from paddle_dnl.data.images.image_format import ImageFormat
from paddle_dnl.data.images.pending_images import PendingImages, Shard
from paddle_dnl.data.images.raster_files import Place
from paddle_dnl.data.images.strip_results import StripResults
from paddle_dnl.data.masks import join_masks, summed_numbers
from paddle_dnl.data.overlay import as_label, overlay, overlay_masks, save_image, save_label_png
from paddle_dnl.data.probability_files import probability_file
from paddle_dnl.data.transforms.compose import Compose
from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.evaluation.batches import pyramid
from paddle_dnl.evaluation.inference import infer_pyramid, infer_scores, predicted_masks
from paddle_dnl.evaluation.options import InferenceOptions
from paddle_dnl.evaluation.strips import Announce, label_strips, network_input
from paddle_dnl.files.atomic import write_bytes
from paddle_dnl.log import logger, progress
from paddle_dnl.training import amp

import paddle
import paddle.nn.functional as F


def colors_of(config, custom: list[int] | None = None) -> Colors:
    """RGB colour of each class of a configuration, or from the flat list `custom`.

    Raises:
        UsageError: `custom` does not fit the number of classes.
    """
    classes = classes_of_config(config)
    num_classes = len(classes.names)
    if custom is None:
        return classes.colors
    if len(custom) != 3 * num_classes or not all(0 <= value <= 255 for value in custom):
        raise UsageError(f"--custom_color: {num_classes} classes need {3 * num_classes} numbers from 0 to 255")
    return tuple(tuple(custom[i : i + 3]) for i in range(0, len(custom), 3))


def preparation(config, value_range: list[float] | None = None) -> tuple[Compose, ImageFormat]:
    """Transforms and image format of a configuration's `val_dataset`.

    Args:
        config: a `Config`.
        value_range: overrides the dataset's.
    """
    cfg = config.val_dataset_cfg if value_range is None else {**config.val_dataset_cfg, "value_range": value_range}
    image_format = ImageFormat.of(cfg)
    transforms = [registry.build(item, "transform") for item in cfg.get("transforms", [])]
    return Compose(transforms, img_channels=image_format.channels), image_format


# Overlays keep these endings of their picture, as in PaddleSeg; others are PNGs.
_OVERLAY_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
# Number of pixels from which scores are computed in strips; 19 classes of 8 million pixels are 600 MB.
STRIPS_FROM = 8_000_000
# Label pictures, overlays; with `save_prob` probabilities, with `use_multilabel` masks, with `geotiff` GeoTIFFs.
FOLDERS = ("pseudo_color_prediction", "added_prediction", "probabilities", "masks", "geotiff")


def _write(
    files: dict[str, Path], picture, scores, colors, save_prob: str | None, is_probability: bool, place: Place | None
) -> None:
    """Writes the files of one picture from its scores `[K, h, w]`; the label picture last, as the mark of a complete result."""
    labels, overlays, probabilities, stored_masks, geotiff = (files.get(folder) for folder in FOLDERS)
    if stored_masks:  # a pixel may have several classes
        masks = predicted_masks(scores).numpy().astype("uint8")
        save_label_png(stored_masks, join_masks(masks), (BACKGROUND_COLOR, (255, 255, 255)))
        if overlays:
            save_image(overlays, overlay_masks(picture, masks, colors))
        save_label_png(labels, as_label(summed_numbers(masks)), (BACKGROUND_COLOR, *colors))
        return
    label = as_label(paddle.argmax(scores, axis=0).numpy())
    if probabilities:
        found = (scores if is_probability else F.softmax(scores.astype("float32"), axis=0)).numpy()
        write_bytes(probabilities, probability_file(found, save_prob))
    if overlays:
        save_image(overlays, overlay(picture, label, colors))
    if geotiff:
        save_geotiff(geotiff, label, colors, place)
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
    """Predicts images and writes `pseudo_color_prediction/NAME.png` and `added_prediction/NAME` with the image's ending.

    NAME is the image's path relative to `image_path`. Images are read with the dataset's `img_channels` and `value_range`,
    unless one is given.

    Args:
        model: maps `[B, C, H, W]` to a list of logits.
        config: a `Config`; its `val_dataset` defines the preprocessing.
        image_path: see `paddle_dnl.data.images.image_files.find_images`.
        save_dir: folder of the results.
        custom_color: flat list of the RGB colours of the classes.
        inputs: other input files, which must not be overwritten.
        settings: keyword arguments of `predict_images`.

    Returns:
        Number of predicted images.

    Raises:
        DataError, OutputError: as `predict_images`.
        UsageError: see `colors_of` and `require_outside`.
    """
    require_outside(save_dir, image_path)
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
    use_multilabel: bool = False,
    inputs: Iterable[str | Path | None] = (),
    shard: Shard | None = None,
    skip_existing: bool = False,
    skip_bad_samples: bool = False,
    no_overlay: bool = False,
    geotiff: bool = False,
    announce: Announce = None,
    **inference,
) -> int:
    """Predicts images and writes `pseudo_color_prediction/NAME.png` and `added_prediction/NAME` with the image's ending.

    With `save_prob` also `probabilities/NAME.npz`, see `paddle_dnl.data.probability_files`. `inference` are
    fields of `paddle_dnl.evaluation.options.InferenceOptions`.

    Args:
        model: maps `[B, C, H, W]` to a list of logits.
        compose: the transforms of the pictures.
        find: returns (file, NAME) of each image; may be called several times.
        save_dir: folder of the results.
        colors: red, green, blue of each class.
        image_format: how the files are read.
        shard, skip_existing: see `paddle_dnl.data.images.pending_images.PendingImages`.
        skip_bad_samples: skip unreadable images, with a log line for each.
        no_overlay: do not write `added_prediction`.
        geotiff: also write `geotiff/NAME.tif`: class numbers, georeferenced like the input GeoTIFF.
        announce: see `paddle_dnl.evaluation.strips.label_strips`; called for large pictures.

    With `use_multilabel` a pixel may have several classes: `masks/NAME.png` holds the masks side by side, like label pictures for
    training, and the label picture holds the sum of their numbers, like PaddleSeg's.

    Returns:
        Number of predicted images.

    Raises:
        DataError: an unreadable image, or no readable image.
        OutputError: a result would overwrite an image, one of `inputs` (other input files) or a file that is not ours;
            nothing was written.
    """

    wanted = (
        ".png",
        not no_overlay and ".png",
        save_prob and ".npz",
        use_multilabel and ".png",
        geotiff and ".tif",
    )
    endings = {folder: end for folder, end in zip(FOLDERS, wanted, strict=True) if end}

    def results(name: Path) -> dict[str, Path]:
        drawn = name.suffix if name.suffix.lower() in _OVERLAY_ENDINGS else ".png"
        ends = {folder: drawn if folder == FOLDERS[1] else end for folder, end in endings.items()}
        return {folder: Path(save_dir, folder, name.with_suffix(end)) for folder, end in ends.items()}

    images = PendingImages(find, lambda name: list(results(name).values()), inputs, save_dir, shard, skip_existing)
    options = InferenceOptions(**inference)
    if use_multilabel and geotiff:
        raise UsageError("use_multilabel and geotiff do not go together: masks have several classes for a pixel")
    if use_multilabel and (save_prob or options.gives_probabilities):
        raise UsageError(
            "use_multilabel goes with neither save_prob nor the average softmax: its scores are no softmax"
        )
    scaled = pyramid(compose, options)
    precision = amp.effective_precision(precision)
    logger.info(f"Start to predict {len(images)} images...")
    model.eval()
    count = 0
    # These options need the scores of the whole picture.
    in_strips = not (options.aug_eval or save_prob or use_multilabel)

    def do(path: Path, rows, name: Path, place: Place | None) -> None:
        files = results(name)
        if in_strips and rows.size[0] * rows.size[1] >= STRIPS_FROM:
            names = (files.get(FOLDERS[i]) for i in (0, 1, 4))
            with StripResults(rows.size, colors, *names, place) as written:
                for labels in label_strips(model, compose, rows, path, options, announce):
                    written.write(rows, labels)
                written.commit()
            return
        picture = rows.read(0, rows.size[0])
        inputs_of_it = (network_input(one, picture, path) for one in scaled or [compose])
        scores = (
            infer_pyramid(model, inputs_of_it, options) if scaled else infer_scores(model, *next(inputs_of_it), options)
        )
        _write(files, picture, scores[0], colors, save_prob, options.gives_probabilities, place)

    for path, name in progress(images, "predict"):
        try:
            place = Place.of(path) if geotiff else None
            with contextlib.closing(open_rows(path, image_format)) as rows, amp.autocast(precision, amp_level):
                do(path, rows, name, place)
        except DataError as error:
            if not skip_bad_samples:
                raise
            images.skip(error)
            continue
        except MemoryError as error:
            raise UsageError(f"{path}: out of memory; use {options.with_less_memory}") from error
        count += 1
    images.require_some()
    kept = FOLDERS[:1] if no_overlay else FOLDERS[1::-1]
    logger.info(f"Predicted images are saved in {' and '.join(str(Path(save_dir, folder)) for folder in kept)}")
    return count
